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

MAX_EVENTS = 1000
MAX_BYTES = 4 * 1024 * 1024


class Buffer:
    """First in, first out, in front of one queue. Any thread.

    `append_many` commits payloads in order, or raises and commits none; the error may say in
    `written` how many it committed nevertheless.
    """

    def __init__(self, append_many: Callable[[Sequence[bytes]], object]) -> None:
        self._append_many = append_many
        self._lock = threading.Lock()  # held while writing, so that nothing overtakes
        self._payloads: deque[bytes] = deque()
        self._bytes = 0
        self.dropped = 0  # events; written under the lock, read anywhere

    def __len__(self) -> int:
        return len(self._payloads)

    def write(self, newer: Sequence[bytes] = ()) -> bool:
        """Commits what is buffered and then `newer`, in one call; False if the disk refused again.

        After a refusal `newer` is in the buffer too. Where the queue is full, nothing of `newer`
        is kept, and `QueueFull` is raised if there was any.
        """
        with self._lock:
            payloads = [*self._payloads, *newer]
            try:
                self._append_many(payloads)
            except QueueFull:
                if newer:
                    raise
                return False
            except QueueError as error:
                # Several transactions may be needed: what the first ones took must not go twice.
                written = error.written
                self._payloads.clear()
                self._bytes = 0
                for payload in payloads[written:]:
                    self._add_locked(payload)
                return False
            self._payloads.clear()
            self._bytes = 0
            return True

    def give_up(self) -> int:
        """Counts what is left as dropped, at the end of the client, and gives its number."""
        with self._lock:
            left = len(self._payloads)
            self.dropped += left
            self._payloads.clear()
            self._bytes = 0
            return left

    def _add_locked(self, payload: bytes) -> None:
        self._payloads.append(payload)
        self._bytes += len(payload)
        while len(self._payloads) > MAX_EVENTS or self._bytes > MAX_BYTES:
            self._bytes -= len(self._payloads.popleft())
            self.dropped += 1
