"""Chooses the event to ask with, while it is open whose fault a failure is.

Neighbour: `diagnosis`. One thread. If the scout passes, the fault was with the events that failed;
if it does not either, the fault is the server's, and nothing counts against anybody.
"""

from __future__ import annotations

from collections.abc import Container

import orjson

from causality_sdk.queue import Queue, Row
from causality_sdk.suspects import Suspects

LOOK = 100  # of the newest rows are looked at


class Scout:
    """Looks for an event that has not failed yet, as far from those in question as there is one."""

    def __init__(self, queue: Queue, suspects: Suspects) -> None:
        self._queue = queue
        self._suspects = suspects
        self._failed: set[int] = (
            set()
        )  # scouts that did not pass either, of this question or before

    def choose(self, question: Container[int] = ()) -> Row | None:
        """The newest event that is no suspect: of a type without suspects and from elsewhere.

        `question`: ids of the events that failed. One of them is better than nobody.
        """
        suspected: set[object] = set()
        candidates: list[tuple[object, Row]] = []
        for row in self._queue.newest(LOOK):
            kind = _type(row[1])
            if row[0] in self._suspects:
                suspected.add(kind)
            else:
                candidates.append((kind, row))
        self._failed.intersection_update(row[0] for _, row in candidates)
        if len(self._failed) == len(candidates):
            self._failed.clear()  # each had its turn: begin anew
        best = min(
            candidates,
            key=lambda one: (
                one[1][0] in self._failed,
                one[1][0] in question,
                one[0] in suspected,
                -one[1][0],
            ),
            default=None,
        )
        return None if best is None else best[1]

    def failed(self, row_id: int) -> None:
        """This scout did not pass. The next one is another, in case it is to blame itself."""
        self._failed.add(row_id)

    def has_failed(self, row_id: int) -> bool:
        """Whether this one did not pass before, and others have not all failed since."""
        return row_id in self._failed


def _type(payload: bytes) -> object:
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return document.get("event_type") if isinstance(document, dict) else None
