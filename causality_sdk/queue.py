"""Durable FIFO of opaque bytes. A row leaves only by ack, eviction or burial, each counted.

Neighbours: `schema` opens the file, `counters` is its state row, `wal` keeps its log short. The
client appends from any thread, the sender peeks and settles. Invariant: an id that `append` gave
out is committed, and is never used again.

Locks: `_lock` is held for every write transaction, by whichever connection. `_writer` is used only
with it held, `_reader` only by the one thread that peeks and settles. What is kept in memory is a
copy of what the file says; where the two may differ, `_torn` says so and the file wins.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

from causality_sdk import counters, schema, wal
from causality_sdk.counters import Counters
from causality_sdk.errors import QueueError, QueueFull

SLICE_ROWS = 100  # peeked or removed at once, so that track() never waits long for the lock
TRANSACTION_BYTES = 8 * 1024 * 1024  # of payloads in one commit, and
TRANSACTION_COST = 15 * 1024 * 1024  # of log for it; half if as much must be evicted
EVICT_ROWS = 100  # evicted at once: one by one costs twice as much per event
ROOM_CHECK_BYTES = 1024 * 1024  # appended between two looks at the size of the file
FILE_SLACK_BYTES = 8 * 1024 * 1024  # of pages above max_queue_bytes before payloads must make room
CORRUPT_ROWS_KEPT = 1000
CORRUPT_BYTES_KEPT = 4 * 1024 * 1024
_ID_MAX = 2**63 - 1

Row: TypeAlias = tuple[int, bytes]
"""Id and payload."""

_INSERT = "INSERT INTO queue (id, total, crc, payload) VALUES (?, ?, ?, ?)"
_PEEK = "SELECT id, payload, crc FROM queue WHERE id > ? ORDER BY id LIMIT ?"
_DELETE_RANGE = "DELETE FROM queue WHERE id BETWEEN ? AND ?"
_OLDEST = "SELECT id, length(payload) FROM queue WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
_TRIM_CORRUPT = """
    DELETE FROM corrupt_rows WHERE id NOT IN (
        SELECT id FROM (
            SELECT id, sum(length(payload)) OVER (ORDER BY id DESC) AS size
            FROM corrupt_rows ORDER BY id DESC LIMIT ?
        ) WHERE size <= ?
    )
