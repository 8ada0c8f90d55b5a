"""Refusals that count against an event, and those that count against nobody. Pure bookkeeping.

A refusal counts only with a witness: the server accepted another event in the same answer, in the
same bisection, or later. Without one the fault may as well be the server's: a schema change, a
broker that is away. After three counted refusals the event is to be buried, unless requests fail
so often by chance that its refusals say nothing.

Neighbour: `diagnosis`, which reports refusals and acceptances in the order they happen. One thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from causality_sdk.chance import Chance

COUNTED_TO_BURY = 3


@dataclass(slots=True)
class Suspect:
    """An event that was refused."""

    attempts: int = 0
    """Refusals, with and without a witness."""
    counted: int = 0
    """Refusals with a witness."""
    status: int | None = None
    """HTTP status of the last refusal; None where no answer came."""
    words: str = ""


class Suspects:
    """The refused events by id."""

    def __init__(self, chance: Chance | None = None) -> None:
        self._chance = Chance() if chance is None else chance
        self._by_id: dict[int, Suspect] = {}
        self._waiting: set[int] = set()  # ids of those whose last refusal waits for a witness
        # The same, where the server may as well have been away: only as long as nothing else fails.
        self._between: set[int] = set()
        self._is_well = False  # the last request with anything else passed
        self._doomed: set[int] = set()  # ids of those with enough counted refusals
        self.alone: set[int] = set()  # ids of those that fail what goes with them

    def refused(
        self,
        row_id: int,
        *,
        status: int | None,
        words: str,
        witnessed: bool,
        waits: bool = True,
        times: int = 1,
    ) -> None:
        """The server refused this event by itself; so many times in a row, which count as one.

        `waits`: an event that is accepted later is a witness. Not where the server may be away:
        then it takes one before and one after it, and nothing else that failed in between.
        """
        suspect = self._by_id.setdefault(row_id, Suspect())
        suspect.attempts += times
        suspect.status = status
        suspect.words = words
        if witnessed:
            self._count(row_id)
            self._waiting.discard(row_id)
            self._between.discard(row_id)
        elif waits:
            # However often it was refused while nothing passed, that is one refusal: a broker that
            # was away for a day must not use up all three at the moment it comes back.
            self._waiting.add(row_id)
        elif self._is_well:
            self._between.add(row_id)

    def isolate(self, row_id: int) -> None:
        """This event fails the whole request it is in; it goes alone from now on."""
        self.alone.add(row_id)

    def witness(self) -> None:
        """The server accepted an event: the refusals before it were not the server's fault."""
        for row_id in self._waiting | self._between:
            self._count(row_id)
        self._waiting.clear()
        self._between.clear()
        self._is_well = True

    def doubt(self) -> None:
        """A request with other events failed, too: the server may have been away."""
        self._between.clear()
        self._is_well = False

    def forget(self, ids: Iterable[int]) -> int:
        """These were accepted after all, or left the queue. Gives the refusals they had."""
        if not self._by_id:
            return 0  # the usual case, for each of a thousand events
        refusals = 0
        for row_id in ids:
            suspect = self._by_id.pop(row_id, None)
            if suspect is not None:
                refusals += suspect.attempts
                self._waiting.discard(row_id)
                self._between.discard(row_id)
                self._doomed.discard(row_id)
                self.alone.discard(row_id)
        return refusals

    def forget_below(self, row_id: int) -> None:
        """Whatever is older has left the queue, evicted perhaps."""
        if self._by_id:
            self.forget([gone for gone in self._by_id if gone < row_id])

    def doomed(self) -> dict[int, Suspect]:
        """Those to be buried now."""
        found = ((row_id, self._by_id[row_id]) for row_id in sorted(self._doomed))
        return {
            row_id: suspect
            for row_id, suspect in found
            if not self._chance.explains(suspect.attempts)
        }

    def attempts(self, row_id: int) -> int:
        """How often this event was refused."""
        suspect = self._by_id.get(row_id)
        return 0 if suspect is None else suspect.attempts

    def _count(self, row_id: int) -> None:
        suspect = self._by_id[row_id]
        suspect.counted += 1
        if suspect.counted >= COUNTED_TO_BURY:
            self._doomed.add(row_id)

    def __contains__(self, row_id: int) -> bool:
        return row_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)
