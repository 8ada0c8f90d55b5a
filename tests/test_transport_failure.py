"""How failures are told apart, from chains of errors as requests and urllib3 raise them."""

from __future__ import annotations

import errno
import http.client
import pickle
import socket
import ssl
import traceback

import pytest
import requests
import urllib3.exceptions as u3
from urllib3.connection import HTTPConnection

from causality_sdk.errors import TransportError, TransportReason
from causality_sdk.transport.failure import DETAIL_CHARS, classify, explain

CONNECTION = HTTPConnection("events.invalid", 80)


def connecting(error: OSError) -> requests.ConnectionError:
    """As raised when no address takes a connection."""
    new = u3.NewConnectionError(CONNECTION, f"Failed to establish a new connection: {error}")
    new.__cause__ = error
    return requests.ConnectionError(u3.MaxRetryError(None, "/", new))  # type: ignore[arg-type]


def aborted(error: Exception) -> requests.ConnectionError:
    """As raised when a connection breaks that was made."""
    return requests.ConnectionError(u3.ProtocolError("Connection aborted.", error))


def proxied(error: OSError) -> requests.exceptions.ProxyError:
    new = u3.NewConnectionError(CONNECTION, str(error))
    new.__cause__ = error
    proxy = u3.ProxyError("Unable to connect to proxy", new)
    return requests.exceptions.ProxyError(u3.MaxRetryError(None, "/", proxy))  # type: ignore[arg-type]


CASES: list[tuple[TransportReason, Exception]] = [
    ("dns", connecting(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))),
    ("dns", socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")),
    ("refused", connecting(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))),
    ("refused", ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")),
    ("unreachable", connecting(OSError(errno.ENETUNREACH, "Network is unreachable"))),
    ("unreachable", connecting(OSError(errno.EHOSTUNREACH, "No route to host"))),
    ("unreachable", connecting(OSError(errno.EADDRNOTAVAIL, "Cannot assign address"))),
    ("unreachable", connecting(PermissionError(errno.EPERM, "Operation not permitted"))),
    ("unreachable", OSError(errno.ENETUNREACH, "Network is unreachable")),
    ("unreachable", aborted(OSError(errno.EHOSTUNREACH, "No route to host"))),
    ("timeout", connecting(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))),
    ("timeout", requests.ConnectTimeout(u3.ConnectTimeoutError(CONNECTION, "timed out"))),
    ("timeout", requests.ReadTimeout(u3.ReadTimeoutError(None, "/", "timed out"))),  # type: ignore[arg-type]
    ("timeout", aborted(TimeoutError("timed out"))),
    ("timeout", TimeoutError()),
    ("closed", aborted(http.client.RemoteDisconnected("Remote end closed connection"))),
    ("closed", aborted(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))),
    ("closed", aborted(BrokenPipeError(errno.EPIPE, "Broken pipe"))),
    ("closed", aborted(ConnectionAbortedError())),
    ("closed", u3.ProtocolError("Connection broken", http.client.IncompleteRead(b"", 5))),
    ("closed", u3.ProtocolError("Connection broken", u3.IncompleteRead(0, 5))),
    ("closed", requests.exceptions.SSLError(u3.SSLError(ssl.SSLEOFError(8, "EOF occurred")))),
    ("tls", requests.exceptions.SSLError(u3.SSLError(ssl.SSLError(1, "WRONG_VERSION_NUMBER")))),
    ("tls", requests.exceptions.SSLError(ssl.SSLCertVerificationError(1, "self-signed"))),
    ("tls", OSError("Could not find a suitable TLS CA certificate bundle, invalid path: /x")),
    ("proxy", proxied(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))),
    ("proxy", proxied(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))),
    ("proxy", proxied(TimeoutError("timed out"))),
    ("protocol", aborted(http.client.BadStatusLine("SSH-2.0"))),
    ("protocol", aborted(http.client.LineTooLong("header line"))),
    ("protocol", aborted(http.client.HTTPException("got more than 100 headers"))),
    ("protocol", u3.ProtocolError("nobody knows")),
    ("protocol", requests.exceptions.InvalidHeader("two lengths")),
    ("other", connecting(OSError(errno.EMFILE, "Too many open files"))),
    ("other", PermissionError(errno.EACCES, "Permission denied")),
    ("other", requests.exceptions.InvalidURL("no host")),
    ("other", RuntimeError("a bug")),
]


@pytest.mark.parametrize(("reason", "error"), CASES, ids=lambda case: repr(case)[:60])
def test_each_failure_has_its_kind_and_words(reason: TransportReason, error: Exception) -> None:
    assert classify(error) == reason
    explained = explain(error, host="events.invalid/base", timeout=2.5, secret="")
    assert explained.reason == reason
    assert "events.invalid/base" in str(explained)
    assert "check" in str(explained)
    assert explained.__cause__ is error
    assert not explained.stale


def test_only_a_connection_that_was_closed_is_stale() -> None:
    for reason, error in CASES:
        explained = explain(error, host="h", timeout=1.0, secret="", stale=True)
        assert explained.stale == (reason == "closed")


def test_errors_that_go_round_in_a_circle() -> None:
    first, second = OSError("a"), OSError("b")
    first.__context__, second.__context__ = second, first
    first.args = (second,)
    assert classify(first) == "other"


def test_details_are_bounded() -> None:
    error = aborted(http.client.BadStatusLine("x" * 60_000))
    assert len(str(explain(error, host="h", timeout=1.0, secret=""))) < DETAIL_CHARS + 200


@pytest.mark.parametrize("secret", ["k3y", "with'quote\"both", "back\\slash"])
def test_a_secret_in_any_link_is_masked_or_left_out(secret: str) -> None:
    for error in (
        aborted(http.client.BadStatusLine(secret)),
        aborted(http.client.BadStatusLine(repr(secret.encode()))),
        requests.exceptions.InvalidHeader(f"header {secret!r}"),
    ):
        explained = explain(error, host="h", timeout=1.0, secret=secret)
        text = "".join(traceback.format_exception(explained))
        assert secret.replace("\\", "") not in text.replace("\\", "")
        assert explained.__cause__ is None


def test_a_proxys_password_is_masked() -> None:
    error = u3.ProxyError("Cannot connect to http://me:hidden@proxy:3128/", OSError("no"))
    explained = explain(error, host="h", timeout=1.0, secret="")
    assert "hidden" not in "".join(traceback.format_exception(explained))
    root = requests.exceptions.InvalidProxyURL("http://me:hidden@proxy is malformed")
    assert "//***@proxy" in str(explain(root, host="h", timeout=1.0, secret=""))


def test_the_error_of_requests_lets_go_of_the_request() -> None:
    request = requests.Request("POST", "http://h", headers={"X-API-Key": "k"}).prepare()
    error = requests.ConnectionError("no", request=request)
    explain(error, host="h", timeout=1.0, secret="k3y")
    assert error.request is None


def test_the_error_travels_between_processes() -> None:
    error = explain(CASES[2][1], host="h", timeout=1.0, secret="")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    assert isinstance(copy, TransportError)
    assert (str(copy), copy.reason, copy.stale) == (str(error), error.reason, error.stale)
