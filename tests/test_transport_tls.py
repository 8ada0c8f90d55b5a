"""TLS: what is trusted, how failures are told apart, and the deadline underneath."""

from __future__ import annotations

import gc
import os
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from hostile import ACCEPTED, HostileServer, Peer, Play, answering, closed_port, reply

from causality_sdk.errors import TransportError, TransportReason
from causality_sdk.transport.http import HttpTransport
from causality_sdk.wire.causality import CausalityWire

KEY = "sk-live-0123456789"
TIMEOUT = 0.3  # seconds of an attempt that is meant to fail by its deadline
SLACK = 1.0
PLENTY = 10.0
BATCH = CausalityWire().frame([b'{"event":"x"}'])

Make = Callable[..., HttpTransport]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusted(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module")
def context(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority, "127.0.0.1", "events.invalid")


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(made)
    return made


@pytest.fixture(scope="module", autouse=True)
def _no_forgotten_socket() -> Iterator[None]:
    """The ResourceWarning of a socket that nobody closed becomes an error here."""
    yield
    gc.collect()


@pytest.fixture
def make(trusted: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    made: list[HttpTransport] = []

    def factory(endpoint: str, **options: Any) -> HttpTransport:
        options = {"secret": KEY, "verify": trusted, **options}
        made.append(HttpTransport(endpoint, {"X-API-Key": KEY}, **options))
        return made[-1]

    yield factory
    while made:
        made.pop().close()


def fail(
    transport: HttpTransport, *reasons: TransportReason, timeout: float = PLENTY, size: int = 1
) -> TransportError:
    began = time.monotonic()
    with pytest.raises(TransportError) as caught:
        transport.send(CausalityWire().frame([os.urandom(size)]), timeout)
    assert time.monotonic() - began < timeout + SLACK
    assert caught.value.reason in reasons, f"{caught.value!r} from {caught.value.__cause__!r}"
    return caught.value


def test_a_server_of_a_trusted_authority(make: Make, context: ssl.SSLContext) -> None:
    with HostileServer(answering(ACCEPTED), tls=context) as server:
        transport = make(server.endpoint)
        for _ in range(5):
            assert transport.send(BATCH, PLENTY).status == 200
        assert server.connections == 1
        assert server.requests[0].headers["x-api-key"] == KEY


def test_a_large_body_both_ways(make: Make, context: ssl.SSLContext) -> None:
    answer = reply(200, b" " * 500_000)
    body = os.urandom(3_000_000)
    with HostileServer(answering(answer), tls=context) as server:
        response = make(server.endpoint).send(CausalityWire().frame([body]), PLENTY)
        assert len(response.body) == 500_000
        assert body in server.requests[0].body


def test_a_certificate_that_nobody_signed_for_us(make: Make, context: ssl.SSLContext) -> None:
    with HostileServer(answering(ACCEPTED), tls=context) as server:
        error = fail(make(server.endpoint, verify=True), "tls")
        assert "certificate" in str(error).lower()
        assert "verify=" in str(error)
        assert not error.stale
        assert server.requests == []  # the key was not sent


def test_a_certificate_for_another_name(make: Make, authority: trustme.CA) -> None:
    with HostileServer(
        answering(ACCEPTED), tls=server_context(authority, "elsewhere.invalid")
    ) as server:
        fail(make(server.endpoint), "tls")
        assert server.requests == []


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_verification_can_be_turned_off(make: Make, context: ssl.SSLContext) -> None:
    with HostileServer(answering(ACCEPTED), tls=context) as server:
        assert make(server.endpoint, verify=False).send(BATCH, PLENTY).status == 200


@pytest.mark.parametrize("content", [None, "", "not a certificate\n"])
def test_a_bundle_that_cannot_be_used(
    make: Make, context: ssl.SSLContext, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_text(content)
    with HostileServer(answering(ACCEPTED), tls=context) as server:
        error = fail(make(server.endpoint, verify=str(path)), "tls")
        assert "verify=" in str(error)


def test_the_bundle_of_a_session_of_the_callers_own_is_used(
    make: Make, context: ssl.SSLContext, trusted: str
) -> None:
    """Given with the request, the default `verify=True` would win over it."""
    with HostileServer(answering(ACCEPTED), tls=context) as server, requests.Session() as session:
        session.verify = trusted
        assert make(server.endpoint, session=session, verify=True).send(BATCH, PLENTY).status == 200
        session.verify = True
        session.close()
        transport = make(server.endpoint, session=session, verify=trusted)
        assert transport.send(BATCH, PLENTY).status == 200


def test_a_port_without_tls(make: Make) -> None:
    def play(peer: Peer) -> None:
        peer.sock.recv(65536)
        peer.send(reply(400, b"this is not HTTP"))
        peer.hold()

    with HostileServer(play) as server:
        error = fail(make(server.endpoint.replace("http:", "https:")), "tls")
        assert "check" in str(error)


@pytest.mark.parametrize("end", [lambda _peer: None, Peer.reset])
def test_a_handshake_that_is_cut_off_is_never_called_stale(make: Make, end: Play) -> None:
    """The connection is new, so an attempt at once would meet the same."""

    def play(peer: Peer) -> None:
        peer.sock.recv(65536)
        end(peer)

    with HostileServer(play) as server:
        error = fail(make(server.endpoint.replace("http:", "https:")), "closed", "tls")
        assert not error.stale


def test_a_reused_connection_that_is_closed_is_stale(make: Make, context: ssl.SSLContext) -> None:
    def play(peer: Peer) -> None:
        peer.request()
        peer.send(ACCEPTED)
        peer.request()

    with HostileServer(play, answering(ACCEPTED), tls=context) as server:
        transport = make(server.endpoint)
        assert transport.send(BATCH, PLENTY).status == 200
        assert fail(transport, "closed").stale
        assert transport.send(BATCH, PLENTY).status == 200


def test_nothing_listens(make: Make) -> None:
    fail(make(f"https://127.0.0.1:{closed_port()}"), "refused")


class TestTheDeadline:
    def test_a_handshake_that_nobody_answers(self, make: Make) -> None:
        with HostileServer(Peer.hold) as server:
            fail(make(server.endpoint.replace("http:", "https:")), "timeout", timeout=TIMEOUT)

    def test_a_handshake_that_drips(self, make: Make) -> None:
        """One record of a handshake, which never ends."""
        record = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + bytes(16380)
        with HostileServer(lambda peer: peer.drip(record)) as server:
            transport = make(server.endpoint.replace("http:", "https:"))
            fail(transport, "timeout", "tls", timeout=TIMEOUT)

    @pytest.mark.parametrize(
        "data",
        [
            b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000,
            b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b" " * 9999,
        ],
    )
    def test_an_answer_that_drips(self, make: Make, context: ssl.SSLContext, data: bytes) -> None:
        def play(peer: Peer) -> None:
            peer.request()
            peer.drip(data)

        with HostileServer(play, tls=context) as server:
            fail(make(server.endpoint), "timeout", timeout=TIMEOUT)

    def test_a_body_that_is_read_by_the_sip(self, make: Make, context: ssl.SSLContext) -> None:
        def play(peer: Peer) -> None:
            while peer.sock.recv(16384) and not peer.pause(0.05):
                pass

        with HostileServer(play, tls=context, receive_buffer=4096) as server:
            fail(make(server.endpoint), "timeout", timeout=TIMEOUT, size=16 * 1024 * 1024)


def test_through_a_proxy_that_tunnels(make: Make, context: ssl.SSLContext) -> None:
    def proxy_and_server(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        peer.secure(context)
        answering(ACCEPTED)(peer)

    with HostileServer(proxy_and_server) as proxy:
        transport = make("https://events.invalid", proxies={"https": proxy.endpoint})
        for _ in range(3):
            assert transport.send(BATCH, PLENTY).status == 200
        assert proxy.connections == 1
        connect, request, *_ = proxy.requests
    assert connect.line.startswith("CONNECT events.invalid:443 ")
    assert "x-api-key" not in connect.headers
    assert request.headers["x-api-key"] == KEY
    assert request.line == "POST /v1/events/batch HTTP/1.1"


def test_a_dripping_server_behind_a_proxy_that_tunnels(make: Make, context: ssl.SSLContext) -> None:
    def proxy_and_server(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        peer.secure(context)
        peer.request()
        peer.drip(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000)

    with HostileServer(proxy_and_server) as proxy:
        transport = make("https://events.invalid", proxies={"https": proxy.endpoint})
        fail(transport, "timeout", timeout=TIMEOUT)
