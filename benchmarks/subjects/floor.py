"""The floor: a version 7 UUID, orjson, and a bare `sqlite3` INSERT. No queue can do with less.

Nothing is checked, counted, tried again or capped.
"""

from __future__ import annotations

import http.client
import sqlite3
import threading
import time
from pathlib import Path

import orjson
from uuid6 import uuid7

from benchmarks.event import PURCHASE, SERVER, TYPE, departures
from benchmarks.process import serve, written

BATCH = 1000
INSERT = "INSERT INTO queue (payload) VALUES (?)"
INSERT_AS = "INSERT INTO queue (id, payload) VALUES (?, ?)"
SELECT = "SELECT id, payload FROM queue WHERE id > ? ORDER BY id LIMIT ?"
PROPERTIES = {**PURCHASE, "_server": SERVER}
REST = {"event_type": TYPE, "timestamp_ms": 1732147200000, "properties": PROPERTIES}


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(Path(path) / "floor.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    return database


def _send_all(count: int, path: str, endpoint: str, turn: threading.Lock) -> None:
    """Batches as large as ours, at once when they are full; no answer is looked at."""
    database = _connect(path)
    server = http.client.HTTPConnection(endpoint.rpartition("/")[2])
    last = 0
    while last < count:
        rows = database.execute(SELECT, (last, BATCH)).fetchall()
        if len(rows) < min(BATCH, count - last):
            time.sleep(0.001)
            continue
        body = b'{"events":[' + b",".join([payload for _, payload in rows]) + b"]}"
        server.request("POST", "/v1/events/batch", body, {"Content-Type": "application/json"})
        server.getresponse().read()
        with turn:
            database.execute("DELETE FROM queue WHERE id BETWEEN ? AND ?", (last, rows[-1][0]))
        last = rows[-1][0]
    server.close()
    database.close()


def run() -> None:
    """Answers until the parent ends it."""
    database: sqlite3.Connection | None = None

    def open_(path: str) -> None:
        nonlocal database
        database = _connect(path)
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

    def latencies(count: int) -> dict[str, float]:
        taken = sorted(put(1) for _ in range(count))
        return {"p99": taken[count * 99 // 100]}

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

    def deliver(count: int, path: str, endpoint: str) -> float:
        """One thread inserts departures, another one selects, posts and deletes; the seconds."""
        assert database is not None
        events = departures(count)
        turn = threading.Lock()  # two writers would wait in SQLite's sleeps
        sender = threading.Thread(target=_send_all, args=(count, path, endpoint, turn))
        started = time.perf_counter()
        sender.start()
        for number, departure in enumerate(events, 1):
            event = {
                "app_id": "shop",
                "event_type": departure["event_type"],
                "idempotency_key": str(uuid7()),
                "timestamp_ms": departure["timestamp_ms"],
                "device_id": departure["device_id"],
                "properties": {**departure["properties"], "_server": SERVER},
            }
            payload = orjson.dumps(event)
            with turn:
                # Its own ids: those of an emptied table begin anew.
                database.execute(INSERT_AS, (number, payload))
        sender.join()
        return time.perf_counter() - started

    def close() -> None:
        assert database is not None
        database.close()

    serve(
        {
            "open": open_,
            "put": put,
            "latencies": latencies,
            "put_many": put_many,
            "deliver": deliver,
            "written": written,
            "close": close,
        }
    )


if __name__ == "__main__":
    run()
