"""A transport that tells of each attempt and keeps a pace, around the one that carries it.

Neighbours: `drain` makes it. Invariant: neither the key nor a payload is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from causality_sdk.cli.output import Output, size
from causality_sdk.delivery import excerpt
from causality_sdk.errors import TransportError
from causality_sdk.transport.base import Transport
from causality_sdk.wire.base import Request, Response

PATIENCE = 2.0
"""Seconds that a person looks at nothing before a word is due."""


class Alarm(Protocol):
    """What `threading.Timer` has."""

    def start(self) -> None:
        """Begins to wait."""
        ...

    def cancel(self) -> None:
        """Nothing is due any more."""
        ...


def _timer(seconds: float, call: Callable[[], Any]) -> Alarm:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    return timer


class ObservedTransport:
    """Around `inner`. Used by one thread at a time, like any transport."""

    def __init__(
        self,
        inner: Transport,
        out: Output,
        before: Callable[[], None] | None = None,
        *,
        attempts: int = 0,
        alarm: Callable[[float, Callable[[], Any]], Alarm] = _timer,
    ) -> None:
        """`before` is called ahead of each request, and may wait.

        `attempts`: how many there will be at most, for a person who waits; 0 if nobody knows.
        """
        self._inner = inner
        self._out = out
        self._before = before
        self._attempts = attempts
        self._alarm = alarm
        self._failed = 0  # attempts in a row

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        found: str = getattr(self._inner, "endpoint", "")
        return found

    @property
    def tells_attempts(self) -> bool:
        """True: nobody else need."""
        return True

    def send(self, request: Request, timeout: float) -> Response:
        """The same as that of `inner`."""
        if self._before is not None:
            self._before()
        told = f"{request.method} {self.endpoint}{request.path} ({size(len(request.body))})"
        started = time.monotonic()
        waiting = self._waiting(timeout)
        try:
            response = self._inner.send(request, timeout)
        except TransportError as error:
            self._out.detail(f"{told}: {error} ({error.reason}, {_since(started)})")
            self._fail(str(error))
            raise
        finally:
            waiting.cancel()
        words = "" if response.status < 300 else excerpt(response.body)
        said = f"{response.status}: {words}" if words else str(response.status)
        self._out.detail(
            f"{told}: {response.status} ({_since(started)})" + (f": {words}" if words else "")
        )
        if response.status >= 500 or response.status in (408, 429):
            self._fail(f"the server answered {said}")
        else:
            self._failed = 0
        return response

    def reachable(self, timeout: float) -> None:
        """The same as that of `inner`, which may have none."""
        reachable = getattr(self._inner, "reachable", None)
        if reachable is None:
            return
        try:
            reachable(timeout)
        except TransportError as error:
            self._out.detail(f"no connection: {error} ({error.reason})")
            self._fail(str(error))
            raise

    def close(self) -> None:
        """Lets go of connections."""
        self._inner.close()

    def _waiting(self, timeout: float) -> Alarm:
        """Tells a person at a terminal that something goes on."""
        number = self._number(self._failed + 1)
        words = f"waiting for the server, up to {timeout:.3g} s ({number})"
        alarm = self._alarm(PATIENCE, lambda: self._out.progress(words))
        if self._out.shows_progress:
            alarm.start()
        return alarm

    def _fail(self, reason: str) -> None:
        self._failed += 1
        if self._out.shows_progress and not (self._attempts and self._failed >= self._attempts):
            self._out.progress(f"{self._number(self._failed)}: {reason}; trying again")

    def _number(self, number: int) -> str:
        known = 0 < number <= self._attempts
        return f"attempt {number} of {self._attempts}" if known else f"attempt {number}"


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.2f} s"
