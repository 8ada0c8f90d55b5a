"""No part of a proxy's user name or password in any error, however its URL was written."""

from __future__ import annotations

import itertools
import socket
import traceback
from typing import Any

import pytest

from causality_sdk.errors import TransportError
from causality_sdk.transport.http import HttpTransport
from causality_sdk.wire.base import Request

NASTY = ["/", "#", "?", "\\", "@", ":", "%", "%zz", "[", "]", " ", "é", "//", "?@", "#@", "\\@"]
REQUEST = Request(path="/v1/events/batch", body=b"{}")
LOOPBACK = "127.0.0.1:9"  # nothing listens there


@pytest.fixture(autouse=True)
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a user name may be taken for the name of a host: nobody is to look it up."""
    there = socket.getaddrinfo

    def look_up(host: object, *rest: Any, **options: Any) -> Any:
        if host in ("127.0.0.1", b"127.0.0.1"):
            return there("127.0.0.1", *rest, **options)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def told_by(error: TransportError) -> str:
    """All that a log, a hook or a reporter could show of it."""
    return "".join([str(error), repr(error), *traceback.format_exception(error)])


def fail(transport: HttpTransport) -> TransportError:
    with pytest.raises(TransportError) as caught:
        transport.send(REQUEST, 0.5)
    transport.close()
    return caught.value


@pytest.mark.parametrize("how", ["option", "environment"])
@pytest.mark.parametrize(("scheme", "nasty"), list(itertools.product(["http", "https"], NASTY)))
def test_a_proxys_credentials_are_in_no_error(
    scheme: str, nasty: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (
        f"http://usrname:S3cr3t{nasty}pwx9@{LOOPBACK}",
        f"http://usr{nasty}name:S3cr3tpwx9@{LOOPBACK}",
        f"usrname:S3cr3t{nasty}pwx9@{LOOPBACK}",
    ):
        proxies = {}
        if how == "option":
            proxies = {scheme: url}
        else:
            for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
                monkeypatch.setenv(name, url)
            monkeypatch.setenv("no_proxy", "")
        told = told_by(
            fail(HttpTransport(f"{scheme}://events.invalid", {}, secret="k" * 12, proxies=proxies))
        ).lower()
        for word in ("s3cr3t", "pwx9", "usrname"):
            assert word not in told, (url, told)


def test_the_words_say_what_to_write_instead() -> None:
    proxies = {"http": "http://user:S3cr3t/pw@127.0.0.1:9"}
    error = fail(HttpTransport("http://events.invalid", {}, proxies=proxies))
    assert error.reason == "proxy"
    assert "%2F" in str(error)


def test_a_proxy_without_credentials_is_told_of_as_before() -> None:
    error = fail(HttpTransport("http://events.invalid", {}, proxies={"http": f"http://{LOOPBACK}"}))
    assert error.reason == "proxy"
    assert error.__cause__ is not None
