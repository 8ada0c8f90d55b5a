"""`PackTrackClient` against a real server on loopback: the synchronous verbs and the queue."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import packtrack_schema
import pytest
import requests
from hostile import HostileServer, Peer

from causality_sdk import (
    ClientClosed,
    ConfigError,
    DeliveryError,
    EventError,
    QueueFull,
    ResponseError,
    TransportError,
    __version__,
    packtrack,
)
from causality_sdk.errors import BODY_EXCERPT_CHARS
from causality_sdk.packtrack import (
    Actor,
    Attempt,
    IngestError,
    IngestRefused,
    PackTrackClient,
    PackTrackConfig,
    PackTrackEvent,
    RetriesExhausted,
    Source,
    Workflow,
)
from causality_sdk.packtrack.config import ENVIRONMENT
from causality_sdk.testing import LoopbackPackTrack

KEY = "key-of-the-tests"


def event(message: str = "sent") -> PackTrackEvent:
    return PackTrackEvent(
        source=Source("billing"),
        workflow=Workflow("invoice"),
        actor=Actor("cron", "db1"),
        severity="info",
        status="ok",
        message=message,
    )


class Waits:
    """Stands in for `time.sleep`."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def server() -> Iterator[LoopbackPackTrack]:
    with LoopbackPackTrack(api_key=KEY) as running:
        yield running


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def client(server: LoopbackPackTrack, waits: Waits) -> Iterator[PackTrackClient]:
    with PackTrackClient(
        api_key=KEY,
        base_url=server.endpoint,
        sleep=waits,
        rng=random.Random(1),  # noqa: S311
    ) as made:
        yield made


