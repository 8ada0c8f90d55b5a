"""What is read from a queue file: its rows, its state, and which rows were read already.

Neighbour: `queue_reader`. Nothing is opened here.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, NamedTuple

from causality_sdk.counters import Counters
from causality_sdk.dead_letters import DeadLetter
from causality_sdk.destination import Destination


class Stored(NamedTuple):
    """One row that waits."""

    id: int
    payload: bytes
    sound: bool
    """Whether its checksum is right."""


class Snapshot(NamedTuple):
    """The state of a file at one moment."""

    file_uuid: str
    created_ms: int
    destination: Destination
    counters: Counters
    tracked: int
    pending: int
    pending_bytes: int
    oldest: bytes | None
    """Payload of the first row."""
    letters: int
    last_letter: DeadLetter | None


class Ids:
    """Those that were given, in runs: there may be a million."""

    def __init__(self) -> None:
        self.last = self.highest = self.count = 0
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, row_id: int) -> None:
        """One more; mostly the next."""
        self.last, self.highest, self.count = row_id, max(row_id, self.highest), self.count + 1
        if self._ends and row_id == self._ends[-1] + 1:
            self._ends[-1] = row_id
        elif not self._ends or row_id > self._ends[-1]:
            self._starts.append(row_id)
            self._ends.append(row_id)
        # One below the others comes from a page that SQLite did not find, and but once.

    def __contains__(self, row_id: int) -> bool:
        at = bisect_right(self._starts, row_id) - 1
        return at >= 0 and row_id <= self._ends[at]


def letter_of(row: tuple[Any, ...]) -> DeadLetter:
    """Of a row: id, payload, buried_ms, attempts, status, reason."""
    return DeadLetter(row[0], bytes_of(row[1]), *row[2:])


def bytes_of(payload: object) -> bytes:
    """A payload as bytes: a person's UPDATE can make text of it."""
    return payload if isinstance(payload, bytes) else str(payload).encode()
