"""What carries a request. Neighbours: `wire.base` for what is carried; the sender, the only caller.

Invariant: `send` makes one attempt. Whether and when there is another is the sender's decision.
"""

from __future__ import annotations

from typing import Protocol

from causality_sdk.wire.base import Request, Response


class Transport(Protocol):
    """Carries one request to the destination. Used by one thread at a time."""

    def send(self, request: Request, timeout: float) -> Response:
        """The complete answer, whatever its status, within `timeout` seconds.

        Raises `TransportError` when no complete answer came; no other exception.
        """
        ...

    def close(self) -> None:
        """Lets go of connections. May be called twice; `send` may follow and opens new ones."""
        ...
