"""A flag that one thread waits for and any thread sets, a signal handler included.

Neighbour: the sender. `threading.Event` has a lock inside: a signal handler that sets it while its
own thread is just setting it waits for ever. Invariant: `set` never waits.
"""

from __future__ import annotations

import threading
from typing import Any


def is_held_here(lock: Any) -> bool:
    """Whether this very thread holds an `RLock`, in a frame that a signal handler interrupted."""
    return bool(lock._is_owned())  # as threading.Condition asks


class Wakeup:
    """Like a `threading.Event` that is cleared by the end of a wait, whatever ended it."""

    def __init__(self) -> None:
        self._unset = threading.Lock()  # held while the flag is not set
        self._unset.acquire()

    def set(self) -> None:
        """Ends the wait under way, or the next one. Any thread, any signal handler."""
        try:
            self._unset.release()
        except RuntimeError:
            return  # it is set

    def is_set(self) -> bool:
        """Whether the next wait would end at once."""
        return not self._unset.locked()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits up to `timeout` seconds for the flag, and clears it. One thread only."""
        if timeout is None:
            return self._unset.acquire()
        return self._unset.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))

    def clear(self) -> None:
        """Forgets that it was set."""
        self._unset.acquire(blocking=False)
