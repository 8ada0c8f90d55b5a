"""A lock that nobody can leave held: it belongs to a running call, and ends with it at the latest.

Neighbours: `group_commit` and the sender's steps; there a signal handler may raise anywhere in the
caller's thread. Invariant: a turn is held only while the call that took it is running.

A handler that raises between the `acquire()` of a `threading.Lock` and the `try` behind it, or in
the `finally` before the `release()`, leaves that lock held for ever. Here the owner is the frame of
the call, and a frame knows whether it still runs; so there is no such moment. For the same reason
what is in here takes no lock.
"""

from __future__ import annotations

import sys
import threading
import time
from types import FrameType

from causality_sdk.wakeup import Wakeup

LOOK_AGAIN = 0.05  # seconds: so long may those wait whom a turn that was left over kept waiting


class _Hold:
    """One time that the turn was taken. Once over it stays so."""

    __slots__ = ("frame", "heirs", "thread")

    def __init__(self, frame: FrameType | None) -> None:
        self.frame = frame  # of the call that took it; None after its release
        self.thread = threading.get_ident()
        self.heirs: dict[None, _Hold] = {}  # whoever took it next, once this was over

    @property
    def is_over(self) -> bool:
        frame = self.frame
        if frame is None:
            return True
        try:
            # Refused while the call runs, in whichever thread or greenlet. After that it only
            # forgets variables that nobody will read.
            frame.clear()
        except RuntimeError:
            return False
        return True


class Turn:
    """Used as a `threading.Lock`, by any thread. Not re-entrant.

    It belongs to the function that calls `acquire` or enters the `with`: to be released there, and
    over when that function ends, however it does.
    """

    def __init__(self) -> None:
        self._hold = _Hold(None)  # the newest one or, for a moment, one that is over
        self._freed = Wakeup()  # each release wakes one of those who wait

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Takes the turn, if need be within `timeout` seconds. False if others kept it."""
        return self._acquire(sys._getframe(1), timeout if blocking else 0.0)

    def release(self) -> None:
        """Lets the next have it. In the function that took it; elsewhere it does nothing."""
        self._release(sys._getframe(1))

    def __enter__(self) -> None:
        self._acquire(sys._getframe(1), -1)

    def __exit__(self, *_exception: object) -> None:
        self._release(sys._getframe(1))

    def locked(self) -> bool:
        """Whether a call that took it still runs and has not released it."""
        return not self._newest().is_over

    @property
    def is_held_here(self) -> bool:
        """Whether this very thread holds it, in a call that a signal handler interrupted."""
        hold = self._newest()
        return hold.thread == threading.get_ident() and not hold.is_over

    def _acquire(self, frame: FrameType, timeout: float) -> bool:
        mine = _Hold(frame)
        if self._take(mine):
            return True
        end = None if timeout < 0 else time.monotonic() + timeout
        while True:
            left = LOOK_AGAIN if end is None else end - time.monotonic()
            if left <= 0:
                return False
            # Who was woken may be interrupted too, and wake nobody in turn: hence not for ever.
            self._freed.wait(min(left, LOOK_AGAIN))
            if self._take(mine):
                return True

    def _take(self, mine: _Hold) -> bool:
        while True:
            hold = self._newest()
            if not hold.is_over:
                return False
            # Of all that see it over, in one instruction, one becomes the heir.
            heir = hold.heirs.setdefault(None, mine)
            self._hold = heir
            if heir is mine:
                return True

    def _newest(self) -> _Hold:
        # A thread that was slow to write it down may have put an older one back.
        hold = self._hold
        while hold.heirs:
            hold = hold.heirs[None]
        return hold

    def _release(self, frame: FrameType) -> None:
        hold = self._newest()
        if hold.frame is frame:
            hold.frame = None
            self._freed.set()
