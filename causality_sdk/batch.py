"""How large the next batch may be, in events and bytes. Pure: no clock, no I/O.

Neighbours: the sender asks before each batch; the courier tells how it ended. One thread.

Three things move it. Success doubles it, up to the limits: a backlog goes in large batches and a
trickle in small ones. A failure makes the next one small, so that a server that has just come back
is asked gently. And a size that failed twice where a smaller one passed right after sets a ceiling,
which is remembered, and rises again slowly; once may be chance, the server may just have come back.
"""

from __future__ import annotations

STRIKES = 2
RISE_AFTER = 20  # batches at the ceiling before it is raised
RISE = 8  # by an eighth


class BatchLimit:
    """The limit of the next batch. Starts at `start` events."""

    def __init__(self, start: int, most_events: int, most_bytes: int) -> None:
        self._start = min(start, most_events)
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._ceiling_events = most_events  # learned from the server
        self._ceiling_bytes = most_bytes
        self._failed: tuple[int, int] | None = None  # events and bytes of the last failure
        self._strikes = 0  # times in a row that a smaller batch passed where a larger had failed
        self._struck = 0  # events of that larger batch
        self._at_ceiling = 0  # batches since the ceiling was set
        self._events = self._start

    @property
    def events(self) -> int:
        """Events the next batch may hold."""
        return min(self._events, self._ceiling_events)

    @property
    def bytes(self) -> int:
        """Bytes of payload the next batch may hold; one event may always go."""
        return self._ceiling_bytes

    def succeeded(self, events: int) -> None:
        """The server took a batch of `events`."""
        if self._failed is not None and events < self._failed[0]:
            self._strikes += 1
            self._struck = self._failed[0]
            if self._strikes >= STRIKES:
                self._lower(*self._failed)
        elif events >= self._struck:
            self._strikes = 0
        self._failed = None
        self._events = min(self._events * 2, self._most_events)
        self._rise()

    def failed(self, events: int, size: int, *, maybe_size: bool) -> None:
        """A batch of `events` and `size` bytes was not answered for.

        `maybe_size`: a smaller one might pass (5xx, timeout); otherwise the server was not there.
        """
        # Halved, not just small: if it is the size, the first half that passes tells how much goes.
        if maybe_size:
            self._failed = (events, size)
            self._events = max(1, events // 2)
        else:
            self._failed = None
            self._events = self._start

    def crowded(self, events: int) -> None:
        """The server said 429 to a batch of `events`: it may be more than it takes in a second.

        Nothing is learned about the size. Where nothing passes at all, there is no pace to lower
        either, so that the same batch would be refused for ever.
        """
        self._failed = None
        self._events = max(1, events // 2)

    def too_large(self, events: int, size: int) -> None:
        """The server said that a batch of `events` and `size` bytes is too large."""
        self._failed = None
        if events > 1:
            self._lower(events, size)
            self._events = self._ceiling_events

    def _lower(self, events: int, size: int) -> None:
        self._ceiling_events = max(1, min(self._ceiling_events, events // 2))
        self._ceiling_bytes = max(1, min(self._ceiling_bytes, size // 2))
        self._at_ceiling = self._strikes = 0

    def _rise(self) -> None:
        lowered = self._ceiling_events < self._most_events or self._ceiling_bytes < self._most_bytes
        self._at_ceiling = self._at_ceiling + 1 if lowered else 0
        if self._at_ceiling >= RISE_AFTER:
            self._at_ceiling = 0
            events, size = self._ceiling_events, self._ceiling_bytes
            self._ceiling_events = min(self._most_events, events + max(1, events // RISE))
            self._ceiling_bytes = min(self._most_bytes, size + max(1, size // RISE))