class TestIngest:
    def test_one_event_is_one_object(
        self, server: LoopbackPackTrack, client: PackTrackClient
    ) -> None:
        result = client.ingest_event(event())
        assert (result.events, result.requests, result.attempts) == (1, 1, 1)
        assert result.status_code == 202
        (request,) = server.requests
        assert request.headers["x-packtrack-key"] == KEY
        assert request.headers["idempotency-key"] == result.idempotency_keys[0]
        assert request.headers["user-agent"] == f"pack-track-sdk-python/{__version__}"
        assert "content-encoding" not in request.headers
        found = json.loads(request.body)
        packtrack_schema.check(found)
        assert found["message"] == "sent"

    def test_a_batch_is_an_array_in_order(
        self, server: LoopbackPackTrack, client: PackTrackClient
    ) -> None:
        assert client.ingest_batch(event(str(n)) for n in range(3)).events == 3
        assert [found["message"] for found in json.loads(server.requests[0].body)] == list("012")

    def test_a_long_batch_is_split_and_its_key_gets_suffixes(
        self, server: LoopbackPackTrack
    ) -> None:
        with PackTrackClient(api_key=KEY, base_url=server.endpoint, batch_size=2) as client:
            result = client.ingest_batch([event(str(n)) for n in range(5)], idempotency_key="run-7")
            assert client.ingest_batch([event()], idempotency_key="one").requests == 1
        assert result.idempotency_keys == ("run-7-1", "run-7-2", "run-7-3")
        assert [request.count for request in server.requests] == [2, 2, 1, 1]
        sent = [request.headers["idempotency-key"] for request in server.requests]
        assert sent == ["run-7-1", "run-7-2", "run-7-3", "one"]
        assert [found["message"] for found in server.events] == ["0", "1", "2", "3", "4", "sent"]

    def test_an_empty_batch_sends_nothing(
        self, server: LoopbackPackTrack, client: PackTrackClient
    ) -> None:
        assert client.ingest_batch([]).requests == 0
        assert server.requests == []

    def test_one_event_where_several_are_meant_is_told(
        self, client: PackTrackClient, tmp_path: Path
    ) -> None:
        one: Any = event()
        with pytest.raises(EventError, match=r"^ingest_batch takes .* use ingest_event\(\)"):
            client.ingest_batch(one)
        with (
            PackTrackClient(api_key=KEY, queue_path=tmp_path / "q.db", start=False) as durable,
            pytest.raises(EventError, match=r"^track_many takes .* use track\(\)"),
        ):
            durable.track_many(one)

    def test_gzip_compresses_the_body(self, server: LoopbackPackTrack) -> None:
        with PackTrackClient(api_key=KEY, base_url=server.endpoint, gzip=True) as client:
            client.ingest_batch([event()] * 50)
        (request,) = server.requests
        assert request.headers["content-encoding"] == "gzip"
        assert len(json.loads(request.content)) == 50

    def test_a_server_that_cannot_read_gzip_gets_it_plain_without_a_retry(
        self, server: LoopbackPackTrack
    ) -> None:
        with PackTrackClient(api_key=KEY, base_url=server.endpoint, gzip=True, retries=0) as client:
            server.respond(415, times=1)
            assert client.ingest_event(event()).attempts == 2
            assert client.ingest_event(event()).attempts == 1
        codings = [request.headers.get("content-encoding") for request in server.requests]
        assert codings == ["gzip", None, None]

    def test_many_threads_send_at_once(
        self, server: LoopbackPackTrack, client: PackTrackClient
    ) -> None:
        with ThreadPoolExecutor(8) as pool:
            for result in pool.map(lambda n: client.ingest_event(event(str(n))), range(64)):
                assert result.events == 1
        assert sorted(int(found["message"]) for found in server.events) == list(range(64))

    @pytest.mark.parametrize("wrong", [None, {"message": "x"}, "text"])
    def test_what_is_no_event_is_refused_before_anything_is_sent(
        self, server: LoopbackPackTrack, client: PackTrackClient, wrong: Any
    ) -> None:
        with pytest.raises(EventError, match="the event must be a PackTrackEvent, got"):
            client.ingest_event(wrong)
        with pytest.raises(EventError, match="item 1 of the batch must be a PackTrackEvent"):
            client.ingest_batch([event(), wrong])
        assert server.requests == []

    @pytest.mark.parametrize("key", ["", " ", "a\r\nX: y", "ä", " a", "k" * 201])
    def test_a_key_that_is_no_header_is_refused(self, client: PackTrackClient, key: str) -> None:
        with pytest.raises(EventError, match="idempotency_key"):
            client.ingest_event(event(), idempotency_key=key)


