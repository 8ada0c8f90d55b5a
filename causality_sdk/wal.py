"""Keeps the write-ahead log short, and synced soon enough. Also gives free pages back to the disk.

Neighbours: `queue`, which counts what it writes here and calls `checkpoint` from the sender, or
from `track()` when no sender does it. Invariant: one connection checkpoints, and one thread at a
time; `_mutex` is always taken before the write lock, and that before the reading lock, never the
other way round.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import cast

from causality_sdk import connections
from causality_sdk.forking import Inherited, disarm, leak
from causality_sdk.wakeup import is_held_here

PAGE = 4096  # bytes; schema.py makes every file with it
FRAME = PAGE + 24  # bytes of one page in the log
SENDER_BYTES = 8 * 1024 * 1024  # of log: the sender checkpoints
TRACK_BYTES = 12 * 1024 * 1024  # of log: track() does it itself; leaves room below 16 MiB
LIMIT_BYTES = 15 * 1024 * 1024  # of log: whoever would go beyond it checkpoints first
SENDER_SECONDS = 5.0  # after the first commit that is not synced: the sender checkpoints
TRACK_SECONDS = 6.0  # the same, by track() itself: the sender is stuck, or there is none
RETRY_SECONDS = 1.0  # after a checkpoint that failed, or that somebody's open reader blocked

VACUUM_FREE_PAGES = 256  # 1 MiB may stay free, for the next burst
VACUUM_STEP_PAGES = 64  # moved with the lock held; a fraction of a millisecond

# Of SQLite's file format, section 1.6 "B-tree Pages", for pages of 4096 bytes.
_LOCAL_MAX = PAGE - 35  # bytes of a record that fit into a leaf without an overflow page
_LOCAL_MIN = (PAGE - 12) * 32 // 255 - 23  # of a longer one, at least these stay in the leaf
_OVERFLOW = PAGE - 4  # bytes of a record in one overflow page
_RECORD = 28  # bytes at most of a row beside its payload: header, id, total, CRC, cell pointer


def insert_cost(size: int) -> int:
    """Bytes of log that the insert of one payload of `size` bytes writes, too many if anything.

    The leaf; and whenever that is full a new one, its parent, the pointer map and the header or
    the list of free pages. A test holds it against the real log.
    """
    if size <= _LOCAL_MAX - _RECORD:
        return FRAME + 4 * FRAME // ((PAGE - 8) // (size + _RECORD))
    return FRAME * (6 + (size - _LOCAL_MIN) // _OVERFLOW)


def bulk_cost(sizes: Iterable[int]) -> int:
    """Bytes of log that inserting, or deleting, a run of rows in one transaction writes.

    Packs the payload sizes into leaves as SQLite does. Too many if anything.
    """
    pages, used = 4, PAGE  # 4: parent, pointer map, header or free list, state row
    for size in sizes:
        record = size + _RECORD
        if record > _LOCAL_MAX:
            overflow, rest = divmod(record - _LOCAL_MIN, _OVERFLOW)
            pages += overflow + (rest > 0)
            record = min(_LOCAL_MIN + rest + _RECORD, _LOCAL_MAX)
        used += record
        if used > PAGE - 8:
            pages += 1
            used = record
    return (pages + pages // 64) * FRAME


class Wal:
    """The log of one queue file. What it counts is guarded by the queue's write lock.

    `reading` is what the queue holds while it reads without the write lock: the log cannot start
    over under a reader. `let_go_locked` ends the snapshot that another connection keeps.
    """

    def __init__(
        self,
        path: Path,
        write_lock: AbstractContextManager[object],
        reading: AbstractContextManager[object],
        clock: Callable[[], float],
        let_go_locked: Callable[[], None],
    ) -> None:
        self._path = path
        self._let_go_locked = let_go_locked
        self._write_lock = write_lock
        self._reading = reading
        self._clock = clock
        self._mutex = threading.RLock()  # held for a whole checkpoint
        self._connection: sqlite3.Connection | None = None  # guarded by _mutex
        self._closed = False  # guarded by _mutex
        self._is_shared = False  # the connection is the one that all use; guarded by _mutex
        self.written = 0  # bytes since the log last started over, estimated
        self.dirty_since: float | None = None  # clock at the first commit that is not synced
        self.track_at = math.inf  # clock at which track() checkpoints, unless the sender did
        self._hold_until = -math.inf  # clock before which no checkpoint is tried again
        self._frames = self._synced_frames = 0  # in the log; and when it was synced; by _mutex
        self.on_pressure: Callable[[], object] | None = None  # wakes the sender; set once
        self._pressed = False  # on_pressure was called since the log last started over

    def wrote_locked(self, cost: int) -> None:
        """Counts a commit."""
        self.written += cost
        if self.dirty_since is None:
            self.dirty_since = self._clock()
            self.track_at = self.dirty_since + TRACK_SECONDS
        if self.written >= SENDER_BYTES and not self._pressed:
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
        # The very sum of due_at(): a difference may be less by a rounding, and it would spin.
        return (self.written >= size or now >= since + seconds) and now >= self._hold_until

    def is_full(self, cost: int) -> bool:
        """Whether the log must start over before a commit of `cost` bytes; no while it cannot."""
        if self.written + cost <= LIMIT_BYTES:
            return False
        return self.written > 0 and self._clock() >= self._hold_until

    def due_at(self) -> float | None:
        """The clock's time at which the sender must checkpoint, or None while all is synced."""
        since = self.dirty_since
        if since is None:
            return None
        due = since if self.written >= SENDER_BYTES else since + SENDER_SECONDS
        return max(due, self._hold_until)

    def checkpoint(self) -> bool:
        """Syncs the log, moves it into the database and lets it start over.

        Any thread, no lock held. False if another program's open read transaction kept it from
        starting over; it is synced all the same. Raises `sqlite3.Error` when the disk refuses. Does
        nothing after `close()`.
        """
        with self._mutex:
            return self._checkpoint()

    def relieve(self, cost: int) -> None:
        """`checkpoint()` for `track()`, unless another thread just did it; waits for that one.

        `cost` is of the commit that waits for it. Raises `sqlite3.Error`.
        """
        # Waiting is the point: while the log moves, threads that went on would outgrow the disk.
        with self._mutex:
            if self.is_full(cost) or self.is_due(sender=False):
                self._checkpoint()

    def _checkpoint(self) -> bool:
        if self._closed:
            return True  # the file may be another process's by now
        hold_until = self._clock() + RETRY_SECONDS
        try:
            connection = self._connected()
            # Most of it with nobody held up. It never lets a busy writer's log start over. Twice:
            # what came during the first pass would be synced with the lock held.
            for _ in range(0 if self._is_shared else 2):
                with self._write_lock:
                    self._let_go_locked()  # it would not move what was written since
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            with self._write_lock, self._reading:
                busy = self._restart_locked(connection)
                frames = self._frames
            if busy and (frames < 0 or frames != self._synced_frames):
                # Somebody's open reader pins it, maybe for hours: what SQLite cannot move it
                # does not sync, either.
                self._sync()
            self._synced_frames = frames if busy else 0
        except BaseException:
            self._hold_until = hold_until
            raise
        self._hold_until = hold_until if busy else -math.inf
        return not busy

    def _sync(self) -> None:
        """Syncs the log where it lies. Raises `sqlite3.Error`."""
        try:
            # SQLite has no lock on this file that a close could drop.
            descriptor = os.open(f"{self._path}-wal", os.O_RDWR | getattr(os, "O_BINARY", 0))
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return  # it was deleted, or moved away: found out by others
        except OSError as error:
            raise sqlite3.OperationalError(f"its log cannot be synced: {error}") from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            # No waiting: our own readers are kept away, and a person may read for hours.
            made = connections.connect(self._path, busy_seconds=0)
            self._keep(made)
        assert self._connection is not None  # noqa: S101 - for mypy
        return self._connection

    def _keep(self, made: sqlite3.Connection) -> None:
        if self._connection is None:
            self._connection = made
        else:  # a signal handler forked while it was made: this is the child, and no file of ours
            disarm(made)
            leak(made)

    def _restart_locked(self, connection: sqlite3.Connection) -> bool:
        """Moves the tail; True if the log cannot start over."""
        self._let_go_locked()
        busy, frames, moved = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        self._frames = frames
        # -1 is of a database without a log (in memory), or of one that another program is just
        # moving: then nothing is known.
        if frames == moved and (frames >= 0 or not busy):
            self._synced_locked()
        if not busy:
            self.written = 0
        elif frames >= 0:
            self.written = frames * FRAME  # the real length, since the estimate would only grow
        self._pressed = False
        return bool(busy)

    def _synced_locked(self) -> None:
        self.dirty_since = None
        self.track_at = math.inf

    def empty(self) -> bool:
        """Moves everything into the database and cuts the log to nothing, before the file goes.

        False if another program's open read transaction kept it from that. Raises `sqlite3.Error`.
        """
        with self._mutex:
            connection = self._connected()
            with self._write_lock, self._reading:
                self._let_go_locked()
                busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                if not busy:
                    self.written = 0
                    self._synced_locked()
        return not busy

    def vacuum_step(self) -> bool:
        """Gives up to `VACUUM_STEP_PAGES` free pages back; True if there is more to give back.

        Stops while the log is long: it must start over first.

        Any thread, no lock held. The file itself shrinks at the next checkpoint.
        """
        with self._mutex, self._write_lock:
            if self._connection is None:
                return False  # closed, or nothing was checkpointed yet, so nothing can be freed
            free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
            cost = (2 * VACUUM_STEP_PAGES + 8) * FRAME  # each page, and the one that points to it
            if free <= VACUUM_FREE_PAGES or self.is_full(cost):
                return False
            self._let_go_locked()
            # Not execute(): on Python 3.11 it ends this statement after the first page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_STEP_PAGES})")
            self.wrote_locked(cost)
            return bool(free - VACUUM_STEP_PAGES > VACUUM_FREE_PAGES)

    @property
    def is_entered_here(self) -> bool:
        """Whether this very thread is in the middle of a checkpoint."""
        return is_held_here(self._mutex)

    def share(self, connection: sqlite3.Connection) -> None:
        """Checkpoints with this connection, which others use with the write lock held."""
        self._connection, self._is_shared = connection, True

    @contextmanager
    def held(self) -> Iterator[None]:
        """No checkpoint is under way, and none begins. Before any other lock is taken."""
        with self._mutex:
            yield

    def detach(self) -> sqlite3.Connection | None:
        """Never touches the file again before `attach`; gives its connection. With `held`."""
        connection, self._connection, self._closed = self._connection, None, True
        return connection

    def reattach(self, connection: sqlite3.Connection | None) -> None:
        """Goes on with the connection of before. With `held`."""
        self._connection, self._closed = connection, False

    def attach(self, path: Path) -> None:
        """Goes on with the file at `path`, whose log is empty. With `held` and the write lock."""
        self._path, self._connection, self._closed = path, None, False
        self._is_shared = False
        self.written, self.dirty_since, self._hold_until = 0, None, -math.inf
        self._synced_frames = 0
        self._pressed = False

    def hold(self) -> None:
        """Waits for a checkpoint under way, and keeps the next from beginning. For a fork."""
        self._mutex.acquire()

    def let_go(self) -> None:
        """The opposite of `hold`."""
        self._mutex.release()

    def leave_to_parent(self) -> None:
        """In a forked child: never touches the file again. With `hold`."""
        if self._connection is not None:
            disarm(self._connection)
            leak(self._connection)
        self._connection = cast("sqlite3.Connection", Inherited())
        self._closed = True

    def close(self) -> None:
        """Closes the checkpointing connection. May be called twice."""
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._closed = True
