"""A transport that tells of each attempt and keeps a pace, around the one that carries it.

Neighbours: `delivery` makes it. Invariant: neither the key nor a payload is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from causality_sdk.cli.output import Output, size
from causality_sdk.delivery import excerpt
from causality_sdk.errors import TransportError
from causality_sdk.transport.base import Transport
from causality_sdk.wire.base import Request, Response


class ObservedTransport:
    """Around `inner`. Used by one thread at a time, like any transport."""

    def __init__(
        self, inner: Transport, out: Output, before: Callable[[], None] | None = None
    ) -> None:
        """`before` is called ahead of each request, and may wait."""
        self._inner = inner
        self._out = out
        self._before = before

    def send(self, request: Request, timeout: float) -> Response:
        """The same as that of `inner`."""
        if self._before is not None:
            self._before()
        endpoint = getattr(self._inner, "endpoint", "")
        told = f"{request.method} {endpoint}{request.path} ({size(len(request.body))})"
        started = time.monotonic()
        try:
            response = self._inner.send(request, timeout)
        except TransportError as error:
            self._out.detail(f"{told}: {error} ({error.reason}, {_since(started)})")
            raise
        words = "" if response.status < 300 else excerpt(response.body)
        self._out.detail(
            f"{told}: {response.status} ({_since(started)})" + (f": {words}" if words else "")
        )
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
            raise

    def close(self) -> None:
        """Lets go of connections."""
        self._inner.close()


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.2f} s"
