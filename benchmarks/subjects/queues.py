"""Other queues on disk, as their documentation uses them: `python -m … <name>`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.event import PURCHASE, SERVER, TYPE
from benchmarks.process import serve

EVENT = {
    "app_id": "shop",
    "event_type": TYPE,
    "timestamp_ms": 1732147200000,
    "properties": {**PURCHASE, "_server": SERVER},
}
TEXT = json.dumps({**EVENT, "idempotency_key": "0193489c-7ac1-7b0e-a3cc-1a2b3c4d5e6f"})


def persist_queue(directory: Path) -> Callable[[], Any]:
    """persist-queue's FIFOSQLiteQueue."""
    import persistqueue

    queue = persistqueue.FIFOSQLiteQueue(str(directory), auto_commit=True, multithreading=True)
    return lambda: queue.put(EVENT)


def persist_queue_ack(directory: Path) -> Callable[[], Any]:
    """persist-queue's SQLiteAckQueue, which keeps an item until it is acknowledged, as ours."""
    import persistqueue

    queue = persistqueue.SQLiteAckQueue(str(directory), auto_commit=True, multithreading=True)
    return lambda: queue.put(EVENT)


def litequeue(directory: Path) -> Callable[[], Any]:
    """Litequeue's put; it takes text."""
    import litequeue as library

    queue = library.LiteQueue(str(directory / "lite.db"))
    return lambda: queue.put(TEXT)


def diskcache(directory: Path) -> Callable[[], Any]:
    """The append of a diskcache Deque."""
    import diskcache as library

    queue = library.Deque(directory=str(directory))
    return lambda: queue.append(EVENT)


def huey(directory: Path) -> Callable[[], Any]:
    """Enqueues a task of SqliteHuey."""
    from huey import SqliteHuey

    queue = SqliteHuey(filename=str(directory / "huey.db"))

    def send(event: Any) -> None:
        """Never run: there is no consumer."""

    task = queue.task()(send)
    return lambda: task(EVENT)


def run(name: str) -> None:
    """Answers until the parent ends it."""
    put_one: Callable[[], Any] | None = None

    def open_(path: str) -> None:
        nonlocal put_one
        directory = Path(path) / name
        directory.mkdir()
        put_one = {
            "persist-queue": persist_queue,
            "persist-queue-ack": persist_queue_ack,
            "litequeue": litequeue,
            "diskcache": diskcache,
            "huey": huey,
        }[name](directory)

    def put(count: int) -> float:
        assert put_one is not None
        started = time.perf_counter()
        for _ in range(count):
            put_one()
        return time.perf_counter() - started

    serve({"open": open_, "put": put})


if __name__ == "__main__":
    run(sys.argv[1])
