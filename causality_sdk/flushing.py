"""What a `flush()` waits for, and how the sender completes it.

Neighbours: any thread adds a `Flush`; only the sender's step reads, counts and completes.
Invariant: a flush that was added is completed by the step, by its own deadline, or by the end of
the sender.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from causality_sdk.errors import DeliveryError
from causality_sdk.wakeup import is_held_here

SHORTEST_ATTEMPT = 0.05  # seconds; below it an attempt could only fail


@dataclass(eq=False, slots=True)
class Flush:
    """One call of `flush()`: all ids up to `target`, with up to `retries` further attempts."""

    target: int
    retries: int
    deadline: float | None  # of the sender's clock
    is_last: bool = False  # nothing comes after it: an attempt need not outlive it
    delivered: int = 0
    rejected: int = 0
    buried: int = 0
    failures: int = 0
    error: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def complete(self, error: Exception | None) -> None:
        """Ends the wait. The first error stays, unless this one says more."""
        if not self.done.is_set():
            # That time ran out says less than what went wrong until then.
            if error is not None and not (isinstance(error, TimeoutError) and self.error):
                self.error = error
            self.done.set()


class Flushes:
    """The flushes under way. `add` and `discard` from any thread, the rest by the step."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may flush in the middle of a flush
        self._waiting: tuple[Flush, ...] = ()  # replaced, never changed; guarded by _lock
        self._added = False  # since the step last asked

    @property
    def is_entered_here(self) -> bool:
        """Whether this very thread is in here, interrupted by a signal handler."""
        return is_held_here(self._lock)

    def add(self, flush: Flush) -> None:
        """From now on the sender works for this flush."""
        with self._lock:
            self._waiting = (*self._waiting, flush)
            self._added = True

    def discard(self, flush: Flush) -> None:
        """The caller waits no longer."""
        with self._lock:
            self._waiting = tuple(other for other in self._waiting if other is not flush)

    def take_added(self) -> bool:
        """Whether a flush was added since the last call."""
        with self._lock:
            added, self._added = self._added, False
        return added

    @property
    def target(self) -> int | None:
        """The id up to which somebody waits, or None if nobody does."""
        return max((flush.target for flush in self._open()), default=None)

    def bounded(self, timeout: float, now: float, *, by_all: bool) -> float:
        """`timeout` of an attempt, or what the most patient flush has left if that is less.

        `by_all`: each of them waits for the attempt itself, having no thread. Else only those that
        end the sender count: a caller's patience is no deadline for the server.
        """
        flushes = self._open()
        if not flushes or any(flush.deadline is None for flush in flushes):
            return timeout
        if not by_all and not all(flush.is_last for flush in flushes):
            return timeout
        left = max(flush.deadline - now for flush in flushes if flush.deadline is not None)
        return min(timeout, max(left, SHORTEST_ATTEMPT))

    def count(self, *, delivered: int = 0, rejected: int = 0, buried: int = 0) -> None:
        """This happened while these waited."""
        for flush in self._open():
            if delivered:
                flush.failures = 0  # it works: retries are for what fails in a row
            flush.delivered += delivered
            flush.rejected += rejected
            flush.buried += buried

    def complained(self, error: Exception) -> None:
        """Something was refused; it is no failure yet, but what will be reported if one comes."""
        for flush in self._open():
            flush.error = error

    def failed(self, error: Exception, *, certain: bool = True) -> int | None:
        """An attempt failed. Gives the number of failures of the flush that is to be retried first.

        Completes those whose retries are used up, and all when a retry cannot help. `certain`: not
        only what was sent now would fail.
        """
        hopeless = certain and isinstance(error, DeliveryError) and not error.retryable
        remaining = []
        for flush in self._open():
            flush.failures += 1
            flush.error = error
            if hopeless or flush.failures > flush.retries:
                flush.complete(error)
            else:
                remaining.append(flush.failures)
        return min(remaining, default=None)

    def reached(self, cursor: int, *, aside: bool) -> int | None:
        """The sender has been through the queue up to `cursor`; `aside`: not all of it is gone.

        Completes those that reach no further; with something left it is a failure like another.
        """
        remaining = []
        for flush in self._open():
            if cursor < flush.target:
                continue
            flush.failures += aside
            if not aside:
                flush.error = None  # whatever failed on the way, it worked in the end
                flush.complete(None)
            elif flush.failures > flush.retries:
                flush.complete(flush.error)
            else:
                remaining.append(flush.failures)
        return min(remaining, default=None)

    def end(self, error: Exception) -> None:
        """No step will run any more."""
        for flush in self._open():
            flush.complete(error)

    def _open(self) -> list[Flush]:
        return [flush for flush in self._waiting if not flush.done.is_set()]