class TestRetries:
    def test_the_same_request_goes_again_under_the_same_key(
        self, server: LoopbackPackTrack, client: PackTrackClient, waits: Waits
    ) -> None:
        server.respond(503, times=1)
        server.respond(429, times=1)
        server.drop_next(store=True)
        assert client.ingest_event(event()).attempts == 4
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
        assert len({request.body for request in server.requests}) == 1
        # The connection that was closed had been used before: that attempt is made up for at once.
        assert len(waits.seconds) == 2
        assert (len(server.events), server.repeats) == (1, 1)

    def test_delays_double_up_to_their_maximum_within_the_jitter(
        self, server: LoopbackPackTrack, waits: Waits
    ) -> None:
        server.respond(500)
        with (
            PackTrackClient(
                api_key=KEY, base_url=server.endpoint, retries=7, sleep=waits
            ) as client,
            pytest.raises(RetriesExhausted),
        ):
            client.ingest_event(event())
        ceilings = [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
        assert len(waits.seconds) == 7
        for waited, ceiling in zip(waits.seconds, ceilings, strict=True):
            assert 0.8 * ceiling <= waited <= ceiling

    def test_retry_after_in_seconds_is_obeyed(
        self, server: LoopbackPackTrack, client: PackTrackClient, waits: Waits
    ) -> None:
        server.respond(429, headers={"Retry-After": "7"}, times=1)
        client.ingest_event(event())
        assert waits.seconds == [7.0]

    def test_retry_after_as_a_date_is_obeyed(
        self, server: LoopbackPackTrack, client: PackTrackClient, waits: Waits
    ) -> None:
        date = datetime.fromtimestamp(int(datetime.now().timestamp()) + 20, timezone.utc)
        server.respond(503, headers={"Retry-After": format_datetime(date, usegmt=True)}, times=1)
        client.ingest_event(event())
        assert 15 <= waits.seconds[0] <= 20

    def test_a_server_that_asks_for_more_than_anybody_waits_ends_the_call(
        self, server: LoopbackPackTrack, client: PackTrackClient, waits: Waits
    ) -> None:
        server.respond(429, headers={"Retry-After": "61"})
        with pytest.raises(RetriesExhausted, match=r"asks to wait \(Retry-After: 61\)") as caught:
            client.ingest_event(event())
        assert (caught.value.attempts, waits.seconds) == (1, [])

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
    def test_what_may_pass_is_tried_again(
        self, server: LoopbackPackTrack, client: PackTrackClient, status: int
    ) -> None:
        server.respond(status, times=3)
        assert client.ingest_event(event()).attempts == 4

    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 409, 413, 415, 422])
    def test_what_will_not_pass_is_not(
        self, server: LoopbackPackTrack, client: PackTrackClient, status: int
    ) -> None:
        server.respond(status)
        with pytest.raises(IngestRefused, match=f"the server answered {status}"):
            client.ingest_event(event())
        assert len(server.requests) == 1

    def test_a_page_of_a_portal_is_no_acknowledgement(
        self, server: LoopbackPackTrack, client: PackTrackClient
    ) -> None:
        server.respond(200, "<html>Log in", times=1)
        assert client.ingest_event(event()).attempts == 2

    def test_a_connection_that_the_server_closed_meanwhile_costs_no_retry(self) -> None:
        def once(peer: Peer) -> None:
            peer.request()
            peer.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            peer.request()  # and no answer, as if it had crossed the server's goodbye

        with (
            HostileServer(once, once) as hostile,
            PackTrackClient(api_key=KEY, base_url=hostile.endpoint, retries=0) as client,
        ):
            assert client.ingest_event(event()).attempts == 1
            assert client.ingest_event(event()).attempts == 2


class TestErrors:
    def test_a_refusal_has_status_body_and_cause(
        self, server: LoopbackPackTrack, client: PackTrackClient
    ) -> None:
        server.respond(422, "x" * 5000)
        with pytest.raises(IngestRefused) as caught:
            client.ingest_event(event())
        error = caught.value
        assert isinstance(error, (IngestError, DeliveryError))
        assert (error.status_code, error.retryable, error.attempts) == (422, False, 1)
        assert error.body == "x" * BODY_EXCERPT_CHARS
        assert isinstance(error.__cause__, ResponseError)
        assert error.__cause__.status == 422

    def test_exhausted_retries_have_the_last_answer(
        self, server: LoopbackPackTrack, client: PackTrackClient
    ) -> None:
        server.respond(503, "busy")
        with pytest.raises(RetriesExhausted, match=r"given up after 4 attempts: .* 503") as caught:
            client.ingest_event(event())
        error = caught.value
        assert (error.status_code, error.retryable, error.attempts) == (503, True, 4)
        assert error.body == "busy"
        assert isinstance(error.__cause__, ResponseError)

    def test_without_an_answer_there_is_no_status_but_the_cause_of_the_cause(
        self, server: LoopbackPackTrack, client: PackTrackClient
    ) -> None:
        server.down()
        with pytest.raises(RetriesExhausted, match="refuses the connection") as caught:
            client.ingest_event(event())
        error = caught.value
        assert (error.status_code, error.body, error.retryable) == (None, "", True)
        assert isinstance(error.__cause__, TransportError)
        assert error.__cause__.reason == "refused"
        assert isinstance(error.__cause__.__cause__, requests.ConnectionError)

    def test_what_was_submitted_before_is_told(self, server: LoopbackPackTrack) -> None:
        server.respond(202, times=2, store=True)
        server.respond(400)
        with (
            PackTrackClient(api_key=KEY, base_url=server.endpoint, batch_size=2) as client,
            pytest.raises(IngestRefused) as caught,
        ):
            client.ingest_batch([event()] * 6)
        assert caught.value.submitted == 4

    def test_the_key_is_in_no_error_even_if_the_server_quotes_it(
        self, server: LoopbackPackTrack, client: PackTrackClient
    ) -> None:
        server.respond(401, f"bad key {KEY}")
        with pytest.raises(IngestRefused) as caught:
            client.ingest_event(event())
        shown = f"{caught.value} {caught.value.body} {caught.value.__cause__!r} {client!r}"
        assert "bad key ***" in shown
        assert KEY not in shown + repr(client.config)

    @pytest.mark.parametrize("kind", [IngestError, IngestRefused, RetriesExhausted])
    def test_errors_can_be_pickled(self, kind: type[IngestError]) -> None:
        error = kind("m", status_code=500, body="b", attempts=3, submitted=2)
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert type(copy) is kind
        assert vars(copy) == vars(error)
        assert str(copy) == "m"

    def test_a_call_after_close_is_an_error(self, client: PackTrackClient) -> None:
        client.close()
        client.close()
        for call in (
            lambda: client.ingest_event(event()),
            lambda: client.ingest_batch([event()]),
            client.health_check,
            lambda: client.track(event()),
            client.flush,
        ):
            with pytest.raises(ClientClosed):
                call()


