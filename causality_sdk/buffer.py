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
    `written` how many it committed nevertheless. It may come later, with `attach`.
    """

    def __init__(self, append_many: Callable[[Sequence[bytes]], object] | None = None) -> None:
        self._append_many = append_many or _no_queue
        # Held while writing, so that nothing overtakes. Re-entrant: a signal handler may track an
        # event while its thread is in here.
        self._turn = threading.RLock()
        self._lock = threading.RLock()  # guards all below; never held while writing
        self._payloads: deque[bytes] = deque()
        self._bytes = 0
        self._writing = False
        self._late: deque[bytes] = deque()  # came while the others were being written
        self.waiting = False  # whether anything is in it; written under the lock, read anywhere
        self.dropped = 0  # events; written under the lock, read anywhere

    def __len__(self) -> int:
        return len(self._payloads) + len(self._late)

    @property
    def is_entered_here(self) -> bool:
        """Whether this very thread is writing: a signal handler or a destructor interrupted it."""
        return bool(self._turn._is_owned())  # type: ignore[attr-defined]

    def attach(self, append_many: Callable[[Sequence[bytes]], object]) -> None:
        """From now on events are written with `append_many`."""
        self._append_many = append_many

    def write(self, newer: Sequence[bytes] = ()) -> bool:
        """Commits what is buffered and then `newer`, in one call; False if the disk refused again.

        After a refusal `newer` is in the buffer too. Where the queue is full, nothing of `newer`
        is kept, and `QueueFull` is raised if there was any.
        """
        if self.is_entered_here:
            self.keep(newer)
            return False
        with self._turn:
            with self._lock:
                self._writing = True
                older = list(self._payloads)
            written = 0
            try:
                self._append_many([*older, *newer])
                written = len(older) + len(newer)
            except QueueFull:
                if newer:
                    newer = ()
                    raise
                return False
            except QueueError as error:
                # Several transactions may be needed: what the first ones took must not go twice.
                written = error.written
                return False
            except BaseException:
                newer = ()  # whoever gets the error has them still
                raise
            finally:
                self._wrote(len(older), newer, written)
        return True

    def keep(self, payloads: Sequence[bytes]) -> None:
        """Takes events without a try to write them, and without waiting for one under way."""
        with self._lock:
            if self._writing:
                self._late.extend(payloads)
                while len(self._late) > MAX_EVENTS:
                    self._late.popleft()
                    self.dropped += 1
                self.waiting = True
            else:
                self._add_locked(payloads)

    def _wrote(self, older: int, newer: Sequence[bytes], written: int) -> None:
        """The first `written` of those that were here and of `newer` are in the queue."""
        with self._lock:
            self._writing = False
            for _ in range(min(written, older)):
                self._bytes -= len(self._payloads.popleft())
            self._add_locked(newer[max(0, written - older) :])
            late, self._late = list(self._late), deque()
            self._add_locked(late)

    def give_up(self) -> int:
        """Counts what is left as dropped, at the end of the client, and gives its number."""
        with self._lock:
            left = len(self._payloads)
            self.dropped += left
            self._payloads.clear()
            self._bytes = 0
            self.waiting = False
            return left

    def _add_locked(self, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            self._payloads.append(payload)
            self._bytes += len(payload)
            while len(self._payloads) > MAX_EVENTS or self._bytes > MAX_BYTES:
                self._bytes -= len(self._payloads.popleft())
                self.dropped += 1
        self.waiting = bool(self._payloads)


def _no_queue(_payloads: Sequence[bytes]) -> object:
    raise QueueError("there is no queue file yet")
