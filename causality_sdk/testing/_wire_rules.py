"""What every wire must keep, as rules that are tried on it. See `wire.base.Wire`.

Neighbours: `_rules` counts; `event` makes the rows. Invariant: each rule stands for a way in which
a wire could lose an event, or stop the queue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from causality_sdk.event import Encoder
from causality_sdk.testing._rules import keep, require
from causality_sdk.wire.base import WORDS_CHARS, Kind, Request, Response, Verdict, Wire

Accepting = Callable[[int], Response]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # a header's name, RFC 9110, section 5.6.2
_SERVER = {"hostname": "h", "python_version": "3", "sdk_version": "0", "os": "o", "arch": "a"}
# What an event can hold that a destination's format may have no place for.
_PROPERTIES: dict[str, Any] = {
    "text": 'quotes " and \\ and a line\nbreak, é, \u2028, 😀, \x00',
    "null-like": "null",
    "": "no name",
    "none": None,
    "flags": [True, False],
    "integers": [0, -(2**63), 2**63 - 1, 2**64 - 1],
    "floats": [0.0, -0.0, 0.1, 1e308, 5e-324],
    "nested": {"a": [{"b": {"c": []}}, {}]},
    "user_id": 7,
}
_BODIES: tuple[bytes, ...] = (
    b"<html><body>Please log in</body></html>", b"OK", b"null", b"true", b"[]", b'""', b"7",
    b"\x00\xff\xfe", b'{"acceptedCount":', b'{"results":[{"index":99}]}', b'{"results":"x"}',
    b'{"results":[null,7,{}]}', b'{"error":"no"}', b"[" * 100_000, b'{"a":' * 100_000,
    b'{"results":[{"status":"rejected","error":"' + b"x" * 10_000 + b'"}]}',
)  # fmt: skip


def accepted_by_default(count: int) -> Response:
    """What the Causality server says to a batch that it took."""
    body = b'{"acceptedCount":%d}' % count
    return Response(200, {"content-type": "application/json"}, body)


def check_wire(wire: Wire, *, accepts: Callable[[int], Response] = accepted_by_default) -> None:
    """Tries a wire on what every wire must keep. Raises `ConformanceError` with all that is broken.

    `accepts(count)` is the answer by which the destination takes a whole batch of `count` events;
    without it, that of the Causality server. No network is used.
    """
    keep(f"wire {type(wire).__name__}", _RULES, wire, accepts)


def _row(event_type: str = "check", **more: Any) -> bytes:
    encoder = Encoder("app", max_event_bytes=1_000_000)
    given: dict[str, Any] = {
        "properties": {"_server": _SERVER, **_PROPERTIES},
        "idempotency_key": "key-1",
        "timestamp": 1_700_000_000_000,
        **more,
    }
    return encoder.encode(event_type, **given)[1]


def _differing() -> dict[str, bytes]:
    """Rows that differ in one thing each, by its name."""
    rows = {"itself": _row(), "event_type": _row("other")}
    rows["idempotency_key"] = _row(idempotency_key="key-2")
    rows["timestamp_ms"] = _row(timestamp=1_700_000_000_001)
    for name in ("user_id", "session_id", "device_id", "app_id"):
        given: dict[str, Any] = {name: f"other-{name}"}
        rows[name] = _row(**given)
    for name in _PROPERTIES:
        changed = {"_server": _SERVER, **_PROPERTIES, name: "another value"}
        rows[f"properties.{name}"] = _row(properties=changed)
        del changed[name]
        rows[f"properties without {name!r}"] = _row(properties=changed)
    changed = {"_server": {**_SERVER, "hostname": "other"}, **_PROPERTIES}
    rows["properties._server"] = _row(properties=changed)
    return rows


def _content(request: Request) -> tuple[Any, ...]:
    headers = sorted(request.headers.items())
    return request.method, request.path, tuple(headers), request.body


def _names(wire: Wire, _accepts: Accepting) -> None:
    """It has a name, a header for the key, and a path for health or none."""
    require(isinstance(wire.name, str) and wire.name, f"name must not be empty, got {wire.name!r}")
    token = isinstance(wire.key_header, str) and _TOKEN.fullmatch(wire.key_header)
    require(token, f"key_header must be a header's name, got {wire.key_header!r}")
    path = wire.health_path
    right = isinstance(path, str) and (path == "" or path.startswith("/"))
    require(right, f"health_path must begin with a slash or be empty, got {path!r}")


def _frames(wire: Wire, _accepts: Accepting) -> None:
    """frame() gives a request that can be sent."""
    for count in (1, 2, 1000):
        request = wire.frame([_row(idempotency_key=f"key-{n}") for n in range(count)])
        require(isinstance(request, Request), f"frame() must give a Request, got {request!r}")
        require(
            isinstance(request.body, bytes) and request.body,
            "frame() must give a body of bytes, and not an empty one",
        )
        require(request.path.startswith("/"), f"a path begins with a slash, got {request.path!r}")
        for name, value in request.headers.items():
            right = _TOKEN.fullmatch(name) and isinstance(value, str) and value.isprintable()
            require(right, f"header {name!r} cannot be sent with the value {value!r}")


def _same_again(wire: Wire, _accepts: Accepting) -> None:
    """A batch that is sent again is the same request, so that the server knows it again."""
    rows = list(_differing().values())
    first = _content(wire.frame(rows))
    require(_content(wire.frame(rows)) == first, "frame() gave another request the second time")
    with ThreadPoolExecutor(4) as threads:
        for request in threads.map(wire.frame, [rows] * 16):
            require(_content(request) == first, "frame() gave another request on another thread")


def _nothing_lost(wire: Wire, _accepts: Accepting) -> None:
    """Whatever differs between two events differs in their requests."""
    rows = _differing()
    plain = _content(wire.frame([rows.pop("itself")]))
    lost = [name for name, row in rows.items() if _content(wire.frame([row])) == plain]
    require(not lost, f"frame() leaves out what events differ in: {', '.join(lost)}")
    pair = _content(wire.frame([_row(), _row("other")]))
    require(
        len({pair, plain, _content(wire.frame([_row("other"), _row()]))}) == 3,
        "frame() leaves an event out, or the order of two",
    )


def _damaged_rows(wire: Wire, _accepts: Accepting) -> None:
    """frame() does not raise for a row that is no event: that would stop the whole queue."""
    for row in (b"", b"not json", b"[]", b"{}", b"\xff\x00", b'{"event_type":7}'):
        wire.frame([_row(), row])


def _accepting(wire: Wire, accepts: Accepting) -> None:
    """The answer by which the destination takes a batch accepts each event of it."""
    for count in (1, 3, 1000):
        kinds = [verdict.kind for verdict in _verdicts(wire, accepts(count), count)]
        require(
            kinds == [Kind.ACCEPTED] * count,
            f"verdicts() did not accept {count} events for the answer that accepts them",
        )


def _not_accepting(wire: Wire, accepts: Accepting) -> None:
    """What is no clear acknowledgement accepts nothing: an accepted event is deleted."""
    body, headers = accepts(3).body, accepts(3).headers
    for status in (199, 300, 302, 400, 401, 403, 404, 408, 413, 422, 429, 500, 503):
        _accepts_none(wire, Response(status, headers, body), f"status {status}")
    _accepts_none(wire, Response(200, headers, body, truncated=True), "an answer that was cut")
    page = Response(200, {"content-type": "text/html"}, _BODIES[0])
    _accepts_none(wire, page, "the page of a captive portal, with status 200,")


def _accepts_none(wire: Wire, response: Response, what: str) -> None:
    accepted = any(verdict.kind is Kind.ACCEPTED for verdict in _verdicts(wire, response, 3))
    require(not accepted, f"verdicts() accepts events for {what}: they would be deleted")


def _any_answer(wire: Wire, accepts: Accepting) -> None:
    """verdicts() does not raise, and gives as many verdicts as there are events."""
    cut = accepts(3).body
    for body in (*_BODIES, b"", *(cut[:end] for end in range(len(cut)))):
        for status in (200, 204, 400, 500):
            for count in (0, 1, 3):
                _verdicts(wire, Response(status, {}, body), count)


def _verdicts(wire: Wire, response: Response, count: int) -> Sequence[Verdict]:
    shown = f"an answer of status {response.status} with the body {response.body[:40]!r}"
    verdicts = wire.verdicts(response, count)
    require(
        len(verdicts) == count, f"verdicts() gave {len(verdicts)} for {count} events, for {shown}"
    )
    for verdict in verdicts:
        require(isinstance(verdict, Verdict), f"verdicts() gave {verdict!r}, for {shown}")
        require(isinstance(verdict.kind, Kind), f"a verdict has the kind {verdict.kind!r}")
        require(
            len(verdict.words) <= WORDS_CHARS,
            f"a verdict has more than {WORDS_CHARS} characters of the server's words",
        )
    return verdicts


_RULES = (
    _names, _frames, _same_again, _nothing_lost, _damaged_rows, _accepting, _not_accepting,
    _any_answer,
)  # fmt: skip
