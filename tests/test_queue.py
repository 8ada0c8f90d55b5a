"""The durable FIFO: order, atomicity, ids, counters, damage, and what another program may do."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from disk import ask, check, file_state, foreign, opened, payloads, tell
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from causality_sdk import connections, schema
from causality_sdk import queue as queue_module
from causality_sdk.errors import QueueError, QueueFull
from causality_sdk.queue import Queue

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture(params=["file", "memory"])
def place(request: pytest.FixtureRequest, path: Path) -> Path:
    return path if request.param == "file" else connections.MEMORY


def take_all(queue: Queue) -> list[tuple[int, bytes]]:
    return queue.take(0, max_events=10**6, max_bytes=2**40)


class TestInAFileAndInMemory:
    def test_events_come_out_in_the_order_they_went_in(self, place: Path) -> None:
        with opened(place) as queue:
            queue.append(b"1")
            queue.append_many([b"2", b"3"])
            queue.append(b"4")
            assert queue.peek(0, max_events=9, max_bytes=99) == [
                (1, b"1"),
                (2, b"2"),
                (3, b"3"),
                (4, b"4"),
            ]
            check(queue)

    def test_peek_begins_behind_an_id_and_cuts_by_events_and_bytes(self, place: Path) -> None:
        with opened(place) as queue:
            queue.append_many([b"aaa"] * 5)
            assert [i for i, _ in queue.peek(2, max_events=2, max_bytes=99)] == [3, 4]
            assert [i for i, _ in queue.peek(0, max_events=9, max_bytes=6)] == [1, 2]
            assert [i for i, _ in queue.peek(0, max_events=9, max_bytes=7)] == [1, 2]
            assert [i for i, _ in queue.peek(0, max_events=9, max_bytes=1)] == [1]
            assert queue.peek(5, max_events=9, max_bytes=99) == []

    def test_peek_crosses_its_slices(self, place: Path) -> None:
        with opened(place) as queue:
            queue.append_many([b"%d" % number for number in range(350)])
            rows = queue.peek(0, max_events=340, max_bytes=10**6)
            assert rows == [(number + 1, b"%d" % number) for number in range(340)]

    def test_settled_events_are_gone_and_counted_the_others_stay(self, place: Path) -> None:
        with opened(place) as queue:
            queue.append_many([b"a", b"bb", b"ccc", b"dddd"])
            rows = take_all(queue)
            assert queue.settle(rows[::2]) == 2
            assert payloads(queue) == [b"bb", b"dddd"]
            counters, tracked, pending, size = queue.snapshot()
            assert (counters.acknowledged, counters.acknowledged_bytes) == (2, 4)
            assert (tracked, pending, size) == (4, 2, 6)
            check(queue)

    def test_settling_the_same_events_twice_counts_them_once(self, place: Path) -> None:
        """A settle that failed half-way is called again with all of its rows."""
        with opened(place) as queue:
            queue.append_many([b"x"] * 250)
            rows = take_all(queue)
            assert queue.settle(rows[:120]) == 120
            assert queue.settle(rows) == 130
            assert queue.settle(rows) == 0
            assert queue.snapshot()[0].acknowledged == 250
            assert sum(queue.evicted.values()) == 0
            assert queue.pending == 0
            check(queue)

    def test_an_empty_batch_changes_nothing(self, place: Path) -> None:
        with opened(place) as queue:
            assert queue.append_many([]) == 0
            assert queue.settle([]) == 0
            assert queue.append(b"") == 1
            assert payloads(queue) == [b""]
            assert queue.append_many([]) == 1
            check(queue)

    def test_a_full_queue_that_rejects_writes_nothing(self, place: Path) -> None:
        with opened(place, max_events=3, max_bytes=100, reject=True) as queue:
            queue.append_many([b"a", b"b"])
            with pytest.raises(QueueFull, match="max_queue_events is 3"):
                queue.append_many([b"c", b"d"])
            queue.append(b"c")
            with pytest.raises(QueueFull, match="raise it, or use overflow='drop_oldest'"):
                queue.append(b"d")
            assert payloads(queue) == [b"a", b"b", b"c"]
            queue.settle(take_all(queue))
            queue.append(b"x" * 100)
            with pytest.raises(QueueFull, match="max_queue_bytes is 100"):
                queue.append(b"y")
            assert queue.last_id == 4
            check(queue)

    def test_over_the_cap_the_oldest_go_counted(self, place: Path) -> None:
        with opened(place, max_events=3) as queue:
            for number in range(5):
                queue.append(b"%d" % number)
            assert payloads(queue) == [b"2", b"3", b"4"]
            assert queue.evicted["max_queue_events"] == 2
            check(queue)

    def test_close_may_be_called_twice(self, place: Path) -> None:
        with opened(place) as queue:
            queue.close()
            with pytest.raises(QueueError, match="written"):
                queue.append(b"x")


class TestIds:
    def test_ids_are_dense(self, path: Path) -> None:
        with opened(path) as queue:
            assert [queue.append(b"x") for _ in range(3)] == [1, 2, 3]
            assert queue.append_many([b"x"] * 4) == 7
            assert queue.append(b"x") == 8

    def test_an_id_is_not_used_again_after_the_queue_was_emptied_and_reopened(
        self, path: Path
    ) -> None:
        for opening in range(3):
            with opened(path) as queue:
                assert queue.append(b"x") == opening + 1
                queue.settle(take_all(queue))
                assert ask(path, "SELECT count(*) FROM queue") == [(0,)]
                check(queue)
        with opened(path) as queue:
            assert queue.last_id == 3

    def test_an_id_is_not_used_again_after_eviction_and_reopening(self, path: Path) -> None:
        with opened(path, max_events=1) as queue:
            assert [queue.append(b"x") for _ in range(5)] == [1, 2, 3, 4, 5]
        with opened(path, max_events=1) as queue:
            assert queue.append(b"x") == 6
            check(queue)

    def test_a_killed_process_leaves_what_it_committed_and_its_ids(self, path: Path) -> None:
        script = (
            "import sys; from pathlib import Path\n"
            "from disk import opened\n"
            "with opened(Path(sys.argv[1])) as queue:\n"
            "    queue.append_many([b'a', b'b', b'c'])\n"
            "    queue.settle(queue.peek(0, max_events=2, max_bytes=9))\n"
            "    print(queue.append(b'last'), flush=True)\n"
            "    sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"4\n"
            child.kill()
        with opened(path) as queue:
            assert payloads(queue) == [b"c", b"last"]
            assert queue.append(b"next") == 5
            assert queue.snapshot()[1:3] == (5, 3)
            check(queue)

    def test_threads_get_ids_of_their_own(self, path: Path) -> None:
        ids: list[int] = []
        with opened(path) as queue:

            def work(name: int) -> None:
                ids.extend(queue.append(b"%d" % name) for _ in range(100))

            threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(ids) == list(range(1, 801))
            check(queue)


class TestCommit:
    def test_append_returns_after_the_commit(self, path: Path) -> None:
        with opened(path) as queue, foreign(path) as other:
            for number in range(1, 5):
                queue.append(b"x")
                assert other.execute("SELECT count(*) FROM queue").fetchone() == (number,)

    def test_power_safe_is_full_synchronous(self, path: Path) -> None:
        with opened(path, power_safe=True) as queue:
            assert queue._writer.execute("PRAGMA synchronous").fetchone() == (2,)
        with opened(path) as queue:
            assert queue._writer.execute("PRAGMA synchronous").fetchone() == (1,)

    def test_another_programs_lock_is_an_error_that_names_path_and_fix(self, path: Path) -> None:
        with opened(path, busy_seconds=0) as queue, foreign(path) as other:
            queue.append_many([b"a", b"b"])
            rows = take_all(queue)
            other.execute("BEGIN EXCLUSIVE")
            calls: list[Callable[[], int]] = [
                lambda: queue.append(b"x"),
                lambda: queue.append_many([b"x"]),
                lambda: queue.settle(rows),
            ]
            for call in calls:
                with pytest.raises(QueueError, match="close that program") as caught:
                    call()
                assert str(path) in str(caught.value)
            other.execute("ROLLBACK")
            assert queue.append(b"c") == 3
            assert queue.settle(rows) == 2
            assert payloads(queue) == [b"c"]
            check(queue)

    def test_a_batch_beyond_one_transaction_says_how_much_of_it_was_written(
        self, path: Path
    ) -> None:
        with opened(path) as queue:
            # A trigger stands for a disk that takes the first two transactions and no third.
            tell(
                path,
                "CREATE TRIGGER full BEFORE INSERT ON queue WHEN NEW.id > 50"
                " BEGIN SELECT RAISE(ABORT, 'disk is full'); END",
            )
            with pytest.raises(QueueError, match="disk is full") as caught:
                queue.append_many([b"x" * 1024 * 256] * 90)
            written = caught.value.written
            assert 0 < written <= 50
            assert ask(path, "SELECT count(*) FROM queue") == [(written,)]
            assert queue.pending == queue.last_id == written
            tell(path, "DROP TRIGGER full")
            assert queue.append(b"y") == written + 1
            check(queue)

    def test_a_batch_of_one_transaction_is_written_wholly_or_not_at_all(self, path: Path) -> None:
        with opened(path) as queue:
            tell(
                path,
                "CREATE TRIGGER full BEFORE INSERT ON queue WHEN NEW.id > 3"
                " BEGIN SELECT RAISE(ABORT, 'disk is full'); END",
            )
            with pytest.raises(QueueError) as caught:
                queue.append_many([b"x"] * 5)
            assert caught.value.written == 0
            assert ask(path, "SELECT count(*) FROM queue") == [(0,)]
            check(queue)

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")
    def test_a_signal_handler_that_raises_does_not_wedge_the_queue(self, path: Path) -> None:
        """Between the commit and the count of it, a Ctrl-C would make the next id a used one."""

        class Stopped(BaseException):
            pass

        def interrupt(call: Callable[[], object], statement: int = 1) -> None:
            """Raises in `call` right after the statement of this number."""
            left = statement

            def profile(_frame: object, event: str, function: Any) -> None:
                nonlocal left
                if event == "c_return" and getattr(function, "__name__", "") == "execute":
                    left -= 1
                    if not left:
                        sys.setprofile(None)
                        raise Stopped

            sys.setprofile(profile)
            try:
                with pytest.raises(Stopped):
                    call()
            finally:
                sys.setprofile(None)

        with opened(path) as queue:
            queue.append(b"a")
            interrupt(lambda: queue.append(b"b"))
            assert queue.append(b"c") == 3
            rows = take_all(queue)
            assert [payload for _, payload in rows] == [b"a", b"b", b"c"]
            for statement in (1, 2, 3, 4):  # BEGIN, DELETE, UPDATE, COMMIT
                interrupt(lambda: queue.settle(rows[:1]), statement)
                assert queue.append(b"d") == 3 + statement
                check(queue)
            queue.settle(rows)
            assert queue.snapshot()[0].acknowledged == 3
            assert queue.pending == 4
            for statement in (1, 2):
                interrupt(lambda: queue.append_many([b"e", b"e"]), statement)
                queue.append(b"f")
                check(queue)


class TestDamage:
    def test_a_row_with_a_flipped_byte_is_set_aside_counted_and_the_others_go_out(
        self, path: Path
    ) -> None:
        with opened(path) as queue:
            queue.append_many([b"first", b"second", b"third"])
            tell(path, "UPDATE queue SET payload = CAST('sEcond' AS BLOB) WHERE id = 2")
            assert payloads(queue) == [b"first", b"third"]
            assert queue.evicted["corrupt"] == 1
            assert queue.snapshot()[0].evicted_corrupt_bytes == 6
            assert ask(path, "SELECT id, payload FROM corrupt_rows") == [(2, b"sEcond")]
            check(queue)

    def test_a_byte_that_flipped_in_the_file_itself_is_found(self, path: Path) -> None:
        with opened(path) as queue:
            queue.append_many([b"a" * 50, b"needle" * 9, b"c" * 50])
        content = path.read_bytes()
        assert content.count(b"needle" * 9) == 1
        path.write_bytes(content.replace(b"needle" * 9, b"needle" * 8 + b"neeDle"))
        with opened(path) as queue:
            assert payloads(queue) == [b"a" * 50, b"c" * 50]
            assert queue.evicted["corrupt"] == 1
            check(queue)

    @pytest.mark.parametrize(
        "change",
        [
            "payload = 'text'",
            "payload = zeroblob(500)",
            "payload = ''",
            "crc = 'text'",
            "crc = crc + 1",
            "payload = 17",
        ],
    )
    @pytest.mark.parametrize("row", [1, 2, 3])
    def test_whatever_a_person_writes_into_a_row_does_not_block_the_rest(
        self, path: Path, change: str, row: int
    ) -> None:
        with opened(path) as queue:
            queue.append_many([b"first", b"second", b"third"])
            tell(path, f"UPDATE queue SET {change} WHERE id = ?", row)  # noqa: S608
            rows = take_all(queue)
            assert [i for i, _ in rows] == [i for i in (1, 2, 3) if i != row]
            queue.settle(rows)
            assert queue.pending == 0
            assert queue.evicted["corrupt"] == 1
            assert take_all(queue) == []
            check(queue)

    @pytest.mark.parametrize("total", ["9999999999999", "-5", "0", "'text'"])
    @pytest.mark.parametrize("row", [1, 2, 3])
    def test_a_wrong_running_total_loses_no_event(self, path: Path, total: str, row: int) -> None:
        with opened(path, max_bytes=10_000) as queue:
            queue.append_many([b"first", b"second", b"third"])
        tell(path, f"UPDATE queue SET total = {total} WHERE id = {row}")  # noqa: S608
        with opened(path, max_bytes=10_000) as queue:
            queue.append(b"fourth")
            assert payloads(queue) == [b"first", b"second", b"third", b"fourth"]
            assert queue.evicted == dict.fromkeys(queue.evicted, 0)
            queue.settle(take_all(queue))
            assert take_all(queue) == []
            queue.append(b"fifth")
            queue.settle(take_all(queue))
            assert queue.pending == 0

    def test_the_quarantine_is_bounded_by_rows_and_bytes(self, path: Path) -> None:
        rows = queue_module.CORRUPT_ROWS_KEPT + 20
        with opened(path) as queue:
            queue.append_many([b"x"] * rows)
            tell(path, "UPDATE queue SET crc = 0")
            assert take_all(queue) == []
            assert queue.evicted["corrupt"] == rows
            kept = ask(path, "SELECT count(*), min(id) FROM corrupt_rows")
            assert kept == [(queue_module.CORRUPT_ROWS_KEPT, 21)]
            queue.append_many([b"x" * 256 * 1024] * 20)
            tell(path, "UPDATE queue SET crc = 0")
            assert take_all(queue) == []
            ((size,),) = ask(path, "SELECT sum(length(payload)) FROM corrupt_rows")
            assert size <= queue_module.CORRUPT_BYTES_KEPT
            check(queue)

    def test_a_row_that_was_evicted_while_it_was_looked_at_is_counted_once(
        self, path: Path
    ) -> None:
        with opened(path) as queue:
            queue.append_many([b"a", b"b"])
            tell(path, "UPDATE queue SET crc = 0 WHERE id = 1")
            rows = queue._reader.execute("SELECT id, payload, crc FROM queue").fetchall()
            queue.peek(0, max_events=9, max_bytes=99)
            queue._set_aside(*rows[0])
            assert queue.evicted["corrupt"] == 1
            check(queue)


class TestOtherProgramsDeletions:
    def test_events_deleted_while_in_flight_are_counted_as_purged(self, path: Path) -> None:
        with opened(path) as queue:
            queue.append_many([b"a", b"bb", b"ccc"])
            rows = take_all(queue)
            tell(path, "DELETE FROM queue WHERE id = 2")
            assert queue.settle(rows) == 2
            counters = queue.snapshot()[0]
            assert (counters.acknowledged, counters.acknowledged_bytes) == (2, 4)
            assert (counters.evicted_purged, counters.evicted_purged_bytes) == (1, 2)
            check(queue)

    def test_events_deleted_in_the_queue_are_counted_when_it_is_found_empty(
        self, path: Path
    ) -> None:
        with opened(path) as queue:
            queue.append_many([b"a", b"bb", b"ccc"])
            tell(path, "DELETE FROM queue")
            assert take_all(queue) == []
            assert queue.pending == 0
            assert queue.evicted["purged"] == 3
            assert queue.append(b"d") == 4
            check(queue)

    def test_events_deleted_between_two_runs_are_counted_at_the_next(self, path: Path) -> None:
        with opened(path) as queue:
            queue.append_many([b"a"] * 10)
        tell(path, "DELETE FROM queue WHERE id < 8")
        with opened(path) as queue:
            assert queue.pending == 3
            assert queue.evicted["purged"] == 7
            check(queue)

    def test_a_hole_in_the_middle_is_counted_when_the_rest_was_delivered(self, path: Path) -> None:
        with opened(path) as queue:
            queue.append_many([b"a"] * 10)
            tell(path, "DELETE FROM queue WHERE id BETWEEN 4 AND 6")
            queue.settle(take_all(queue))
            assert take_all(queue) == []
            assert queue.evicted["purged"] == 3
            assert queue.pending == 0
            check(queue)

    def test_a_full_queue_that_a_person_emptied_has_room_again(self, path: Path) -> None:
        """Else every new event would push out the one before."""
        with opened(path, max_events=5) as queue:
            queue.append_many([b"a"] * 5)
            tell(path, "DELETE FROM queue")
            for _ in range(5):
                queue.append(b"b")
            assert payloads(queue) == [b"b"] * 5
            assert queue.evicted["max_queue_events"] == 0
            assert queue.evicted["purged"] == 5
            check(queue)

    def test_a_full_queue_that_rejects_has_room_after_a_purge_too(self, path: Path) -> None:
        with opened(path, max_events=2, reject=True) as queue:
            queue.append_many([b"a"] * 2)
            tell(path, "DELETE FROM queue")
            assert queue.append(b"b") == 3
            check(queue)

    def test_a_row_that_a_person_put_in_does_not_stop_the_queue(self, path: Path) -> None:
        with opened(path) as queue:
            queue.append(b"a")
            tell(path, "INSERT INTO queue SELECT id + 1, total + 1, crc, payload FROM queue")
            with pytest.raises(QueueError):
                queue.append(b"b")
            assert queue.append(b"b") == 3
            check(queue)


class TestInFlight:
    def test_what_is_in_flight_is_not_evicted_until_it_is_given_back(self, path: Path) -> None:
        with opened(path, max_events=4) as queue:
            queue.append_many([b"1", b"2", b"3", b"4"])
            rows = queue.take(0, max_events=2, max_bytes=99)
            for number in range(5, 9):
                queue.append(b"%d" % number)
            assert payloads(queue) == [b"1", b"2", b"7", b"8"]
            assert queue.settle(rows) == 2
            queue.give_back()
            queue.append_many([b"9", b"10", b"11"])
            assert payloads(queue) == [b"8", b"9", b"10", b"11"]
            check(queue)

    def test_a_batch_as_large_as_the_cap_is_exceeded_by_the_newest_only(self, path: Path) -> None:
        with opened(path, max_events=3) as queue:
            queue.append_many([b"1", b"2", b"3"])
            rows = take_all(queue)
            queue.append(b"4")
            queue.append(b"5")
            assert payloads(queue) == [b"1", b"2", b"3", b"5"]
            queue.settle(rows)
            assert payloads(queue) == [b"5"]
            check(queue)

    def test_a_take_that_fails_leaves_nothing_in_flight(self, path: Path) -> None:
        with opened(path, max_events=2) as queue:
            queue.append_many([b"1", b"2"])
            tell(path, "ALTER TABLE queue RENAME TO hidden")
            with pytest.raises(QueueError, match="read"):
                take_all(queue)
            tell(path, "ALTER TABLE hidden RENAME TO queue")
            queue.append(b"3")
            assert payloads(queue) == [b"2", b"3"]


class TestTheView:
    def test_it_shows_key_type_time_and_size(self, path: Path) -> None:
        payload = b'{"event_type":"buy","idempotency_key":"k-1","timestamp_ms":1732147200123}'
        with opened(path) as queue:
            queue.append(payload)
            assert ask(path, "SELECT * FROM queued_events") == [
                (1, "k-1", "buy", "2024-11-21T00:00:00.123Z", len(payload))
            ]

    def test_what_is_not_json_shows_as_nulls(self, path: Path) -> None:
        junk = [b"not json", b"\xff\xfe", b"", b"[1]", b"null", b"{}", b"\x00{}"]
        with opened(path) as queue:
            queue.append_many(junk)
            shown = ask(path, "SELECT idempotency_key, event_type, time, size FROM queued_events")
            assert shown == [(None, None, None, len(payload)) for payload in junk]


class TestOpening:
    def test_a_file_without_its_state_row_is_an_error_and_leaks_nothing(self, path: Path) -> None:
        with opened(path):
            pass
        tell(path, "DROP TABLE queue")
        with pytest.raises(QueueError, match=r"queue\.db cannot be opened"):
            Queue(path, max_events=1, max_bytes=1)

    def test_the_counters_of_a_full_life_survive_reopening(self, path: Path) -> None:
        with opened(path, max_events=5) as queue:
            queue.append_many([b"abc"] * 9)
            queue.settle(queue.peek(0, max_events=2, max_bytes=99))
            before = queue.snapshot()
            state = file_state(path)
        with opened(path, max_events=5) as queue:
            assert queue.snapshot() == before
            assert file_state(path) == state
            check(queue)


class Model(RuleBasedStateMachine):
    """The queue against a list: any order of what its callers and other programs may do."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, bytes]] = []
        self.corrupt: set[int] = set()
        self.in_flight: list[tuple[int, bytes]] = []
        self.last_id = 0
        self.acknowledged = 0
        self.gone = 0
        self.queue: Queue | None = None

    @initialize(max_events=st.integers(1, 300), max_bytes=st.integers(50, 5000))
    def make(self, max_events: int, max_bytes: int) -> None:
        self.path = Path(Model.base) / f"{next(Model.number)}.db"
        self.max_events, self.max_bytes = max_events, max_bytes
        schema.prepare(self.path, schema.Destination("", "", ""))
        self.open()

    base = ""  # a directory; set by the test
    number = count()

    def open(self) -> None:
        self.queue = Queue(self.path, max_events=self.max_events, max_bytes=self.max_bytes)

    @property
    def q(self) -> Queue:
        assert self.queue is not None
        return self.queue

    def added(self, new: list[bytes]) -> None:
        """Takes over what the queue evicted, after asserting that it was allowed to."""
        for payload in new:
            self.last_id += 1
            self.rows.append((self.last_id, payload))
        there = {row[0] for row in ask(self.path, "SELECT id FROM queue")}
        evicted = [row for row in self.rows if row[0] not in there]
        kept = [row for row in self.rows if row[0] in there]
        flying = {row_id for row_id, _ in self.in_flight}
        assert not flying & {row_id for row_id, _ in evicted}
        assert self.last_id in there
        free = [row for row in self.rows if row[0] not in flying]
        assert evicted == free[: len(evicted)], "the oldest go first"
        size = sum(len(payload) for _, payload in kept)
        if len(kept) > self.max_events or size > self.max_bytes:
            assert {row_id for row_id, _ in kept} <= flying | {self.last_id}
        before = sum(len(payload) for _, payload in self.rows)
        if evicted:
            assert len(self.rows) > self.max_events or before > self.max_bytes
        self.rows = kept
        self.gone += len(evicted)

    @rule(payload=st.binary(max_size=60))
    def append(self, payload: bytes) -> None:
        assert self.q.append(payload) == self.last_id + 1
        self.added([payload])

    @rule(new=st.lists(st.binary(max_size=60), min_size=1, max_size=150))
    def append_many(self, new: list[bytes]) -> None:
        assert self.q.append_many(new) == self.last_id + len(new)
        self.added(new)

    @rule(after=st.integers(0, 50), max_events=st.integers(1, 250), max_bytes=st.integers(1, 3000))
    def take(self, after: int, max_events: int, max_bytes: int) -> None:
        taken = self.q.take(after, max_events=max_events, max_bytes=max_bytes)
        there = {row[0] for row in ask(self.path, "SELECT id FROM queue")}
        aside = [row for row in self.rows if row[0] not in there]
        assert {row_id for row_id, _ in aside} <= self.corrupt
        self.gone += len(aside)
        self.rows = [row for row in self.rows if row[0] in there]
        behind = [row for row in self.rows if row[0] > after and row[0] not in self.corrupt]
        assert taken == behind[: len(taken)]
        if behind:
            assert taken
        self.in_flight = taken

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if not self.in_flight:
            return
        chosen = data.draw(st.sets(st.sampled_from([row_id for row_id, _ in self.in_flight])))
        part = [row for row in self.in_flight if row[0] in chosen]
        there = {row_id for row_id, _ in self.rows}
        assert self.q.settle(part) == len([row for row in part if row[0] in there])
        self.acknowledged += len([row for row in part if row[0] in there])
        self.rows = [row for row in self.rows if row[0] not in chosen]

    @rule()
    def give_back(self) -> None:
        self.q.give_back()
        self.in_flight = []

    @rule()
    def reopen(self) -> None:
        self.q.close()
        self.open()
        self.in_flight = []

    @rule()
    def checkpoint(self) -> None:
        assert self.q.checkpoint()
        self.q.vacuum_step()

    @rule(data=st.data())
    def corrupt_a_row(self, data: st.DataObject) -> None:
        flying = {row_id for row_id, _ in self.in_flight}
        ids = [row_id for row_id, _ in self.rows if row_id not in flying]
        if ids:
            row_id = data.draw(st.sampled_from(ids))
            tell(self.path, "UPDATE queue SET crc = crc + 1 WHERE id = ?", row_id)
            # Damaging it twice would not mend it, since the number only grows.
            self.corrupt.add(row_id)

    @invariant()
    def the_equation_holds(self) -> None:
        if self.queue is None:
            return
        check(self.q)
        counters, tracked, pending, _ = self.q.snapshot()
        assert tracked == self.last_id
        assert pending == len(self.rows)
        assert counters.acknowledged == self.acknowledged
        assert sum(counters.evicted.values()) == self.gone
        assert ask(self.path, "SELECT id FROM queue ORDER BY id") == [
            (row_id,) for row_id, _ in self.rows
        ]

    def teardown(self) -> None:
        if self.queue is not None:
            self.queue.close()


def test_any_history_keeps_the_equation(tmp_path: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    Model.base = str(tmp_path)
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_another_connection_never_sees_half_a_batch(path: Path) -> None:
    """The trigger counts from inside of the transaction; outside, it is all or nothing."""
    with opened(path, max_events=50) as queue, foreign(path) as other:
        seen: list[int] = []

        def look(_sql: str) -> None:
            seen.append(other.execute("SELECT count(*) FROM queue").fetchone()[0])

        queue._writer.set_trace_callback(look)
        for _ in range(5):
            queue.append_many([b"x"] * 20)
        queue._writer.set_trace_callback(None)
        assert set(seen) <= {0, 20, 40, 50}
        assert isinstance(other, sqlite3.Connection)
