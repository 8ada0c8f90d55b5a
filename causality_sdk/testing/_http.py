"""A small HTTP/1.1 server on 127.0.0.1 that can go away and come back on the same port.

Knows nothing of events. Neighbour: `collector`, which gives the handler and the condition.
Invariant: once `hang_up` has returned, every connection of before is shut down and marked as
closed, and the port refuses new ones until `listen`. An answer leaves in one send: header and
body apart would wait 40 ms for each other between Nagle's algorithm and a delayed ACK.
"""

from __future__ import annotations

import contextlib
import http
import io
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

HOST = "127.0.0.1"
MAX_LINE = 65536
MAX_HEADERS = 200
JOIN_SECONDS = 10.0


class RequestError(Exception):
    """What came is not HTTP/1.x. Answered with 400, then the connection is closed."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, read completely. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. The server adds Content-Length and Connection where the headers have none."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Connection:
    """One accepted socket. `open` is guarded by the server's condition."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.open = True  # set to False by hang_up, never back

    def shut_down(self) -> None:
        """Wakes its thread out of a read or a write. The thread itself closes the socket."""
        with contextlib.suppress(OSError):  # the peer was quicker
            self.sock.shutdown(socket.SHUT_RDWR)


Handler = Callable[[HttpRequest, Connection], Reply | None]
"""Answers one request, on the connection's thread; None closes the connection instead."""


class HttpServer:
    """Listens, reads requests, writes replies. One thread accepts, one serves each connection.

    `changed` guards the connections and is notified when `hang_up` closes them, so that a handler
    may wait on it for anything and still end at once. `listen`, `hang_up` and `join` are called
    by one thread at a time.
    """

    def __init__(self, handle: Handler, changed: threading.Condition) -> None:
        self.port = 0
        self._handle = handle
        self._changed = changed
        self._connections: set[Connection] = set()  # guarded by changed
        self._threads: set[threading.Thread] = set()  # guarded by changed
        self._accepting: threading.Thread | None = None
        self._wake: socket.socket | None = None  # our end; one byte on it ends the accept thread
        self._reserved: socket.socket | None = None  # bound, not listening

    def listen(self, port: int) -> None:
        """Takes connections at `port`; 0 picks a free one. Sets `self.port`."""
        listener, self._reserved = self._reserved or _bound(port), None
        try:
            listener.listen(128)
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            wake, self._wake = socket.socketpair()
        except BaseException:
            listener.close()
            raise
        self._accepting = threading.Thread(
            target=self._accept, args=(listener, wake), name="loopback-accept", daemon=True
        )
        self._accepting.start()

    def hang_up(self, *, reserve: bool) -> None:
        """Stops listening and shuts every connection down. `reserve` keeps the port ours."""
        # Taken first: a Ctrl-C in the middle must not make the stop() that follows do it again.
        accepting, wake, self._accepting, self._wake = self._accepting, self._wake, None, None
        if accepting is not None and wake is not None:
            with wake:
                # A byte, not only a close: a forked child may hold a copy of our end.
                wake.send(b"x")
            accepting.join()
        with self._changed:
            for connection in self._connections:
                connection.open = False
                connection.shut_down()
            self._changed.notify_all()
        if self._reserved is not None and not reserve:
            self._reserved.close()
            self._reserved = None
        elif self._reserved is None and reserve:
            # An unbound port could be given to anybody's outgoing connection, even to a client
            # that calls this very port and would then be connected to itself. A port that is
            # bound and does not listen is refused by the kernel, and stays free for us.
            with contextlib.suppress(OSError):
                self._reserved = _bound(self.port)

    def join(self) -> None:
        """Waits until every connection's thread has ended, except the caller's own."""
        deadline = time.monotonic() + JOIN_SECONDS
        with self._changed:
            threads = [t for t in self._threads if t is not threading.current_thread()]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            raise RuntimeError(
                f"a request was still being answered {JOIN_SECONDS:g} s after the stop:"
                " a callable given to the collector has not returned"
            )

    def _accept(self, listener: socket.socket, wake: socket.socket) -> None:
        with listener, wake, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while not any(key.fileobj is wake for key, _ in selector.select()):
                with contextlib.suppress(OSError):  # the client went away while it was queued
                    self._take(listener.accept()[0])
            # Closing is not enough when a forked child holds a copy: it would go on listening.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)

    def _take(self, sock: socket.socket) -> None:
        try:
            sock.setblocking(True)  # BSD and macOS inherit the listener's mode
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            raise
        connection = Connection(sock)
        thread = threading.Thread(
            target=self._serve, args=(connection,), name="loopback-connection", daemon=True
        )
        with self._changed:
            self._threads = {known for known in self._threads if known.is_alive()}
            self._connections.add(connection)
            # Within the lock, so that join() finds no thread that has yet to be started.
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down: nobody can serve it any more
                self._connections.discard(connection)
                sock.close()
            else:
                self._threads.add(thread)

    def _serve(self, connection: Connection) -> None:
        sock = connection.sock
        try:
            with sock, sock.makefile("rb") as stream:
                try:
                    while (request := read_request(stream, sock)) is not None:
                        reply = self._handle(request, connection)
                        if reply is None:
                            return
                        sock.sendall(render(reply, request))
                        if not request.keep_alive:
                            return
                except RequestError as error:
                    sock.sendall(render(Reply(400, str(error).encode()), None))
                    # Closing with bytes unread sends a reset, which may overtake the answer.
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(MAX_LINE):
                        pass
        except OSError:
            pass  # the client went away, or hang_up was called: nobody is left to be told
        finally:
            with self._changed:
                self._connections.discard(connection)


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows the option would let others steal the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, port))
    except BaseException:
        sock.close()
        raise
    return sock