class TestTimeout:
    def test_a_call_can_have_its_own(self) -> None:
        def silent(peer: Peer) -> None:
            peer.request()
            peer.hold()

        with (
            HostileServer(silent) as hostile,
            PackTrackClient(api_key=KEY, base_url=hostile.endpoint, timeout=60, retries=0) as slow,
            pytest.raises(RetriesExhausted, match=r"did not answer within 0\.05 s"),
        ):
            slow.ingest_event(event(), timeout=0.05)

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", True])
    def test_a_wrong_one_is_an_error(self, client: PackTrackClient, timeout: Any) -> None:
        with pytest.raises(ConfigError, match="timeout must be"):
            client.ingest_event(event(), timeout=timeout)
        with pytest.raises(ConfigError, match="timeout must be"):
            client.health_check(timeout=timeout)


class TestHealth:
    def test_a_server_that_is_well(
        self, server: LoopbackPackTrack, client: PackTrackClient
    ) -> None:
        health = client.health_check()
        assert (health.ok, health.status, health.error) == (True, 200, None)
        assert [(each.method, each.path) for each in server.requests] == [("GET", "/api/health")]

    def test_a_server_that_is_not(self, server: LoopbackPackTrack, client: PackTrackClient) -> None:
        server.healthy = False
        health = client.health_check()
        assert (health.ok, health.status) == (False, 503)
        assert isinstance(health.error, RetriesExhausted)
        assert len(server.requests) == 4

    def test_no_server_at_all(self, server: LoopbackPackTrack, client: PackTrackClient) -> None:
        server.down()
        health = client.health_check()
        assert (health.ok, health.status) == (False, None)

    def test_it_is_off_by_default_and_asked_once_where_it_is_on(
        self, server: LoopbackPackTrack
    ) -> None:
        server.health_path = "/up"
        options: dict[str, Any] = {
            "api_key": KEY,
            "base_url": server.endpoint,
            "health_path": "/up",
        }
        with PackTrackClient(**options) as client:
            client.ingest_event(event())
        with PackTrackClient(**options, health_enabled=True) as client:
            client.ingest_event(event())
            client.ingest_event(event())
        paths = [request.path for request in server.requests]
        assert paths == ["/api/ingest", "/up", "/api/ingest", "/api/ingest"]

    def test_where_it_is_on_nothing_is_sent_to_a_server_that_is_not_well(
        self, server: LoopbackPackTrack, waits: Waits
    ) -> None:
        server.healthy = False
        with PackTrackClient(
            api_key=KEY, base_url=server.endpoint, health_enabled=True, sleep=waits
        ) as client:
            with pytest.raises(RetriesExhausted) as caught:
                client.ingest_event(event())
            assert caught.value.submitted == 0
            server.healthy = True
            assert client.ingest_event(event()).events == 1
        assert len(server.events) == 1


