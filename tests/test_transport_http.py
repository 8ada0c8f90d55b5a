"""The HTTP transport against servers that misbehave: in time, in little memory, and secret."""

from __future__ import annotations

import gc
import gzip
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hostile import (
    ACCEPTED,
    HostileServer,
    Peer,
    Play,
    answering,
    black_hole,
    closed_port,
    reply,
)

from causality_sdk.errors import TransportError, TransportReason
from causality_sdk.testing import LoopbackCollector
from causality_sdk.transport.deadline import Attempt, connect
from causality_sdk.transport.http import BODY_BYTES, HttpTransport
from causality_sdk.wire.base import Kind, Request, Response
from causality_sdk.wire.causality import CausalityWire

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-live-0123456789"
TIMEOUT = 0.3  # seconds of an attempt that is meant to fail by its deadline
SLACK = 1.0  # more, on a busy machine; a server that keeps us longer would do so for ever
PLENTY = 10.0  # seconds of an attempt that is not

Make = Callable[..., HttpTransport]
BATCH = CausalityWire().frame([b'{"event":"x"}'])


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module", autouse=True)
def _no_forgotten_socket() -> Iterator[None]:
    """The ResourceWarning of a socket that nobody closed becomes an error here."""
    yield
    gc.collect()


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes transports and closes them."""
    made: list[HttpTransport] = []

    def factory(endpoint: str, headers: dict[str, str] | None = None, **options: Any) -> Any:
        options = {"secret": KEY, **options}
        transport = HttpTransport(endpoint, {"X-API-Key": KEY, **(headers or {})}, **options)
        made.append(transport)
        return transport

    yield factory
    while made:
        made.pop().close()


def fail(
    transport: HttpTransport,
    reason: TransportReason,
    *,
    timeout: float = PLENTY,
    request: Request = BATCH,
) -> TransportError:
    """The error of an attempt, which must be of this kind, in time, helpful and discreet."""
    began = time.monotonic()
    with pytest.raises(TransportError) as caught:
        transport.send(request, timeout)
    took = time.monotonic() - began
    assert took < max(timeout, 0.0) + SLACK
    error = caught.value
    assert error.reason == reason, f"{error!r} from {error.__cause__!r}"
    check_words(error, transport)
    return error


def check_words(error: TransportError, transport: HttpTransport) -> None:
    host = transport.endpoint.partition("://")[2]
    assert host in str(error)
    assert "check" in str(error)  # the fix
    assert len(str(error)) < 600
    text = "".join(traceback.format_exception(error))
    for link in links(error):
        text += f"{link!s} {link!r} {link.__dict__!r} {link.args!r}"
        if link is not error:
            assert link.__traceback__ is None, "its frames hold the headers and the batch"
    assert KEY not in text
    assert repr(KEY.encode())[2:-1] not in text


def links(error: BaseException) -> list[BaseException]:
    """The error and all that hangs on it, shown in a traceback or not."""
    found = [error]
    for link in found:
        for inner in (link.__cause__, link.__context__, *link.args, getattr(link, "reason", None)):
            if isinstance(inner, BaseException) and all(inner is not known for known in found):
                found.append(inner)
    return found


def read_request(then: Callable[[Peer], object]) -> Play:
    def play(peer: Peer) -> None:
        peer.request()
        then(peer)

    return play


def sending(data: bytes, then: Callable[[Peer], object] = Peer.hold) -> Play:
    """Reads a request, sends these bytes, and holds the connection open unless told otherwise."""

    def play(peer: Peer) -> None:
        peer.request()
        peer.send(data)
        then(peer)

    return play


def nothing(_peer: Peer) -> None:
    """Ends the play, which closes the connection."""


class TestTheDeadline:
    @pytest.mark.parametrize(
        "play",
        [
            pytest.param(lambda peer: peer.drip(b"H" * 10_000), id="drips a status line"),
            pytest.param(
                lambda peer: peer.drip(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000),
                id="drips headers",
            ),
            pytest.param(
                lambda peer: (
                    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"),
                    peer.drip(b" " * 9999),
                ),
                id="drips a body",
            ),
            pytest.param(
                lambda peer: (
                    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                    peer.drip(b"1\r\n \r\n" * 999),
                ),
                id="drips chunks",
            ),
            pytest.param(
                lambda peer: (
                    peer.send(b"HTTP/1.1 200 OK\r\n\r\n"),
                    peer.drip(b" " * 9999),
                ),
                id="drips a body without a length",
            ),
            pytest.param(
                lambda peer: peer.flood(b"HTTP/1.1 100 Continue\r\n\r\n"), id="only interim answers"
            ),
            pytest.param(
                lambda peer: (
                    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"),
                    peer.drip(b"A: b\r\n" * 999),
                ),
                id="drips trailers",
            ),
            pytest.param(Peer.hold, id="never answers"),
        ],
    )
    def test_it_ends_an_attempt_in_spite_of_a_server_that(
        self, make: Make, play: Callable[[Peer], object]
    ) -> None:
        with HostileServer(read_request(play), answering(ACCEPTED)) as server:
            transport = make(server.endpoint)
            error = fail(transport, "timeout", timeout=TIMEOUT)
            assert not error.stale
            assert transport.send(BATCH, PLENTY).status == 200

    @pytest.mark.parametrize("play", [Peer.ignore, Peer.sip])
    def test_it_ends_an_attempt_while_a_large_body_is_being_sent(
        self, make: Make, play: Play
    ) -> None:
        large = CausalityWire().frame([os.urandom(8 * 1024 * 1024)])
        with HostileServer(play, receive_buffer=4096) as server:
            fail(make(server.endpoint), "timeout", timeout=TIMEOUT, request=large)

    def test_two_mebibytes_that_nobody_reads(self, make: Make) -> None:
        large = CausalityWire().frame([os.urandom(2 * 1024 * 1024)])
        with HostileServer(Peer.ignore, receive_buffer=4096) as server:
            fail(make(server.endpoint), "timeout", timeout=TIMEOUT, request=large)

    def test_it_ends_an_attempt_to_connect(self, make: Make) -> None:
        with black_hole() as port:
            fail(make(f"http://127.0.0.1:{port}"), "timeout", timeout=TIMEOUT)

    def test_it_covers_a_reused_connection_too(self, make: Make) -> None:
        def play(peer: Peer) -> None:
            answering_once(peer)
            peer.request()
            peer.drip(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000)

        with HostileServer(play) as server:
            transport = make(server.endpoint)
            assert transport.send(BATCH, PLENTY).status == 200
            assert not fail(transport, "timeout", timeout=TIMEOUT).stale
            assert server.connections == 1

    @pytest.mark.parametrize("timeout", [0.0, -1.0, 1e-9])
    def test_one_that_has_passed_is_a_timeout(self, make: Make, timeout: float) -> None:
        with HostileServer(answering(ACCEPTED)) as server:
            transport = make(server.endpoint)
            fail(transport, "timeout", timeout=timeout)
            with pytest.raises(TransportError) as caught:
                transport.reachable(timeout)
            assert caught.value.reason == "timeout"


def answering_once(peer: Peer) -> None:
    peer.request()
    peer.send(ACCEPTED)


class TestSeveralAddresses:
    """A name may have many addresses, and requests gives each of them the whole timeout."""

    def resolve(self, monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
        def lookup(*_args: object, **_options: object) -> list[Any]:
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*kind, ("127.0.0.1", port)) for port in ports]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)

    def test_the_next_is_tried_when_one_refuses(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with HostileServer(answering(ACCEPTED)) as server:
            self.resolve(monkeypatch, closed_port(), server.port)
            assert make("http://localhost:1").send(BATCH, PLENTY).status == 200

    def test_a_dead_one_does_not_use_up_the_time_of_the_next(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with black_hole() as dead, HostileServer(answering(ACCEPTED)) as server:
            self.resolve(monkeypatch, dead, dead, server.port)
            assert make("http://localhost:1").send(BATCH, 1.2).status == 200

    def test_many_dead_ones_end_in_time(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        with black_hole() as dead:
            self.resolve(monkeypatch, *[dead] * 20)
            fail(make("http://localhost:1"), "timeout", timeout=TIMEOUT)

    def test_all_that_refuse(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        self.resolve(monkeypatch, closed_port(), closed_port())
        fail(make("http://localhost:1"), "refused")

    def test_no_address_at_all(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        self.resolve(monkeypatch)
        fail(make("http://localhost:1"), "other")

    def test_a_new_socket_is_armed_for_the_handshake(self) -> None:
        with HostileServer(Peer.hold) as server:
            attempt = Attempt()
            attempt.begin(time.monotonic() + 2.0)
            with connect("127.0.0.1", server.port, attempt) as sock:
                left = sock.gettimeout()
                assert left is not None
                assert left <= 2.0


class TestEndings:
    def test_closed_before_any_byte_on_a_new_connection(self, make: Make) -> None:
        with HostileServer(read_request(nothing)) as server:
            assert not fail(make(server.endpoint), "closed").stale

    def test_closed_without_reading(self, make: Make) -> None:
        with HostileServer(nothing) as server:
            assert not fail(make(server.endpoint), "closed").stale

    @pytest.mark.parametrize("end", [nothing, Peer.reset])
    def test_an_idle_connection_closed_as_it_is_reused(
        self, make: Make, end: Callable[[Peer], None]
    ) -> None:
        """The race that keep-alive cannot avoid: worth one attempt at once, on a new connection."""

        def play(peer: Peer) -> None:
            answering_once(peer)
            peer.request()
            end(peer)

        with HostileServer(play, answering(ACCEPTED)) as server:
            transport = make(server.endpoint)
            assert transport.send(BATCH, PLENTY).status == 200
            assert fail(transport, "closed").stale
            assert transport.send(BATCH, PLENTY).status == 200
            assert server.connections == 2

    def test_an_idle_connection_closed_before_is_not_used_again(self, make: Make) -> None:
        closed = threading.Event()

        def play(peer: Peer) -> None:
            answering_once(peer)
            peer.sock.close()
            closed.set()

        with HostileServer(play, answering(ACCEPTED)) as server:
            transport = make(server.endpoint)
            transport.send(BATCH, PLENTY)
            assert closed.wait(PLENTY)
            assert transport.send(BATCH, PLENTY).status == 200

    @pytest.mark.parametrize("end", [nothing, Peer.reset])
    def test_a_reused_connection_closed_after_a_byte_is_not_stale(
        self, make: Make, end: Callable[[Peer], None]
    ) -> None:
        """The server had begun to answer: it may have taken the batch."""

        def play(peer: Peer) -> None:
            answering_once(peer)
            peer.request()
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
            end(peer)

        with HostileServer(play) as server:
            transport = make(server.endpoint)
            transport.send(BATCH, PLENTY)
            error = fail(transport, "closed")
            # An RST may overtake the bytes before it; then nobody can tell.
            assert not error.stale or end is Peer.reset

    @pytest.mark.parametrize(
        "head",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
    )
    def test_a_body_that_ends_early_is_no_answer(self, make: Make, head: bytes) -> None:
        """Not even an empty one, which would acknowledge the batch."""
        with HostileServer(sending(head, nothing), answering(ACCEPTED)) as server:
            transport = make(server.endpoint)
            assert not fail(transport, "closed").stale
            assert transport.send(BATCH, PLENTY).status == 200

    def test_a_reset_in_the_middle_of_a_body(self, make: Make) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"
        with HostileServer(sending(head, Peer.reset)) as server:
            fail(make(server.endpoint), "closed")

    def test_a_half_close_instead_of_an_answer(self, make: Make) -> None:
        def play(peer: Peer) -> None:
            peer.request()
            peer.sock.shutdown(socket.SHUT_WR)
            peer.hold()

        with HostileServer(play) as server:
            fail(make(server.endpoint), "closed")

    def test_an_answer_that_comes_before_the_body_was_read(self, make: Make) -> None:
        """As servers do it that refuse a large body: the answer counts, not the broken pipe."""

        def play(peer: Peer) -> None:
            peer.sock.recv(1000)
            peer.send(reply(413, b"too large", "Connection: close"))
            peer.sock.shutdown(socket.SHUT_WR)
            peer.hold()

        large = CausalityWire().frame([b"x" * 4 * 1024 * 1024])
        with HostileServer(play) as server:
            assert make(server.endpoint).send(large, PLENTY).status == 413


class TestStrangeAnswers:
    def send(self, make: Make, data: bytes) -> Response:
        """The answer made of `data`, after which the server closes the connection."""
        closed = threading.Event()

        def close(peer: Peer) -> None:
            peer.sock.close()
            closed.set()

        with HostileServer(sending(data, close), answering(ACCEPTED)) as server:
            transport = make(server.endpoint)
            response = transport.send(BATCH, PLENTY)
            assert closed.wait(PLENTY)
            assert transport.send(BATCH, PLENTY).body == b"{}"  # and nothing is left over
            return response

    def test_an_ordinary_one(self, make: Make) -> None:
        response = self.send(make, reply(503, b"{}", "Retry-After: 7", "X-Case: Kept"))
        assert (response.status, response.body, response.truncated) == (503, b"{}", False)
        assert response.headers["retry-after"] == "7"
        assert response.headers["x-case"] == "Kept"

    def test_more_body_than_was_said(self, make: Make) -> None:
        data = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}{"acceptedCount":0}'
        assert self.send(make, data).body == b"{}"

    def test_continue_goes_before_the_answer(self, make: Make) -> None:
        data = b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + reply(201, b"{}")
        assert self.send(make, data).status == 201

    def test_http_1_0_without_a_length(self, make: Make) -> None:
        assert self.send(make, b"HTTP/1.0 200 OK\r\n\r\n{}").body == b"{}"

    def test_no_content(self, make: Make) -> None:
        answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        with HostileServer(answering(answer, ACCEPTED)) as server:
            transport = make(server.endpoint)
            response = transport.send(BATCH, PLENTY)
            assert (response.status, response.body) == (204, b"")
            assert transport.send(BATCH, PLENTY).body == b"{}"
            assert server.connections == 1

    def test_chunks(self, make: Make) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert self.send(make, head + b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n").body == b"{}"

    def test_a_compressed_body_is_not_decoded(self, make: Make) -> None:
        """Identity was asked for. A bomb stays as small as it came."""
        bomb = gzip.compress(bytes(50_000_000))
        assert len(bomb) < BODY_BYTES
        response = self.send(make, reply(200, bomb, "Content-Encoding: gzip"))
        assert response.body == bomb
        assert CausalityWire().verdicts(response, 1)[0].kind is Kind.RETRY

    @pytest.mark.parametrize(
        "garbage",
        [
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"\x15\x03\x01\x00\x02\x02\x16\n" * 10,
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 99999 What\r\n\r\n",
            b"\r\n\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
            b"HTTP/1.1 200 OK\r\nA: " + b"b" * 1_000_000 + b"\r\n\r\n",
            b"A" * 1_000_000 + b"\r\n\r\n",
        ],
    )
    def test_what_is_not_http(self, make: Make, garbage: bytes) -> None:
        with HostileServer(sending(garbage)) as server:
            fail(make(server.endpoint), "protocol")

    def test_chunks_that_are_none(self, make: Make) -> None:
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n"
        with HostileServer(sending(data)) as server:
            with pytest.raises(TransportError) as caught:
                make(server.endpoint).send(BATCH, PLENTY)
            assert caught.value.reason in ("closed", "protocol")

    @pytest.mark.parametrize("status", [101, 102, 103, 199])
    def test_an_interim_answer_is_never_followed_by_one_that_acknowledges_the_next_batch(
        self, make: Make, status: int
    ) -> None:
        """Else the next request reads the answer to this one."""

        def play(peer: Peer) -> None:
            peer.request()
            peer.send(f"HTTP/1.1 {status} Soon\r\n\r\n".encode())
            peer.request()
            peer.send(ACCEPTED)  # to the first
            peer.hold()

        with HostileServer(play, answering(reply(500))) as server:
            transport = make(server.endpoint)
            fail(transport, "protocol")
            assert transport.send(BATCH, PLENTY).status == 500
            assert server.connections == 2

    def test_a_page_of_a_captive_portal_acknowledges_nothing(self, make: Make) -> None:
        with LoopbackCollector(api_key=KEY) as collector:
            collector.respond(200, "<html><body>Welcome to our hotel</body></html>")
            response = make(collector.endpoint).send(BATCH, PLENTY)
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/html")
        assert CausalityWire().verdicts(response, 1)[0].kind is Kind.RETRY


ENDLESS = {
    "a length of 10 GB": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n",
        b" " * 65536,
    ),
    "chunks without end": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"8000\r\n" + b" " * 32768 + b"\r\n",
    ),
    "one chunk of 10 GB": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2540BE400\r\n",
        b" " * 65536,
    ),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536),
    "a redirect": (
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 10000000000\r\n"
        b"\r\n",
        b" " * 65536,
    ),
}
CHILD = """
import resource, sys
from causality_sdk.errors import TransportError
from causality_sdk.transport.http import HttpTransport
from causality_sdk.wire.base import Request

