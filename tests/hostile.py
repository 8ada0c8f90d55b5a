"""Servers on loopback that misbehave by script, byte by byte, over raw sockets. Not a test.

One thread each, one connection at a time. A *play* is what a server does with one connection; the
last play serves all further ones. No play sleeps, but for the dripping: they wait for what the
client does, at most `PATIENCE` seconds.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

HOST = "127.0.0.1"
PATIENCE = 30.0  # seconds for what takes milliseconds on a machine that is not busy

ACCEPTED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass(frozen=True)
class Received:
    """One request as it came. Header names are lower case."""

    line: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """One accepted connection, and what a play can do with it."""

    def __init__(self, sock: socket.socket, server: HostileServer) -> None:
        self.sock = sock
        self._server = server
        self._buffer = b""
        sock.settimeout(PATIENCE)

    def request(self) -> Received:
        """Reads one whole request. `EOFError` when the client sends no more."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (item.partition(":") for item in rest)
        }
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        received = Received(line, headers, body)
        self._server.requests.append(received)
        return received

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self._buffer += data

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def drip(self, data: bytes, interval: float = 0.02) -> None:
        """A byte at a time, until the client has had enough."""
        for value in data:
            self.sock.sendall(bytes([value]))
            if self.pause(interval):
                return

    def flood(self, data: bytes) -> None:
        """The same over and over again, until the client has had enough."""
        while not self._server.stopping.is_set():
            self.sock.sendall(data)

    def hold(self) -> None:
        """Says nothing, until the client closes the connection."""
        while self.sock.recv(65536):
            pass

    def sip(self, interval: float = 0.02) -> None:
        """Reads a little at a time, until the client closes the connection."""
        while self.sock.recv(1024) and not self.pause(interval):
            pass

    def pause(self, seconds: float) -> bool:
        """True when the test is over."""
        return self._server.stopping.wait(seconds)

    def ignore(self) -> None:
        """Neither reads nor writes, until the test is over."""
        self._server.stopping.wait(PATIENCE)

    def secure(self, tls: ssl.SSLContext) -> None:
        """TLS from here on, as after a CONNECT."""
        self.sock = tls.wrap_socket(self.sock, server_side=True)

    def reset(self) -> None:
        """Ends the connection with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Play = Callable[[Peer], None]


class HostileServer:
    """Serves `plays`, one for each connection; the last one again and again."""

    def __init__(
        self, *plays: Play, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
    ) -> None:
        self.plays = list(plays)
        self.requests: list[Received] = []  # appended by the thread
        self.connections = 0  # counted by the thread
        self.stopping = threading.Event()
        self.errors: list[BaseException] = []
        self._tls = tls
        self._listener = socket.socket()
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind((HOST, 0))
        self._listener.listen(16)
        self.port: int = self._listener.getsockname()[1]
        self._current: Peer | None = None  # set by the thread
        self._thread = threading.Thread(target=self._run, name="hostile-server")

    @property
    def host(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def endpoint(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}"

    def __enter__(self) -> HostileServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopping.set()
        current = self._current
        if current is not None:
            with contextlib.suppress(OSError):
                # The plain socket's: that of TLS is not for another thread than the one that reads.
                socket.socket.shutdown(current.sock, socket.SHUT_RDWR)
        with contextlib.suppress(OSError), socket.socket() as waking:
            waking.settimeout(PATIENCE)
            waking.connect((HOST, self.port))  # lets accept() return
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._listener.close()
        if kind is None and self.errors:
            raise self.errors[0]

    def _run(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self.stopping.is_set():
                sock.close()
                return
            play = self.plays[min(self.connections, len(self.plays) - 1)]
            self.connections += 1
            try:
                self._serve(sock, play)
            except (OSError, EOFError):
                pass  # the client has gone, as most of the plays want
            except BaseException as error:  # noqa: BLE001 (raised again by __exit__)
                self.errors.append(error)
            finally:
                self._current = None

    def _serve(self, sock: socket.socket, play: Play) -> None:
        self._current = peer = Peer(sock, self)
        try:
            if self._tls is not None:
                peer.secure(self._tls)
            play(peer)
        finally:
            peer.sock.close()
            sock.close()


def answering(*answers: bytes) -> Play:
    """Answers each request of a connection; the last answer again and again."""

    def play(peer: Peer) -> None:
        for answer in _repeated(answers):
            peer.request()
            peer.send(answer)

    return play


def _repeated(answers: tuple[bytes, ...]) -> Iterator[bytes]:
    yield from answers
    while True:
        yield answers[-1]


def reply(status: int, body: bytes = b"", *headers: str) -> bytes:
    """The bytes of an ordinary answer."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port that neither takes nor refuses a connection: its queue is full (as Linux does it)."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def closed_port() -> int:
    """A port of loopback where nothing listens."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port
