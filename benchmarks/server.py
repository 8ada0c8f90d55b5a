"""One fast server for every tracker: reads a request, answers at once, keeps nothing.

It counts events by a name that is in each of them once, whatever the format. It is a process of
its own, so that nobody's tracking waits for it.
"""

from __future__ import annotations

import socket
import threading

from benchmarks.process import serve

# Every tracker finds what it looks for: Amplitude a code, Mixpanel a status, ours JSON that does
# not speak of single events.
_BODY = b'{"code":200,"status":1}'
_OURS = b"{}"


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


class Server:
    """A listening socket on loopback, and a thread for each connection."""

    def __init__(self) -> None:
        self._marker = b"order_id"
        self._count = 0  # guarded by _lock
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._port = 0
        self._connections: set[socket.socket] = set()  # guarded by _lock

    def up(self) -> int:
        """Listens, on the same port as before; gives the port."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self._port

    def down(self) -> None:
        """Is away: refuses connections, and cuts those that are open."""
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._connections:
                connection.shutdown(socket.SHUT_RDWR)

    def expect(self, marker: str) -> None:
        """Counts events by `marker` from now on, beginning at 0."""
        self._marker = marker.encode()
        self.counted()

    def counted(self) -> int:
        """Events since the last call."""
        with self._lock:
            count, self._count = self._count, 0
        return count

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._answer_all(connection)
            except OSError:
                pass
            finally:
                with self._lock:
                    self._connections.discard(connection)

    def _answer_all(self, connection: socket.socket) -> None:
        rest = b""
        while True:
            while b"\r\n\r\n" not in rest:
                more = connection.recv(65536)
                if not more:
                    return
                rest += more
            head, _, rest = rest.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            body = bytearray(length)
            body[: len(rest)] = rest[:length]
            view = memoryview(body)[min(len(rest), length) :]
            rest = rest[length:]
            while view:
                view = view[connection.recv_into(view) or _cut() :]
            events = body.count(self._marker)
            with self._lock:
                self._count += events
            ours = head.startswith(b"POST /v1/events/batch")
            connection.sendall(_answer(_OURS if ours else _BODY))


def _cut() -> int:
    raise OSError("the client went away in the middle of a request")


if __name__ == "__main__":
    server = Server()
    serve(
        {
            "up": server.up,
            "down": server.down,
            "expect": server.expect,
            "counted": server.counted,
        }
    )
