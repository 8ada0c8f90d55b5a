"""Builds a fresh queue file from what is good in a damaged one.

Neighbours: `pages` reads the damaged file, `recognition` tells what its rows are, `schema` lays out
the fresh one; `repair` puts that in place. Invariant: every event whose row is in the file and
passes its CRC is in the fresh one, in the order of ids and under its id; the residual is 0.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from causality_sdk import connections, counters, possession, quarantine, recognition, schema
from causality_sdk.counters import Counters
from causality_sdk.forking import OPENING
from causality_sdk.pages import PAGE, Pages
from causality_sdk.recognition import State
from causality_sdk.schema import Destination

INSERT_ROWS = 500  # rows in memory at once, of at most max_event_bytes each
_WILD = 1 << 32  # so much above its neighbour no id can be: its bytes are wrong


class Known(NamedTuple):
    """What the process that had the file open knows of it better than its bytes."""

    counters: Counters
    last_id: int


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What is in the fresh file."""

    events: int
    dead_letters: int
    lost: int
    """Events that should have been queued and were not found; now counted as corrupt."""
    counted: bool
    """False: the counters could not be read. They begin anew with what was found."""


@dataclass(slots=True)
class _Found:
    """The survey of a damaged file. Pages are remembered, not rows: there may be many."""

    leaves: list[tuple[int, int, int, bytes | None]] = field(default_factory=list)
    """Of the queue: its lowest id, its place in the survey, its number; its bytes if unsound."""
    state: State | None = None
    letters: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    adopted: dict[str, int] = field(default_factory=dict)


def build(
    damaged: Path, target: Path, destination: Destination, known: Known | None = None
) -> Salvaged:
    """Writes what is good in `damaged` and its log to a new file at `target`, synced.

    The fresh file is meant for the destination that the damaged one had, or for `destination` if
    that cannot be read. Raises `sqlite3.Error` and `OSError` for the place of the target; a target
    that is not complete is for nobody then.
    """
    discard(target)
    with Pages(damaged, quarantine.beside(damaged, "-wal")) as pages, OPENING:
        found = _survey(pages)
        if found.state is not None:
            destination = Destination(*found.state.destination)
        possession.make_file(target)
        with closing(connections.connect(target)) as connection:
            schema.prepare_connection(connection, target, destination, schema.load_migrations)
            # Nobody needs the half of it: a crash discards it, and one sync at the end is enough.
            for pragma in ("journal_mode=OFF", "synchronous=OFF"):
                connection.execute(f"PRAGMA {pragma}").fetchone()
            connection.execute("BEGIN")
            salvaged = _fill(connection, pages, found, known)
            connection.execute("COMMIT")
            schema.keep_log(connection)
    sync_file(target)
    return salvaged


class Remains:
    """What can be read of a damaged file, as it lies there. Nothing is written. Raises `OSError`.

    A context manager. No connection of this process may have the file open: see `header`.
    """

    def __init__(self, path: Path) -> None:
        self._pages = Pages(path, quarantine.beside(path, "-wal"))
        self._found = _survey(self._pages)
        state = self._found.state
        self.destination = None if state is None else Destination(*state.destination)
        """None if it cannot be read."""
        self._counters = _counters(self._pages, state)

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """The events whose row passes its CRC: id and payload, by id."""
        last_id = 0 if self._counters is None else self._counters.mark
        return _rows(self._pages, self._found, last_id)

    def letters(self) -> list[tuple[Any, ...]]:
        """The dead letters: id, payload, buried_ms, attempts, status, reason; by id."""
        return [(row_id, *letter[1:]) for row_id, letter in sorted(self._found.letters.items())]

    def lost(self, events: int, last_id: int) -> int | None:
        """How many should be queued beside the `events` up to `last_id`; None: not known."""
        if self._counters is None:
            return None
        return max(0, max(last_id, self._counters.mark) - self._counters.removed - events)

    def __enter__(self) -> Remains:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._pages.__exit__()


