"""Tells the log of outages: one line as one begins and one as it ends, and one for many short ones.

Neighbour: the sender's steps, which report what fails and what passes. One thread. Times are
seconds of the sender's clock.
"""

from __future__ import annotations

from causality_sdk.logs import Log

QUIET_SECONDS = 300.0  # without a failure, before the next one is news again
LONG_SECONDS = 30.0  # a failure that lasts so long is an outage, however many short ones there were


class Outages:
    """What the log was told of one destination."""

    def __init__(self, log: Log, *, tells: bool = True) -> None:
        self._log = log
        self._tells = tells
        self._since: float | None = None  # of the outage under way
        self._told = False  # the one under way
        self._ended_at: float | None = None  # the last one
        self._flaps_told = False  # that there are many short ones

    def failed(self, now: float, error: Exception, pending: int) -> None:
        """An attempt failed, and settled nothing."""
        if self._since is None:
            self._since = now
        if self._told or not self._tells:
            return
        flaps = self._ended_at is not None and self._since - self._ended_at < QUIET_SECONDS
        if not flaps or now - self._since >= LONG_SECONDS:
            self._told, self._flaps_told = True, False
            self._log.warning("causality: delivery failed, %s: %s", _waiting(pending), error)
        elif not self._flaps_told:
            self._flaps_told = True
            self._log.warning(
                "causality: delivery fails now and then, and goes on; this is not logged again"
                " before it went well for %.0f minutes: %s",
                QUIET_SECONDS / 60,
                error,
            )

    def ended(self, now: float, pending: int) -> None:
        """The server accepted events."""
        since, self._since = self._since, None
        if since is None:
            return
        self._ended_at = now
        if self._told:
            self._told = False
            self._log.info(
                "causality: delivery works again after %.0f s; %s",
                now - since,
                _waiting(pending),
            )


def _waiting(pending: int) -> str:
    return "1 event waits" if pending == 1 else f"{pending} events wait"
