"""What `track()` does with a queue file: commit, and make room for it under the cap.

Neighbours: `queue_file` below it, `queue` above it. Any thread. Invariant: an id that `append` gave
out is committed and never used again; a row in flight is never evicted.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from itertools import accumulate, islice
from pathlib import Path
from zlib import crc32

from causality_sdk import connections, counters, wal
from causality_sdk.counters import Counters
from causality_sdk.errors import QueueError, QueueFull
from causality_sdk.group_commit import GroupCommit, Ticket
from causality_sdk.queue_file import QueueFile
from causality_sdk.runs import runs
from causality_sdk.snapshot import is_in_the_way
from causality_sdk.transactions import INSERT

TRANSACTION_BYTES = 8 * 1024 * 1024  # of payloads in one commit, and
TRANSACTION_COST = 15 * 1024 * 1024  # of log for it; half if as much must be evicted
EVICT_ROWS = 100  # evicted at once: one by one costs twice as much per event
ROOM_CHECK_BYTES = 1024 * 1024  # appended between two looks at the size of the file
FILE_SLACK_BYTES = 8 * 1024 * 1024  # of pages above max_queue_bytes before payloads must make room

_DELETE_RANGE = "DELETE FROM queue WHERE id BETWEEN ? AND ?"
_OLDEST = "SELECT id, length(payload) FROM queue WHERE id > ? AND id < ? ORDER BY id LIMIT ?"


class Intake(QueueFile):
    """A queue file that takes events, up to `max_events` and `max_bytes`.

    Beyond them it evicts the oldest, or refuses with `QueueFull` if `reject`.
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
        busy_seconds: float = connections.BUSY_SECONDS,
    ) -> None:
        super().__init__(path, power_safe=power_safe, clock=clock, busy_seconds=busy_seconds)
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._reject = reject
        self._clock = clock
        self._in_flight = (0, 0)  # ids first to last that must not be evicted; set by the sender
        # Where a commit costs an fsync, threads share it.
        self._group = (
            GroupCommit(self._commit_group, max_bytes=TRANSACTION_BYTES // 4)
            if power_safe
            else None
        )
        self._room = max_bytes  # payload bytes that fit; less than max_bytes where pages are wasted
        with self._lock:
            self._check_room_locked()

    @property
    def cap_in_events(self) -> float:
        """Events that the queue can hold, were all as large as those in it. Any thread, no lock."""
        pending, size = self._pending, self._pending_bytes
        if pending <= 0 or size <= 0:
            return self._max_events
        return min(self._max_events, self._max_bytes * pending / size)

    def append(self, payload: bytes) -> int:
        """Commits one event and gives its id. Any thread.

        Raises `QueueFull` at the cap under reject; otherwise the oldest make room, counted.
        """
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined]
            raise self._reentered()
        if self._group is not None:
            if self._group.is_led_here:
                raise self._reentered()
            return self._group.append(payload)
        size = len(payload)
        crc = crc32(payload)
        cost = wal.insert_cost(size)
        log = self.wal
        while True:
            with lock:
                if log.written + cost <= wal.LIMIT_BYTES or not log.is_full(cost):
                    row_id = self._append_locked(payload, size, crc, cost)
                    break
            self._relieve(cost)
        # What is_due() would say no to, it is not asked: a call costs more than both compares.
        if (log.written >= wal.TRACK_BYTES or self._clock() >= log.track_at) and log.is_due(
            sender=False
        ):
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
            if not self._snapshot.is_kept:
                self._snapshot.keep()
            try:
                self._insert(INSERT, (row_id, total, crc, payload))
            except sqlite3.OperationalError as error:
                if not is_in_the_way(error):
                    raise
                self._snapshot.let_go()
                self._insert(INSERT, (row_id, total, crc, payload))
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

    @property
    def is_entered_here(self) -> bool:
        """As for the file; and whether this thread commits for others."""
        return super().is_entered_here or (self._group is not None and self._group.is_led_here)

    def _commit_group(self, tickets: Sequence[Ticket]) -> None:
        """Commits them in one transaction. Whom the cap refuses gets its `QueueFull`."""
        cost = wal.bulk_cost(len(ticket.payload) for ticket in tickets)
        try:
            full = True
            while full:
                self._check_reentry()
                with self._lock, self._guard:
                    full = self.wal.is_full(2 * cost)
                    if not full:
                        self._append_tickets_locked(tickets, cost)
                if full or self.wal.is_due(sender=False):
                    self._relieve(2 * cost)
        except QueueError as error:
            _fill_in(tickets, error)
        except BaseException:
            _fill_in(tickets, self._interrupted())
            raise

    def _append_tickets_locked(self, tickets: Sequence[Ticket], cost: int) -> None:
        accepted: list[Ticket] = []
        size = 0
        for ticket in tickets:
            try:
                if self._reject:
                    self._refuse_locked(len(accepted) + 1, size + len(ticket.payload))
            except QueueFull as refusal:
                ticket.error = refusal
                continue
            accepted.append(ticket)
            size += len(ticket.payload)
        if accepted:
            self._append_many_locked([ticket.payload for ticket in accepted], cost)
            for row_id, ticket in enumerate(accepted, self._last_id - len(accepted) + 1):
                ticket.row_id = row_id

    def append_many(self, payloads: Sequence[bytes]) -> int:
        """Commits events in order and gives the id of the last. Any thread.

        One transaction for up to 8 MiB of them (4 MiB, where rows fill a page by half or the queue
        is at its cap); what is beyond follows in further ones, and a failure there is
        a `QueueError` with `written`. Raises `QueueFull` under reject before anything is written.
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
                self._check_reentry()
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
                partly = QueueError(f"{error}; {written} events before were written")
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
        row_id, total = self._last_id + len(payloads), self._last_total + size
        ids = range(self._last_id + 1, row_id + 1)
        totals = islice(accumulate(map(len, payloads), initial=self._last_total), 1, None)
        with self._transaction_locked(self._writer):
            rows = zip(ids, totals, map(crc32, payloads), payloads, strict=True)
            self._writer.executemany(INSERT, rows)
            evicted = [] if self._reject else self._evict_locked(state, len(ids), size, row_id)
            if evicted:
                state.mark, state.mark_total = row_id, total
                counters.store_locked(self._writer, state)
        self._counters = state
        self._last_id, self._last_total = row_id, total
        self._pending += len(ids) - len(evicted)
        self._pending_bytes += size - sum(evicted)
        self.wal.wrote_locked(cost + (wal.bulk_cost(evicted) if evicted else 0))
        if total - self._room_checked_at > ROOM_CHECK_BYTES:
            self._check_room_locked()

    # ---------------------------------------------------------------- the cap

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
            for low, high in runs([row_id for row_id, _ in oldest[: len(sizes)]]):
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


def _fill_in(tickets: Sequence[Ticket], error: QueueError) -> None:
    """Whoever waits must go on, whatever happened to its leader."""
    for ticket in tickets:
        if not ticket.is_done:
            ticket.error = error


def _part(payloads: Sequence[bytes], start: int, cost: int) -> Sequence[bytes]:
    """As many payloads from `start` as one transaction may write, but at least one."""
    end, size = start, 0
    while end < len(payloads) and size < TRANSACTION_BYTES:
        size += len(payloads[end])
        end += 1
    while end - start > 1 and wal.bulk_cost(map(len, payloads[start:end])) > cost:
        end -= (end - start) // 8 or 1
    return payloads[start:end]
