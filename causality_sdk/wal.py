"""Keeps the write-ahead log short, and synced soon enough. Also gives free pages back to the disk.

Neighbours: `queue`, which counts what it writes here and calls `checkpoint` from the sender, or
from `track()` when no sender does it. Invariant: one connection checkpoints, and one thread at a
time; `_mutex` is always taken before the write lock, never while holding it.
"""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from causality_sdk import schema

FRAME = 4096 + 24  # bytes of one page in the log
SENDER_BYTES = 4 * 1024 * 1024  # of log: the sender checkpoints
TRACK_BYTES = 12 * 1024 * 1024  # of log: track() does it itself; leaves room below 16 MiB
SENDER_SECONDS = 5.0  # after the first commit that is not synced: the sender checkpoints
TRACK_SECONDS = 6.0  # the same, by track() itself: the sender is stuck, or there is none
RETRY_SECONDS = 1.0  # after a checkpoint that failed, or that somebody's open reader blocked
FILE_LIMIT = 4 * 1024 * 1024  # bytes the log file keeps when it starts over

VACUUM_FREE_PAGES = 256  # 1 MiB may stay free, for the next burst
VACUUM_STEP_PAGES = 64  # moved with the lock held; a fraction of a millisecond


def insert_cost(size: int) -> int:
    """Bytes of log that the insert of a payload of `size` bytes writes, rather too many than few.

    A frame for the leaf, the payload, and now and then a new leaf with its parent, the pointer map
    and the header page: all measured, rounded up.
    """
    return FRAME + size + (3 * size if size < 4096 else 3 * FRAME)


class Wal:
    """The log of one queue file. `written` and the alarm are guarded by the queue's write lock."""

    def __init__(self, path: Path, write_lock: threading.Lock, clock: Callable[[], float]) -> None:
        self._path = path
        self._write_lock = write_lock
        self._clock = clock
        self._mutex = threading.Lock()  # held for a whole checkpoint
        self._connection: sqlite3.Connection | None = None  # guarded by _mutex
        self._written = 0  # bytes since the log last started over, estimated
        self.dirty_since: float | None = None  # clock at the first commit that is not synced
        self._hold_until = -math.inf  # clock before which no checkpoint is tried again
        self.on_pressure: Callable[[], object] | None = None  # wakes the sender; set once
        self._pressed = False  # on_pressure was called since the log last started over

    def wrote_locked(self, cost: int) -> None:
        """Counts a commit."""
        self._written += cost
        if self.dirty_since is None:
            self.dirty_since = self._clock()
        if self._written >= SENDER_BYTES and not self._pressed:
            self._pressed = True
            if self.on_pressure is not None:
                self.on_pressure()

    def is_due(self, *, sender: bool) -> bool:
        """Whether it is time to checkpoint, for the sender or for `track()`."""
        since = self.dirty_since
        if since is None:
            return False
        size, seconds = (SENDER_BYTES, SENDER_SECONDS) if sender else (TRACK_BYTES, TRACK_SECONDS)
        now = self._clock()
        return (self._written >= size or now - since >= seconds) and now >= self._hold_until

    def due_at(self) -> float | None:
        """The clock's time at which the sender must checkpoint, or None while all is synced."""
        since = self.dirty_since
        if since is None:
            return None
        due = since if self._written >= SENDER_BYTES else since + SENDER_SECONDS
        return max(due, self._hold_until)

    def checkpoint(self) -> bool:
        """Syncs the log, moves it into the database and lets it start over.

        Any thread, no lock held. False if another program's open read transaction kept it from
        starting over. Raises `sqlite3.Error` when the disk refuses.
        """
        with self._mutex:
            self._hold_until = self._clock() + RETRY_SECONDS
            if self._connection is None:
                self._connection = schema.connect(self._path)
                self._connection.execute(f"PRAGMA journal_size_limit={FILE_LIMIT}")
                # A reader is our own peek, which is over at once, or a person; wait for neither.
                self._connection.execute("PRAGMA busy_timeout=0")
            # Most of it with nobody held up. It never lets a busy writer's log start over.
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            with self._write_lock:
                busy, frames, moved = self._connection.execute(
                    "PRAGMA wal_checkpoint(RESTART)"
                ).fetchone()
                if frames == moved:  # -1 == -1 for a database in memory
                    self.dirty_since = None
                # Kept when it could not start over, so that the next commit tries again; but the
                # real length, since the estimate would only grow.
                self._written = frames * FRAME if busy else 0
                self._pressed = False
            if not busy:
                self._hold_until = -math.inf
            return not busy

    def vacuum_step(self) -> bool:
        """Gives up to `VACUUM_STEP_PAGES` free pages back; True if there is more to give back.

        Any thread, no lock held. The file itself shrinks at the next checkpoint.
        """
        with self._mutex, self._write_lock:
            if self._connection is None:
                return False  # nothing was checkpointed yet, so nothing can be freed for good
            free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
            if free <= VACUUM_FREE_PAGES:
                return False
            self._connection.execute(f"PRAGMA incremental_vacuum({VACUUM_STEP_PAGES})").fetchall()
            self.wrote_locked(4 * FRAME)
            return bool(free - VACUUM_STEP_PAGES > VACUUM_FREE_PAGES)

    def close(self) -> None:
        """Closes the checkpointing connection. May be called twice."""
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
