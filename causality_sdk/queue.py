"""Durable FIFO of opaque bytes. A row leaves only by ack, eviction or burial, each counted.

Neighbours: `schema` opens the file, `counters` is its state row, `wal` keeps its log short. The
client appends from any thread, the sender peeks and settles. Invariant: an id that `append` gave
out is committed, and is never used again.

Locks: `_lock` is held for every write transaction, by whichever connection. `_writer` is used only
with it held, `_reader` only by the one thread that peeks and settles.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import TypeAlias
from zlib import crc32

from causality_sdk import counters, schema, wal
from causality_sdk.counters import Counters
from causality_sdk.errors import QueueError, QueueFull

SLICE_ROWS = 100  # peeked or removed at once, so that track() never waits long for the lock
TRANSACTION_BYTES = 8 * 1024 * 1024  # of payloads in one commit, so that the log stays bounded
EVICT_ROWS = 100  # evicted at once: one by one costs twice as much per event
ROOM_CHECK_BYTES = 1024 * 1024  # appended between two looks at the size of the file
FILE_SLACK_BYTES = 8 * 1024 * 1024  # of pages above max_queue_bytes before payloads must make room
CORRUPT_ROWS_KEPT = 1000
_ID_MAX = 2**63 - 1

Row: TypeAlias = tuple[int, bytes]
"""Id and payload."""

_INSERT = "INSERT INTO queue (id, total, crc, payload) VALUES (?, ?, ?, ?)"
_PEEK = "SELECT id, payload, crc FROM queue WHERE id > ? ORDER BY id LIMIT ?"
_DELETE_RANGE = "DELETE FROM queue WHERE id BETWEEN ? AND ?"
_OLDEST = (
    "SELECT id, length(payload) FROM queue WHERE id NOT BETWEEN ? AND ? AND id < ?"
    " ORDER BY id LIMIT ?"
)


class Queue:
    """The queue in one file that the caller owns. Prepared by `schema.prepare` beforehand.

    Every method may raise `QueueError`; what was not committed then is as if never called.
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
    ) -> None:
        self.path = path
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._reject = reject
        self._lock = threading.Lock()
        self.wal = wal.Wal(path, self._lock, clock)
        try:
            self._writer = schema.connect(path, synchronous="FULL" if power_safe else "NORMAL")
            if path == schema.MEMORY:
                schema.prepare_connection(self._writer, path, schema.Destination("", "", ""))
                # A second connection would see another database. Peeking must not see half of a
                # transaction either, so it takes the lock here.
                self._reader = self._writer
                self._reading: AbstractContextManager[object] = self._lock
            else:
                self._reader = schema.connect(path)
                self._reading = nullcontext()
            self._counters = counters.load(self._reader)  # replaced by every removal
            last = self._reader.execute("SELECT max(id), total FROM queue").fetchone()
        except sqlite3.Error as error:
            raise self._trouble("opened", error) from error
        state = self._counters
        self._last_id, self._last_total = max(
            (state.mark, state.mark_total), (last[0] or 0, last[1] or 0)
        )
        self._pending = self._last_id - state.removed
        self._pending_bytes = self._last_total - state.removed_bytes
        self._room = max_bytes  # payload bytes that fit; less than max_bytes where pages are wasted
        self._room_checked_at = self._last_total
        self.log_trouble: QueueError | None = None  # set by append, reported by the sender
        self._in_flight = (0, 0)  # ids first to last that must not be evicted

    # ---------------------------------------------------------------- what the client does

    def append(self, payload: bytes) -> int:
        """Commits one event and gives its id. Any thread.

        Raises `QueueFull` at the cap under reject; otherwise the oldest make room, counted.
        """
        size = len(payload)
        crc = crc32(payload)
        with self._lock:
            if self._pending >= self._max_events or self._pending_bytes + size > self._room:
                self._append_at_cap_locked([payload])
                return self._last_id
            row_id = self._last_id + 1
            total = self._last_total + size
            try:
                self._writer.execute(_INSERT, (row_id, total, crc, payload))
            except sqlite3.Error as error:
                raise self._trouble("written", error) from error
            self._last_id = row_id
            self._last_total = total
            self._pending += 1
            self._pending_bytes += size
            self.wal.wrote_locked(wal.insert_cost(size))
            if total - self._room_checked_at > ROOM_CHECK_BYTES:
                self._check_room_locked()
        if self.wal.is_due(sender=False):
            self._relieve()
        return row_id

    def append_many(self, payloads: Sequence[bytes]) -> int:
        """Commits events in order and gives the id of the last. Any thread.

        One transaction for up to 8 MiB of them; what is beyond follows in further ones.
        Raises `QueueFull` under reject before anything is written.
        """
        if self._reject:
            with self._lock:
                self._refuse_locked(len(payloads), sum(map(len, payloads)))
        remaining = iter(payloads)
        while part := _part(remaining, TRANSACTION_BYTES):
            with self._lock:
                self._append_at_cap_locked(part)
                if self._last_total - self._room_checked_at > ROOM_CHECK_BYTES:
                    self._check_room_locked()
            if self.wal.is_due(sender=False):
                self._relieve()
        return self._last_id

    def _relieve(self) -> None:
        """Checkpoints where no sender did. The event is committed, so a failure must not raise."""
        try:
            self.wal.checkpoint()
        except sqlite3.Error as error:
            self.log_trouble = self._trouble("synced", error)

    def _append_at_cap_locked(self, payloads: Sequence[bytes]) -> None:
        """Inserts in one transaction, after making room for what does not fit."""
        size = sum(map(len, payloads))
        state = self._counters.copy()
        if self._reject:
            self._refuse_locked(len(payloads), size)
        row_id, total, rows = self._last_id, self._last_total, []
        for payload in payloads:
            row_id += 1
            total += len(payload)
            rows.append((row_id, total, crc32(payload), payload))
        with self._transaction_locked(self._writer):
            self._writer.executemany(_INSERT, rows)
            evicted, evicted_bytes = self._evict_locked(state, len(rows), size, row_id)
            if evicted:
                state.mark, state.mark_total = row_id, total
                counters.store_locked(self._writer, state)
        self._counters = state
        self._last_id, self._last_total = row_id, total
        self._pending += len(rows) - evicted
        self._pending_bytes += size - evicted_bytes
        self.wal.wrote_locked(
            wal.insert_cost(size + evicted_bytes) + wal.FRAME * (1 + len(rows) // 64)
        )

    def _refuse_locked(self, events: int, size: int) -> None:
        if self._pending + events > self._max_events:
            raise QueueFull(
                f"queue {self.path} holds {self._pending} events and max_queue_events is"
                f" {self._max_events}; raise it, or use overflow='drop_oldest'"
            )
        if self._pending_bytes + size > self._room:
            raise QueueFull(
                f"queue {self.path} holds {self._pending_bytes} bytes and max_queue_bytes is"
                f" {self._max_bytes}; raise it, or use overflow='drop_oldest'"
            )

    def _evict_locked(
        self, state: Counters, events: int, size: int, newest: int
    ) -> tuple[int, int]:
        """Deletes the oldest rows until `events` more of `size` bytes fit. Counts into `state`.

        Never a row in flight, and never the newest: a batch as large as the cap may exceed it by
        the one event that was tracked meanwhile.
        """
        evicted = evicted_bytes = 0
        while True:
            over_events = self._pending + events - evicted - self._max_events
            over_bytes = self._pending_bytes + size - evicted_bytes - self._room
            if over_events <= 0 and over_bytes <= 0:
                break
            reason = "max_queue_events" if over_events > 0 else "max_queue_bytes"
            # A hundredth of a small queue, so that a cap of ten does not forget all ten at once.
            chunk = max(1, over_events, min(EVICT_ROWS, self._max_events // 100))
            first, last = self._in_flight
            oldest = self._writer.execute(
                _OLDEST, (first, last, newest, min(chunk, EVICT_ROWS))
            ).fetchall()
            if not oldest:
                break
            count = chunk_bytes = 0
            for _, row_bytes in oldest:
                count += 1
                chunk_bytes += row_bytes
                if over_events <= 0 and chunk_bytes >= over_bytes + self._room // 100:
                    break
            for low, high in _runs(row_id for row_id, _ in oldest[:count]):
                self._writer.execute(_DELETE_RANGE, (low, high))
            state.add(f"evicted_{reason}", count, chunk_bytes)
            evicted += count
            evicted_bytes += chunk_bytes
        return evicted, evicted_bytes

    def _check_room_locked(self) -> None:
        """Looks at the pages in use and lowers or raises the room for payloads accordingly.

        Rows of about half a page waste the other half, so payload bytes alone would let the file
        grow to twice the cap.
        """
        self._room_checked_at = self._last_total
        pages, free, page_size = (
            self._writer.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
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
                if crc32(payload) != crc:
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
            return rows
        finally:
            with self._lock:
                self._in_flight = (rows[0][0], rows[-1][0]) if rows else (0, 0)

    def give_back(self) -> None:
        """No row is in flight any more."""
        with self._lock:
            self._in_flight = (0, 0)

    def settle(self, rows: Sequence[Row]) -> int:
        """Deletes rows that the server acknowledged, in slices; gives the number really deleted."""
        return self._remove(rows, "acknowledged")

    def _remove(self, rows: Sequence[Row], name: str) -> int:
        removed = 0
        remaining = iter(rows)
        while part := list(islice(remaining, SLICE_ROWS)):
            with self._lock:
                removed += self._remove_slice_locked(part, name)
        return removed

    def _remove_slice_locked(self, rows: Sequence[Row], name: str) -> int:
        state = self._counters.copy()
        with self._transaction_locked(self._reader):
            deleted = sum(
                self._reader.execute(_DELETE_RANGE, run).rowcount
                for run in _runs(row_id for row_id, _ in rows)
            )
            gone = _size(rows)
            state.add(name, *gone)
            if deleted != len(rows):
                self._recount_locked(state, rows, name)
            state.mark, state.mark_total = self._last_id, self._last_total
            counters.store_locked(self._reader, state)
        self._counters = state
        self._pending -= gone[0]
        self._pending_bytes -= gone[1]
        self.wal.wrote_locked(wal.insert_cost(gone[1]) + wal.FRAME)
        return deleted

    def _recount_locked(self, state: Counters, rows: Sequence[Row], name: str) -> None:
        """Counts as purged what another program deleted under us, so that the residual stays 0."""
        self._reader.execute("ROLLBACK")
        self._reader.execute("BEGIN IMMEDIATE")
        missing = [
            row
            for row in rows
            if self._reader.execute(_DELETE_RANGE, (row[0], row[0])).rowcount == 0
        ]
        events, size = _size(missing)
        state.add(name, -events, -size)
        state.add("evicted_purged", events, size)

    def _set_aside(self, row_id: int, payload: bytes, crc: int) -> None:
        """Moves a corrupt row out of the way. Its size may be wrong, its count is not."""
        with self._lock:
            state = self._counters.copy()
            # Its own length cannot be believed; the running totals around it can.
            before, total = self._reader.execute(
                "SELECT (SELECT total FROM queue WHERE id = ? - 1), total FROM queue WHERE id = ?",
                (row_id, row_id),
            ).fetchone()
            size = total - before if before is not None else len(payload)
            with self._transaction_locked(self._reader):
                self._reader.execute(_DELETE_RANGE, (row_id, row_id))
                self._reader.execute(
                    "INSERT OR REPLACE INTO corrupt_rows VALUES (?, ?, ?, ?)",
                    (row_id, crc, payload, time.time_ns() // 1_000_000),
                )
                self._reader.execute(
                    "DELETE FROM corrupt_rows WHERE id NOT IN"
                    " (SELECT id FROM corrupt_rows ORDER BY id DESC LIMIT ?)",
                    (CORRUPT_ROWS_KEPT,),
                )
                state.add("evicted_corrupt", 1, size)
                state.mark, state.mark_total = self._last_id, self._last_total
                counters.store_locked(self._reader, state)
            self._counters = state
            self._pending -= 1
            self._pending_bytes -= size
            self.wal.wrote_locked(wal.insert_cost(2 * len(payload)))

    # ---------------------------------------------------------------- for both

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
            self._reader.close()
        self.wal.close()

    def _transaction_locked(self, connection: sqlite3.Connection) -> _Transaction:
        return _Transaction(connection, self._trouble)

    def _trouble(self, verb: str, error: sqlite3.Error) -> QueueError:
        return QueueError(
            f"queue {self.path} cannot be {verb} ({error}); check the disk's free space and health"
        )


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


def _size(rows: Sequence[Row]) -> tuple[int, int]:
    return len(rows), sum(len(payload) for _, payload in rows)


def _runs(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending ids as ranges first to last without holes: one DELETE each."""
    runs: list[tuple[int, int]] = []
    for row_id in ids:
        if runs and runs[-1][1] == row_id - 1:
            runs[-1] = (runs[-1][0], row_id)
        else:
            runs.append((row_id, row_id))
    return runs


def _part(payloads: Iterable[bytes], limit: int) -> list[bytes]:
    """As many of the next payloads as have `limit` bytes, by at most one too many."""
    part: list[bytes] = []
    size = 0
    for payload in payloads:
        part.append(payload)
        size += len(payload)
        if size >= limit:
            break
    return part
