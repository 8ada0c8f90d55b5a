"""Durable FIFO of opaque bytes. A row leaves only by ack, eviction or burial, each counted.

Neighbours: `intake` appends and evicts, from any thread; what is here is for the one thread that
sends: peek, take, settle. Invariant: a row is removed by `settle` only, or set aside as corrupt
when its CRC is wrong.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Container, Sequence
from typing import Any

from causality_sdk import counters, wal
from causality_sdk.intake import Intake
from causality_sdk.queue_file import Row, are_sound, is_sound
from causality_sdk.runs import runs
from causality_sdk.transactions import Change

__all__ = ["Change", "Queue", "Row"]

SLICE_ROWS = 250  # peeked or removed at once, so that track() never waits long for the lock
BREATH_SECONDS = 50e-6  # after a slice, if threads track meanwhile; about what it takes to wake one
CORRUPT_ROWS_KEPT = 1000
CORRUPT_BYTES_KEPT = 4 * 1024 * 1024
_ID_MAX = 2**63 - 1

_PEEK = "SELECT id, payload, crc FROM queue WHERE id > ? ORDER BY id LIMIT ?"
_IDS = "SELECT id FROM queue WHERE id BETWEEN ? AND ?"
_DELETE_RANGE = "DELETE FROM queue WHERE id BETWEEN ? AND ?"
_TRIM_CORRUPT = """
    DELETE FROM corrupt_rows WHERE id NOT IN (
        SELECT id FROM (
            SELECT id, sum(length(payload)) OVER (ORDER BY id DESC) AS size
            FROM corrupt_rows ORDER BY id DESC LIMIT ?
        ) WHERE size <= ?
    )
"""


class Queue(Intake):
    """The queue in one file that the caller owns. Prepared by `schema.prepare` beforehand."""

    _breathed_at = 0  # the newest id at that time; the sender's
    _kept: tuple[int, int] | None = None  # ids first to last; the sender's

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
            self._breathe()
            if not found:
                break
            after = found[-1][0]
            sound = self._sound(found)
            size += sum(len(payload) for _, payload in sound)
            rows += sound
            if size > max_bytes:
                return _fitting(rows, max_bytes)
            if len(found) < wanted:
                break
        return rows

    def _sound(self, found: Sequence[tuple[int, Any, Any]]) -> list[Row]:
        """What can be sent of rows with their CRC; the others are set aside."""
        if are_sound(found):
            return [(row_id, payload) for row_id, payload, _ in found]
        rows: list[Row] = []
        for row_id, payload, crc in found:
            if is_sound(payload, crc):
                rows.append((row_id, payload))
            else:
                self._set_aside(row_id, payload, crc)
        return rows

    def take(
        self, after: int, *, max_events: int, max_bytes: int, alone: Container[int] = ()
    ) -> list[Row]:
        """`peek`, and marks these rows as in flight until the next `take` or `give_back`.

        An id in `alone` is taken by itself, and ends what is taken before it.
        """
        with self._lock:
            self._in_flight = (after + 1, _ID_MAX)  # nothing may vanish while we look
        rows: list[Row] = []
        try:
            rows = self.peek(after, max_events=max_events, max_bytes=max_bytes)
            if alone:
                rows = _until_alone(rows, alone)
            if not rows and (self._pending or self._pending_bytes):
                self._account_for_purged()
            return rows
        finally:
            with self._lock:
                self._in_flight = self._flying(rows)

    def _account_for_purged(self) -> None:
        self._check_reentry()
        with self._lock, self._guard:
            if self._seems_purged_locked():
                self._recount_locked(self._writer)

    def hold(self, rows: Sequence[Row]) -> list[Row]:
        """Those of `rows`, read before, that are still queued; in flight as after a `take`."""
        first, last = rows[0][0], rows[-1][0]
        with self._lock:
            self._in_flight = self._flying(rows)
        try:
            with self._reading:
                found = self._reader.execute(_IDS, (first, last)).fetchall()
        except sqlite3.Error as error:
            raise self._trouble("read", error) from error
        if len(found) == last - first + 1 == len(rows):  # nearly always
            return list(rows)
        present = {row_id for (row_id,) in found}
        return [row for row in rows if row[0] in present]

    def give_back(self) -> None:
        """No row is in flight any more."""
        with self._lock:
            self._in_flight = self._flying(())

    def keep(self, rows: Sequence[Row]) -> None:
        """These are acknowledged and could not be removed: not to be evicted, and counted so.

        Nor is what lies between them and what is in flight. None: all was removed.
        """
        with self._lock:
            self._kept = (rows[0][0], rows[-1][0]) if rows else None
            self._in_flight = self._flying(())

    def _flying(self, rows: Sequence[Row]) -> tuple[int, int]:
        if not rows:
            return self._kept or (0, 0)
        first, last = rows[0][0], rows[-1][0]
        if self._kept is None:
            return first, last
        return min(first, self._kept[0]), max(last, self._kept[1])

    def settle(self, rows: Sequence[Row]) -> int:
        """Deletes rows that the server acknowledged, in slices; gives the number really deleted.

        After a `QueueError` it may be called again with the same rows.
        """
        return self._remove(rows, "acknowledged")

    def _remove(self, rows: Sequence[Row], name: str) -> int:
        removed = 0
        for start in range(0, len(rows), SLICE_ROWS):
            self._check_reentry()
            with self._lock, self._guard:
                removed += self._remove_slice_locked(rows[start : start + SLICE_ROWS], name)
            self._breathe()
        return removed

    def _breathe(self) -> None:
        """Lets threads in that track, if there are any.

        Letting go of a lock is not enough, be it ours or the interpreter's: this thread has it
        again before another one has woken up, slice after slice, for up to 5 ms.
        """
        newest = self._last_id
        if newest != self._breathed_at:
            self._breathed_at = newest
            time.sleep(BREATH_SECONDS)

    def _remove_slice_locked(self, rows: Sequence[Row], name: str) -> int:
        state = self._counters.copy()
        with self._transaction_locked(self._reader):
            gone: Sequence[Row] = rows
            deleted = sum(
                self._reader.execute(_DELETE_RANGE, run).rowcount
                for run in runs([row_id for row_id, _ in rows])
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
            sizes = [len(payload) for _, payload in gone]
            size = sum(sizes)
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
        self.wal.wrote_locked(wal.bulk_cost(sizes))
        return len(gone)

    def _set_aside(self, row_id: int, payload: object, crc: object) -> None:
        """Moves a corrupt row out of the way. Its size may be wrong, its count is not."""
        self._check_reentry()
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


def _until_alone(rows: list[Row], alone: Container[int]) -> list[Row]:
    """The first row if it goes alone, else all before the first that does."""
    for at, (row_id, _) in enumerate(rows):
        if row_id in alone:
            return rows[: at or 1]
    return rows


def _fitting(rows: Sequence[Row], max_bytes: int) -> list[Row]:
    """The first of `rows` whose payloads fit, but at least one."""
    size, count = 0, 0
    for _, payload in rows:
        size += len(payload)
        if size > max_bytes:
            break
        count += 1
    return list(rows[: count or 1])


def _difference(total: object, before: object, length: int) -> int:
    """A row's size by the running totals, if they make sense; else `length`."""
    if isinstance(total, int) and isinstance(before, int) and 0 <= total - before < 2**31:
        return total - before
    return length