transport = HttpTransport(sys.argv[1], {})
def send():
    response = transport.send(Request("/", b"x"), 20.0)
    assert response.truncated and len(response.body) == 1024 * 1024, response
send()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(len(sys.argv[2]) * 3):
    send()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


class TestEndlessBodies:
    @pytest.mark.parametrize("what", ENDLESS)
    def test_reading_stops_and_the_connection_is_given_up(self, make: Make, what: str) -> None:
        head, more = ENDLESS[what]
        with HostileServer(
            sending(head, lambda peer: peer.flood(more)), answering(ACCEPTED)
        ) as server:
            transport = make(server.endpoint)
            response = transport.send(BATCH, PLENTY)
            assert response.truncated
            assert response.body == b" " * BODY_BYTES
            assert transport.send(BATCH, PLENTY).body == b"{}"
            assert server.connections == 2

    @pytest.mark.parametrize("over", [-1, 0, 1])
    def test_the_limit_is_exact(self, make: Make, over: int) -> None:
        with HostileServer(answering(reply(200, b" " * (BODY_BYTES + over)))) as server:
            response = make(server.endpoint).send(BATCH, PLENTY)
            assert len(response.body) == min(BODY_BYTES, BODY_BYTES + over)
            assert response.truncated == (over > 0)

    @pytest.mark.skipif(sys.platform == "win32", reason="ru_maxrss is a Unix figure")
    def test_memory_stays_flat(self) -> None:
        plays = [
            sending(head, lambda peer, more=more: peer.flood(more))  # type: ignore[misc]
            for head, more in ENDLESS.values()
        ] * 3
        with HostileServer(*plays) as server:
            child = subprocess.run(
                [sys.executable, "-c", CHILD, server.endpoint, "x" * len(ENDLESS)],
                check=True,
                capture_output=True,
                text=True,
                cwd=ROOT,
                timeout=60,
            )
        unit = 1 if sys.platform == "darwin" else 1024  # bytes, there
        assert int(child.stdout) * unit < 16 * 1024 * 1024


