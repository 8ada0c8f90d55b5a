"""The recording transport keeps the protocol, records, and answers by script."""

from __future__ import annotations

import gzip
import json
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from causality_sdk.errors import TransportError
from causality_sdk.testing import RecordingTransport
from causality_sdk.transport.base import Transport
from causality_sdk.wire.base import Request, Response


def event(key: str) -> dict[str, Any]:
    return {"event_type": "click", "idempotency_key": key}


def request(*keys: str) -> Request:
    return Request(
        "/v1/events/batch", json.dumps({"events": [event(key) for key in keys]}).encode()
    )


@pytest.fixture
def transport() -> RecordingTransport:
    return RecordingTransport()


def test_it_keeps_the_protocol_of_a_transport(transport: RecordingTransport) -> None:
    kept: Transport = transport
    answer = kept.send(request("a"), timeout=1.0)
    assert answer == Response(200, {"content-type": "application/json"}, b"{}")
    kept.close()
    kept.close()
    assert kept.send(request("a"), 1.0).status == 200
    assert transport.close_count == 2


def test_it_records_requests_and_their_events(transport: RecordingTransport) -> None:
    sent = [request("a", "b"), request("c")]
    for each in sent:
        transport.send(each, 1.0)
    assert transport.requests == sent
    assert transport.events == [event("a"), event("b"), event("c")]


def test_an_event_that_is_sent_again_is_one_event(transport: RecordingTransport) -> None:
    transport.send(request("a"), 1.0)
    assert transport.events == [event("a")]
    transport.send(request("a", "b"), 1.0)
    assert transport.events == [event("a"), event("b")]
    assert len(transport.requests) == 2


def test_a_gzip_body_is_read(transport: RecordingTransport) -> None:
    plain = request("a")
    packed = Request(plain.path, gzip.compress(plain.body), {"Content-Encoding": "gzip"})
    transport.send(packed, 1.0)
    assert transport.events == [event("a")]


def test_events_of_a_request_that_was_refused_are_not_delivered(
    transport: RecordingTransport,
) -> None:
    transport.respond(503, {"error": "away"}, {"Retry-After": "7"}, times=1)
    answer = transport.send(request("a"), 1.0)
    assert answer.status == 503
    assert answer.headers == {"retry-after": "7", "content-type": "application/json"}
    assert answer.body == b'{"error":"away"}'
    assert transport.events == []
    assert len(transport.requests) == 1
    transport.send(request("a"), 1.0)
    assert transport.events == [event("a")]


def test_counted_answers_queue_up_before_the_standing_one(transport: RecordingTransport) -> None:
    error = TransportError("refused", reason="refused")
    transport.respond(500)
    transport.respond(429, times=2)
    transport.fail(error, times=1)
    assert [transport.send(request("a"), 1.0).status for _ in range(2)] == [429, 429]
    with pytest.raises(TransportError) as caught:
        transport.send(request("a"), 1.0)
    assert caught.value is error
    assert [transport.send(request("a"), 1.0).status for _ in range(2)] == [500, 500]
    transport.respond_normally()
    assert transport.send(request("a"), 1.0).status == 200


def test_a_failure_stands_until_respond_normally_and_its_traceback_does_not_grow(
    transport: RecordingTransport,
) -> None:
    transport.fail(TransportError("offline", reason="unreachable"))
    depths = []
    for _ in range(3):
        with pytest.raises(TransportError) as caught:
            transport.send(request("a"), 1.0)
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(depths)) == 1
    transport.respond_normally()
    assert transport.send(request("a"), 1.0).status == 200
    assert len(transport.requests) == 4


def test_what_cannot_be_scripted_is_refused(transport: RecordingTransport) -> None:
    with pytest.raises(TypeError, match="TransportError"):
        transport.fail(OSError("no"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="status"):
        transport.respond(42)
    with pytest.raises(ValueError, match="times"):
        transport.respond(500, times=0)


def test_another_format_brings_its_own_decoder() -> None:
    def decode(request: Request) -> list[dict[str, Any]]:
        return [{"line": line} for line in request.body.decode().splitlines()]

    transport = RecordingTransport(decode=decode)
    transport.send(Request("/", b"x\ny"), 1.0)
    transport.send(Request("/", b"x"), 1.0)
    assert transport.events == [{"line": "x"}, {"line": "y"}, {"line": "x"}]


def test_what_cannot_be_decoded_raises_in_the_test_and_not_in_the_sender(
    transport: RecordingTransport,
) -> None:
    transport.send(Request("/", b"no batch"), 1.0)
    with pytest.raises(ValueError, match="events"):
        _ = transport.events


def test_waiting_ends_with_the_events_or_with_its_timeout(transport: RecordingTransport) -> None:
    with ThreadPoolExecutor() as pool:
        events = pool.submit(transport.wait_for, 2)
        requests = pool.submit(transport.wait_for_requests, 2)
        transport.send(request("a"), 1.0)
        transport.send(request("a", "b"), 1.0)
        assert events.result(10)
        assert requests.result(10)
    assert not transport.wait_for(3, timeout=0.001)
    assert not transport.wait_for_requests(3, timeout=0)


def test_threads_may_share_it(transport: RecordingTransport) -> None:
    def work(worker: int) -> None:
        for number in range(50):
            transport.send(request(f"{worker}-{number}", f"shared-{number}"), 1.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(transport.events) == 450
    assert len(transport.requests) == 400


def test_clear_forgets_what_was_recorded_and_keeps_the_script(
    transport: RecordingTransport,
) -> None:
    transport.send(request("a"), 1.0)
    transport.respond(503)
    transport.clear()
    assert (transport.requests, transport.events) == ([], [])
    assert transport.send(request("a"), 1.0).status == 503
    transport.respond_normally()
    transport.send(request("a"), 1.0)
    assert transport.events == [event("a")]
