"""The floor: a version 7 UUID, orjson, and a bare `sqlite3` INSERT. No queue can do with less."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import orjson
from uuid6 import uuid7

from benchmarks.event import PURCHASE, SERVER, TYPE
from benchmarks.process import serve


def run() -> None:
    """Answers until the parent ends it."""
    database: sqlite3.Connection | None = None

    def open_(path: str) -> None:
        nonlocal database
        database = sqlite3.connect(Path(path) / "floor.db", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)")

    def put(count: int) -> float:
        assert database is not None
        started = time.perf_counter()
        for _ in range(count):
            event = {
                "app_id": "shop",
                "event_type": TYPE,
                "idempotency_key": str(uuid7()),
                "timestamp_ms": time.time_ns() // 1_000_000,
                "properties": {**PURCHASE, "_server": SERVER},
            }
            database.execute("INSERT INTO queue (payload) VALUES (?)", (orjson.dumps(event),))
        return time.perf_counter() - started

    serve({"open": open_, "put": put})


if __name__ == "__main__":
    run()
