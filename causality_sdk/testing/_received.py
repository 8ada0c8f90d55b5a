"""The half of the collector that tells what came, and waits for it.

Neighbours: `_store` remembers; `collector` adds the half that serves. Invariant: every answer
that a client has seen is already in here, so a test that has its answer need not wait.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

from causality_sdk.testing._batch import ReceivedRequest
from causality_sdk.testing._store import EventStore, RequestLog


class Received:
    """What a collector got. Every member may be used from any thread, also after `stop()`."""

    def __init__(self, journal: str | os.PathLike[str] | None) -> None:
        self._changed = threading.Condition()  # guards all below; notified at every change
        self._store = EventStore(journal)
        self._log = RequestLog()
        self._received = 0
        self._held = 0
        self._errors: list[Exception] = []

    @property
    def count(self) -> int:
        """Unique events that were kept."""
        with self._changed:
            return len(self._store.payloads)

    @property
    def received(self) -> int:
        """Events of every readable batch that came, duplicates and refused ones included."""
        with self._changed:
            return self._received

    @property
    def duplicates(self) -> int:
        """Events that were to be kept and whose key was there already."""
        with self._changed:
            return self._store.duplicates

    @property
    def keys(self) -> list[str]:
        """Idempotency keys of the unique events, in order of first arrival."""
        with self._changed:
            return list(self._store.payloads)

    @property
    def payloads(self) -> dict[str, bytes]:
        """Key to bytes as they came on the wire, in order of first arrival. A copy."""
        with self._changed:
            return dict(self._store.payloads)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The unique events in order of first arrival, decoded at each call."""
        return [json.loads(payload) for payload in self.payloads.values()]

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The last 10,000 requests, of every path; the last 1,000 (or 64 MiB) with their bodies."""
        with self._changed:
            return self._log.snapshot()

    @property
    def request_count(self) -> int:
        """Requests that were dealt with, of every path, however many of them are remembered."""
        with self._changed:
            return self._log.total

    @property
    def held(self) -> int:
        """Requests that wait at this moment because of `pause()` or `delay()`."""
        with self._changed:
            return self._held

    @property
    def errors(self) -> list[Exception]:
        """What your own callables raised; each such request was answered with 500."""
        with self._changed:
            return list(self._errors)

    def clear(self) -> None:
        """Forgets events, keys, requests and errors. Behaviour and journal stay as they are."""
        with self._changed:
            self._store.clear()
            self._log = RequestLog()
            self._received = 0
            self._errors = []

    def wait_for(self, count: int, timeout: float = 10.0) -> bool:
        """Waits for so many unique events; False when `timeout` seconds were not enough."""
        return self._wait(lambda: len(self._store.payloads) >= count, timeout)

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> bool:
        """Waits until so many requests, of every path, were dealt with."""
        return self._wait(lambda: self._log.total >= count, timeout)

    def wait_for_held(self, count: int = 1, timeout: float = 10.0) -> bool:
        """Waits until so many requests are held by `pause()` or `delay()` at once."""
        return self._wait(lambda: self._held >= count, timeout)

    def _wait(self, reached: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(reached, timeout)
