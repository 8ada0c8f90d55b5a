"""The floor: a version 7 UUID, orjson, and a bare `sqlite3` INSERT. No queue can do with less.

Nobody delivers what it takes, and nobody counts it.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import orjson
from uuid6 import uuid7

from benchmarks.event import PURCHASE, SERVER, TYPE, departures
from benchmarks.process import serve, written

INSERT = "INSERT INTO queue (payload) VALUES (?)"
PROPERTIES = {**PURCHASE, "_server": SERVER}
REST = {"event_type": TYPE, "timestamp_ms": 1732147200000, "properties": PROPERTIES}


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
                "properties": PROPERTIES,
            }
            database.execute(INSERT, (orjson.dumps(event),))
        return time.perf_counter() - started

    def put_many(calls: int, events: int) -> int:
        """Gives the bytes of the payloads."""
        assert database is not None
        size = 0
        for _ in range(calls):
            rows = [
                (orjson.dumps({"app_id": "shop", "idempotency_key": str(uuid7()), **REST}),)
                for _ in range(events)
            ]
            database.execute("BEGIN")
            database.executemany(INSERT, rows)
            database.execute("COMMIT")
            size += sum(len(payload) for (payload,) in rows)
        return size

    def put_departures(count: int) -> float:
        assert database is not None
        events = departures(count)
        started = time.perf_counter()
        for departure in events:
            event = {
                "app_id": "shop",
                "event_type": departure["event_type"],
                "idempotency_key": str(uuid7()),
                "timestamp_ms": departure["timestamp_ms"],
                "device_id": departure["device_id"],
                "properties": {**departure["properties"], "_server": SERVER},
            }
            database.execute(INSERT, (orjson.dumps(event),))
        return time.perf_counter() - started

    def close() -> None:
        assert database is not None
        database.close()

    serve(
        {
            "open": open_,
            "put": put,
            "put_many": put_many,
            "put_departures": put_departures,
            "written": written,
            "close": close,
        }
    )


if __name__ == "__main__":
    run()
