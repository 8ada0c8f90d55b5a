"""One queue file that is open: its connections, its counters in memory, its transactions.

Neighbours: `schema` opens the file, `counters` is its state row, `wal` keeps its log short;
`intake` and `queue` build on it. Invariant: what is kept in memory is a copy of what the file
says; where the two may differ, `_torn` says so and the file wins.

Locks: `_lock` is held for every write transaction, by whichever connection. `_writer` is used only
with it held, `_reader` only by the one thread that peeks and settles.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast
from zlib import crc32

from causality_sdk import counters, schema, wal
from causality_sdk.counters import COUNTED, Counters
from causality_sdk.errors import QueueError, QueueFull
from causality_sdk.forking import OPENING, Inherited, leak, note_inherited, register_queue

Row: TypeAlias = tuple[int, bytes]
"""Id and payload."""


class Reentered(QueueError):
    """A signal handler, or a destructor, wanted to write while its own thread was writing."""


INSERT = "INSERT INTO queue (id, total, crc, payload) VALUES (?, ?, ?, ?)"


class QueueFile:
    """The file and what is known of it. Prepared by `schema.prepare` beforehand.

    `busy_seconds`: how long a write waits for another program that has locked the file. Every
    method may raise `QueueError`; what was not committed then is as if never called.
    """

    def __init__(
        self,
        path: Path,
        *,
        power_safe: bool,
        clock: Callable[[], float],
        busy_seconds: float,
    ) -> None:
        self.path = path
        # All of them re-entrant: a signal handler may track an event in the middle of anything.
        self._lock = threading.RLock()
        self._guard = _Guard(self)
        self._exclusive = _Exclusive(self)
        self.log_trouble: QueueError | None = None  # set by append, reported by the sender
        # A slice of a peek holds it, and the checkpoint that must not meet a reader. A database in
        # memory has one connection only: there peeking takes the lock itself.
        memory = path == schema.MEMORY
        self._reading = self._lock if memory else threading.RLock()
        self.wal = wal.Wal(path, self._lock, nullcontext() if memory else self._reading, clock)
        with OPENING:
            self._open(power_safe=power_safe, busy_seconds=busy_seconds)
            register_queue(self)

    def _open(self, *, power_safe: bool, busy_seconds: float) -> None:
        path = self.path
        try:
            self._writer = schema.connect(
                path, synchronous="FULL" if power_safe else "NORMAL", busy_seconds=busy_seconds
            )
        except sqlite3.Error as error:
            raise self._trouble("opened", error) from error
        # One cursor for life: Connection.execute() would make another for every event.
        self._insert = self._writer.cursor().execute
        self._reader = self._writer
        try:
            if path == schema.MEMORY:
                schema.prepare_connection(self._writer, path, schema.Destination("", "", ""))
            else:
                self._reader = schema.connect(path, busy_seconds=busy_seconds)
            with self._lock:
                self._reload_locked()
                if self._seems_purged_locked():
                    self._recount_locked(self._writer)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise self._trouble("opened", error) from error
            raise

    def _reload_locked(self) -> None:
        """Makes what is in memory what is in the file."""
        for connection in (self._writer, self._reader):
            if connection.in_transaction:  # interrupted between its BEGIN and its end
                connection.execute("ROLLBACK")
        state = self._counters = counters.load(self._writer)  # replaced by every removal
        last = self._writer.execute(
            "SELECT max(id), CAST(total AS INTEGER) FROM queue"  # a person may have put text there
        ).fetchone()
        self._last_id, self._last_total = max(
            (state.mark, state.mark_total), (last[0] or 0, last[1] or 0)
        )
        self._pending = self._last_id - state.removed
        self._pending_bytes = self._last_total - state.removed_bytes
        self._torn = False

    # ---------------------------------------------------------------- what is in it

    @property
    def last_id(self) -> int:
        """The id of the newest event that was ever committed; 0 for none. Any thread, no lock."""
        return self._last_id

    @property
    def pending(self) -> int:
        """Events in the queue. Any thread, no lock."""
        return self._pending

    @property
    def evicted(self) -> dict[str, int]:
        """Evicted events by reason, over the life of the file. Any thread, no lock."""
        return self._counters.evicted  # counters are replaced, never changed

    def snapshot(self) -> tuple[Counters, int, int, int]:
        """Counters, tracked, pending and pending bytes of one moment. Any thread."""
        with self._lock:
            state = self._counters
            return (
                state.copy(),
                self._last_id - state.requeued,
                self._pending,
                self._pending_bytes,
            )

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a short query. Any thread."""
        with self._lock:
            try:
                return self._writer.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._trouble("read", error) from error

    def newest(self, limit: int) -> list[Row]:
        """Up to `limit` of the newest rows, newest first; those with a wrong CRC left out."""
        rows = self.read("SELECT id, payload, crc FROM queue ORDER BY id DESC LIMIT ?", (limit,))
        return [(row[0], row[1]) for row in rows if is_sound(row[1], row[2])]

    def change(self, work: Callable[[Change], int]) -> int:
        """Runs `work` in one transaction, with the counters it changes. Any thread.

        For what neither appends nor settles: dead letters, and purges. Gives what `work` gives.
        """
        with self._exclusive:
            change = Change(self._writer, self._counters.copy(), self._last_id, self._last_total)
            with self._transaction_locked(self._writer):
                result = work(change)
                state = change.counters
                state.mark, state.mark_total = change.last_id, change.last_total
                counters.store_locked(self._writer, state)
            self._counters = state
            self._last_id, self._last_total = change.last_id, change.last_total
            self._pending = self._last_id - state.removed
            self._pending_bytes = self._last_total - state.removed_bytes
            self.wal.wrote_locked(wal.bulk_cost([change.cost]))
        return result

    # ---------------------------------------------------------------- rows that others deleted

    def _seems_purged_locked(self) -> bool:
        """Whether the counters cannot be right: another program removed rows, or damaged a total.

        Sees a hole where rows are oldest; one in the middle, when it has become the oldest. Costs
        the same however much is queued.
        """
        oldest = self._writer.execute("SELECT min(id) FROM queue").fetchone()[0]
        span = 0 if oldest is None else self._last_id - oldest + 1
        pages = self._writer.execute("PRAGMA page_count").fetchone()[0]
        most_bytes = pages * wal.PAGE if self._pending else 0
        return self._pending > span or not 0 <= self._pending_bytes <= most_bytes

    def _recount_locked(self, connection: sqlite3.Connection) -> None:
        """Counts as purged what is not there, so that the residual stays 0. Looks at every row."""
        state = self._counters.copy()
        with self._transaction_locked(connection):
            self._purge_missing_locked(connection, state, self._pending, self._pending_bytes)
            counters.store_locked(connection, state)
        self._counters = state
        self._pending = self._last_id - state.removed
        self._pending_bytes = self._last_total - state.removed_bytes
        self.wal.wrote_locked(2 * wal.FRAME)

    def _purge_missing_locked(
        self, connection: sqlite3.Connection, state: Counters, events: int, size: int
    ) -> None:
        """In a transaction: of `events` that should be queued, counts the missing as purged."""
        there, there_bytes = connection.execute(
            "SELECT count(*), coalesce(sum(length(payload)), 0) FROM queue WHERE id <= ?",
            (self._last_id,),
        ).fetchone()
        state.add("evicted_purged", events - there, size - there_bytes)
        state.mark, state.mark_total = self._last_id, self._last_total

    # ---------------------------------------------------------------- log and disk

    def checkpoint(self) -> bool:
        """Syncs and shortens the log. Any thread. False if a foreign reader is in the way."""
        try:
            return self.wal.checkpoint()
        except sqlite3.Error as error:
            raise self._trouble("synced", error) from error

    def make_room_in_log(self, cost: int) -> None:
        """Checkpoints if a commit of `cost` bytes would make the log too long. Any thread."""
        try:
            self.wal.relieve(cost)
        except sqlite3.Error as error:
            raise self._trouble("synced", error) from error

    def empty_log(self) -> bool:
        """Cuts the log to nothing. False if a foreign reader is in the way."""
        try:
            return self.wal.empty()
        except sqlite3.Error as error:
            raise self._trouble("synced", error) from error

    def vacuum_step(self) -> bool:
        """Gives some free pages back to the disk; True if there are more."""
        try:
            return self.wal.vacuum_step()
        except sqlite3.Error as error:
            raise self._trouble("shrunk", error) from error

    def close(self) -> None:
        """Closes the file; the last connection moves the log into it. May be called twice."""
        with self._lock:
            self._writer.close()
            if self._reader is not self._writer:
                with self._reading:
                    self._reader.close()
        self.wal.close()

    # ---------------------------------------------------------------- fork

    def hold_for_fork(self) -> None:
        """Takes every lock under which SQLite is called, in the order that everybody keeps."""
        self.wal.hold()
        self._lock.acquire()
        self._reading.acquire()

    def let_go_after_fork(self) -> None:
        """In the parent: goes on."""
        self._reading.release()
        self._lock.release()
        self.wal.let_go()

    def leave_to_parent(self) -> None:
        """In the child: the file, its lock and its connections are the parent's alone."""
        note_inherited(self.path)
        for connection in {self._writer, self._reader}:
            leak(connection)
        leak(self._insert)
        self._writer = self._reader = cast("sqlite3.Connection", Inherited())
        self._insert = self._writer.execute
        self.wal.leave_to_parent()
        self.let_go_after_fork()

    @property
    def is_entered_here(self) -> bool:
        """Whether this very thread is in the middle of something that others wait for.

        True only in a signal handler or a destructor: Python runs those between any two
        instructions of their thread.
        """
        # _is_owned is what threading.Condition asks a lock of one's own for.
        locks: tuple[Any, ...] = (self._lock, self._reading)
        return any(lock._is_owned() for lock in locks) or self.wal.is_entered_here

    def _check_reentry(self) -> None:
        """Raises `Reentered` where a second write would come into the middle of the first."""
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise self._reentered()

    def _reentered(self) -> Reentered:
        return Reentered(
            f"queue {self.path} is being written by this very thread, which a signal handler"
            " or a destructor interrupted; track there later, or set a flag instead"
        )

    def _interrupted(self) -> QueueError:
        return QueueError(
            f"queue {self.path}: the thread that was writing was interrupted by an exception of a"
            " signal handler; the event may have been written"
        )

    def _transaction_locked(self, connection: sqlite3.Connection) -> _Transaction:
        return _Transaction(connection, self._trouble)

    def _trouble(self, verb: str, error: sqlite3.Error) -> QueueError:
        fix = "check the disk's free space and health"
        if "locked" in str(error):
            fix = "another program has it open in a transaction: end that, or close that program"
        return QueueError(f"queue {self.path} cannot be {verb} ({error}); {fix}")


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


class _Guard:
    """Around what changes file and memory: whatever ends it early, the file is believed next time.

    With the lock held. A signal handler may raise between a commit and what follows it. A database
    error becomes a `QueueError`.
    """

    def __init__(self, file: QueueFile) -> None:
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


class _Exclusive:
    """The lock and the guard, for what takes more than one statement.

    Raises `Reentered` where the thread is in here already.
    """

    def __init__(self, file: QueueFile) -> None:
        self._file = file

    def __enter__(self) -> None:
        self._file._check_reentry()
        self._file._lock.acquire()
        try:
            self._file._guard.__enter__()
        except BaseException:
            self._file._lock.release()
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._file._guard.__exit__(kind, error, trace)
        finally:
            self._file._lock.release()


class _Transaction:
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


def is_sound(payload: object, crc: object) -> bool:
    """Whether a row is what was written."""
    # A person's UPDATE can make text of it.
    return type(payload) is bytes and crc32(payload) == crc
