"""Events that the disk did not take, in memory, until it does.

Neighbours: the client puts them here when the queue refuses and writes them before anything newer;
the sender tries again in the background. Invariant: bounded; what had to be dropped is counted,
the oldest first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from causality_sdk.errors import QueueError, QueueFull
from causality_sdk.wakeup import is_held_here

MAX_EVENTS = 1000
MAX_BYTES = 4 * 1024 * 1024


class Buffer:
    """First in, first out, in front of one queue. Any thread.

    `append_many` commits payloads in order, or raises and commits none; the error may say in
    `written` how many it committed nevertheless. It may come later, with `attach`.
    """

    def __init__(self, append_many: Callable[[Sequence[bytes]], object] | None = None) -> None:
        self._append_many = append_many or _no_queue
        self._is_held_here: Callable[[], bool] = lambda: False
        # Both re-entrant: a signal handler may track an event while its thread is in here.
        self._turn = threading.RLock()  # held while writing, so that nothing overtakes
        # Guards all below. Always taken last and held for a moment only, so that a handler that
        # interrupted a write of the queue can wait for it.
        self._lock = threading.RLock()
        self._writing = False
        self._payloads: deque[bytes] = deque()
        self._bytes = 0
        self._overflowed = 0  # oldest ones dropped since the write under way began
        self.waiting = False  # whether anything is in it; read anywhere
        self.dropped = 0  # events; read anywhere

    def __len__(self) -> int:
        return len(self._payloads)

    def attach(
        self, append_many: Callable[[Sequence[bytes]], object], is_held_here: Callable[[], bool]
    ) -> None:
        """From now on events are written with `append_many`.

        `is_held_here` tells whether this very thread is inside the queue, where it was interrupted
        by a signal handler that now wants to write.
        """
        self._append_many = append_many
        self._is_held_here = is_held_here

    @property
    def is_entered_here(self) -> bool:
        """Whether this very thread is inside a write, and a signal handler interrupted it."""
        return is_held_here(self._turn) or is_held_here(self._lock)

    def write(self, newer: Sequence[bytes] = ()) -> bool:
        """Commits what is buffered and then `newer`, in one call; False if the disk refused again.

        After a refusal `newer` is in the buffer too. Where the queue is full, nothing of `newer`
        is kept, and `QueueFull` is raised if there was any.
        """
        # Another thread may be writing, and wait for the queue that this one cannot let go.
        if self._is_held_here():
            self.keep(newer)
            return False
        with self._turn:
            if self._writing:  # a signal handler interrupted this very thread
                self.keep(newer)
                return False
            self._writing = True
            try:
                return self._write(newer)
            finally:
                self._writing = False

    def keep(self, payloads: Sequence[bytes]) -> None:
        """Takes events without a try to write them."""
        with self._lock:
            for payload in payloads:
                self._payloads.append(payload)
                self._bytes += len(payload)
                while len(self._payloads) > MAX_EVENTS or self._bytes > MAX_BYTES:
                    self._drop_oldest_locked(1)
                    self._overflowed += 1
                    self.dropped += 1
            self.waiting = bool(self._payloads)

    def _write(self, newer: Sequence[bytes]) -> bool:
        """With `_turn`."""
        with self._lock:
            older = list(self._payloads)
            self._overflowed = 0
        try:
            self._append_many([*older, *newer])
        except QueueFull:
            if newer:
                raise
            return False
        except QueueError as error:
            # Several transactions may be needed: what the first ones took must not go twice.
            self._written(min(error.written, len(older)))
            self.keep(newer[max(0, error.written - len(older)) :])
            return False
        self._written(len(older))
        return True

    def _written(self, count: int) -> None:
        """The oldest `count` of those that were there when the write began are committed."""
        with self._lock:
            # Dropped while they were being written: they are not lost.
            saved = min(count, self._overflowed)
            self.dropped -= saved
            self._drop_oldest_locked(count - saved)

    def give_up(self) -> int:
        """Counts what is left as dropped, at the end of the client, and gives its number."""
        with self._lock:
            left = len(self._payloads)
            self.dropped += left
            self._drop_oldest_locked(left)
            return left

    def _drop_oldest_locked(self, count: int) -> None:
        for _ in range(count):
            self._bytes -= len(self._payloads.popleft())
        self.waiting = bool(self._payloads)


def _no_queue(_payloads: Sequence[bytes]) -> object:
    raise QueueError("there is no queue file yet")
