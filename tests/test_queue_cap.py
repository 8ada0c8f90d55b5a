"""The cap: what is evicted, how it is counted, and what the file takes on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from disk import MIB, ask, check, disk_bytes, file_state, opened, payloads, tell

from causality_sdk.errors import QueueFull
from causality_sdk.queue import Queue

CAP = 16 * MIB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


def track_until(queue: Queue, payload: bytes, total: int) -> int:
    """Appends single events and batches in turn until `total` bytes went in; the most on disk."""
    most = written = 0
    while written < total:
        queue.append_many([payload] * max(1, 100_000 // len(payload)))
        for _ in range(10):
            queue.append(payload)
        written += len(payload) * (max(1, 100_000 // len(payload)) + 10)
        most = max(most, disk_bytes(queue.path))
    return most


@pytest.mark.parametrize("size", [100, 1400, 2100, 4200, 70_000])
def test_the_file_and_its_log_stay_near_the_cap_whatever_the_rows_waste(
    path: Path, size: int
) -> None:
    """Two rows of 2,100 bytes take two pages: payloads alone would let the file grow twofold."""
    with opened(path, max_bytes=CAP) as queue:
        most = track_until(queue, b"x" * size, 3 * CAP)
        assert most < CAP + 32 * MIB
        assert queue.snapshot()[3] > CAP // 2, "the cap is used, too"
        assert queue.evicted["max_queue_bytes"] > 0
        check(queue)


def test_processes_that_live_for_a_few_events_do_not_outgrow_the_cap(path: Path) -> None:
    """A cron job writes less in a run than is written between two looks at the file."""
    for _ in range(120):
        with opened(path, max_bytes=4 * MIB) as queue:
            queue.append_many([b"x" * 2100] * 200)
    assert path.stat().st_size < (4 + 12) * MIB
    with opened(path, max_bytes=4 * MIB) as queue:
        check(queue)


def test_freed_pages_are_used_again(path: Path) -> None:
    with opened(path, max_bytes=4 * MIB) as queue:
        for _ in range(3):
            queue.append_many([b"x" * 500] * 9000)
            queue.checkpoint()
        before = path.stat().st_size
        for _ in range(5):
            queue.append_many([b"y" * 500] * 9000)
            queue.checkpoint()
            check(queue)
        assert path.stat().st_size < before * 1.1


def test_the_file_shrinks_after_a_backlog_was_drained(path: Path) -> None:
    with opened(path) as queue:
        queue.append_many([b"x" * 1000] * 20_000)
        queue.append(b"stays")
        queue.checkpoint()
        assert path.stat().st_size > 19 * MIB
        queue.settle(queue.peek(0, max_events=20_000, max_bytes=10**9))
        queue.checkpoint()
        while queue.vacuum_step():
            queue.checkpoint()
        queue.checkpoint()
        assert path.stat().st_size < 2 * MIB
        assert payloads(queue) == [b"stays"]
        check(queue)
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


def test_eviction_by_events_is_durable_at_once(path: Path) -> None:
    with opened(path, max_events=10) as queue:
        for number in range(25):
            queue.append(b"%02d" % number)
            assert file_state(path)["evicted_max_queue_events"] == max(0, number - 9)
        assert file_state(path)["evicted_max_queue_events_bytes"] == 30
        assert payloads(queue) == [b"%02d" % number for number in range(15, 25)]
        check(queue)


def test_eviction_by_bytes_is_counted_apart(path: Path) -> None:
    with opened(path, max_bytes=1000) as queue:
        for _ in range(12):
            queue.append(b"x" * 100)
        assert queue.evicted["max_queue_events"] == 0
        assert file_state(path)["evicted_max_queue_bytes"] == queue.evicted["max_queue_bytes"] == 2
        assert queue.snapshot()[3] == 1000
        check(queue)


def test_a_large_queue_evicts_a_chunk_at_once(path: Path) -> None:
    with opened(path, max_events=20_000) as queue:
        queue.append_many([b"x"] * 20_000)
        queue.append(b"y")
        assert queue.evicted["max_queue_events"] == 100
        for _ in range(99):
            queue.append(b"y")
        assert queue.evicted["max_queue_events"] == 100
        check(queue)


def test_a_batch_larger_than_the_cap_keeps_its_newest(path: Path) -> None:
    with opened(path, max_events=10) as queue:
        queue.append_many([b"%d" % number for number in range(1000)])
        assert payloads(queue) == [b"%d" % number for number in range(990, 1000)]
        assert queue.evicted["max_queue_events"] == 990
        check(queue)


def test_an_event_larger_than_the_cap_pushes_out_all_others_but_is_kept(path: Path) -> None:
    with opened(path, max_bytes=100) as queue:
        queue.append_many([b"a", b"b"])
        queue.append(b"x" * 200)
        assert payloads(queue) == [b"x" * 200]
        queue.append(b"c")
        assert payloads(queue) == [b"c"]
        check(queue)


def test_rows_behind_and_before_what_is_in_flight_are_evicted(path: Path) -> None:
    with opened(path, max_events=6) as queue:
        queue.append_many([b"%d" % number for number in range(6)])
        flying = queue.take(2, max_events=2, max_bytes=99)
        assert [payload for _, payload in flying] == [b"2", b"3"]
        for number in range(6, 11):
            queue.append(b"%d" % number)
        assert payloads(queue) == [b"2", b"3", b"7", b"8", b"9", b"10"]
        check(queue)


def test_the_room_comes_back_when_the_file_has_pages_again(path: Path) -> None:
    with opened(path, max_bytes=CAP) as queue:
        track_until(queue, b"x" * 2100, 2 * CAP)
        assert queue.snapshot()[3] < CAP
        while rows := queue.peek(0, max_events=1000, max_bytes=10**9):
            queue.settle(rows)
        track_until(queue, b"y" * 200, CAP * 3 // 2)
        assert queue.snapshot()[3] > CAP * 9 // 10
        check(queue)


def test_a_rejecting_queue_holds_the_file_bound_too(path: Path) -> None:
    with opened(path, max_bytes=CAP, reject=True) as queue:
        with pytest.raises(QueueFull):
            track_until(queue, b"x" * 2100, 3 * CAP)
        assert disk_bytes(path) < CAP + 32 * MIB
        check(queue)


def test_a_large_batch_is_taken_or_rejected_as_a_whole(path: Path) -> None:
    """It takes several transactions; the cap is looked at before the first."""
    with opened(path, max_bytes=CAP, reject=True) as queue:
        with pytest.raises(QueueFull):
            queue.append_many([b"x" * 1000] * 20_000)
        assert queue.last_id == 0
        queue.append_many([b"x" * 1000] * 15_000)
        assert queue.pending == 15_000
        check(queue)


def test_eviction_does_not_walk_over_what_is_in_flight(path: Path) -> None:
    """Its cost would grow with the queue: the look at the oldest counts its steps."""
    with opened(path, max_events=20_000) as queue:
        queue.append_many([b"x"] * 20_000)
        queue.take(0, max_events=20_000, max_bytes=10**9)
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        queue._writer.set_progress_handler(step, 100)
        queue.append(b"y")
        queue._writer.set_progress_handler(None, 0)
        assert steps < 50
        assert queue.pending == 20_001


def test_counters_of_a_purge_and_of_the_cap_do_not_mix(path: Path) -> None:
    with opened(path, max_events=10) as queue:
        queue.append_many([b"x"] * 10)
        tell(path, "DELETE FROM queue WHERE id <= 4")
        queue.append_many([b"y"] * 6)
        assert queue.evicted == {
            "max_queue_events": 2,
            "max_queue_bytes": 0,
            "corrupt": 0,
            "purged": 4,
        }
        check(queue)
