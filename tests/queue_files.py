"""The queue files that processes left: are they whole, what is in them, does it get delivered."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from causality_sdk import Client, schema


def queue_files(directory: Path) -> list[Path]:
    """The queue files of an app, in the order in which processes take them."""
    return sorted(directory.glob("queue*.db"), key=lambda path: (len(path.name), path.name))


def payloads(path: Path) -> Iterator[bytes]:
    """The events in a file that nobody has open. Asserts that it is not corrupt."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), path
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            return  # whoever was making it was killed
        for (payload,) in connection.execute("SELECT payload FROM queue ORDER BY id"):
            yield bytes(payload)


def _is_spent(path: Path) -> bool:
    """Whether another file takes over this one's counters; it only has to go then."""
    try:
        return schema.heir(path) is not None
    except sqlite3.OperationalError:  # no tables yet
        return False


def drain(directory: Path, app_id: str, endpoint: str) -> None:
    """Delivers what is left in the files of `directory`, each by a client of its own.

    Asserts that every file is whole, that nothing was lost from it, and that its counters add up.
    """
    for path in queue_files(directory):
        left = len(list(payloads(path)))
        if _is_spent(path):
            assert left == 0, path
            continue
        with Client(
            api_key="test-key",
            endpoint=endpoint,
            app_id=app_id,
            queue_path=path,
            start=False,
            close_timeout=0,
        ) as client:
            stats = client.stats()
            assert stats.queue_path == str(path), f"somebody still has {path}"
            assert stats.pending == left, path
            assert sum((stats.evicted or {}).values()) + stats.buried == 0, (path, stats)
            assert stats.tracked == stats.acknowledged + stats.pending, (path, stats)
            report = client.flush(timeout=60)
            assert report.remaining == 0, (path, report)
