"""Chooses the event to ask with while a server refuses everything: the newest of another kind.

Neighbour: `courier`. One thread. If it passes, the fault was with the events that were refused; if
it does not either, the fault is the server's, and nothing is buried.
"""

from __future__ import annotations

import orjson

from causality_sdk.queue import Queue, Row
from causality_sdk.suspects import Suspects

LOOK = 100  # of the newest rows are looked at


class Scout:
    """Looks for an event that the server has not refused yet."""

    def __init__(self, queue: Queue, suspects: Suspects) -> None:
        self._queue = queue
        self._suspects = suspects

    def choose(self) -> Row | None:
        """The newest event that is no suspect, of a type without suspects if there is one."""
        fresh: Row | None = None
        suspected: set[object] = set()
        candidates: list[tuple[object, Row]] = []
        for row in self._queue.newest(LOOK):
            kind = _type(row[1])
            if row[0] in self._suspects:
                suspected.add(kind)
            else:
                fresh = fresh or row
                candidates.append((kind, row))
        return next((row for kind, row in candidates if kind not in suspected), fresh)


def _type(payload: bytes) -> object:
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return document.get("event_type") if isinstance(document, dict) else None
