"""How often requests fail for nobody's fault: one replica of several is broken, a proxy reloads.

Neighbour: `diagnosis`, which tells of failures that were explained afterwards: the very events that
failed passed as they were. Pure. One thread.

Where every second request fails by chance, three failures in a row say little about the events that
were in them. So whoever draws a conclusion from failures asks here how many it takes.
"""

from __future__ import annotations

import math

MEMORY = 0.97  # what one request leaves of the weight of those before it
PRIOR = 4.0  # requests that passed, before there were any
RARE = 0.05  # a rate below which a failure is taken for what it looks like
UNLIKELY = 1e-3  # that a batch failed so often by chance
VERY_UNLIKELY = 1e-4  # the same, of what is about to be buried
MOST = 12  # failures in a row are enough at any rate


class Chance:
    """The share of requests that fail by chance, as far as it is known; 0 to 1."""

    def __init__(self) -> None:
        self._failed = 0.0
        self._passed = 0.0

    @property
    def rate(self) -> float:
        """Failures by chance among all requests, the latest counting most."""
        return self._failed / (self._failed + self._passed + PRIOR)

    def passed(self) -> None:
        """A request was accepted."""
        self._passed = self._passed * MEMORY + 1.0
        self._failed *= MEMORY

    def failed(self, times: int) -> None:
        """So many requests failed with events that passed unchanged afterwards."""
        for _ in range(times):
            self._failed = self._failed * MEMORY + 1.0
            self._passed *= MEMORY

    def failures_that_tell(self, least: int, unlikely: float = UNLIKELY) -> int:
        """How many failures in a row are more than chance: at least `least`."""
        rate = self.rate
        if rate < RARE:
            return least
        return min(max(least, MOST), max(least, math.ceil(math.log(unlikely) / math.log(rate))))

    def explains(self, failures: int) -> bool:
        """Whether so many failures in a row may as well be chance: too weak to bury an event."""
        rate = self.rate
        return rate >= RARE and rate**failures > VERY_UNLIKELY
