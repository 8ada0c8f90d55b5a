"""Refusals that count against an event, and those that count against nobody. Pure bookkeeping.

A refusal counts only with a witness: the server accepted another event in the same answer, in the
same bisection, or later. Without one the fault may as well be the server's: a schema change, a
broker that is away. After three counted refusals the event is to be buried.

Neighbour: `courier`, which reports refusals and acceptances in the order they happen. One thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

COUNTED_TO_BURY = 3


@dataclass(slots=True)
class Suspect:
    """An event that was refused."""

    attempts: int = 0
    """Refusals, with and without a witness."""
    counted: int = 0
    """Refusals with a witness."""
    status: int = 0
    words: str = ""


class Suspects:
    """The refused events by id."""

    def __init__(self) -> None:
        self._by_id: dict[int, Suspect] = {}
        self._waiting: set[int] = set()  # ids of those whose last refusal waits for a witness
        self._doomed: set[int] = set()  # ids of those with enough counted refusals

    def refused(self, row_id: int, *, status: int, words: str, witnessed: bool) -> None:
        """The server refused this event by itself."""
        suspect = self._by_id.setdefault(row_id, Suspect())
        suspect.attempts += 1
        suspect.status = status
        suspect.words = words
        if witnessed:
            self._count(row_id)
            self._waiting.discard(row_id)
        else:
            # However often it was refused while nothing passed, that is one refusal: a broker that
            # was away for a day must not use up all three at the moment it comes back.
            self._waiting.add(row_id)

    def witness(self) -> None:
        """The server accepted an event: the refusals before it were not the server's fault."""
        for row_id in self._waiting:
            self._count(row_id)
        self._waiting.clear()

    def forget(self, ids: Iterable[int]) -> None:
        """These were accepted after all, or left the queue."""
        if not self._by_id:
            return  # the usual case, for each of a thousand events
        for row_id in ids:
            if self._by_id.pop(row_id, None) is not None:
                self._waiting.discard(row_id)
                self._doomed.discard(row_id)

    def doomed(self) -> dict[int, Suspect]:
        """Those to be buried now."""
        return {row_id: self._by_id[row_id] for row_id in sorted(self._doomed)}

    def _count(self, row_id: int) -> None:
        suspect = self._by_id[row_id]
        suspect.counted += 1
        if suspect.counted >= COUNTED_TO_BURY:
            self._doomed.add(row_id)

    def __contains__(self, row_id: int) -> bool:
        return row_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)
