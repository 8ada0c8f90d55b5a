"""What every transport over HTTP must keep, tried against a server on loopback.

Neighbours: `_rules` counts; `collector` is the server. See `transport.base.Transport`. Invariant:
each rule stands for a way in which a transport could lose or double an event, or stop the sender.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from causality_sdk.errors import TransportError
from causality_sdk.testing._rules import keep, require
from causality_sdk.testing.collector import LoopbackCollector
from causality_sdk.transport.base import Transport
from causality_sdk.wire.base import Request, Response

SLACK = 2.0  # seconds that a busy machine may add to a deadline
_TIMEOUT = 10.0
_SHORT = 0.3
_BODY = b'{"events":[{"idempotency_key":"check-1","text":"\xc3\xa9"}]}'
_REQUEST = Request(
    path="/v1/events/batch",
    body=_BODY,
    headers={"Content-Type": "application/json", "X-Check": "1"},
)


def check_transport(make: Callable[[str], Transport]) -> None:
    """Tries a transport over HTTP on what every one must keep, against a server on 127.0.0.1.

    `make(endpoint)` makes the transport for a base URL. Takes about a second. Raises
    `ConformanceError` with all that is broken.
    """
    with LoopbackCollector(api_key=None) as server:
        transport = make(server.endpoint)
        try:
            keep(f"transport {type(transport).__name__}", _RULES, server, transport)
        finally:
            server.resume()
            transport.close()


def _carries(server: LoopbackCollector, transport: Transport) -> None:
    """The request arrives as it is, and the answer comes back whole."""
    server.clear()
    server.respond(200, {"stored": 1}, {"X-Answer": "Yes"}, times=1)
    response = transport.send(_REQUEST, _TIMEOUT)
    [received] = server.requests
    require(received.method == "POST", f"POST arrived as {received.method}")
    require(received.path == _REQUEST.path, f"the path arrived as {received.path!r}")
    require(received.content == _BODY, f"the body arrived as {received.content!r}")
    require(received.headers.get("x-check") == "1", "a header of the request did not arrive")
    require(isinstance(response, Response), f"send() must give a Response, got {response!r}")
    require(response.body == b'{"stored":1}', f"the answer's body came as {response.body!r}")
    require(
        response.headers.get("x-answer") == "Yes",
        f"headers must have names in lower case, got {dict(response.headers)}",
    )


def _any_method(server: LoopbackCollector, transport: Transport) -> None:
    """A GET without a body goes the same way: `Client.health()` sends one."""
    server.clear()
    response = transport.send(Request(path="/health", method="GET", body=b""), _TIMEOUT)
    require(response.status == 200, f"GET /health came back as {response.status}")
    [received] = server.requests
    require(received.method == "GET", f"GET arrived as {received.method}")


def _any_status(server: LoopbackCollector, transport: Transport) -> None:
    """Every status is an answer, tried once and not followed: the sender judges, and retries."""
    for status in (200, 204, 301, 302, 307, 400, 401, 404, 413, 429, 500, 503):
        server.clear()
        headers = {"Location": "/health"} if 300 <= status <= 399 else {"Retry-After": "1"}
        server.respond(status, b"", headers, times=1)
        response = transport.send(_REQUEST, _TIMEOUT)
        count = server.request_count
        require(count == 1, f"a {status} led to {count} requests; send() makes one attempt")
        require(response.status == status, f"{status} came back as {response.status}")
    require(
        response.headers.get("retry-after") == "1", "the header Retry-After of a 503 did not come"
    )


def _dropped(server: LoopbackCollector, transport: Transport) -> None:
    """A connection that is closed without an answer is a TransportError after one attempt."""
    transport.close()  # a connection used before may be tried again, by itself
    server.clear()
    server.drop_next()
    _must_fail(transport, "a connection that was closed without an answer", _TIMEOUT)
    require(server.request_count == 1, f"it was sent {server.request_count} times")


def _refused(server: LoopbackCollector, transport: Transport) -> None:
    """A server that is away is a TransportError, and one that is back is reached again."""
    server.down()
    try:
        _must_fail(transport, "a refused connection", _TIMEOUT)
    finally:
        server.up()
    response = transport.send(_REQUEST, _TIMEOUT)
    require(response.status == 200, "after an outage the server was not reached again")


def _deadline(server: LoopbackCollector, transport: Transport) -> None:
    """A server that does not answer is a TransportError within `timeout` seconds."""
    server.pause()
    started = time.monotonic()
    try:
        _must_fail(transport, "a server that does not answer", _SHORT)
    finally:
        server.resume()
    seconds = time.monotonic() - started
    require(
        seconds < _SHORT + SLACK, f"with a timeout of {_SHORT} s, send() came back in {seconds:.1f}"
    )


def _closing(server: LoopbackCollector, transport: Transport) -> None:
    """close() may be called twice, and send() may follow it."""
    transport.close()
    transport.close()
    server.respond_normally()
    response = transport.send(_REQUEST, _TIMEOUT)
    require(response.status == 200, f"after close(), send() gave {response.status}")


def _must_fail(transport: Transport, what: str, timeout: float) -> None:
    try:
        response = transport.send(_REQUEST, timeout)
    except TransportError:
        return
    except Exception as error:  # noqa: BLE001 - the one thing that is asked here
        require(False, f"{what} must raise TransportError, and raised {error!r}")
    else:
        require(False, f"{what} must raise TransportError, and gave {response!r}")


_RULES = (_carries, _any_method, _any_status, _dropped, _refused, _deadline, _closing)
