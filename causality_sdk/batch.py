"""How large the next batch may be, in events and bytes. Pure: no clock, no I/O.

Neighbours: `diagnosis` asks before each batch, and tells how it ended. One thread.

Success doubles it, up to the limits: a backlog goes in large batches and a trickle in small ones.
After a time without any connection the next one is small, so that a server that has just come back
is asked gently. A size that is too large sets a ceiling: the server said so (413), or a batch
failed as a whole and passed in parts. That may have been a mistake, or the server may have been
mended; so after some batches twice the ceiling is tried, and later if that does not pass either.

A failure by itself says nothing about the size. Where it is a limit in requests, or one replica of
several that is broken, smaller batches only need more of them.
"""

from __future__ import annotations

PATIENCE = 10  # batches at the ceiling before a larger one is tried
MOST_PATIENCE = 320


class BatchLimit:
    """The limit of the next batch. Starts at `start` events."""

    def __init__(self, start: int, most_events: int, most_bytes: int) -> None:
        self._start = min(start, most_events)
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._ceiling_events = most_events  # learned from the server
        self._ceiling_bytes = most_bytes
        self._at_ceiling = 0  # batches since the ceiling was set
        self._patience = PATIENCE
        self._is_trial = False  # the ceiling was doubled, and nothing that large has passed yet
        self._events = self._start

    @property
    def events(self) -> int:
        """Events the next batch may hold."""
        return min(self._events, self._ceiling_events)

    @property
    def bytes(self) -> int:
        """Bytes of payload the next batch may hold; one event may always go."""
        return self._ceiling_bytes

    def succeeded(self) -> None:
        """The server took a batch."""
        self._events = min(self._events * 2, self._most_events)
        if not self._is_lowered:
            return
        self._at_ceiling += 1
        if self._at_ceiling >= self._patience:
            if self._is_trial:
                self._patience = PATIENCE  # what was too large once is so no more
            self._at_ceiling = 0
            self._is_trial = True
            self._ceiling_events = min(self._most_events, self._ceiling_events * 2)
            self._ceiling_bytes = min(self._most_bytes, self._ceiling_bytes * 2)

    def away(self) -> None:
        """Nothing could be sent: there was no connection."""
        self._events = self._start

    def too_large(self, events: int, size: int) -> None:
        """A batch of `events` and `size` bytes is too large."""
        if events <= 1:
            return
        if self._is_trial:
            self._patience = min(self._patience * 2, MOST_PATIENCE)
        self._ceiling_events = max(1, min(self._ceiling_events, events // 2))
        self._ceiling_bytes = max(1, min(self._ceiling_bytes, size // 2))
        self._events = self._ceiling_events
        self._at_ceiling = 0
        self._is_trial = False

    @property
    def _is_lowered(self) -> bool:
        lower = self._ceiling_events < self._most_events
        return lower or self._ceiling_bytes < self._most_bytes