class TestHooks:
    def test_every_attempt_is_told(self, server: LoopbackPackTrack, waits: Waits) -> None:
        told: list[Attempt] = []
        server.respond(503, times=1)
        with PackTrackClient(
            api_key=KEY, base_url=server.endpoint, on_attempt=told.append, sleep=waits
        ) as client:
            client.ingest_batch([event(), event()])
        first, second = told
        assert (first.number, first.events, first.status_code) == (1, 2, 503)
        assert isinstance(first.error, ResponseError)
        assert first.retry_in == waits.seconds[0]
        assert (second.number, second.status_code) == (2, 202)
        assert (second.error, second.retry_in) == (None, None)
        assert second.bytes == len(server.requests[1].body)
        assert second.seconds > 0

    def test_a_hook_that_raises_does_no_harm(
        self, server: LoopbackPackTrack, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(_attempt: Attempt) -> None:
            raise RuntimeError("of the user's")

        with PackTrackClient(
            api_key=KEY,
            base_url=server.endpoint,
            on_attempt=broken,
            logger=logging.getLogger("of the test"),
        ) as client:
            assert client.ingest_event(event()).events == 1
        assert "on_attempt raised" in caplog.text

    def test_the_logger_is_told_of_failures_and_without_one_nothing_is_logged(
        self, server: LoopbackPackTrack, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "causality_sdk")
        options: dict[str, Any] = {"api_key": KEY, "base_url": server.endpoint}
        server.respond(500, times=1)
        with PackTrackClient(**options, sleep=Waits()) as client:
            client.ingest_event(event())
        assert "packtrack" not in caplog.text
        server.respond(500, times=1)
        logger = logging.getLogger("of the test")
        with PackTrackClient(**options, sleep=Waits(), logger=logger) as client:
            client.ingest_event(event())
        (record,) = [each for each in caplog.records if each.name == "of the test"]
        assert "attempt 1 at /api/ingest failed, retry in" in record.getMessage()
        assert "the server answered 500" in record.getMessage()


class TestSession:
    def test_a_session_of_ones_own_is_used_in_turn_and_left_open(
        self, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        session = Counting()
        with PackTrackClient(
            api_key=KEY,
            base_url=server.endpoint,
            session=session,
            queue_path=tmp_path / "queue.db",
        ) as client:
            client.track(event())
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda _: client.ingest_event(event()), range(8)))
            assert client.flush(timeout=10).error is None
        assert len(server.events) == 9
        assert session.most == 1
        assert not session.closed

    def test_nobody_waits_for_it_longer_than_for_the_server(
        self, server: LoopbackPackTrack
    ) -> None:
        session = Counting()
        with PackTrackClient(
            api_key=KEY, base_url=server.endpoint, session=session, retries=0
        ) as client:
            session.gate.clear()
            with ThreadPoolExecutor(1) as pool:
                first = pool.submit(client.ingest_event, event())
                assert session.inside.wait(10)
                with pytest.raises(RetriesExhausted, match="busy with another request"):
                    client.ingest_event(event(), timeout=0.01)
                session.gate.set()
                assert first.result(10).events == 1


