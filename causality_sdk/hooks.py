"""Calls the user's hooks and writes the log lines of losses. An exception in a hook is logged.

Neighbour: the sender, on whose thread everything here runs. Invariant: a hook can delay delivery,
but neither end it nor reach `track()`, whatever it raises; nor can a filter or handler of logging.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from causality_sdk.logs import Log
from causality_sdk.stats import Delivered, Dropped

_T = TypeVar("_T")

_REASONS = {
    "max_queue_events": "the queue is full (max_queue_events) and drops the oldest events",
    "max_queue_bytes": "the queue is full (max_queue_bytes) and drops the oldest events",
    "corrupt": "events were damaged on the disk, and are lost; see the table corrupt_rows",
    "purged": "events were removed from the queue by hand",
    "buffer_full": "the disk takes no events and the buffer in memory is full; the oldest are lost",
}


class Hooks:
    """The hooks of one client."""

    def __init__(
        self,
        *,
        logger: logging.Logger | Log,
        on_delivered: Callable[[Delivered], object] | None = None,
        on_dropped: Callable[[Dropped], object] | None = None,
        on_error: Callable[[Exception], object] | None = None,
    ) -> None:
        self._log = logger if isinstance(logger, Log) else Log(logger)
        self._on_delivered = on_delivered
        self._on_dropped = on_dropped
        self._on_error = on_error
        self._lost: Mapping[str, int] | None = None  # what was reported; None before the first look
        self._logged: set[str] = set()  # reasons logged since something was last delivered

    @property
    def log(self) -> Log:
        """Where the losses are told; the sender tells the rest there, too."""
        return self._log

    def delivered(self, details: Delivered) -> None:
        """A batch was answered. Losses that come after it are an outage of their own."""
        if details.events:
            self._logged.clear()
        self._call(self._on_delivered, details)

    def error(self, error: Exception) -> None:
        """An attempt, the disk or a part of the user's failed."""
        self._call(self._on_error, error)

    def inherited(self, lost: Mapping[str, int]) -> None:
        """What another process lost, and told of itself, is part of our counters from now on."""
        if self._lost is not None and lost:
            self._lost = {
                reason: count + lost.get(reason, 0) for reason, count in self._lost.items()
            }

    def report_lost(self, lost: Mapping[str, int]) -> None:
        """Tells of the events that were lost since the last call, by reason; logs once per outage.

        `lost` are totals. The first call only sets the mark.
        """
        before, self._lost = self._lost, lost
        if before is None or before == lost:
            return
        for reason, count in lost.items():
            events = count - before[reason]
            if events <= 0:
                continue
            if reason not in self._logged:
                self._logged.add(reason)
                self._log.warning("causality: %s", _REASONS[reason])
            self._call(self._on_dropped, Dropped(events=events, reason=reason))

    def _call(self, hook: Callable[[_T], object] | None, details: _T) -> None:
        if hook is None:
            return
        try:
            hook(details)
        except BaseException as error:
            if not self._log.swallows(error):
                raise
            self._log.error("causality: a hook raised; it is called again next time", cause=error)
