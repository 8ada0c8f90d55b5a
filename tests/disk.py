"""What the tests of the queue file share: a place, a look from outside, and a clock."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from causality_sdk import connections, schema
from causality_sdk.queue import Queue
from causality_sdk.schema import Destination

HERE = Destination("http://127.0.0.1:1", "causality", "0123456789abcdef")
MIB = 1024 * 1024


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[Queue]:
    """The queue at `path`, made if it is not there, with no cap worth mentioning."""
    if path != connections.MEMORY:
        schema.prepare(path, HERE)
    options = {"max_events": 10**9, "max_bytes": 2**40, **options}
    queue = Queue(path, **options)
    try:
        yield queue
    finally:
        queue.close()


@contextmanager
def foreign(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection as another program would open one."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


def ask(path: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """What another program reads from the file."""
    with foreign(path) as connection:
        return connection.execute(sql, values).fetchall()


def tell(path: Path, sql: str, *values: object) -> None:
    """What another program writes into the file."""
    ask(path, sql, *values)


def payloads(queue: Queue) -> list[bytes]:
    """All that is queued, oldest first."""
    return [payload for _, payload in queue.peek(0, max_events=10**9, max_bytes=2**40)]


def file_state(path: Path) -> dict[str, int]:
    """The state row, from outside."""
    with foreign(path) as connection:
        connection.row_factory = sqlite3.Row
        row = connection.execute("SELECT * FROM state").fetchone()
    return {key: row[key] for key in row.keys() if isinstance(row[key], int)}  # noqa: SIM118


def check(queue: Queue) -> None:
    """The equation, with residual 0, against the rows that another program counts."""
    counters, tracked, pending, pending_bytes = queue.snapshot()
    evicted = sum(counters.evicted.values())
    assert tracked == counters.acknowledged + evicted + counters.buried + pending
    assert queue.pending == pending
    if queue.path == connections.MEMORY:
        return
    (row,) = ask(queue.path, "SELECT count(*), coalesce(sum(length(payload)), 0) FROM queue")
    assert (pending, pending_bytes) == row
    state = file_state(queue.path)
    (last,) = ask(queue.path, "SELECT coalesce(max(id), 0) FROM queue")
    in_file = max(state["mark"], last[0]) - state["requeued"]
    assert in_file == tracked
    assert state["acknowledged"] == counters.acknowledged


def disk_bytes(path: Path) -> int:
    """What the queue takes on the disk: the database and its log."""
    log = log_bytes(path)
    return path.stat().st_size + log


def log_bytes(path: Path) -> int:
    """The length of the log."""
    log = path.with_name(path.name + "-wal")
    return log.stat().st_size if log.exists() else 0