class TestRedirects:
    @pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
    def test_none_is_followed_and_the_key_goes_nowhere_else(self, make: Make, status: int) -> None:
        with HostileServer(answering(ACCEPTED)) as other:
            answer = reply(status, b"", f"Location: {other.endpoint}/v1/events/batch")
            with HostileServer(answering(answer)) as server:
                response = make(server.endpoint).send(BATCH, PLENTY)
                assert response.status == status
                assert len(server.requests) == 1
            assert other.connections == 0

    @pytest.mark.parametrize(
        "location", ["/elsewhere", "", "http://[", "http://exa mple:x/", "//", "\xff\xfe", "a:b"]
    )
    def test_wherever_it_leads(self, make: Make, location: str) -> None:
        answer = reply(302, b"", f"Location: {location}")
        with HostileServer(answering(answer)) as server:
            transport = make(server.endpoint)
            assert transport.send(BATCH, PLENTY).status == 302
            assert transport.send(BATCH, PLENTY).status == 302
            assert server.connections == 1


class TestNoConnection:
    def test_a_name_that_does_not_exist(self, make: Make) -> None:
        fail(make("http://nonexistent.invalid"), "dns")
        fail(make("https://nonexistent.invalid:8443/base"), "dns")

    def test_a_closed_port(self, make: Make) -> None:
        fail(make(f"http://127.0.0.1:{closed_port()}"), "refused")
        fail(make(f"https://127.0.0.1:{closed_port()}"), "refused")

    def test_a_server_that_comes_back(self, make: Make) -> None:
        with LoopbackCollector(api_key=KEY) as collector:
            transport = make(collector.endpoint)
            assert transport.send(Request("/health", b"", method="GET"), PLENTY).status == 200
            collector.down()
            fail(transport, "refused")
            collector.up()
            assert transport.send(Request("/health", b"", method="GET"), PLENTY).status == 200

    @pytest.mark.parametrize("endpoint", ["http://" + "a" * 300 + ".invalid", "http://a..invalid"])
    def test_a_name_that_cannot_exist(self, make: Make, endpoint: str) -> None:
        with pytest.raises(TransportError) as caught:
            make(endpoint).send(BATCH, PLENTY)
        assert caught.value.reason in ("dns", "other")


