"""Transports for calls from many threads: each is used by one thread at a time.

Neighbour: `client`. Invariant: no connection that a parent process has open is used in a child.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from causality_sdk.errors import TransportError
from causality_sdk.transport.base import Transport
from causality_sdk.wire.base import Request, Response


class Connections:
    """Keeps as many transports as there were threads at once. Any thread."""

    def __init__(self, make: Callable[[], Transport]) -> None:
        self._make = make
        self._idle: list[Transport] = []  # append and pop are atomic
        self._pid = os.getpid()

    @contextmanager
    def borrow(self) -> Iterator[Transport]:
        """A transport that nobody else uses until it is given back."""
        if self._pid != os.getpid():  # after a fork: the sockets are the parent's
            self._idle, self._pid = [], os.getpid()
        try:
            transport = self._idle.pop()
        except IndexError:
            transport = self._make()
        try:
            yield transport
        finally:
            self._idle.append(transport)

    def close(self) -> None:
        """Closes those that are idle. May be called twice, and calls may follow."""
        while self._idle:
            self._idle.pop().close()


class Shared:
    """One transport for all threads, in turn: that of a session of the caller's own."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._turn = threading.Lock()  # held for one request

    def send(self, request: Request, timeout: float) -> Response:
        """As the transport's own. Waiting for one's turn takes `timeout` seconds at most."""
        if not self._turn.acquire(timeout=timeout):
            raise TransportError(
                f"the session is still busy with another request after {timeout:g} s;"
                " give each thread a client, or leave session= out",
                reason="timeout",
            )
        try:
            return self._transport.send(request, timeout)
        finally:
            self._turn.release()

    def begin_anew(self, transport: Transport) -> None:
        """In a forked child: with connections of its own, and nobody else who has his turn."""
        self._transport = transport
        self._turn = threading.Lock()

    def close(self) -> None:
        """As the transport's own."""
        self._transport.close()
