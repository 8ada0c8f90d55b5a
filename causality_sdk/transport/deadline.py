"""Keeps a total deadline on an HTTP attempt, without a watchdog thread.

requests' timeout starts anew with every read: a server that sends a byte a second holds the caller
for as long as it likes. Here every read and every write first computes the time that is left.
Neighbour: `http`, which mounts the adapter. Used by one thread at a time.
"""

from __future__ import annotations

import io
import socket
import time
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class Attempt:
    """The attempt under way: its deadline, and what was seen of the connection."""

    def __init__(self) -> None:
        self.deadline = 0.0  # of time.monotonic()
        self.connected = False  # a new connection was made for it
        self.received = False  # at least one byte of an answer came

    def begin(self, deadline: float) -> None:
        """A new attempt that must be over at `deadline` (seconds of `time.monotonic()`)."""
        self.deadline = deadline
        self.connected = False
        self.received = False

    def arm(self, sock: socket.socket) -> None:
        """Lets the next operation on `sock` take what is left; `TimeoutError` if nothing is."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the attempt has passed")
        sock.settimeout(left)


class _Reader(io.RawIOBase):
    """What http.client reads an answer from."""

    def __init__(self, sock: socket.socket, attempt: Attempt) -> None:
        super().__init__()
        self._sock = sock
        # Through the socket's own makefile, which keeps it open while an answer is being read.
        self._raw = sock.makefile("rb", buffering=0)
        self._attempt = attempt

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._attempt.arm(self._sock)
        count: int | None = self._raw.readinto(buffer)
        if count:
            self._attempt.received = True
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Socket:
    """A connected socket that arms itself before each operation."""

    def __init__(self, sock: socket.socket, attempt: Attempt) -> None:
        self._sock = sock
        self._attempt = attempt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, data: Any) -> None:
        # sendall's timeout is for all of it, however many writes that takes.
        self._attempt.arm(self._sock)
        self._sock.sendall(data)

    def makefile(self, *_args: Any, **_options: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._attempt))


def _connection_class(base: type[Any], attempt: Attempt) -> type[Any]:
    class Connection(base):  # type: ignore[misc]  # one of urllib3's two, chosen at run time
        def connect(self) -> None:
            super().connect()
            attempt.connected = True
            connected: Any = self.sock
            self.sock: Any = _Socket(connected, attempt)

    return Connection


class DeadlineAdapter(HTTPAdapter):
    """An adapter whose connections keep the deadline of `attempt`. No retries of its own."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Called by the base class; the direct connections."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pool_classes()

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        """Called by the base class; the connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self._pool_classes()
        return manager

    def _pool_classes(self) -> dict[str, type[Any]]:
        classes: dict[str, type[Any]] = {}
        for scheme, pool, connection in (
            ("http", HTTPConnectionPool, HTTPConnection),
            ("https", HTTPSConnectionPool, HTTPSConnection),
        ):
            members = {"ConnectionCls": _connection_class(connection, self._attempt)}
            classes[scheme] = type(pool.__name__, (pool,), members)
        return classes