class Counting(requests.Session):
    """Knows how many requests it carried at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()

    def request(self, *args: Any, **options: Any) -> requests.Response:
        self.now += 1
        self.most = max(self.most, self.now)
        self.inside.set()
        self.gate.wait(10)
        try:
            return super().request(*args, **options)
        finally:
            self.now -= 1

    def close(self) -> None:
        self.closed = True


class TestQueue:
    def options(self, server: LoopbackPackTrack, directory: Path) -> dict[str, Any]:
        return {
            "api_key": KEY,
            "base_url": server.endpoint,
            "queue_path": directory / "queue.db",
            "backoff_initial": 0.001,
            "backoff_max": 0.01,
        }

    def test_tracked_events_survive_an_outage_and_the_end_of_the_program(
        self, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        server.down()
        with PackTrackClient(**self.options(server, tmp_path), start=False) as client:
            key = client.track(event("one"), idempotency_key="k-1")
            keys = client.track_many([event("two"), event("three")])
            report = client.flush(timeout=10)
            assert isinstance(report.error, TransportError)
            assert report.remaining == 3
        assert key == "k-1"
        assert keys is not None
        server.up()
        with PackTrackClient(**self.options(server, tmp_path), start=False) as client:
            assert client.flush(timeout=10).delivered == 3
        assert [found["message"] for found in server.events] == ["one", "two", "three"]
        sent = [found["extra"]["_causality"]["idempotency_key"] for found in server.events]
        assert sent == [key, *keys]

    def test_the_background_sends_without_being_asked(
        self, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        options = self.options(server, tmp_path) | {"flush_interval": 0.01}
        with PackTrackClient(**options) as client:
            client.track(event())
            assert server.wait_for(1)

    def test_at_its_capacity_it_refuses_by_default(
        self, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        server.down()
        options = self.options(server, tmp_path) | {"queue_capacity": 2, "start": False}
        with PackTrackClient(**options) as client:
            client.track_many([event(), event()])
            with pytest.raises(QueueFull):
                client.track(event())
            assert client.queue.stats().pending == 2
            client.close(timeout=0)

    def test_it_can_evict_instead(self, server: LoopbackPackTrack, tmp_path: Path) -> None:
        options = self.options(server, tmp_path) | {"queue_capacity": 2, "start": False}
        with PackTrackClient(**options, overflow="drop_oldest") as client:
            client.track_many([event("a"), event("b"), event("c")])
            client.flush(timeout=10)
        assert [found["message"] for found in server.events] == ["b", "c"]

    def test_a_batch_holds_no_more_than_batch_size(
        self, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        options = self.options(server, tmp_path) | {"batch_size": 3, "start": False}
        with PackTrackClient(**options) as client:
            client.track_many([event()] * 7)
            client.flush(timeout=10)
        assert max(request.count for request in server.requests) <= 3
        assert len(server.events) == 7

    def test_the_hooks_of_the_queue_are_called(
        self, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        told: list[Any] = []
        options = self.options(server, tmp_path) | {
            "queue_capacity": 2,
            "overflow": "drop_oldest",
            "start": False,
            "on_delivered": told.append,
            "on_dropped": told.append,
            "on_error": told.append,
        }
        server.respond(503, times=1)
        with PackTrackClient(**options) as client:
            client.track_many([event(), event(), event()])
            client.flush(timeout=10)
        kinds = {type(each).__name__ for each in told}
        assert kinds == {"Delivered", "Dropped", "ResponseError"}

    def test_a_program_that_only_ingests_has_no_queue(
        self, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        with PackTrackClient(**self.options(server, tmp_path)) as client:
            client.ingest_event(event())
        assert list(tmp_path.iterdir()) == []

    def test_only_packtrack_events_are_tracked(
        self, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        with (
            PackTrackClient(**self.options(server, tmp_path)) as client,
            pytest.raises(EventError, match="track takes a PackTrackEvent, got str"),
        ):
            client.track("purchase")  # type: ignore[arg-type]


class TestConfig:
    def test_defaults_are_those_of_packtracks_own_clients(self) -> None:
        config = PackTrackConfig(api_key="k")
        assert (config.base_url, config.timeout) == ("https://pack.shimcounty.com", 15.0)
        assert (config.retries, config.backoff_initial, config.backoff_max) == (3, 0.1, 2.0)
        assert (config.jitter, config.batch_size, config.flush_interval) == (0.2, 100, 1.0)
        assert (config.queue_capacity, config.overflow, config.gzip) == (10_000, "reject", False)
        assert (config.health_enabled, config.health_path) == (False, "/api/health")
        assert (config.session, config.logger, config.on_attempt) == (None, None, None)

    def test_every_variable_is_read_and_arguments_win(self) -> None:
        environ = {
            "PACKTRACK_API_KEY": "from-env",
            "PACKTRACK_BASE_URL": "http://127.0.0.1:9/",
            "PACKTRACK_TIMEOUT": "250ms",
            "PACKTRACK_RETRIES": "5",
            "PACKTRACK_USER_AGENT": "mine/1",
            "PACKTRACK_HEALTH_ENABLE": "yes",
            "PACKTRACK_HEALTH_PATH": "/up",
            "PACKTRACK_DEBUG": "on",
        }
        assert {variable for variable, _ in ENVIRONMENT.values()} == set(environ)
        config = PackTrackConfig.load(environ)
        assert (config.api_key, config.base_url) == ("from-env", "http://127.0.0.1:9")
        assert (config.timeout, config.retries, config.user_agent) == (0.25, 5, "mine/1")
        assert (config.health_enabled, config.health_path) == (True, "/up")
        assert config.debug is True
        assert PackTrackConfig.load(environ, retries=0, timeout=2).retries == 0
        assert PackTrackConfig.load(environ | {"PACKTRACK_RETRIES": ""}).retries == 3

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"api_key": ""}, "api_key is required: pass api_key= or set PACKTRACK_API_KEY"),
            ({"api_key": "a\nb"}, "api_key must be a string of printable ASCII"),
            ({"api_key": "https://x"}, "are api_key and base_url swapped"),
            ({"base_url": "pack.example"}, "base_url must begin with https:// or http://"),
            ({"base_url": "http://u:p@h"}, "base_url must not hold a user name or password"),
            ({"base_url": ""}, "base_url must be a URL"),
            ({"timeout": 0}, "timeout must be above 0, got 0"),
            ({"retries": -1}, "retries must be at least 0, got -1"),
            ({"retries": 1.5}, "retries must be a whole number"),
            ({"backoff_max": 0.01}, "backoff_max must be at least backoff_initial"),
            ({"jitter": 2}, "jitter must be at most 1"),
            ({"batch_size": 0}, "batch_size must be at least 1"),
            ({"queue_capacity": 0}, "queue_capacity must be at least 1"),
            ({"flush_interval": 0}, "flush_interval must be above 0"),
            ({"overflow": "wait"}, "overflow must be 'drop_oldest' or 'reject'"),
            ({"gzip": 1}, "gzip must be True or False"),
            ({"health_path": "http://x/up"}, "the host belongs in base_url"),
            ({"logger": "x"}, "logger must be a logging.Logger"),
            ({"on_attempt": 1}, "on_attempt must be callable"),
            ({"session": 1}, "session must have a method request()"),
            ({"headers": {"a b": "c"}}, "not an HTTP token"),
            ({"colour": 1}, "colour is not an option; the options are api_key"),
            ({"retrys": 1}, "retrys is not an option; did you mean retries?"),
            ({"endpoint": "http://x"}, "endpoint is not an option; here it is base_url"),
            ({"write_key": "k"}, "write_key is not an option; here it is api_key"),
            ({"host": "h"}, "host is not an option; here it is base_url"),
            ({"max_queue_size": 1}, "max_queue_size is not an option; here it is queue_capacity"),
            ({"base_url": "http://h/api/ingest"}, "base_url must be the base URL"),
            ({"verify": "/nope.pem"}, "verify cannot be read, got '/nope.pem'"),
        ],
    )
    def test_a_wrong_option_is_named_with_its_value(
        self, options: dict[str, Any], complaint: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            PackTrackConfig.load({}, **({"api_key": "k"} | options))
        assert complaint in str(caught.value)

    @pytest.mark.parametrize(
        ("variable", "text", "complaint"),
        [
            ("PACKTRACK_TIMEOUT", "soon", "PACKTRACK_TIMEOUT cannot be read: 'soon'"),
            ("PACKTRACK_RETRIES", "many", "PACKTRACK_RETRIES must be a whole number"),
            ("PACKTRACK_HEALTH_ENABLE", "perhaps", "PACKTRACK_HEALTH_ENABLE must be true or"),
        ],
    )
    def test_a_variable_that_cannot_be_read_is_named(
        self, variable: str, text: str, complaint: str
    ) -> None:
        with pytest.raises(ConfigError, match=complaint):
            PackTrackConfig.load({variable: text}, api_key="k")

    def test_config_or_options_not_both(self) -> None:
        with pytest.raises(ConfigError, match="not both"):
            PackTrackClient(config=PackTrackConfig(api_key="k"), retries=1)

    def test_every_option_has_a_docstring(self) -> None:
        page = Path(__file__).parent.parent / "docs" / "reference" / "packtrack.md"
        text = page.read_text(encoding="utf-8")
        assert [spec.name for spec in fields(PackTrackConfig) if f"`{spec.name}`" not in text] == []


def test_the_public_names_are_these() -> None:
    assert packtrack.__all__ == [
        "Actor",
        "Attempt",
        "IngestError",
        "IngestRefused",
        "IngestResult",
        "PackTrackClient",
        "PackTrackConfig",
        "PackTrackEvent",
        "RetriesExhausted",
        "Severity",
        "Source",
        "Status",
        "Workflow",
    ]


def test_importing_it_loads_nothing_slow() -> None:
    script = (
        "import sys, causality_sdk.packtrack\n"
        "print(sorted({'requests', 'sqlite_utils', 'filelock', 'click'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert shown.stdout == "[]\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_after_fork_does_not_use_the_connections_of_its_parent(
    server: LoopbackPackTrack,
) -> None:
    script = f"""
