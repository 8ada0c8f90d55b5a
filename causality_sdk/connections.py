"""Connections to a queue file, with our pragmas.

Neighbours: `schema` makes the file, `queue_file` and `wal` work on it. Invariant: no connection
maps the file into memory or checkpoints of its own accord, and a forked child closes none.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MEMORY = Path(":memory:")
BUSY_SECONDS = 2.0  # for people who have the file open in another program
LOG_BYTES = 15 * 1024 * 1024  # cut back to it; less would cost every writer what it grows again


_mode = threading.local()


@contextmanager
def alone() -> Iterator[None]:
    """What this thread opens inside keeps the index of the log in its own memory.

    For a disk that has no room for it. Each connection has the file to itself then, so that there
    can be one of them only. The caller owns the file.
    """
    _mode.is_alone = True
    try:
        yield
    finally:
        _mode.is_alone = False


def is_alone() -> bool:
    """Whether this thread is inside of `alone()`."""
    return getattr(_mode, "is_alone", False)


class Connection(sqlite3.Connection):
    """A connection that closes itself when it is forgotten.

    At exit the queue stays open, for a `track()` from a later atexit hook; Python 3.13 and later
    warn about that with text on stderr, in programs that turn warnings on.
    """

    _pid: int | None = None  # a signal handler may raise before it is set

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pid = os.getpid()

    def __del__(self) -> None:
        if self._pid == os.getpid():  # a forked child must not close what its parent uses
            self.close()


def connect(
    path: Path, *, synchronous: str = "NORMAL", busy_seconds: float = BUSY_SECONDS
) -> sqlite3.Connection:
    """A connection with our pragmas, in autocommit, usable from every thread.

    The file must have been prepared. Raises `sqlite3.Error`.
    """
    connection = open_unread(path, busy_seconds)
    try:
        set_pragmas(connection, synchronous)
    except BaseException:
        connection.close()
        raise
    return connection


def open_unread(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection that has not looked at the file yet."""
    connection = sqlite3.connect(
        str(path),
        timeout=busy_seconds,
        isolation_level=None,  # we say BEGIN where we mean it
        check_same_thread=False,  # the queue's locks decide who uses it
        factory=Connection,
    )
    if is_alone():  # before the first look: after it the index is shared
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    return connection


def set_pragmas(connection: sqlite3.Connection, synchronous: str) -> None:
    """Reads the file for the first time. Raises `sqlite3.Error`."""
    # mmap_size 0: with mapped files, versions before 3.51.3 can corrupt a WAL database.
    # wal_autocheckpoint 0: checkpoints are paced by `wal.py`, on one connection.
    connection.executescript(
        f"""
        PRAGMA mmap_size=0;
        PRAGMA trusted_schema=OFF;
        PRAGMA wal_autocheckpoint=0;
        PRAGMA journal_size_limit={LOG_BYTES};
        PRAGMA synchronous={synchronous};
        PRAGMA fullfsync={1 if synchronous == "FULL" else 0};
        """
    )
