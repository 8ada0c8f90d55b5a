"""How many events go into the next request. Pure: no clock, no I/O.

Neighbour: the sender, which tells it how each attempt ended and peeks as many rows as it says.
"""

from __future__ import annotations


class BatchLimit:
    """The number of events the next batch may hold: grows while batches succeed.

    Starts at `start` and doubles up to `most` with each success, so that a backlog moves in large
    batches and a trickle in small ones. After a failure it starts again: a server that just came
    back is asked with one small batch before it is given the rest. Used by one thread.
    """

    def __init__(self, start: int, most: int) -> None:
        self._start = min(start, most)
        self._most = most
        self.events = self._start

    def succeeded(self) -> None:
        """The server took a batch."""
        self.events = min(self.events * 2, self._most)

    def failed(self) -> None:
        """A batch was not acknowledged."""
        self.events = self._start
