"""The write-ahead log: bounded whoever writes, synced soon enough, and never in track()'s way."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from disk import HERE, MIB, Clock, ask, check, foreign, log_bytes, opened, tell

from causality_sdk import connections, schema, wal
from causality_sdk.errors import QueueError
from causality_sdk.queue import Queue

BOUND = 16 * MIB
LARGE = (4200, 5000, 6200, 8200, 16_000, 65_536, 262_144)  # bytes, with overflow pages


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


def together(threads: int, work: Callable[[], object]) -> None:
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


class TestItsLength:
    @pytest.mark.parametrize(
        ("threads", "size", "events"), [(8, 300, 700), (8, 2100, 300), (32, 256 * 1024, 8)]
    )
    def test_it_is_bounded_when_nobody_but_append_checkpoints(
        self, path: Path, threads: int, size: int, events: int
    ) -> None:
        payload = b"x" * size
        most = []
        with opened(path, clock=Clock()) as queue:

            def work() -> None:
                for _ in range(events):
                    queue.append(payload)
                    most.append(log_bytes(path))

            together(threads, work)
            assert max(most) < BOUND
            assert queue.pending == threads * events
            assert queue.log_trouble is None
            check(queue)

    @pytest.mark.parametrize("size", [300, 2100, 256 * 1024])
    @pytest.mark.parametrize("cap", [None, 4 * MIB])
    def test_it_is_bounded_through_a_batch_of_30_mib(
        self, path: Path, size: int, cap: int | None
    ) -> None:
        with opened(path, clock=Clock(), max_bytes=cap or 2**40) as queue:
            queue.append_many([b"x" * size] * (30 * MIB // size))
            assert log_bytes(path) < BOUND
            check(queue)

    def test_it_is_bounded_at_a_cap_of_a_few_events(self, path: Path) -> None:
        """Then every single insert evicts, and takes another way through the queue."""
        with opened(path, clock=Clock(), max_events=3) as queue:
            for _ in range(400):
                queue.append(b"x" * 100_000)
            assert log_bytes(path) < BOUND
            check(queue)

    def test_it_is_bounded_while_a_sender_peeks_all_the_time(self, path: Path) -> None:
        """Its reads must not keep the log from starting over."""
        done = threading.Event()
        with opened(path, clock=Clock()) as queue:

            def peek() -> None:
                while not done.is_set():
                    queue.peek(0, max_events=300, max_bytes=10**9)

            peeker = threading.Thread(target=peek)
            peeker.start()
            try:
                most = 0
                for _ in range(500):
                    queue.append(b"x" * 60_000)
                    most = max(most, log_bytes(path))
            finally:
                done.set()
                peeker.join()
            assert most < BOUND
            check(queue)

    def test_settling_counts_what_it_writes(self, path: Path) -> None:
        with opened(path, clock=Clock()) as queue:
            queue.append_many([b"x" * 2100] * 3000)
            queue.checkpoint()
            rows = queue.peek(0, max_events=1000, max_bytes=10**9)
            queue.settle(rows)
            real = frames(path) * wal.FRAME
            assert real * 0.95 < queue.wal.written < real * 2.5


def frames(path: Path) -> int:
    """Of the log, as SQLite itself counts them."""
    ((_, count, _),) = ask(path, "PRAGMA wal_checkpoint(PASSIVE)")
    assert isinstance(count, int)
    return count


class TestItsEstimate:
    @pytest.mark.parametrize(
        "size", [10, 50, 100, 350, 1000, 1400, 2000, 2030, 2100, 3000, 4000, 4040, 4070, *LARGE]
    )
    def test_the_cost_of_an_insert_is_an_upper_bound_within_2_5_times(
        self, path: Path, size: int
    ) -> None:
        count = max(40, min(1200, 6 * MIB // (size + 4096)))
        with opened(path) as queue:
            writer = queue._writer
            queue.wal.checkpoint()
            for number in range(1, count + 1):
                writer.execute(
                    "INSERT INTO queue VALUES (?, ?, ?, ?)",
                    (number, number * size, 4_000_000_000, b"x" * size),
                )
            real = frames(path) * wal.FRAME / count
        assert real <= wal.insert_cost(size) <= 2.5 * real

    @pytest.mark.parametrize("sizes", [[10], [350], [2100], [5000], [100, 3990], [20, 262_144]])
    def test_the_cost_of_a_batch_is_an_upper_bound_within_2_5_times(
        self, path: Path, sizes: list[int]
    ) -> None:
        batch = [b"x" * size for size in sizes] * (2 * MIB // (sum(sizes) + 100))
        cost = wal.bulk_cost(map(len, batch))
        with opened(path) as queue:
            queue.checkpoint()
            queue.append_many(batch)
            real = frames(path) * wal.FRAME
            assert real <= cost <= 2.5 * real
            queue.checkpoint()
            queue._writer.execute("DELETE FROM queue")
            assert frames(path) * wal.FRAME <= cost * 1.05


class TestItsTimes:
    def test_it_is_due_for_the_sender_after_5_seconds_for_track_after_6(self, path: Path) -> None:
        clock = Clock()
        with opened(path, clock=clock) as queue:
            log = queue.wal
            assert log.due_at() is None
            assert not log.is_due(sender=True)
            queue.append(b"x")
            assert log.due_at() == clock.now + wal.SENDER_SECONDS
            clock.now += 4.9
            queue.append(b"x")
            assert not log.is_due(sender=True)
            clock.now += 0.1
            assert log.is_due(sender=True)
            assert not log.is_due(sender=False)
            clock.now += 1.0
            assert log.is_due(sender=False)
            queue.append(b"x")
            assert log.due_at() is None, "track() did it itself"
            assert log.written == 0

    def test_it_is_due_at_once_for_the_sender_when_it_is_long(self, path: Path) -> None:
        clock = Clock()
        with opened(path, clock=clock) as queue:
            queue.append_many([b"x" * 256 * 1024] * 33)
            assert queue.wal.due_at() == clock.now
            assert queue.wal.is_due(sender=True)
            assert not queue.wal.is_due(sender=False)
            assert queue.checkpoint()
            assert not queue.wal.is_due(sender=True)

    def test_pressure_is_reported_once_until_the_log_started_over(self, path: Path) -> None:
        calls: list[int] = []
        with opened(path, clock=Clock()) as queue:
            queue.wal.on_pressure = lambda: calls.append(1)
            for _ in range(40):
                queue.append(b"x" * 256 * 1024)
            assert len(calls) == 1
            queue.checkpoint()
            for _ in range(40):
                queue.append(b"x" * 256 * 1024)
            assert len(calls) == 2

    def test_pressure_is_not_reported_below_8_mib(self, path: Path) -> None:
        calls: list[int] = []
        with opened(path, clock=Clock()) as queue:
            queue.wal.on_pressure = lambda: calls.append(1)
            queue.append_many([b"x" * 256 * 1024] * 20)
            assert calls == []


class TestWhenItCannot:
    def test_a_foreign_reader_keeps_it_from_starting_over_until_it_ends(self, path: Path) -> None:
        clock = Clock()
        with opened(path, clock=clock) as queue, foreign(path) as reader:
            queue.append(b"a")
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM queue").fetchone()
            queue.append(b"b")
            assert not queue.checkpoint()
            assert queue.wal.due_at() == clock.now + wal.SENDER_SECONDS
            assert not queue.wal.is_due(sender=True)
            clock.now += wal.SENDER_SECONDS
            assert queue.wal.is_due(sender=True)
            assert not queue.checkpoint()
            assert queue.wal.due_at() == clock.now + wal.RETRY_SECONDS
            queue.append(b"c")
            reader.execute("COMMIT")
            clock.now += wal.RETRY_SECONDS
            assert queue.checkpoint()
            assert queue.wal.due_at() is None
            check(queue)

    def test_under_a_foreign_reader_it_is_synced_all_the_same_once_for_each_change(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a power cut would cost what came since the reader began, hours ago."""
        clock = Clock()
        synced: list[int] = []
        sync = os.fsync

        def seen(descriptor: int) -> None:
            synced.append(os.fstat(descriptor).st_ino)
            sync(descriptor)

        with opened(path, clock=clock) as queue, foreign(path) as reader:
            monkeypatch.setattr(os, "fsync", seen)
            queue.append(b"a")
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM queue").fetchone()
            for number in range(3):
                queue.append(b"b")
                clock.now += wal.SENDER_SECONDS
                assert not queue.checkpoint()
                assert synced == [path.with_name(path.name + "-wal").stat().st_ino] * (number + 1)
                clock.now += wal.RETRY_SECONDS
                assert not queue.checkpoint()
                assert len(synced) == number + 1, "nothing came, and nothing is synced again"
            reader.execute("COMMIT")
            clock.now += wal.RETRY_SECONDS
            assert queue.checkpoint()
            assert len(synced) == 3
            check(queue)

    def test_a_log_that_cannot_be_synced_under_a_reader_is_an_error(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(_descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        with opened(path, clock=Clock()) as queue, foreign(path) as reader:
            queue.append(b"a")
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM queue").fetchone()
            queue.append(b"b")
            monkeypatch.setattr(os, "fsync", refused)
            with pytest.raises(QueueError, match="its log cannot be synced"):
                queue.checkpoint()

    def test_append_goes_on_under_a_foreign_reader_and_recovers(self, path: Path) -> None:
        clock = Clock()
        with opened(path, clock=clock) as queue, foreign(path) as reader:
            queue.append(b"a")
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM queue").fetchone()
            for _ in range(80):
                queue.append(b"x" * 256 * 1024)
            assert log_bytes(path) > BOUND
            assert queue.log_trouble is None
            reader.execute("COMMIT")
            clock.now += wal.RETRY_SECONDS
            queue.append(b"y")
            assert queue.wal.written == wal.insert_cost(1), "it started over before this event"
            queue.append_many([b"z"] * 10)
            assert log_bytes(path) < BOUND, "and gives its length back"
            check(queue)

    def test_a_failing_checkpoint_does_not_fail_append_and_is_tried_again(self, path: Path) -> None:
        clock = Clock()
        with opened(path, clock=clock) as queue:
            queue.append(b"a")
            queue.checkpoint()
            connection = queue.wal._connection
            assert connection is not None
            denied: list[str] = []

            def deny(action: int, first: str | None, *_: object) -> int:
                if action == sqlite3.SQLITE_PRAGMA and first == "wal_checkpoint":
                    denied.append(first)
                    return sqlite3.SQLITE_DENY
                return sqlite3.SQLITE_OK

            connection.set_authorizer(deny)
            queue.append(b"b")
            clock.now += wal.TRACK_SECONDS
            assert queue.append(b"c") == 3
            assert len(denied) == 1
            assert isinstance(queue.log_trouble, QueueError)
            assert str(path) in str(queue.log_trouble)
            queue.append(b"d")
            assert len(denied) == 1, "not at every event"
            clock.now += wal.RETRY_SECONDS
            with pytest.raises(QueueError, match="synced"):
                queue.checkpoint()
            connection.set_authorizer(lambda *_: sqlite3.SQLITE_OK)
            clock.now += wal.RETRY_SECONDS
            assert queue.append(b"e") == 5
            assert queue.wal.due_at() is None
            check(queue)

    def test_a_long_log_that_cannot_start_over_does_not_stop_append(self, path: Path) -> None:
        """Beyond the hard limit one waits for a checkpoint, but not for one that fails."""
        with opened(path, clock=Clock()) as queue:
            queue.checkpoint()
            connection = queue.wal._connection
            assert connection is not None
            connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
            queue.append_many([b"x" * 1000] * 40_000)
            assert queue.append(b"y") == 40_001
            assert queue.log_trouble is not None

    def test_another_programs_checkpoint_does_not_count_as_synced(self, path: Path) -> None:
        clock = Clock()
        with opened(path, clock=clock) as queue:
            queue.append(b"a")
            # What SQLite answers while another connection holds the lock of checkpoints.
            blocked = sqlite3.connect(":memory:", factory=Blocked, check_same_thread=False)
            queue.wal._connection = blocked
            assert not queue.checkpoint()
            assert queue.wal.due_at() == clock.now + wal.SENDER_SECONDS
            assert queue.wal.written > 0


class Blocked(sqlite3.Connection):
    def execute(self, _sql: str, *_: object) -> sqlite3.Cursor:
        return super().execute("SELECT 1, -1, -1")


class TestVacuum:
    def test_it_does_nothing_before_the_first_checkpoint_and_after_close(self, path: Path) -> None:
        with opened(path) as queue:
            assert not queue.vacuum_step()
            queue.append_many([b"x" * 4000] * 2000)
            queue.settle(queue.peek(0, max_events=2000, max_bytes=10**9))
            assert not queue.vacuum_step()
            queue.checkpoint()
            assert queue.vacuum_step()
            queue.close()
            assert not queue.vacuum_step()

    @pytest.mark.parametrize("size", [4000, 40_000])
    def test_a_step_frees_as_many_pages_as_it_says_and_counts_what_it_writes(
        self, path: Path, size: int
    ) -> None:
        with opened(path) as queue:
            queue.append_many([b"x" * size] * (16_000_000 // size))
            rows = queue.peek(0, max_events=4000, max_bytes=10**9)
            queue.settle(rows[: len(rows) * 3 // 4])
            queue.checkpoint()
            ((before,),) = ask(path, "PRAGMA freelist_count")
            assert queue.vacuum_step()
            assert ask(path, "PRAGMA freelist_count") == [(before - wal.VACUUM_STEP_PAGES,)]
            assert frames(path) * wal.FRAME <= queue.wal.written

    def test_it_pauses_while_the_log_is_long(self, path: Path) -> None:
        with opened(path, clock=Clock()) as queue:
            queue.append_many([b"x" * 4000] * 6000)
            queue.settle(queue.peek(0, max_events=5000, max_bytes=10**9))
            queue.checkpoint()
            while queue.vacuum_step():
                assert log_bytes(path) < BOUND
            assert queue.wal.is_due(sender=True)

    def test_a_small_rest_of_free_pages_stays_for_the_next_burst(self, path: Path) -> None:
        with opened(path) as queue:
            queue.append_many([b"x" * 4000] * 200)
            queue.settle(queue.peek(0, max_events=2000, max_bytes=10**9))
            queue.checkpoint()
            assert not queue.vacuum_step()


def test_nothing_touches_the_file_after_close(path: Path) -> None:
    """It may be another process's by then."""
    schema.prepare(path, HERE)
    queue = Queue(path, max_events=10, max_bytes=10**6)
    queue.append(b"x")
    queue.checkpoint()
    queue.close()
    assert queue.checkpoint()
    assert log_bytes(path) == 0
    assert not path.with_name("queue.db-wal").exists()
    tell(path, "PRAGMA user_version")
    queue.wal.close()


def test_a_queue_in_memory_has_nothing_to_sync() -> None:
    with opened(connections.MEMORY) as queue:
        queue.append(b"x")
        assert queue.checkpoint()
        assert queue.wal.due_at() is None
        assert not queue.vacuum_step()
