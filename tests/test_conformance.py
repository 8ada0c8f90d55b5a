"""The suites for wires and transports: what is ours passes, and each broken rule is found."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import requests

from causality_sdk.errors import TransportError
from causality_sdk.testing import ConformanceError, check_transport, check_wire
from causality_sdk.transport.http import HttpTransport
from causality_sdk.wire import WIRES
from causality_sdk.wire.base import ACCEPTED, RETRY, Kind, Request, Response, Verdict
from causality_sdk.wire.causality import CausalityWire


@pytest.mark.parametrize("name", sorted(WIRES))
def test_every_wire_that_is_built_in_passes(name: str) -> None:
    check_wire(WIRES[name]())


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "gzip"}, {"session": requests.Session()}],
    ids=["plain", "gzip", "session"],
)
def test_the_transport_that_is_built_in_passes(options: dict[str, Any]) -> None:
    check_transport(lambda endpoint: HttpTransport(endpoint, {}, **options))
    if "session" in options:
        options["session"].close()


class Sound(CausalityWire):
    """A wire to break."""


class BrokenWires:
    class WithoutName(Sound):
        name = ""

    class KeyInNoHeader(Sound):
        key_header = "X Key"

    class HealthWithoutSlash(Sound):
        health_path = "health"

    class TextBody(Sound):
        def frame(self, payloads: Sequence[bytes]) -> Request:  # noqa: ARG002
            return Request("/", "text")  # type: ignore[arg-type]

    class NoSlash(Sound):
        def frame(self, payloads: Sequence[bytes]) -> Request:
            return Request("v1", b"x" + b",".join(payloads))

    class BrokenHeader(Sound):
        def frame(self, payloads: Sequence[bytes]) -> Request:
            return Request("/", b",".join(payloads), {"X-A": "1\r\nX-B: 2"})

    class NeverTheSame(Sound):
        def __init__(self) -> None:
            self.count = 0

        def frame(self, payloads: Sequence[bytes]) -> Request:
            self.count += 1
            return Request("/", b"%d" % self.count + b",".join(payloads))

    class LosesTheUser(Sound):
        def frame(self, payloads: Sequence[bytes]) -> Request:
            return super().frame([p.replace(b'"user_id":"other-user_id",', b"") for p in payloads])

    class LosesAnEvent(Sound):
        def frame(self, payloads: Sequence[bytes]) -> Request:
            return super().frame(payloads[:1])

    class FallsOverDamage(Sound):
        def frame(self, payloads: Sequence[bytes]) -> Request:
            if b"" in payloads:
                raise ValueError("no JSON")
            return super().frame(payloads)

    class NeverAccepts(Sound):
        def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:  # noqa: ARG002
            return [RETRY] * count

    class AcceptsErrors(Sound):
        def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
            return [ACCEPTED if response.body.startswith(b'{"acc') else RETRY] * count

    class AcceptsPages(Sound):
        def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
            fine = 200 <= response.status <= 299 and not response.truncated
            return [ACCEPTED if fine else RETRY] * count

    class AcceptsWhatWasCut(Sound):
        def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
            whole = Response(response.status, response.headers, response.body)
            return super().verdicts(whole, count)

    class OneTooFew(Sound):
        def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
            return [RETRY] * (count - 1) if response.body == b"7" else super().verdicts(
                response, count
            )  # fmt: skip

    class Raises(Sound):
        def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
            response.body.decode()
            return super().verdicts(response, count)

    class TalksTooMuch(Sound):
        def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
            if response.status == 400:
                return [Verdict(Kind.REJECTED, response.body.decode("latin-1"))] * count
            return super().verdicts(response, count)


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (BrokenWires.WithoutName, "name must not be empty, got ''"),
        (BrokenWires.KeyInNoHeader, "key_header must be a header's name, got 'X Key'"),
        (BrokenWires.HealthWithoutSlash, "health_path must begin with a slash or be empty"),
        (BrokenWires.TextBody, "must give a body of bytes"),
        (BrokenWires.NoSlash, "a path begins with a slash, got 'v1'"),
        (BrokenWires.BrokenHeader, "header 'X-A' cannot be sent"),
        (BrokenWires.NeverTheSame, "another request the second time"),
        (BrokenWires.LosesTheUser, "leaves out what events differ in: user_id"),
        (BrokenWires.LosesAnEvent, "leaves an event out, or the order of two"),
        (BrokenWires.FallsOverDamage, "ValueError('no JSON')"),
        (BrokenWires.NeverAccepts, "did not accept 1 events"),
        (BrokenWires.AcceptsErrors, "accepts events for status 199"),
        (BrokenWires.AcceptsPages, "the page of a captive portal"),
        (BrokenWires.AcceptsWhatWasCut, "an answer that was cut"),
        (BrokenWires.OneTooFew, "gave 0 for 1 events"),
        (BrokenWires.Raises, "verdicts() does not raise"),
        (BrokenWires.TalksTooMuch, "more than 500 characters"),
    ],
)
def test_a_broken_wire_is_found(wire: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_wire(wire())
    assert words in str(caught.value)
    assert wire.__name__ in str(caught.value)


def test_all_that_is_broken_is_told_at_once() -> None:
    class Mute(Sound):
        name = ""

        def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:  # noqa: ARG002
            return []

    with pytest.raises(ConformanceError) as caught:
        check_wire(Mute())
    assert len(caught.value.broken) == 4
    assert str(caught.value).count("\n- ") == 4


class Through:
    """A transport to break: sends through the one that is sound."""

    def __init__(self, endpoint: str) -> None:
        self.inner = HttpTransport(endpoint, {})

    def send(self, request: Request, timeout: float) -> Response:
        return self.inner.send(request, timeout)

    def close(self) -> None:
        self.inner.close()


class BrokenTransports:
    class LosesHeaders(Through):
        def send(self, request: Request, timeout: float) -> Response:
            return super().send(Request(request.path, request.body), timeout)

    class CapitalHeaders(Through):
        def send(self, request: Request, timeout: float) -> Response:
            response = super().send(request, timeout)
            headers = {name.title(): value for name, value in response.headers.items()}
            return Response(response.status, headers, response.body)

    class Raises(Through):
        def send(self, request: Request, timeout: float) -> Response:
            response = super().send(request, timeout)
            if response.status >= 400:
                raise TransportError("refused", reason="other")
            return response

    class TriesAgain(Through):
        def send(self, request: Request, timeout: float) -> Response:
            response = super().send(request, timeout)
            return super().send(request, timeout) if response.status == 503 else response

    class TriesAgainWithoutAnAnswer(Through):
        def send(self, request: Request, timeout: float) -> Response:
            try:
                return super().send(request, timeout)
            except TransportError as error:
                if error.reason == "closed":
                    with contextlib.suppress(TransportError):
                        super().send(request, timeout)
                raise

    class Follows(Through):
        def send(self, request: Request, timeout: float) -> Response:
            response = super().send(request, timeout)
            if "location" in response.headers and response.status < 400:
                return super().send(Request("/health", b"", method="GET"), timeout)
            return response

    class ForeignErrors(Through):
        def send(self, request: Request, timeout: float) -> Response:
            try:
                return super().send(request, timeout)
            except TransportError as error:
                raise OSError(str(error)) from error

    class Patient(Through):
        def send(self, request: Request, timeout: float) -> Response:
            return super().send(request, max(timeout, 2.5))

    class ClosedForGood(Through):
        closed = 0

        def send(self, request: Request, timeout: float) -> Response:
            if self.closed > 1:
                raise TransportError("closed", reason="closed")
            return super().send(request, timeout)

        def close(self) -> None:
            self.closed += 1
            super().close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (BrokenTransports.LosesHeaders, "a header of the request did not arrive"),
        (BrokenTransports.CapitalHeaders, "names in lower case"),
        (BrokenTransports.Raises, "Every status is an answer"),
        (BrokenTransports.TriesAgain, "a 503 led to 2 requests"),
        (BrokenTransports.TriesAgainWithoutAnAnswer, "it was sent 2 times"),
        (BrokenTransports.Follows, "a 301 led to 2 requests"),
        (BrokenTransports.ForeignErrors, "a refused connection must raise TransportError"),
        (BrokenTransports.Patient, "with a timeout of 0.3 s, send() came back in"),
        (BrokenTransports.ClosedForGood, "close() may be called twice, and send() may follow"),
    ],
)
def test_a_broken_transport_is_found(make: Callable[[str], Any], words: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_transport(make)
    assert words in str(caught.value)
    assert make.__name__ in str(caught.value)


def test_a_transport_that_reads_nothing_is_found_too() -> None:
    class Deaf:
        def __init__(self, endpoint: str) -> None:
            host, _, port = endpoint.removeprefix("http://").partition(":")
            self.address = (host, int(port))

        def send(self, request: Request, timeout: float) -> Response:
            del request
            with socket.create_connection(self.address, timeout):
                return Response(200)

        def close(self) -> None:
            pass

    started = time.monotonic()
    with pytest.raises(ConformanceError) as caught:
        check_transport(Deaf)
    assert len(caught.value.broken) >= 4
    assert time.monotonic() - started < 20
