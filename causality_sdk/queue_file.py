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
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from zlib import crc32

from causality_sdk import connections, counters, schema, wal
from causality_sdk.counters import Counters
from causality_sdk.damage import is_damage
from causality_sdk.detached import Away, Detached, identity
from causality_sdk.errors import QueueError
from causality_sdk.forking import (
    OPENING,
    Inherited,
    disarm,
    leak,
    note_inherited,
    register_queue,
)
from causality_sdk.snapshot import Snapshot
from causality_sdk.transactions import Change, Guard, Transaction
from causality_sdk.wakeup import is_held_here

if TYPE_CHECKING:
    from causality_sdk.repair import Repair

Row: TypeAlias = tuple[int, bytes]
"""Id and payload."""


class Reentered(QueueError):
    """A signal handler, or a destructor, wanted to write while its own thread was writing."""


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
        self._guard = Guard(self)
        self.log_trouble: QueueError | None = None  # set by append, reported by the sender
        self.damage: str | None = None  # what is wrong with the file's bytes; mended by the sender
        self.repair: Repair | None = None  # what became of the file before; told by the sender
        self._identity: tuple[object, object] = (None, None)  # of the files that are open
        self._is_open = False  # a fork copies what is open
        self._is_inherited = False  # in the child of a fork, for good
        self._power_safe = power_safe
        self._busy_seconds = busy_seconds
        # A slice of a peek holds it, and the checkpoint that must not meet a reader. A database in
        # memory has one connection only: there peeking takes the lock itself.
        self.is_alone = False  # the disk has no room for more than one connection
        memory = path == connections.MEMORY or connections.is_alone()
        self._reading = self._lock if memory else threading.RLock()
        reading = nullcontext() if memory else self._reading
        self.wal = wal.Wal(path, self._lock, reading, clock, self._let_go_locked)
        with OPENING:
            self._open()
            if self.is_alone:
                self.wal.share(self._writer)
            register_queue(self)

    def _open(self) -> None:
        path = self.path
        self._is_open = True
        self.is_alone = connections.is_alone()
        try:
            writer = connections.connect(
                path,
                synchronous="FULL" if self._power_safe else "NORMAL",
                busy_seconds=self._busy_seconds,
            )
        except sqlite3.Error as error:
            raise self._trouble("opened", error) from error
        self._use(writer, writer)
        try:
            if path == connections.MEMORY:
                schema.prepare_connection(self._writer, path, schema.Destination("", "", ""))
            elif not self.is_alone:
                self._reader = connections.connect(path, busy_seconds=self._busy_seconds)
            with self._lock:
                self._reload_locked()
                if self._seems_purged_locked():
                    with suppress(QueueError) if self.is_alone else nullcontext():
                        self._recount_locked(self._writer)
            if path != connections.MEMORY:
                with suppress(OSError):  # after the first read, which makes the log
                    self._identity = identity(path)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise self._trouble("opened", error) from error
            raise

    def _use(self, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self._writer, self._reader = writer, reader
        # One cursor for life: Connection.execute() would make another for every event.
        self._insert = writer.cursor().execute
        self._snapshot = Snapshot(writer)

    def _let_go_locked(self) -> None:
        self._snapshot.let_go()

    def _reload_locked(self) -> None:
        """Makes what is in memory what is in the file."""
        self._snapshot.let_go()
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
            self._snapshot.let_go()
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
        self._check_reentry()
        with self._lock, self._guard:
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
        self._snapshot.let_go()
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

    def hurry(self, seconds: float) -> bool:
        """From now on a write waits `seconds` at most for another program. Any thread.

        False if a thread is in the middle of a write for that long. For the end of the client.
        """
        if not self._lock.acquire(timeout=max(0.0, seconds)):
            return False
        try:
            milliseconds = int(1000 * max(0.0, min(seconds, self._busy_seconds)))
            with self._reading, suppress(sqlite3.Error):  # of a file that is being mended
                for connection in (self._writer, self._reader):
                    connection.execute(f"PRAGMA busy_timeout={milliseconds}")
        finally:
            self._lock.release()
        return True

    def close(self) -> None:
        """Closes the file; the last connection moves the log into it. May be called twice."""
        with self._lock:
            self._snapshot.let_go()  # Python would keep the file open for a statement under way
            with suppress(sqlite3.ProgrammingError):  # closed before
                # And a cursor whose statement failed, as on a full disk, for as long as it lives.
                self._use(self._writer, self._reader)
            self._writer.close()
            if self._reader is not self._writer:
                with self._reading:
                    self._reader.close()
        self.wal.close()
        self._is_open = False

    # ---------------------------------------------------------------- another file

    def in_place(self) -> tuple[bool, bool]:
        """Whether the database, and its log, lie where they were opened. Two stats; any thread."""
        if self.path == connections.MEMORY:
            return True, True
        try:
            database, log = identity(self.path)
        except OSError:  # who may not look does not know
            return True, True
        return database == self._identity[0], log == self._identity[1]

    def detach(self) -> Detached:
        """Takes the connections out of use: until `attach`, everything here is a `QueueError`.

        The caller closes them, or gives them back. With `OPENING` held, on the thread that peeks.
        """
        with self.wal.held(), self._lock, self._reading:
            self._snapshot.let_go()
            detached = Detached(self._writer, self._reader, self.wal.detach())
            away = cast("sqlite3.Connection", Away())
            self._use(away, away)
        return detached

    def reattach(self, detached: Detached) -> None:
        """Goes on with the connections of before."""
        with self.wal.held(), self._lock, self._reading:
            self._use(detached.writer, detached.reader)
            self.wal.reattach(detached.checkpointer)

    def attach(self, path: Path) -> None:
        """Goes on with the file at `path`, which is prepared and ours. With `OPENING` held.

        It must hold the ids that were given out, or a mark above them.
        """
        with self.wal.held(), self._lock, self._reading:
            self.path = path
            try:
                self._open()
            except BaseException:
                away = cast("sqlite3.Connection", Away())
                self._use(away, away)
                raise
            self.wal.attach(path)
            if self.is_alone:
                self.wal.share(self._writer)
            self.damage = None

    def distrust(self) -> None:
        """Reads the counters anew: another process may have had the file. Any thread."""
        with self._lock, self._guard:
            self._reload_locked()

    def known(self) -> tuple[Counters, int]:
        """Counters and the last id, as of the last commit. Any thread."""
        with self._lock:
            return self._counters.copy(), self._last_id

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
        if self._is_open:
            note_inherited(self.path)
        self._is_inherited = True
        for connection in {self._writer, self._reader}:
            disarm(connection)
            leak(connection)
        leak(self._insert)
        leak(self._snapshot)
        inherited = cast("sqlite3.Connection", Inherited())
        self._use(inherited, inherited)
        self.wal.leave_to_parent()
        self.let_go_after_fork()

    @property
    def is_entered_here(self) -> bool:
        """Whether this very thread is in the middle of something that others wait for.

        True only in a signal handler or a destructor: Python runs those between any two
        instructions of their thread.
        """
        locks = (self._lock, self._reading)
        return any(is_held_here(lock) for lock in locks) or self.wal.is_entered_here

    def _check_reentry(self) -> None:
        """Raises `Reentered` where a second write would come into the middle of the first.

        Beside the lock, not inside of a class around both: a handler that raises between the
        acquire and the end of an `__enter__` in Python would leave the lock held for ever.
        """
        if is_held_here(self._lock):
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

    def _transaction_locked(self, connection: sqlite3.Connection) -> Transaction:
        self._snapshot.let_go()
        return Transaction(connection, self._trouble)

    def _trouble(self, verb: str, error: sqlite3.Error) -> QueueError:
        if self._is_inherited:  # before anything else: its file is not damaged
            return QueueError(
                f"queue {self.path} belongs to the process that forked this one, in a signal"
                " handler that interrupted a call; that process finishes the call. Track again:"
                " this process has a queue of its own then"
            )
        if is_damage(error):
            self.damage = str(error)
        fix = "check the disk's free space and health"
        if "locked" in str(error):
            fix = "another program has it open in a transaction: end that, or close that program"
        return QueueError(f"queue {self.path} cannot be {verb} ({error}); {fix}")


def are_sound(rows: Sequence[tuple[int, Any, Any]]) -> bool:
    """Whether all of these are: id, payload and CRC of each. Cheaper than one by one."""
    try:
        return [crc32(payload) for _, payload, _ in rows] == [crc for _, _, crc in rows]
    except TypeError:  # text
        return False


def is_sound(payload: object, crc: object) -> bool:
    """Whether a row is what was written."""
    # A person's UPDATE can make text of it.
    return type(payload) is bytes and crc32(payload) == crc
