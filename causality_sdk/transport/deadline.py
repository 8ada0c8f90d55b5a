"""Keeps a total deadline on an HTTP attempt, without a watchdog thread.

requests' timeout starts anew with every read, and with every address of a name: a server that sends
a byte a second holds the caller for as long as it likes. Here every connect, read and write first
computes the time that is left. Not covered are the name lookup, which no timeout interrupts, and a
proxy that is itself reached over TLS on the way to a server with TLS: there each read has the time
that is left, but may take it several times.
Neighbour: `http`, which mounts the adapter. Used by one thread at a time.
"""

from __future__ import annotations

import _socket
import io
import socket
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError
from urllib3.util.connection import allowed_gai_family

CONNECT_SECONDS = 3.0  # of an attempt at most go into connecting to one address

_DIRECT = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
_OWN = (HTTPConnection, HTTPSConnection)


class Attempt:
    """The attempt under way: its deadline, and what was seen of the connection."""

    def __init__(self) -> None:
        self.deadline = 0.0  # of time.monotonic()
        self.connected = False  # a new connection was begun for it
        self.received = False  # at least one byte of an answer came
        self._opened: weakref.WeakSet[Any] = weakref.WeakSet()  # connections, closed ones too

    def opened(self, connection: Any) -> None:
        """A connection was made, for this attempt and maybe for later ones."""
        self._opened.add(connection)

    def hang_up(self) -> None:
        """Closes whatever is open, also what no pool knows of any more."""
        for connection in list(self._opened):
            connection.close()
        self._opened.clear()

    def begin(self, deadline: float) -> None:
        """A new attempt that must be over at `deadline` (seconds of `time.monotonic()`)."""
        self.deadline = deadline
        self.connected = False
        self.received = False

    def arm(self, sock: socket.socket) -> None:
        """Lets the next operation on `sock` take what is left; `TimeoutError` if nothing is."""
        sock.settimeout(self.left())

    def left(self) -> float:
        """Seconds until the deadline, above 0; `TimeoutError` if there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the attempt has passed")
        return left


def connect(
    host: str, port: int, attempt: Attempt, options: Sequence[tuple[Any, ...]] = ()
) -> socket.socket:
    """A TCP connection to the first address of `host` that takes one. Raises `OSError`.

    One address may take `CONNECT_SECONDS`, and no more than its share of the time that is left:
    the IPv6 address of a network without IPv6 must not use up the time of the one that works.
    """
    # urllib3's own choice, which those who must do without IPv6 are used to override
    family = allowed_gai_family()
    addresses = _look_up(host.strip("[]"), port, family)
    failure: OSError = OSError(f"the name lookup of {host} gave no address")
    for tried, (kind, *details, _, address) in enumerate(addresses):
        share = min(CONNECT_SECONDS, attempt.left() / (len(addresses) - tried))
        try:
            sock = socket.socket(kind, *details)
        except OSError as error:
            failure = error
            continue
        try:
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(share)
            sock.connect(address)
            attempt.arm(sock)  # for a TLS handshake, which nothing else arms
        except OSError as error:
            sock.close()
            failure = error
            continue
        return sock
    try:
        raise failure
    finally:
        del failure  # else it and its traceback keep each other alive


def _look_up(host: str, port: int, family: int) -> Sequence[tuple[Any, ...]]:
    try:
        return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except RuntimeError:
        # gevent asks in a thread, and since Python 3.12 the interpreter starts none when it shuts
        # down. That it is asked here holds the other greenlets up, which have all ended.
        return _socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)


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
        # The timeout of sendall is for all of it, with TLS too, however many writes that takes.
        self._attempt.arm(self._sock)
        self._sock.sendall(data)

    def makefile(self, *_args: Any, **_options: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._attempt))


def _connection_class(base: type[Any], attempt: Attempt) -> type[Any]:
    class Connection(base):  # type: ignore[misc]  # one of urllib3's, chosen at run time
        def connect(self) -> None:
            attempt.connected = True  # first: a failed handshake is no stale connection either
            attempt.opened(self)
            super().connect()
            connected: Any = self.sock
            self.sock: Any = _Socket(connected, attempt)

        def _new_conn(self) -> socket.socket:
            if base not in _OWN:  # through SOCKS, which has a way of its own to connect
                sock: socket.socket = super()._new_conn()
                attempt.arm(sock)
                return sock
            host = str(getattr(self, "_dns_host", self.host))  # with the dot of a full name
            try:
                return connect(host, self.port, attempt, self.socket_options or ())
            except OSError as error:
                # By this type every urllib3 tells, for a proxy, that it was the proxy that failed.
                raise NewConnectionError(self, f"cannot connect to {host}: {error}") from error

        def _tunnel(self) -> None:
            # The proxy's answer to CONNECT is read from self.sock, before connect() is over.
            plain: Any = self.sock
            self.sock = _Socket(plain, attempt)
            super()._tunnel()
            self.sock = plain

    return Connection


class DeadlineAdapter(HTTPAdapter):
    """An adapter whose connections keep the deadline of `attempt`. No retries of its own."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Called by the base class; the direct connections."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pool_classes(_DIRECT)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        """Called by the base class; the connections through a proxy. One manager for each."""
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **options)
        if not known:
            # The manager's own classes: those of a SOCKS proxy are not the direct ones.
            classes = self._pool_classes(manager.pool_classes_by_scheme)
            manager.pool_classes_by_scheme = classes
        return manager

    def _pool_classes(self, pools: Mapping[str, type[Any]]) -> dict[str, type[Any]]:
        classes: dict[str, type[Any]] = {}
        for scheme, pool in pools.items():
            members = {"ConnectionCls": _connection_class(pool.ConnectionCls, self._attempt)}
            classes[scheme] = type(pool.__name__, (pool,), members)
        return classes