"""


class PartlyWritten(QueueError):
    """`append_many` committed the first `written` of the events before the disk refused."""

    written = 0


class Queue:
    """The queue in one file that the caller owns. Prepared by `schema.prepare` beforehand.

    `busy_seconds`: how long a write waits for another program that has locked the file. Every
    method may raise `QueueError`; what was not committed then is as if never called.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_events: int,
        max_bytes: int,
        reject: bool = False,
        power_safe: bool = False,
        clock: Callable[[], float] = time.monotonic,
        busy_seconds: float = schema.BUSY_SECONDS,
    ) -> None:
        self.path = path
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._reject = reject
        self._lock = threading.Lock()
        self._guard = _Guard(self)
        self.log_trouble: QueueError | None = None  # set by append, reported by the sender
        self._in_flight = (0, 0)  # ids first to last that must not be evicted
        self._room = max_bytes  # payload bytes that fit; less than max_bytes where pages are wasted
        # A slice of a peek holds it, and the checkpoint that must not meet a reader. A database in
        # memory has one connection only: there peeking takes the lock itself.
        memory = path == schema.MEMORY
        self._reading: AbstractContextManager[object] = self._lock if memory else threading.Lock()
        self.wal = wal.Wal(path, self._lock, nullcontext() if memory else self._reading, clock)
        try:
            self._writer = schema.connect(
                path, synchronous="FULL" if power_safe else "NORMAL", busy_seconds=busy_seconds
            )
        except sqlite3.Error as error:
            raise self._trouble("opened", error) from error
        self._reader = self._writer
        try:
            if memory:
                schema.prepare_connection(self._writer, path, schema.Destination("", "", ""))
            else:
                self._reader = schema.connect(path, busy_seconds=busy_seconds)
            with self._lock:
                self._reload_locked()
                self._check_room_locked()
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
        self._room_checked_at = self._last_total
        self._torn = False

    # ---------------------------------------------------------------- what the client does

    def append(self, payload: bytes) -> int:
        """Commits one event and gives its id. Any thread.

        Raises `QueueFull` at the cap under reject; otherwise the oldest make room, counted.
        """
        size = len(payload)
        crc = crc32(payload)
        cost = wal.insert_cost(size)
        log = self.wal
        while True:
            with self._lock:
                if log.written + cost <= wal.LIMIT_BYTES or not log.is_full(cost):
                    row_id = self._append_locked(payload, size, crc, cost)
                    break
            self._relieve(cost)
        if log.is_due(sender=False):
            self._relieve()
        return row_id

    def _append_locked(self, payload: bytes, size: int, crc: int, cost: int) -> int:
        try:
            if (
                self._torn
                or self._pending >= self._max_events
                or self._pending_bytes + size > self._room
            ):
                with self._guard:
                    if self._reject:
                        self._refuse_locked(1, size)
                    self._append_many_locked([payload], cost)
                return self._last_id
            row_id = self._last_id + 1
            total = self._last_total + size
            self._writer.execute(_INSERT, (row_id, total, crc, payload))
            self._last_id = row_id
            self._last_total = total
            self._pending += 1
            self._pending_bytes += size
        except QueueError:
            raise
        except BaseException as error:
            # Whether it was committed only the file knows: a signal handler may raise in here.
            self._torn = True
            if isinstance(error, sqlite3.Error):
                raise self._trouble("written", error) from error
            raise
        self.wal.wrote_locked(cost)
        if total - self._room_checked_at > ROOM_CHECK_BYTES:
            self._check_room_locked()
        return row_id

    def append_many(self, payloads: Sequence[bytes]) -> int:
        """Commits events in order and gives the id of the last. Any thread.

        One transaction for up to 8 MiB of them (4 MiB, where rows fill a page by half or the queue
        is at its cap); what is beyond follows in further ones, and a failure there is
        `PartlyWritten`. Raises `QueueFull` under reject before anything is written.
        """
        written, last_id = 0, self._last_id
        size = sum(map(len, payloads))
        refuse = self._reject  # once, for all: other threads may fill the queue between two parts
        while written < len(payloads):
            limit = TRANSACTION_COST
            if self._over(len(payloads) - written, size) != (0, 0):
                limit //= 2
            part = _part(payloads, written, limit)
            cost = wal.bulk_cost(map(len, part))
            try:
                with self._lock, self._guard:
                    if refuse:
                        self._refuse_locked(len(payloads), size)
                        refuse = False
                    full = self.wal.is_full(2 * cost)
                    if not full:
                        self._append_many_locked(part, cost)
                        last_id = self._last_id
                        size -= sum(map(len, part))
                        written += len(part)
            except QueueFull:
                raise
            except QueueError as error:
                if not written:
                    raise
                partly = PartlyWritten(f"{error}; {written} events before were written")
                partly.written = written
                raise partly from error
            if full or self.wal.is_due(sender=False):
                self._relieve(2 * cost)
        return last_id

    def _relieve(self, cost: int = 0) -> None:
        """Checkpoints where no sender did. A failure must not raise: the event can be committed."""
        try:
            self.wal.relieve(cost)
        except sqlite3.Error as error:
            self.log_trouble = self._trouble("synced", error)

    def _append_many_locked(self, payloads: Sequence[bytes], cost: int) -> None:
        """Inserts in one transaction, and makes room for what does not fit."""
        size = sum(map(len, payloads))
        if self._over(len(payloads), size) != (0, 0) and self._seems_purged_locked():
            self._recount_locked(self._writer)
        state = self._counters.copy()
        row_id, total, rows = self._last_id, self._last_total, []
        for payload in payloads:
            row_id += 1
            total += len(payload)
            rows.append((row_id, total, crc32(payload), payload))
        with self._transaction_locked(self._writer):
            self._writer.executemany(_INSERT, rows)
            evicted = [] if self._reject else self._evict_locked(state, len(rows), size, row_id)
            if evicted:
                state.mark, state.mark_total = row_id, total
                counters.store_locked(self._writer, state)
        self._counters = state
        self._last_id, self._last_total = row_id, total
        self._pending += len(rows) - len(evicted)
        self._pending_bytes += size - sum(evicted)
        self.wal.wrote_locked(cost + (wal.bulk_cost(evicted) if evicted else 0))
        if total - self._room_checked_at > ROOM_CHECK_BYTES:
            self._check_room_locked()

    def _over(self, events: int, size: int) -> tuple[int, int]:
        """By how many events and bytes the queue would be over its cap with these more."""
        return (
            max(0, self._pending + events - self._max_events),
            max(0, self._pending_bytes + size - self._room),
        )

    def _refuse_locked(self, events: int, size: int) -> None:
        over = self._over(events, size)
        if over != (0, 0) and self._seems_purged_locked():
            self._recount_locked(self._writer)
            over = self._over(events, size)
        if over[0]:
            raise QueueFull(
                f"queue {self.path} holds {self._pending} events and max_queue_events is"
                f" {self._max_events}; raise it, or use overflow='drop_oldest'"
            )
        if over[1]:
            raise QueueFull(
                f"queue {self.path} holds {self._pending_bytes} bytes and max_queue_bytes is"
                f" {self._max_bytes}; raise it, or use overflow='drop_oldest'"
            )

    def _evict_locked(self, state: Counters, events: int, size: int, newest: int) -> list[int]:
        """Deletes the oldest rows until `events` more of `size` bytes fit. Counts into `state`.

        Never a row in flight, and never the newest: a batch as large as the cap may exceed it by
        the one event that was tracked meanwhile. Gives the sizes of what it deleted.
        """
        evicted: list[int] = []
        while True:
            over_events, over_bytes = self._over(events - len(evicted), size - sum(evicted))
            if not (over_events or over_bytes):
                break
            reason = "max_queue_events" if over_events else "max_queue_bytes"
            # A hundredth of a small queue, so that a cap of ten does not forget all ten at once.
            chunk = max(1, over_events, min(EVICT_ROWS, self._max_events // 100))
            oldest = self._oldest_locked(newest, min(chunk, EVICT_ROWS))
            if not oldest:
                break
            sizes: list[int] = []
            chunk_bytes = 0
            for _, row_bytes in oldest:
                sizes.append(row_bytes)
                chunk_bytes += row_bytes
                if not over_events and chunk_bytes >= over_bytes + self._room // 100:
                    break
            for low, high in _runs(row_id for row_id, _ in oldest[: len(sizes)]):
                self._writer.execute(_DELETE_RANGE, (low, high))
            state.add(f"evicted_{reason}", len(sizes), chunk_bytes)
            evicted += sizes
        return evicted

    def _oldest_locked(self, newest: int, limit: int) -> list[tuple[int, int]]:
        """Id and size of the oldest rows below `newest` that are not in flight."""
        first, last = self._in_flight
        # Two ranges: one query with NOT BETWEEN would walk over all that is in flight.
        rows = self._writer.execute(_OLDEST, (0, min(first, newest), limit)).fetchall()
        if len(rows) < limit:
            rows += self._writer.execute(_OLDEST, (last, newest, limit - len(rows))).fetchall()
        return rows

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

    # ---------------------------------------------------------------- the room in the file

    def _check_room_locked(self) -> None:
        """Looks at the pages in use and lowers or raises the room for payloads accordingly.

        Rows of about half a page waste the other half, so payload bytes alone would let the file
        grow to twice the cap.
        """
        self._room_checked_at = self._last_total
        try:
            pages, free, page_size = (
                self._writer.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        except sqlite3.Error:
            return  # the event is committed, so this must not raise; the next write will
        used = (pages - free) * page_size
        excess = used - self._max_bytes - FILE_SLACK_BYTES
        if excess > 0:
            self._room = max(0, self._pending_bytes * (used - excess) // used)
        else:
            self._room = min(self._max_bytes, self._room + 2 * ROOM_CHECK_BYTES)

    # ---------------------------------------------------------------- what the sender does

    def peek(self, after: int, *, max_events: int, max_bytes: int) -> list[Row]:
        """The oldest rows with an id above `after`, in order: as many as fit, but at least one.

        A row whose CRC is wrong is set aside, counted as corrupt, and not among them.
        """
        rows: list[Row] = []
        size = 0
        while len(rows) < max_events:
            wanted = min(SLICE_ROWS, max_events - len(rows))
            try:
                with self._reading:
                    found = self._reader.execute(_PEEK, (after, wanted)).fetchall()
            except sqlite3.Error as error:
                raise self._trouble("read", error) from error
            for row_id, payload, crc in found:
                after = row_id
                if not _is_sound(payload, crc):
                    self._set_aside(row_id, payload, crc)
                    continue
                size += len(payload)
                if size > max_bytes and rows:
                    return rows
                rows.append((row_id, payload))
            if len(found) < wanted:
                break
        return rows

    def take(self, after: int, *, max_events: int, max_bytes: int) -> list[Row]:
        """`peek`, and marks these rows as in flight until the next `take` or `give_back`."""
        with self._lock:
            self._in_flight = (after + 1, _ID_MAX)  # nothing may vanish while we look
        rows: list[Row] = []
        try:
            rows = self.peek(after, max_events=max_events, max_bytes=max_bytes)
            if not rows and (self._pending or self._pending_bytes):
                self._account_for_purged()
            return rows
        finally:
            with self._lock:
                self._in_flight = (rows[0][0], rows[-1][0]) if rows else (0, 0)

    def _account_for_purged(self) -> None:
        with self._lock, self._guard:
            if self._seems_purged_locked():
                self._recount_locked(self._writer)

    def give_back(self) -> None:
        """No row is in flight any more."""
        with self._lock:
            self._in_flight = (0, 0)

    def settle(self, rows: Sequence[Row]) -> int:
        """Deletes rows that the server acknowledged, in slices; gives the number really deleted.

        After a `QueueError` it may be called again with the same rows.
        """
        return self._remove(rows, "acknowledged")

    def _remove(self, rows: Sequence[Row], name: str) -> int:
        removed = 0
        remaining = iter(rows)
        while part := list(islice(remaining, SLICE_ROWS)):
            with self._lock, self._guard:
                removed += self._remove_slice_locked(part, name)
        return removed

    def _remove_slice_locked(self, rows: Sequence[Row], name: str) -> int:
        state = self._counters.copy()
        with self._transaction_locked(self._reader):
            gone: Sequence[Row] = rows
            deleted = sum(
                self._reader.execute(_DELETE_RANGE, run).rowcount
                for run in _runs(row_id for row_id, _ in rows)
            )
            if deleted != len(rows):
                # Once more, row by row: which ones were there decides what is counted.
                self._reader.execute("ROLLBACK")
                self._reader.execute("BEGIN IMMEDIATE")
                gone = [
                    row
                    for row in rows
                    if self._reader.execute(_DELETE_RANGE, (row[0], row[0])).rowcount
                ]
            size = sum(len(payload) for _, payload in gone)
            pending, pending_bytes = self._pending - len(gone), self._pending_bytes - size
            state.add(name, len(gone), size)
            state.mark, state.mark_total = self._last_id, self._last_total
            if deleted != len(rows):
                # Another program deleted them, or an earlier call that failed half-way did.
                self._purge_missing_locked(self._reader, state, pending, pending_bytes)
            counters.store_locked(self._reader, state)
        self._counters = state
        self._pending = self._last_id - state.removed
        self._pending_bytes = self._last_total - state.removed_bytes
        self.wal.wrote_locked(wal.bulk_cost(len(payload) for _, payload in gone))
        return len(gone)

    def _set_aside(self, row_id: int, payload: object, crc: object) -> None:
        """Moves a corrupt row out of the way. Its size may be wrong, its count is not."""
        with self._lock, self._guard:
            state = self._counters.copy()
            with self._transaction_locked(self._reader):
                # Its own length cannot be believed; the running totals around it can.
                totals = self._reader.execute(
                    "SELECT total, (SELECT total FROM queue WHERE id = ? - 1),"
                    " length(CAST(payload AS BLOB)) FROM queue WHERE id = ?",
                    (row_id, row_id),
                ).fetchone()
                if totals is None:
                    return  # evicted since it was read
                self._reader.execute(_DELETE_RANGE, (row_id, row_id))
                self._reader.execute(
                    "INSERT OR REPLACE INTO corrupt_rows VALUES (?, ?, ?, ?)",
                    (row_id, crc, payload, time.time_ns() // 1_000_000),
                )
                self._reader.execute(_TRIM_CORRUPT, (CORRUPT_ROWS_KEPT, CORRUPT_BYTES_KEPT))
                size = _difference(*totals)
                state.add("evicted_corrupt", 1, size)
                state.mark, state.mark_total = self._last_id, self._last_total
                counters.store_locked(self._reader, state)
            self._counters = state
            self._pending -= 1
            self._pending_bytes -= size
            self.wal.wrote_locked(wal.bulk_cost([totals[2]] * 3))

    def newest(self, limit: int) -> list[Row]:
        """Up to `limit` of the newest rows, newest first; those with a wrong CRC left out."""
        rows = self.read("SELECT id, payload, crc FROM queue ORDER BY id DESC LIMIT ?", (limit,))
        return [(row[0], row[1]) for row in rows if _is_sound(row[1], row[2])]

    # ---------------------------------------------------------------- for both

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a short query. Any thread."""
        with self._lock:
            try:
                return self._writer.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._trouble("read", error) from error

    def change(self, work: Callable[[Change], int]) -> int:
        """Runs `work` in one transaction, with the counters it changes. Any thread.

        For what neither appends nor settles: dead letters, and purges. Gives what `work` gives.
        """
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

    def checkpoint(self) -> bool:
        """Syncs and shortens the log. Any thread. False if a foreign reader is in the way."""
        try:
            return self.wal.checkpoint()
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
        self.connection.execute(_INSERT, (self.last_id, self.last_total, crc32(payload), payload))


class _Guard:
    """Around what changes file and memory: whatever ends it early, the file is believed next time.

    With the lock held. A signal handler may raise between a commit and what follows it. A database
    error becomes a `QueueError`.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def __enter__(self) -> None:
        if self._queue._torn:
            try:
                self._queue._reload_locked()
            except sqlite3.Error as error:
                raise self._queue._trouble("read", error) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, QueueFull):
            self._queue._torn = True
        if isinstance(error, sqlite3.Error):
            raise self._queue._trouble("read", error) from error


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


def _difference(total: object, before: object, length: int) -> int:
    """A row's size by the running totals, if they make sense; else `length`."""
    if isinstance(total, int) and isinstance(before, int) and 0 <= total - before < 2**31:
        return total - before
    return length


def _is_sound(payload: object, crc: object) -> bool:
    # A person's UPDATE can make text of it.
    return type(payload) is bytes and crc32(payload) == crc


def _runs(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending ids as ranges first to last without holes: one DELETE each."""
    runs: list[tuple[int, int]] = []
    for row_id in ids:
        if runs and runs[-1][1] == row_id - 1:
            runs[-1] = (runs[-1][0], row_id)
        else:
            runs.append((row_id, row_id))
    return runs


def _part(payloads: Sequence[bytes], start: int, cost: int) -> Sequence[bytes]:
    """As many payloads from `start` as one transaction may write, but at least one."""
    end, size = start, 0
    while end < len(payloads) and size < TRANSACTION_BYTES:
        size += len(payloads[end])
        end += 1
    while end - start > 1 and wal.bulk_cost(map(len, payloads[start:end])) > cost:
        end -= (end - start) // 8 or 1
    return payloads[start:end]
