"""Transactions of a queue file: around what changes the file and what is known of it in memory.

Neighbour: `queue_file`, which opens them with its lock held. Invariant: whatever ends one early,
the file is believed next time, and a database error becomes a `QueueError`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

from causality_sdk.counters import COUNTED, Counters
from causality_sdk.errors import QueueError, QueueFull

INSERT = "INSERT INTO queue (id, total, crc, payload) VALUES (?, ?, ?, ?)"


@dataclass
class Change:
    """One transaction under way, for `Queue.change`."""

    connection: sqlite3.Connection
    counters: Counters
    last_id: int
    last_total: int
    cost: int = 0
    """Bytes of payload that were moved about, roughly."""

    def append(self, payload: bytes) -> None:
        """Adds a row at the tail."""
        self.last_id += 1
        self.last_total += len(payload)
        self.cost += 2 * len(payload)
        self.connection.execute(INSERT, (self.last_id, self.last_total, crc32(payload), payload))

    def inherit(self, counters: Counters) -> None:
        """Counts what another file has counted, as if its events had gone through this one."""
        # Ids only grow: the next one is as much higher as events are counted more.
        self.last_id += counters.removed
        self.last_total += counters.removed_bytes
        for name in COUNTED:
            value = getattr(self.counters, name) + getattr(counters, name)
            setattr(self.counters, name, value)


class Guarded(Protocol):
    """What a guard needs of a queue file."""

    _torn: bool

    def _reload_locked(self) -> None: ...

    def _trouble(self, verb: str, error: sqlite3.Error) -> QueueError: ...


class Guard:
    """Around what changes file and memory: whatever ends it early, the file is believed next time.

    With the lock held. A signal handler may raise between a commit and what follows it. A database
    error becomes a `QueueError`.
    """

    def __init__(self, file: Guarded) -> None:
        self._file = file

    def __enter__(self) -> None:
        if self._file._torn:
            try:
                self._file._reload_locked()
            except sqlite3.Error as error:
                raise self._file._trouble("read", error) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, QueueFull):
            self._file._torn = True
        if isinstance(error, sqlite3.Error):
            raise self._file._trouble("read", error) from error


class Transaction:
    """BEGIN IMMEDIATE to COMMIT; a failure rolls back, and a database error is a `QueueError`.

    IMMEDIATE: a deferred BEGIN that turns into a write later fails at once, whatever the timeout.
    """

    def __init__(
        self, connection: sqlite3.Connection, trouble: Callable[[str, sqlite3.Error], QueueError]
    ) -> None:
        self._connection = connection
        self._trouble = trouble

    def __enter__(self) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise self._trouble("written", error) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error as failure:
                self._roll_back()
                raise self._trouble("written", failure) from failure
            return
        self._roll_back()
        if isinstance(error, sqlite3.Error):
            raise self._trouble("written", error) from error

    def _roll_back(self) -> None:
        # SQLite itself has rolled back after some errors, a full disk among them.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