def discard(target: Path) -> None:
    """Removes what a build before has left."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        quarantine.beside(target, suffix).unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Makes a file that nobody has open survive a power cut. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _survey(pages: Pages) -> _Found:
    found = _Found()
    for place, (number, page, is_sound) in enumerate(pages.leaves()):
        for row_id, values in pages.records(number, page):
            if recognition.event(values) is not None:
                lowest = min(pages.row_ids(number, page))
                found.leaves.append((lowest, place, number, None if is_sound else page))
                break
            letter = recognition.dead_letter(values)
            if letter is not None:
                found.letters.setdefault(row_id, letter)
            note = recognition.adopted(values)
            if note is not None:
                found.adopted.setdefault(*note)
            state = recognition.state(values, len(counters.COLUMNS))
            # Of two versions the one with the higher mark is the newer.
            if state is not None and (found.state is None or state.counters > found.state.counters):
                found.state = state
    found.leaves.sort()
    return found


def _rows(pages: Pages, found: _Found, last_id: int) -> Iterator[tuple[int, bytes]]:
    """Every event once, by id. Those whose id cannot be right come last, with new ids."""
    waiting: dict[int, bytes] = {}
    stray: list[bytes] = []
    for lowest, _, number, page in found.leaves:
        for row_id in sorted(waiting):
            if row_id >= lowest:
                break
            yield row_id, waiting.pop(row_id)
        for record in pages.records(number, pages.page(number) if page is None else page):
            row = recognition.row_of(record)
            if row is None:
                continue
            if row[0] < 1 or waiting.get(row[0], row[1]) != row[1]:
                stray.append(row[1])
            else:
                waiting[row[0]] = row[1]
    highest = last_id
    for row_id in sorted(waiting):
        if row_id > highest + _WILD:
            stray.append(waiting[row_id])
        else:
            highest = max(highest, row_id)
            yield row_id, waiting[row_id]
    for number, payload in enumerate(stray, highest + 1):
        yield number, payload


def _fill(
    connection: sqlite3.Connection, pages: Pages, found: _Found, known: Known | None
) -> Salvaged:
    before = _counters(pages, found.state) if known is None else known.counters
    state = Counters() if before is None else before.copy()
    last_id = max(state.mark, 0 if known is None else known.last_id)
    first, highest, events, size = _copy_rows(
        connection, _rows(pages, found, last_id), state.removed_bytes
    )
    last_id = max(last_id, highest)
    connection.executemany(
        "INSERT INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(row_id, *letter) for row_id, letter in sorted(found.letters.items())],
    )
    connection.executemany("INSERT INTO adopted VALUES (?, ?)", sorted(found.adopted.items()))
    counted = before is not None and _reconcile(state, last_id, events)
    if not counted:
        base = state.removed_bytes
        state = _begin_anew(first, last_id, events, len(found.letters))
        connection.execute("UPDATE queue SET total = total - ?", (base,))
    state.mark, state.mark_total = last_id, state.removed_bytes + size
    counters.store_locked(connection, state)
    if found.state is not None:
        connection.execute(
            "UPDATE state SET file_uuid = ?, created_ms = ?, heir = ?",
            (found.state.file_uuid, found.state.created_ms, found.state.heir),
        )
    lost = state.evicted_corrupt - (before.evicted_corrupt if before and counted else 0)
    return Salvaged(events, len(found.letters), lost, counted)


def _counters(pages: Pages, state: State | None) -> Counters | None:
    """Those of the state row, if they can be right: what is queued must fit into the file."""
    if state is None:
        return None
    read = Counters(*state.counters)
    queued, queued_bytes = read.mark - read.removed, read.mark_total - read.removed_bytes
    most = pages.count * PAGE
    if 0 <= queued <= most and 0 <= queued_bytes <= most:
        return read
    return None


def _copy_rows(
    connection: sqlite3.Connection, rows: Iterator[tuple[int, bytes]], total: int
) -> tuple[int, int, int, int]:
    """Gives the first and the last id, the number of events and their bytes."""
    first = last = events = size = 0
    while part := list(islice(rows, INSERT_ROWS)):
        ready = []
        for last, payload in part:
            first = first or last
            size += len(payload)
            ready.append((last, total + size, crc32(payload), payload))
        events += len(ready)
        connection.executemany("INSERT INTO queue VALUES (?, ?, ?, ?)", ready)
    return first, last, events, size


def _reconcile(state: Counters, last_id: int, events: int) -> bool:
    """Makes the counters agree with the events that were found; False if they cannot be right."""
    missing = last_id - state.removed - events
    if missing >= 0:
        state.evicted_corrupt += missing
        return True
    # Rows whose removal was counted and is undone by the damage: they will be sent again.
    if state.acknowledged < -missing:
        return False
    state.acknowledged += missing
    return True


def _begin_anew(first: int, last_id: int, events: int, letters: int) -> Counters:
    """Counters for a file whose own cannot be read: of its past nothing is claimed.

    Ids that are missing in between were events. What came before is unknown: it is taken out of
    the reckoning as what was put back is, so that `tracked` begins anew.
    """
    state = Counters()
    state.evicted_corrupt = last_id - first + 1 - events if events else 0
    state.buried = min(letters, last_id - state.evicted_corrupt - events)
    state.requeued = last_id - state.evicted_corrupt - events - state.buried
    return state
