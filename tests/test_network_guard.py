"""The guard in conftest.py lets no test out of this machine. 192.0.2.1 is TEST-NET (RFC 5737)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest
import requests


def _connect(host: str) -> None:
    with socket.socket() as client:
        client.settimeout(1)
        client.connect((host, 9))


def _connect_ex(host: str) -> None:
    with socket.socket() as client:
        client.settimeout(1)
        client.connect_ex((host, 9))


def _send_datagram(host: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (host, 9))


@pytest.mark.parametrize("attempt", [_connect, _connect_ex, _send_datagram, socket.gethostbyname])
def test_an_outside_address_is_refused_and_recorded(
    attempt: Callable[[str], object], refused_connections: list[str]
) -> None:
    with pytest.raises(OSError, match="tests must not leave loopback"):
        attempt("192.0.2.1")
    assert len(refused_connections) == 1
    refused_connections.clear()


@pytest.mark.parametrize(
    "host", ["example.com", b"example.com", "10.0.0.1", "::ffff:192.0.2.1", "localhost.example.com"]
)
def test_an_outside_name_is_not_even_looked_up(
    host: str | bytes, refused_connections: list[str]
) -> None:
    with pytest.raises(OSError, match="tests must not leave loopback"):
        socket.getaddrinfo(host, 80)
    refused_connections.clear()


def test_an_attempt_whose_exception_is_swallowed_is_recorded(
    refused_connections: list[str],
) -> None:
    with contextlib.suppress(Exception):
        requests.get("https://events.example.com", timeout=1)
    assert refused_connections == ["socket.getaddrinfo 'events.example.com'"]
    refused_connections.clear()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_let_through(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection((host, server.getsockname()[1]), timeout=5) as client:
            client.sendall(b"x")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b"x"


def test_a_name_that_cannot_exist_is_let_through_and_fails_by_itself() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("events.invalid", 80)
