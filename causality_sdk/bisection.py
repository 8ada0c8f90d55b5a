"""Finds the events for whose sake a request fails. Pure: it sends nothing.

Neighbour: `diagnosis`, which sends what `next()` gives and says how it went. For a batch of n
events with k bad ones that are refused, the first refusal included, it takes at most
min(2k·log2(n) + k, 2n - 1) requests, and the good ones go in order. Used by one thread.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from causality_sdk.batch import NONE, size_of
from causality_sdk.queue import Row


@dataclass(slots=True)
class _Part:
    rows: Sequence[Row]
    is_left: bool = False  # the part below it on the stack is its right half
    guilty: bool = False  # its left half was good, so a bad event must be here


class Bisection:
    """The search inside one batch, from its oldest event to its newest.

    `infers`: a bad event is the only reason there can be, so that the other half of a part need not
    be asked once one half has passed. Not so where it may be the size, or chance.
    """

    def __init__(self, rows: Sequence[Row], *, infers: bool = True) -> None:
        self._parts: list[_Part] = []  # a stack: the oldest rows are on top
        self.infers = infers
        self._split(rows)
        self.witnessed = False  # the server took an event of this batch
        self.smallest_failed = size_of(rows)  # of the parts that did not pass as a whole
        self.largest_passed = NONE  # of those that did

    def next(self) -> Sequence[Row]:
        """The rows to send next; none when the search is over."""
        # A part that must hold a bad event is halved unsent: its refusal would tell nothing new.
        while self._parts and self._parts[-1].guilty and len(self._parts[-1].rows) > 1:
            self._split(self._parts.pop().rows)
        return self._parts[-1].rows if self._parts else ()

    def accepted(self) -> None:
        """The server took all that `next()` gave."""
        part = self._parts.pop()
        self.witnessed = True
        if len(part.rows) > self.largest_passed.events:
            self.largest_passed = size_of(part.rows)
        if part.is_left:
            self._parts[-1].guilty = self.infers

    def discard(self, row_id: int) -> None:
        """The server took this one in another request."""
        for at, part in enumerate(self._parts):
            rows = [row for row in part.rows if row[0] != row_id]
            if len(rows) == len(part.rows):
                continue
            self.witnessed = True
            part.rows = rows
            if not rows:
                del self._parts[at]
                # Both halves together were refused, so the fault is with the other one.
                if part.is_left:
                    self._parts[at - 1].guilty = self.infers
                elif at < len(self._parts) and self._parts[at].is_left:
                    self._parts[at].is_left = False
                    self._parts[at].guilty = self.infers
            return

    def keep(self, ids: Container[int]) -> None:
        """Of what `next()` gives only these are still queued."""
        part = self._parts[-1]
        part.rows = [row for row in part.rows if row[0] in ids]
        if not part.rows:
            self._parts.pop()

    def answered(self, *, witnessed: bool) -> None:
        """The server spoke of each event that `next()` gave by itself: no more is to be learnt.

        `witnessed`: it accepted one of them.
        """
        self._parts.pop()
        self.witnessed |= witnessed

    def refused(self) -> None:
        """What `next()` gave did not pass. A single event is then found, and done with."""
        part = self._parts.pop()
        if len(part.rows) > 1:
            if len(part.rows) < self.smallest_failed.events:
                self.smallest_failed = size_of(part.rows)
            self._split(part.rows)

    def _split(self, rows: Sequence[Row]) -> None:
        middle = len(rows) // 2
        self._parts.append(_Part(rows[middle:]))
        if middle:
            self._parts.append(_Part(rows[:middle], is_left=True))
