"""Events that were buried: refused again and again, for their own fault. Kept, counted, capped.

Neighbours: the courier buries here, people look, put back and delete through `client.dead_letters`;
`queue` does each of it in one transaction. Invariant: a letter that is deleted stays buried in the
count; one that is put back is buried no longer and goes to the tail with its key unchanged.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from zlib import crc32

import orjson

from causality_sdk.queue import Change, Queue

MAX_LETTERS = 10_000  # the oldest are deleted beyond it
MAX_BYTES = 8 * 1024 * 1024
REASON_CHARS = 500
NAME_CHARS = 200

_COLUMNS = "id, payload, buried_ms, attempts, status, reason"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One buried event, and why it was buried."""

    id: int
    payload: bytes = field(repr=False)
    buried_ms: int
    """Milliseconds since the epoch."""
    attempts: int
    """Times it was refused."""
    status: int | None
    """HTTP status of the last refusal; None where no answer came."""
    reason: str
    """The server's words, bounded."""

    @property
    def event(self) -> dict[str, Any]:
        """The event as it was tracked; empty if its bytes are no JSON object."""
        try:
            document = orjson.loads(self.payload)
        except orjson.JSONDecodeError:
            return {}
        return document if isinstance(document, dict) else {}

    @property
    def idempotency_key(self) -> str | None:
        """The key that `track()` returned."""
        key = self.event.get("idempotency_key")
        return key if isinstance(key, str) else None


class DeadLetters:
    """The dead letters of one queue file. Every method may be called from any thread, in use.

    Each may raise `QueueError`; nothing was changed then.
    """

    def __init__(self, queue: Queue | None, wake: Callable[[], None] | None = None) -> None:
        self._queue = queue  # None for a client that is disabled: it has none
        self._wake = wake  # tells the sender that the queue has grown

    def __len__(self) -> int:
        return sum(row[0] for row in self._read("SELECT count(*) FROM dead_letters"))

    def __iter__(self) -> Iterator[DeadLetter]:
        """All, oldest first, a hundred at a time; what is buried meanwhile is among them."""
        after = 0
        while letters := self.page(after=after):
            yield from letters
            after = letters[-1].id

    def page(self, *, limit: int = 100, after: int = 0) -> list[DeadLetter]:
        """Up to `limit` letters with an id above `after`, oldest first."""
        rows = self._read(
            f"SELECT {_COLUMNS} FROM dead_letters WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608
            (after, limit),
        )
        return [DeadLetter(row[0], bytes(row[1]), *row[2:]) for row in rows]

    def requeue(self, letters: Iterable[DeadLetter | int] | None = None) -> int:
        """Puts letters (or ids of them; None: all) back at the tail, keys unchanged.

        Gives the number put back. Those that are gone meanwhile are passed over.
        """
        moved = self._change(_requeue, letters)
        if moved and self._wake is not None:
            self._wake()
        return moved

    def delete(self, letters: Iterable[DeadLetter | int] | None = None) -> int:
        """Deletes letters (or ids of them; None: all) for good; gives their number."""
        return self._change(_delete, letters)

    def _read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return [] if self._queue is None else self._queue.read(query, values)

    def _change(
        self,
        work: Callable[[list[int], Change], int],
        letters: Iterable[DeadLetter | int] | None,
    ) -> int:
        if self._queue is None:
            return 0
        return sum(self._queue.change(partial(work, ids)) for ids in self._slices(letters))

    def _slices(self, letters: Iterable[DeadLetter | int] | None) -> Iterator[list[int]]:
        """Ids, a hundred at a time: `track()` must not wait for long."""
        ids = sorted(
            {letter if isinstance(letter, int) else letter.id for letter in letters}
            if letters is not None
            else {row[0] for row in self._read("SELECT id FROM dead_letters")}
        )
        for start in range(0, len(ids), 100):
            yield ids[start : start + 100]


def name_of(payload: bytes) -> str:
    """What people know an event by: its key and its type, as far as it has them."""
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        return "(without a key)"
    key, kind = document.get("idempotency_key"), document.get("event_type")
    name = str(key) if key else "(without a key)"
    return f"{name} ({kind})"[:NAME_CHARS] if kind else name[:NAME_CHARS]


def bury(
    queue: Queue, row_id: int, *, attempts: int, status: int | None, reason: str
) -> str | None:
    """Moves one row of the queue to the dead letters; gives its name, None if it is gone.

    Raises `QueueError`.
    """
    name: str | None = None

    def work(change: Change) -> int:
        connection = change.connection
        row = connection.execute("SELECT payload FROM queue WHERE id = ?", (row_id,)).fetchone()
        if row is None:
            return 0
        nonlocal name
        payload = bytes(row[0])
        name = name_of(payload)
        connection.execute("DELETE FROM queue WHERE id = ?", (row_id,))
        connection.execute(
            "INSERT INTO dead_letters (crc, payload, buried_ms, attempts, status, reason)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                crc32(payload),
                payload,
                time.time_ns() // 1_000_000,
                attempts,
                status,
                reason[:REASON_CHARS],
            ),
        )
        change.counters.add("buried", 1, len(payload))
        change.cost += 2 * len(payload)
        trim(connection)
        return 1

    queue.change(work)
    return name


def trim(connection: sqlite3.Connection) -> None:
    """Deletes the oldest beyond the cap. They stay buried in the count. In a transaction."""
    count, size = connection.execute(
        "SELECT count(*), total(length(payload)) FROM dead_letters"
    ).fetchone()
    while count > MAX_LETTERS or (size > MAX_BYTES and count > 1):
        oldest, length = connection.execute(
            "SELECT id, length(payload) FROM dead_letters ORDER BY id LIMIT 1"
        ).fetchone()
        connection.execute("DELETE FROM dead_letters WHERE id = ?", (oldest,))
        count, size = count - 1, size - length


def _requeue(ids: list[int], change: Change) -> int:
    moved = 0
    for letter_id in ids:
        row = change.connection.execute(
            "SELECT payload FROM dead_letters WHERE id = ?", (letter_id,)
        ).fetchone()
        if row is None:
            continue
        payload = bytes(row[0])
        change.connection.execute("DELETE FROM dead_letters WHERE id = ?", (letter_id,))
        change.append(payload)
        change.counters.add("buried", -1, -len(payload))
        change.counters.add("requeued", 1, len(payload))
        moved += 1
    return moved


def _delete(ids: list[int], change: Change) -> int:
    marks = ", ".join("?" * len(ids))
    cursor = change.connection.execute(
        f"DELETE FROM dead_letters WHERE id IN ({marks})",  # noqa: S608 - question marks
        ids,
    )
    change.cost += 100 * len(ids)
    return cursor.rowcount
