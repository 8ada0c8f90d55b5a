"""How large the next batch may be, in events and bytes. Pure: no clock, no I/O.

Neighbours: `diagnosis` asks before each batch, and tells how it ended. One thread.

Success doubles it, up to the limits: a backlog goes in large batches and a trickle in small ones.
After a time without any connection the next one is small, so that a server that has just come back
is asked gently. A size that is too large sets a ceiling: the server said so (413), or a batch
failed as a whole and passed in parts. That may have been a mistake, or the server may have been
mended; so after some batches a larger one is tried, and later if that does not pass either.

A failure by itself says nothing about the size. Where it is a limit in requests, or one replica of
several that is broken, smaller batches only need more of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PATIENCE = 10  # batches at the ceiling before a larger one is tried
MOST_PATIENCE = 320
HASTE = 2  # the same where the ceiling is a guess


@dataclass(frozen=True, slots=True)
class Size:
    """Of a batch."""

    events: int
    bytes: int


NONE = Size(0, 0)


class BatchLimit:
    """The limit of the next batch. Starts at `start` events."""

    def __init__(self, start: int, most_events: int, most_bytes: int) -> None:
        self._start = min(start, most_events)
        self._most = Size(most_events, most_bytes)
        self._ceiling = self._most  # learned from the server
        self._proven = NONE  # what has passed since the ceiling was last lowered
        self._at_ceiling = 0  # batches since the ceiling was set
        self._patience = PATIENCE
        self._is_trial = False  # the ceiling was raised, and has not stood the test yet
        self._is_guess = False  # whether the ceiling is one
        self._kept: Size | None = None  # the ceiling before an attempt to find the size began
        self._events = self._start

    @property
    def events(self) -> int:
        """Events the next batch may hold."""
        return min(self._events, self._ceiling.events)

    @property
    def bytes(self) -> int:
        """Bytes of payload the next batch may hold; one event may always go."""
        return self._ceiling.bytes

    @property
    def is_lowered(self) -> bool:
        """Whether something was learned. As long as not, nobody asks for the bytes of a batch."""
        return self._ceiling != self._most

    def succeeded(self, size: Size) -> None:
        """The server took a batch of that size."""
        self._events = min(self._events * 2, self._most.events)
        self._kept = None  # found
        if not self.is_lowered:
            return
        self._proven = Size(
            max(self._proven.events, size.events), max(self._proven.bytes, size.bytes)
        )
        self._at_ceiling += 1
        if self._at_ceiling >= self._patience:
            if self._is_trial:
                self._patience = PATIENCE  # what was too large once is so no more
            self._at_ceiling = 0
            self._is_trial = True
            if self._is_guess:
                self._patience = HASTE
            # Doubled where it was a guess; else by half, since the true one was close below.
            parts = 4 if self._is_guess else 3
            self._ceiling = Size(
                min(self._most.events, self._ceiling.events * parts // 2 + 1),
                min(self._most.bytes, self._ceiling.bytes * parts // 2 + 1),
            )

    def away(self) -> None:
        """Nothing could be sent: there was no connection."""
        self._events = self._start

    def try_less(self, size: Size) -> None:
        """A batch of that size did not pass: maybe half of it does."""
        if self._kept is None:
            self._kept = self._ceiling
        was_trial = self._is_trial
        self.too_large(size)
        if not was_trial:  # it may as well have been the time
            self._patience = min(self._patience, HASTE)
            self._is_guess = True

    def restore(self) -> None:
        """It was not the size that they did not pass for."""
        if self._kept is not None:
            self._ceiling, self._kept = self._kept, None
            self._events = self._ceiling.events

    def too_large(self, size: Size, *, passed: Size = NONE) -> None:
        """A batch of that size is too large; a part of it of the size `passed` is not."""
        if size.events <= 1:
            return
        if self._is_trial:
            self._patience = min(self._patience * 4, MOST_PATIENCE)
        self._is_guess = False
        good = self._proven if self._proven.events < size.events else NONE
        self._ceiling = Size(
            max(1, min(self._ceiling.events, max(size.events // 2, passed.events, good.events))),
            max(1, min(self._ceiling.bytes, max(size.bytes // 2, passed.bytes, good.bytes))),
        )
        self._proven = good
        self._events = self._ceiling.events
        self._at_ceiling = 0
        self._is_trial = False


def size_of(rows: Sequence[tuple[int, bytes]]) -> Size:
    """Of rows as the queue gives them."""
    return Size(len(rows), sum(len(payload) for _, payload in rows))