class TestSecrets:
    """Every error of this file is checked by `fail`; here the server tries to get the key shown."""

    def test_a_server_that_sends_the_key_back_as_garbage(self, make: Make) -> None:
        with HostileServer(sending(f"X-API-Key: {KEY}\r\n\r\n".encode())) as server:
            error = fail(make(server.endpoint), "protocol")
            assert "***" in str(error)
            assert links(error) == [error]  # the cause would show it

    def test_the_cause_is_kept_where_it_is_harmless(self, make: Make) -> None:
        with HostileServer(sending(b"garbage\r\n\r\n")) as server:
            error = fail(make(server.endpoint), "protocol")
            assert isinstance(error.__cause__, requests.RequestException)
            assert error.__cause__.request is None  # it holds the headers and the batch

    def test_a_key_that_cannot_be_sent(self, make: Make) -> None:
        """requests shows the header it complains about."""
        key = "line\nbreak-0123456789"
        transport = make("http://127.0.0.1:1", {"X-API-Key": key}, secret=key)
        with pytest.raises(TransportError) as caught:
            transport.send(BATCH, PLENTY)
        text = "".join(traceback.format_exception(caught.value))
        assert "0123456789" not in text
        assert "***" in str(caught.value)

    @pytest.mark.parametrize("status", [200, 401, 500])
    def test_a_body_that_quotes_the_key(self, make: Make, status: int) -> None:
        body = f'{{"error":"unknown key {KEY}"}}'.encode()
        with HostileServer(answering(reply(status, body))) as server:
            response = make(server.endpoint).send(BATCH, PLENTY)
            assert response.body == b'{"error":"unknown key ***"}'

    def test_a_word_that_is_no_secret_stays(self, make: Make) -> None:
        with HostileServer(answering(reply(200, b'{"status":"ok"}'))) as server:
            response = make(server.endpoint, secret="ok").send(BATCH, PLENTY)
            assert response.body == b'{"status":"ok"}'

    def test_the_transport_does_not_show_it(self, make: Make) -> None:
        assert KEY not in repr(make("http://127.0.0.1:1"))

    def test_the_password_of_a_proxy(self, make: Make) -> None:
        transport = make("http://events.invalid", proxies={"http": "http://me:hidden@[broken"})
        with pytest.raises(TransportError) as caught:
            transport.send(BATCH, PLENTY)
        assert "hidden" not in "".join(traceback.format_exception(caught.value))


