"""Events a second, where the server says 429. Pure: no clock, no I/O.

Neighbour: the sender, which asks before each batch. One thread. Times are seconds of its clock.

There is no limit until the first 429; that one sets it to half of what was really delivered since
the last. Each further one halves it, success raises it slowly: additive increase would take for
ever at a high rate and be too much at a low one, so it rises by a part of itself (as AIMD does
with windows; Chiu and Jain, 1989).
"""

from __future__ import annotations

import math

RISE_PER_SECOND = 0.05
SLOWEST = 1.0  # events a second


class Rate:
    """The pace of one destination."""

    def __init__(self) -> None:
        self.limit = math.inf  # events a second
        self._since: float | None = None  # of the last 429, or of the first delivery
        self._delivered = 0  # events since then
        self._raised_at = 0.0
        self._ready_at = -math.inf

    def ready_at(self) -> float:
        """The time before which no batch may go."""
        return self._ready_at

    def bounded(self, events: int) -> int:
        """`events`, or fewer: no batch holds more than a second's worth."""
        return events if self.limit >= events else max(1, int(self.limit))

    def delivered(self, events: int, now: float) -> None:
        """The server took a batch."""
        if self._since is None:
            self._since = now
        self._delivered += events
        if self.limit == math.inf:
            return
        self.limit *= 1.0 + RISE_PER_SECOND * min(1.0, max(0.0, now - self._raised_at))
        self._raised_at = now
        self._ready_at = max(now, self._ready_at) + events / self.limit

    def refused(self, now: float) -> None:
        """The server said 429."""
        elapsed = 0.0 if self._since is None else now - self._since
        if self._delivered and elapsed > 0:
            self.limit = min(self.limit, self._delivered / elapsed)
        elif self.limit == math.inf:
            return  # nothing was delivered yet: the backoff and a smaller batch must do
        self.limit = max(SLOWEST, self.limit / 2)
        self._since = self._raised_at = now
        self._delivered = 0