import os
from test_packtrack_client import KEY, event
from causality_sdk.packtrack import PackTrackClient
client = PackTrackClient(api_key=KEY, base_url={server.endpoint!r}, retries=0)
client.ingest_event(event("parent"))
child = os.fork()
for n in range(20):
    client.ingest_event(event(f"{{'parent' if child else 'child'}} {{n}}"))
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(0)
"""
    subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=60, cwd=Path(__file__).parent
    )
    assert len({found["message"] for found in server.events}) == 41


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_after_fork_waits_for_no_lock_and_shares_no_session_with_its_parent(
    server: LoopbackPackTrack, tmp_path: Path
) -> None:
    """Else it waits for ever for a thread that is not there, and reads its parent's answers."""
    script = f"""
import os, requests
from test_packtrack_client import KEY, event
from causality_sdk.packtrack import PackTrackClient
session = requests.Session()
client = PackTrackClient(api_key=KEY, base_url={server.endpoint!r}, retries=0, session=session,
                         start=False, queue_path={str(tmp_path / "queue.db")!r})
client.ingest_event(event("parent"))
client.track(event("tracked by parent"))
before = session.get_adapter("http://").poolmanager
client._lock.acquire()  # as a thread does that opens the queue at this moment
client._shared._turn.acquire()  # and one that sends
child = os.fork()
if child:
    client._lock.release()
    client._shared._turn.release()
else:
    assert session.get_adapter("http://").poolmanager is not before
who = "parent" if child else "child"
for n in range(20):
    client.track(event(f"{{who}} {{n}}"))
    assert client.flush(20).delivered >= 1
    client.ingest_event(event(f"{{who}} at once {{n}}"))
if child:
    assert os.waitpid(child, 0)[1] == 0
    client.close()
else:
    client.close()
    os._exit(0)
"""
    subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=60, cwd=Path(__file__).parent
    )
    assert len({found["message"] for found in server.events}) == 2 + 2 * 40