class TestWhatIsSent:
    def test_the_headers(self, make: Make) -> None:
        with HostileServer(answering(ACCEPTED)) as server:
            extra = {"User-Agent": "causality-sdk/9", "X-Team": "blue"}
            make(f"{server.endpoint}/base", extra).send(BATCH, PLENTY)
            [request] = server.requests
        assert request.line == "POST /base/v1/events/batch HTTP/1.1"
        assert request.body == BATCH.body
        assert request.headers["host"] == server.host
        assert request.headers["x-api-key"] == KEY
        assert request.headers["user-agent"] == "causality-sdk/9"
        assert request.headers["x-team"] == "blue"
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["content-length"] == str(len(BATCH.body))
        for name in ("content-encoding", "transfer-encoding", "authorization", "cookie"):
            assert name not in request.headers

    def test_headers_of_the_configuration_cannot_ask_for_a_compressed_answer(
        self, make: Make
    ) -> None:
        with HostileServer(answering(ACCEPTED)) as server:
            make(server.endpoint, {"accept-encoding": "gzip", "x-api-key": "other"}).send(
                BATCH, PLENTY
            )
            assert server.requests[0].headers["accept-encoding"] == "identity"

    def test_a_request_without_a_body(self, make: Make) -> None:
        with HostileServer(answering(ACCEPTED)) as server:
            make(server.endpoint, compression="gzip").send(
                Request("/health", b"", method="GET"), PLENTY
            )
            [request] = server.requests
        assert request.line == "GET /health HTTP/1.1"
        assert request.body == b""
        assert "content-encoding" not in request.headers

    def test_many_requests_go_over_one_connection(self, make: Make) -> None:
        with HostileServer(answering(ACCEPTED)) as server:
            transport = make(server.endpoint)
            for _ in range(30):
                transport.send(BATCH, PLENTY)
            assert server.connections == 1
            assert len(server.requests) == 30

    def test_a_closed_transport_opens_a_new_connection(self, make: Make) -> None:
        with HostileServer(answering(ACCEPTED)) as server:
            transport = make(server.endpoint)
            transport.send(BATCH, PLENTY)
            transport.close()
            transport.close()
            assert transport.send(BATCH, PLENTY).status == 200
            assert server.connections == 2

    def test_cookies_are_not_kept(self, make: Make) -> None:
        with HostileServer(answering(reply(200, b"{}", "Set-Cookie: a=b; Path=/"))) as server:
            transport = make(server.endpoint)
            for _ in range(3):
                transport.send(BATCH, PLENTY)
            assert all("cookie" not in request.headers for request in server.requests)
            assert len(transport._session.cookies) == 0

    def test_netrc_does_not_replace_what_was_configured(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password hidden\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        with HostileServer(answering(ACCEPTED)) as server:
            transport = make(server.endpoint, {"Authorization": "Bearer ours"})
            transport.send(BATCH, PLENTY)
            transport.close()  # the server serves one connection at a time
            make(server.endpoint).send(BATCH, PLENTY)
        first, second = server.requests
        assert first.headers["authorization"] == "Bearer ours"
        assert first.headers["x-api-key"] == KEY
        assert "authorization" not in second.headers


class TestASessionOfTheCallersOwn:
    def test_it_is_used_as_it_is_and_not_closed(self, make: Make) -> None:
        closed: list[bool] = []

        class Own(requests.Session):
            def close(self) -> None:
                closed.append(True)
                super().close()

        session = Own()
        adapters = dict(session.adapters)
        session.headers["X-Mine"] = "yes"
        session.auth = ("me", "word")
        with HostileServer(answering(ACCEPTED)) as server, session:
            transport = make(server.endpoint, session=session)
            assert transport.send(BATCH, PLENTY).status == 200
            assert dict(session.adapters) == adapters
            transport.close()
            assert closed == []
            assert transport.send(BATCH, PLENTY).status == 200
            assert server.connections == 1
            [request, _] = server.requests
            assert request.headers["x-mine"] == "yes"
            assert request.headers["x-api-key"] == KEY
            assert request.headers["authorization"].startswith("Basic ")
            assert request.headers["accept-encoding"] == "identity"

    def test_what_it_raises_becomes_a_transport_error(self, make: Make) -> None:
        class Broken(requests.Session):
            def request(self, *_args: Any, **_options: Any) -> requests.Response:
                raise RuntimeError("a bug of the caller's")

        with Broken() as session:
            transport = make("http://127.0.0.1:1", session=session)
            with pytest.raises(TransportError, match="a bug of the caller's") as caught:
                transport.send(BATCH, PLENTY)
        assert caught.value.reason == "other"
        assert caught.value.__cause__ is not None
        assert caught.value.__cause__.__traceback__ is not None  # to find the bug by

    def test_a_timeout_of_its_own_adapters(self, make: Make) -> None:
        with HostileServer(read_request(Peer.hold)) as server, requests.Session() as session:
            fail(make(server.endpoint, session=session), "timeout", timeout=TIMEOUT)

    def test_its_closed_connections_are_never_called_stale(self, make: Make) -> None:
        """Whether it reused one is not known; it may have tried again itself."""
        with HostileServer(read_request(nothing)) as server, requests.Session() as session:
            assert not fail(make(server.endpoint, session=session), "closed").stale

    def test_it_follows_no_redirect(self, make: Make) -> None:
        with HostileServer(answering(ACCEPTED)) as other, requests.Session() as session:
            answer = reply(307, b"", f"Location: {other.endpoint}")
            with HostileServer(answering(answer)) as server:
                assert make(server.endpoint, session=session).send(BATCH, PLENTY).status == 307
            assert other.connections == 0


class TestCompression:
    def test_the_body_is_compressed_and_says_so(self, make: Make) -> None:
        with LoopbackCollector(api_key=KEY) as collector:
            event = b'{"idempotency_key":"k","event":"' + b"x" * 1000 + b'"}'
            transport = make(collector.endpoint, compression="gzip")
            assert transport.send(CausalityWire().frame([event]), PLENTY).status == 200
            assert collector.payloads == {"k": event}
            [request] = collector.requests
            assert request.headers["content-encoding"] == "gzip"
            assert len(gzip.decompress(request.body)) > 1000 > len(request.body)

    @pytest.mark.parametrize("status", [400, 415])
    def test_a_server_that_cannot_read_it_gets_plain_bodies_from_then_on(
        self, make: Make, status: int
    ) -> None:
        with HostileServer(answering(reply(status), ACCEPTED)) as server:
            transport = make(server.endpoint, compression="gzip")
            assert transport.send(BATCH, PLENTY).status == status  # one attempt a call
            assert len(server.requests) == 1
            for _ in range(3):
                assert transport.send(BATCH, PLENTY).status == 200
            first, *others = server.requests
            assert gzip.decompress(first.body) == BATCH.body
            assert [request.body for request in others] == [BATCH.body] * 3
            assert all("content-encoding" not in request.headers for request in others)


class TestProxies:
    def test_a_plain_request_goes_through_it_whole(self, make: Make) -> None:
        with HostileServer(answering(ACCEPTED)) as proxy:
            transport = make("http://events.invalid/base", proxies={"http": proxy.endpoint})
            for _ in range(3):
                assert transport.send(BATCH, PLENTY).status == 200
            assert proxy.connections == 1
            request = proxy.requests[0]
        assert request.line == "POST http://events.invalid/base/v1/events/batch HTTP/1.1"
        assert request.headers["host"] == "events.invalid"

    def test_it_is_found_in_the_environment(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with HostileServer(answering(ACCEPTED)) as proxy:
            monkeypatch.setenv("http_proxy", proxy.endpoint)
            transport = make("http://events.invalid")
            assert not transport.can_probe
            assert transport.send(BATCH, PLENTY).status == 200
            monkeypatch.setenv("no_proxy", "events.invalid")
            assert make("http://events.invalid").can_probe
            fail(transport, "dns")

    def test_the_environment_leaves_no_trace_in_the_options(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with HostileServer(answering(ACCEPTED)) as proxy:
            options = {"ftp": "http://127.0.0.1:1"}
            transport = make("http://events.invalid", proxies=options)
            monkeypatch.setenv("http_proxy", proxy.endpoint)
            transport.send(BATCH, PLENTY)
            monkeypatch.delenv("http_proxy")
            fail(transport, "dns")
            assert options == {"ftp": "http://127.0.0.1:1"}

    def test_a_user_name_and_a_password_go_to_the_proxy(self, make: Make) -> None:
        with HostileServer(answering(reply(407))) as proxy:
            url = f"http://me:word@{proxy.host}"
            response = make("http://events.invalid", proxies={"http": url}).send(BATCH, PLENTY)
            assert response.status == 407
            assert proxy.requests[0].headers["proxy-authorization"].startswith("Basic ")

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_one_that_is_away(self, make: Make, scheme: str) -> None:
        proxies = {scheme: f"http://127.0.0.1:{closed_port()}"}
        fail(make(f"{scheme}://events.invalid", proxies=proxies), "proxy")
        proxies = {scheme: "http://nonexistent.invalid:3128"}
        fail(make(f"{scheme}://events.invalid", proxies=proxies), "proxy")

    def test_one_that_does_not_let_us_connect(self, make: Make) -> None:
        with black_hole() as port:
            proxies = {"http": f"http://127.0.0.1:{port}"}
            fail(make("http://events.invalid", proxies=proxies), "proxy", timeout=TIMEOUT)

    def test_one_that_refuses_the_tunnel(self, make: Make) -> None:
        with HostileServer(answering(reply(407, b"", "Connection: close"))) as proxy:
            transport = make("https://events.invalid", proxies={"https": proxy.endpoint})
            error = fail(transport, "proxy")
            assert "407" in str(error)
            assert proxy.requests[0].line.startswith("CONNECT events.invalid:443")
            assert "x-api-key" not in proxy.requests[0].headers

    @pytest.mark.parametrize(
        "play",
        [Peer.hold, lambda peer: peer.drip(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50)],
    )
    def test_one_that_drips_its_answer_to_connect(
        self, make: Make, play: Callable[[Peer], object]
    ) -> None:
        with HostileServer(read_request(play)) as proxy:
            transport = make("https://events.invalid", proxies={"https": proxy.endpoint})
            began = time.monotonic()
            with pytest.raises(TransportError) as caught:
                transport.send(BATCH, TIMEOUT)
            assert time.monotonic() - began < TIMEOUT + SLACK
            assert caught.value.reason in ("timeout", "proxy")

    def test_a_socks_proxy_is_never_left_out(self, make: Make) -> None:
        """Without PySocks requests refuses it, with PySocks nothing listens there."""
        with HostileServer(answering(ACCEPTED)) as server:
            proxies = {"http": f"socks5://127.0.0.1:{closed_port()}"}
            with pytest.raises(TransportError):
                make(server.endpoint, proxies=proxies).send(BATCH, PLENTY)
            assert server.connections == 0


class TestTheProbe:
    def test_a_server_that_listens_is_reachable_and_gets_no_request(self, make: Make) -> None:
        with HostileServer(Peer.hold) as server:
            transport = make(server.endpoint)
            assert transport.can_probe
            transport.reachable(PLENTY)
            make(server.endpoint.replace("http://", "HTTPS://")).reachable(PLENTY)  # no TLS yet
            make(f"{server.endpoint}/base").reachable(PLENTY)
        assert server.requests == []

    def test_it_leaves_the_connection_of_the_requests_alone(self, make: Make) -> None:
        with LoopbackCollector(api_key=KEY) as collector:
            transport = make(collector.endpoint)
            get = Request("/health", b"", method="GET")
            transport.send(get, PLENTY)
            transport.reachable(PLENTY)
            transport.send(get, PLENTY)
            assert not transport._attempt.connected  # the first connection went on being used

    @pytest.mark.parametrize(
        ("endpoint", "reason"),
        [("http://nonexistent.invalid", "dns"), ("http://127.0.0.1:{closed}", "refused")],
    )
    def test_it_fails_as_a_request_would(
        self, make: Make, endpoint: str, reason: TransportReason
    ) -> None:
        transport = make(endpoint.format(closed=closed_port()))
        with pytest.raises(TransportError) as caught:
            transport.reachable(PLENTY)
        assert caught.value.reason == reason
        assert not caught.value.stale
        check_words(caught.value, transport)

    def test_it_ends_in_time(self, make: Make) -> None:
        with black_hole() as port:
            transport = make(f"http://127.0.0.1:{port}")
            began = time.monotonic()
            with pytest.raises(TransportError) as caught:
                transport.reachable(TIMEOUT)
            assert time.monotonic() - began < TIMEOUT + SLACK
            assert caught.value.reason == "timeout"

    def test_it_means_nothing_with_a_proxy_or_a_session_of_the_callers(self, make: Make) -> None:
        closed = f"http://127.0.0.1:{closed_port()}"
        with requests.Session() as session:
            for options in ({"proxies": {"http": closed}}, {"session": session}):
                transport = make(closed, **options)
                assert not transport.can_probe
                transport.reachable(PLENTY)  # knows nothing, and says so by not failing

    def test_the_default_ports(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []

        def lookup(_host: str, port: int, *_args: object) -> list[Any]:
            asked.append(port)
            raise socket.gaierror(socket.EAI_NONAME, "no such name")

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        for endpoint in ("http://events.invalid", "https://events.invalid", "http://[::1]:7/x"):
            with pytest.raises(TransportError):
                make(endpoint).reachable(PLENTY)
        assert asked == [80, 443, 7]