def read_request(stream: io.BufferedIOBase, sock: socket.socket) -> HttpRequest | None:
    """The next request, or None when the client has closed. Raises `RequestError`, `OSError`."""
    start = _line(stream)
    if start is None:
        return None
    words = start.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise RequestError("the request line is not HTTP/1.x")
    headers: dict[str, str] = {}
    while line := _line(stream):
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or len(headers) >= MAX_HEADERS:
            raise RequestError("a header line cannot be read, or there are too many")
        headers[name.lower()] = value.strip()
    if line is None:
        return None
    if headers.get("expect", "").lower() == "100-continue":
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = _body(stream, headers)
    if body is None:
        return None
    wish = headers.get("connection", "").lower()
    keep_alive = "close" not in wish if words[2] != "HTTP/1.0" else "keep-alive" in wish
    return HttpRequest(words[0], words[1], headers, body, keep_alive)


def _line(stream: io.BufferedIOBase) -> str | None:
    """One line without its end; None when the stream ended first."""
    line = stream.readline(MAX_LINE)
    if line.endswith(b"\n"):
        return line.rstrip(b"\r\n").decode("latin-1")
    if len(line) == MAX_LINE:
        raise RequestError("a line is too long")
    return None


def _body(stream: io.BufferedIOBase, headers: Mapping[str, str]) -> bytes | None:
    """The body as its headers delimit it; None when the stream ended first."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return _chunks(stream)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise RequestError("Content-Length is not a number")
    body = stream.read(int(length))
    return body if len(body) == int(length) else None


def _chunks(stream: io.BufferedIOBase) -> bytes | None:
    parts: list[bytes] = []
    while True:
        line = _line(stream)
        if line is None:
            return None
        try:
            size = int(line.partition(";")[0], 16)
        except ValueError:
            raise RequestError("a chunk's size is not a number") from None
        if size <= 0:
            break
        parts.append(stream.read(size))
        if len(parts[-1]) != size or _line(stream) is None:
            return None
    while trailer := _line(stream):
        del trailer  # trailers say nothing to us
    return b"".join(parts)


def render(reply: Reply, request: HttpRequest | None) -> bytes:
    """The bytes of an answer, head and body together; without a request the connection ends."""
    try:
        phrase = http.HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {reply.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    given = {name.lower() for name in reply.headers}
    bodyless = reply.status in (204, 304)
    if not bodyless and "content-length" not in given:
        lines.append(f"Content-Length: {len(reply.body)}")
    if (request is None or not request.keep_alive) and "connection" not in given:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if bodyless or (request and request.method == "HEAD") else head + reply.body
