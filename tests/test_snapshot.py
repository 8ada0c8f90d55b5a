"""Inserts that go on from one snapshot: what others do to the file in between harms none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from disk import opened

from causality_sdk.errors import QueueError
from causality_sdk.queue import Queue

PAYLOAD = b'{"n":1}'


def foreign(path: Path) -> sqlite3.Connection:
    """As another program would open the file."""
    return sqlite3.connect(path, isolation_level=None, timeout=0)


def ids(queue: Queue) -> list[int]:
    return [row_id for row_id, _ in queue.peek(0, max_events=100, max_bytes=2**20)]


def statements_of_an_event(queue: Queue) -> list[str]:
    """Their first words. A write that failed and was tried again is there twice."""
    seen: list[str] = []
    queue._writer.set_trace_callback(lambda sql: seen.append(sql.split()[0]))
    queue.append(PAYLOAD)
    queue._writer.set_trace_callback(None)
    return seen


def test_events_in_a_row_share_a_snapshot(tmp_path: Path) -> None:
    with opened(tmp_path / "queue.db") as queue:
        assert statements_of_an_event(queue) == ["SELECT", "INSERT"]
        assert statements_of_an_event(queue) == ["INSERT"]
        assert statements_of_an_event(queue) == ["INSERT"]


def test_each_event_is_committed_although_the_snapshot_stays(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with opened(path) as queue:
        for number in range(1, 4):
            queue.append(PAYLOAD)
            other = foreign(path)
            assert other.execute("SELECT count(*) FROM queue").fetchone() == (number,)
            other.close()


def test_what_another_program_wrote_between_two_events_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with opened(path) as queue:
        queue.append(PAYLOAD)
        queue.append(PAYLOAD)
        other = foreign(path)
        other.execute("DELETE FROM queue WHERE id = 1")
        other.close()
        assert queue.append(PAYLOAD) == 3
        assert ids(queue) == [2, 3]
        assert queue.take(0, max_events=10, max_bytes=2**20)


def test_another_program_that_is_writing_is_waited_for_and_then_an_error(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with opened(path, busy_seconds=0.05) as queue:
        queue.append(PAYLOAD)
        other = foreign(path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueError, match="another program has it open in a transaction"):
            queue.append(PAYLOAD)
        other.execute("ROLLBACK")
        other.close()
        assert queue.append(PAYLOAD) == 2
        assert ids(queue) == [1, 2]


def test_a_settle_in_between_costs_one_new_snapshot_and_no_second_try(tmp_path: Path) -> None:
    with opened(tmp_path / "queue.db") as queue:
        queue.append(PAYLOAD)
        queue.settle(queue.take(0, max_events=10, max_bytes=2**20))
        assert statements_of_an_event(queue) == ["SELECT", "INSERT"]


def test_the_log_starts_over_under_a_thread_that_tracks(tmp_path: Path) -> None:
    """A snapshot that stayed would keep the whole log, and it would grow for ever."""
    path = tmp_path / "queue.db"
    moved: list[int] = []

    def meanwhile(statement: str) -> None:
        """Called as the checkpoint begins a pass: another thread would get the lock before it."""
        if "PASSIVE" in statement:
            queue.append(b"x" * 400)
        else:
            moved.append(path.stat().st_size)

    with opened(path) as queue:
        queue.checkpoint()  # opens the connection that checkpoints
        assert queue.wal._connection is not None
        queue.wal._connection.set_trace_callback(meanwhile)
        sizes = []
        for _ in range(3):
            for _ in range(200):
                queue.append(b"x" * 400)
            assert queue._snapshot.is_kept
            assert queue.checkpoint()
            sizes.append(Path(f"{path}-wal").stat().st_size)
        queue.wal._connection.set_trace_callback(None)
        assert max(sizes) < 1.1 * min(sizes)
    # Nearly all was moved before the lock was taken.
    assert [size // (200 * 400) for size in moved] == [1, 2, 3]


def test_pages_are_given_back_under_a_thread_that_tracks(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with opened(path) as queue:
        queue.append_many([b"x" * 1000] * 8000)
        queue.checkpoint()
        before = path.stat().st_size
        queue.settle(queue.take(0, max_events=8000, max_bytes=2**30))
        more = True
        while more:
            queue.append(PAYLOAD)
            assert queue._snapshot.is_kept
            more = queue.vacuum_step()
            assert statements_of_an_event(queue) == ["SELECT", "INSERT"]
        queue.checkpoint()
        assert path.stat().st_size < before // 2


def test_a_closed_file_leaves_no_log_behind(tmp_path: Path) -> None:
    """SQLite keeps a file open for a statement under way, and its log stays."""
    path = tmp_path / "queue.db"
    with opened(path) as queue:
        queue.append(PAYLOAD)
        assert queue._snapshot.is_kept
    assert not Path(f"{path}-wal").exists()


def test_a_look_at_the_queue_sees_what_another_program_did(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with opened(path) as queue:
        queue.append(PAYLOAD)
        other = foreign(path)
        other.execute("DELETE FROM queue")
        other.close()
        assert queue.newest(10) == []
