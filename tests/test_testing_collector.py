"""The loopback collector, over real sockets: what it keeps, how it misbehaves, how it ends."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from causality_sdk.testing import LoopbackCollector, ReceivedRequest, ScriptedAnswer

ROOT = Path(__file__).resolve().parent.parent
PATH = "/v1/events/batch"
KEY = {"X-API-Key": "test-key", "Content-Type": "application/json"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


def event(key: str, **more: Any) -> dict[str, Any]:
    return {"event_type": "click", "idempotency_key": key, **more}


def batch(*keys: str) -> bytes:
    return json.dumps({"events": [event(key) for key in keys]}, separators=(",", ":")).encode()


def ask(
    connection: http.client.HTTPConnection,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    path: str = PATH,
) -> Answer:
    connection.request(method, path, body, KEY if headers is None else headers)
    response = connection.getresponse()
    names = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, names, response.read())


def connect(collector: LoopbackCollector) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", collector.port, timeout=10)


def post(
    collector: LoopbackCollector, body: bytes, headers: dict[str, str] | None = None
) -> Answer:
    with closing(connect(collector)) as connection:
        return ask(connection, body, headers)


def get(collector: LoopbackCollector, path: str, method: str = "GET") -> Answer:
    with closing(connect(collector)) as connection:
        return ask(connection, method=method, path=path)


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector() as running:
        yield running


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as running:
        yield running


class TestWhatItKeeps:
    def test_a_batch_is_acknowledged_with_its_count(self, collector: LoopbackCollector) -> None:
        answer = post(collector, batch("a", "b"))
        assert answer.status == 200
        assert answer.json == {"acceptedCount": 2, "rejectedCount": 0}
        assert collector.keys == ["a", "b"]
        assert collector.events == [event("a"), event("b")]
        assert (collector.count, collector.received, collector.duplicates) == (2, 2, 0)

    def test_payloads_are_the_bytes_of_the_wire(self, collector: LoopbackCollector) -> None:
        """Spaces, escapes, the order of keys and the form of numbers survive."""
        raws = {
            "a": b'{ "idempotency_key" :"a", "n": 1.50e1 }',
            "b": b'{"z":"\\u00e9","idempotency_key":"b","a":[{"x":"}],["}]}',
            "c": '{"idempotency_key":"c","name":"Zoë 🦊"}'.encode(),
        }
        body = b' {"events" : [' + b" ,\n".join(raws.values()) + b" ] } \n"
        assert post(collector, body).status == 200
        assert collector.payloads == raws

    def test_an_empty_batch_is_a_batch(self, collector: LoopbackCollector) -> None:
        assert post(collector, b'{"events":[]}').json == {"acceptedCount": 0, "rejectedCount": 0}

    def test_the_first_arrival_of_a_key_wins(self, collector: LoopbackCollector) -> None:
        post(collector, json.dumps({"events": [event("a", n=1), event("a", n=2)]}).encode())
        answer = post(collector, json.dumps({"events": [event("b"), event("a", n=3)]}).encode())
        assert answer.json["acceptedCount"] == 2
        assert collector.events == [event("a", n=1), event("b")]
        assert (collector.count, collector.received, collector.duplicates) == (2, 4, 2)

    def test_a_gzip_body_is_read(self, collector: LoopbackCollector) -> None:
        packed = gzip.compress(batch("a"))
        assert post(collector, packed, {**KEY, "Content-Encoding": "gzip"}).status == 200
        assert collector.keys == ["a"]
        (request,) = collector.requests
        assert request.body == packed
        assert request.content == batch("a")
        assert request.events == [event("a")]

    def test_a_chunked_body_is_read(self, collector: LoopbackCollector) -> None:
        with closing(connect(collector)) as connection:
            for _ in range(2):
                whole = batch("a", "b")
                parts = iter([whole[:7], whole[7:20], whole[20:]])
                connection.request("POST", PATH, parts, KEY, encode_chunked=True)
                response = connection.getresponse()
                assert (response.status, bool(response.read())) == (200, True)
        assert collector.keys == ["a", "b"]

    def test_a_client_that_expects_a_100_gets_one(self, collector: LoopbackCollector) -> None:
        body = batch("a")
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-API-Key: test-key\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", collector.port), timeout=10) as sock:
            sock.sendall(head.encode())
            assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(body)
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")

    def test_clear_forgets_what_came_and_the_keys(self, collector: LoopbackCollector) -> None:
        post(collector, batch("a", "a"))
        collector.clear()
        assert (collector.count, collector.received, collector.duplicates) == (0, 0, 0)
        assert (collector.requests, collector.request_count, collector.events) == ([], 0, [])
        post(collector, batch("a"))
        assert (collector.count, collector.duplicates) == (1, 0)

    def test_the_journal_has_a_line_for_each_unique_event_before_the_answer(
        self, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal.txt"
        with LoopbackCollector(journal=journal) as collector:
            post(collector, batch("a", "b", "a"))
            written = journal.read_text()
            post(collector, batch("b", "c\nforged 0"))
        digests = [hashlib.sha256(raw).hexdigest() for raw in collector.payloads.values()]
        assert written == f"a {digests[0]}\nb {digests[1]}\n"
        assert journal.read_text() == written + f"c\\nforged 0 {digests[2]}\n"

    def test_a_journal_is_continued_after_a_restart(self, tmp_path: Path) -> None:
        journal = tmp_path / "journal.txt"
        collector = LoopbackCollector(journal=str(journal))
        for key in ("a", "b"):
            with collector:
                post(collector, batch(key))
        assert [line.split()[0] for line in journal.read_text().splitlines()] == ["a", "b"]


class TestWhatItRefuses:
    @pytest.mark.parametrize("headers", [{}, {"X-API-Key": ""}, {"X-API-Key": "other"}])
    def test_a_wrong_key_is_a_401(
        self, collector: LoopbackCollector, headers: dict[str, str]
    ) -> None:
        answer = post(collector, batch("a"), headers)
        assert answer.status == 401
        assert "X-API-Key" in answer.json["error"]
        assert (collector.count, collector.received) == (0, 1)

    def test_without_a_key_of_its_own_it_takes_any(self) -> None:
        with LoopbackCollector(api_key=None) as collector:
            assert post(collector, batch("a"), {}).status == 200

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"[]",
            b"null",
            b'{"events":{}}',
            b'{"events":[',
            b'{"events":[]',
            b'{"events":[{"idempotency_key":"a"}]}x',
            b'{"events":[{"idempotency_key":"a"}],"more":1}',
            b'{"events":[{"idempotency_key":"a"},]}',
            b'{"events":[{"idempotency_key":"a"}{"idempotency_key":"b"}]}',
            b'{"events":[1]}',
            b'{"events":[{}]}',
            b'{"events":[{"idempotency_key":""}]}',
            b'{"events":[{"idempotency_key":7}]}',
            b'{"events":[{"idempotency_key":"a","n":NaN}]}',
            b'{"events":[{"idempotency_key":"a","n":-Infinity}]}',
            b'{"events":[{"idempotency_key":"a","n":' + b"9" * 5000 + b"}]}",
            b'{"events":[{"idempotency_key":"a","n":' + b"[" * 200_000,
            b'{"events":[{"idempotency_key":"\xff"}]}',
        ],
    )
    def test_what_is_no_batch_is_a_400_that_says_why(
        self, collector: LoopbackCollector, body: bytes
    ) -> None:
        answer = post(collector, body)
        assert answer.status == 400
        assert answer.json["error"]
        assert (collector.count, collector.received, collector.errors) == (0, 0, [])

    def test_one_bad_event_refuses_the_batch(self, collector: LoopbackCollector) -> None:
        answer = post(collector, b'{"events":[{"idempotency_key":"a"},{"x":1}]}')
        assert answer.status == 400
        assert answer.json["error"].startswith("event 1 ")
        assert collector.count == 0

    @pytest.mark.parametrize(("coding", "body"), [("gzip", b"no gzip"), ("br", batch("a"))])
    def test_an_encoding_it_cannot_undo_is_a_400(
        self, collector: LoopbackCollector, coding: str, body: bytes
    ) -> None:
        answer = post(collector, body, {**KEY, "Content-Encoding": coding})
        assert (answer.status, "gzip" in answer.json["error"]) == (400, True)
        (request,) = collector.requests
        assert request.events == []
        with pytest.raises(ValueError, match="gzip"):
            assert request.content

    def test_health_and_readiness_have_their_paths(self, collector: LoopbackCollector) -> None:
        assert get(collector, "/health").json == {"status": "ok"}
        assert get(collector, "/ready?verbose=1").status == 200
        collector.ready = False
        assert get(collector, "/ready").status == 503
        assert get(collector, "/health").status == 200
        assert get(collector, "/health", "HEAD").body == b""

    def test_any_other_path_is_a_404_and_any_other_method_a_405(
        self, collector: LoopbackCollector
    ) -> None:
        assert get(collector, "/v2/events").status == 404
        assert "/v2/events" in get(collector, "/v2/events").json["error"]
        wrong_method = get(collector, PATH)
        assert (wrong_method.status, wrong_method.headers["allow"]) == (405, "POST")

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"hello\r\n\r\n",
            b"GET / SPDY/3\r\n\r\n",
            b"GET /health HTTP/1.1\r\nno colon here\r\n\r\n",
            b"GET /health HTTP/1.1\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(300)),
            b"GET /" + b"x" * 70_000,
            b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ],
    )
    def test_what_is_no_http_is_a_400_and_the_end_of_the_connection(
        self, collector: LoopbackCollector, request_bytes: bytes
    ) -> None:
        with socket.create_connection(("127.0.0.1", collector.port), timeout=10) as sock:
            sock.sendall(request_bytes)
            assert sock.recv(12) == b"HTTP/1.1 400"
        assert get(collector, "/health").status == 200


class TestTheRequests:
    def test_a_request_is_recorded_with_what_became_of_it(
        self, collector: LoopbackCollector
    ) -> None:
        post(collector, batch("a", "b"), {**KEY, "X-Extra": "yes"})
        get(collector, "/nowhere?x=1")
        first, second = collector.requests
        assert (first.method, first.path, first.body) == ("POST", PATH, batch("a", "b"))
        assert (first.headers["x-api-key"], first.headers["x-extra"]) == ("test-key", "yes")
        assert (first.status, first.count) == (200, 2)
        assert (second.method, second.path, second.status) == ("GET", "/nowhere?x=1", 404)
        assert collector.request_count == 2
        with pytest.raises(AttributeError):
            first.status = 500  # type: ignore[misc]

    def test_old_bodies_are_let_go(self, collector: LoopbackCollector) -> None:
        with closing(connect(collector)) as connection:
            for number in range(1_010):
                ask(connection, batch(str(number)))
        requests = collector.requests
        assert len(requests) == collector.request_count == 1_010
        assert [bool(request.body) for request in requests] == [False] * 10 + [True] * 1_000
        assert (requests[0].status, requests[0].count, requests[0].events) == (200, 1, [])

    def test_a_connection_serves_many_requests_without_a_delay(
        self, collector: LoopbackCollector
    ) -> None:
        """Header and body in two sends would cost 40 ms for each of them."""
        with closing(connect(collector)) as connection:
            ask(connection, batch("a"))
            sock = connection.sock
            start = time.monotonic()
            for _ in range(100):
                ask(connection, batch("a"))
            assert time.monotonic() - start < 2
            assert connection.sock is sock

    @pytest.mark.parametrize(
        ("version", "wish", "closes"),
        [
            ("1.1", "", False),
            ("1.1", "close", True),
            ("1.0", "", True),
            ("1.0", "keep-alive", False),
        ],
    )
    def test_the_client_decides_whether_the_connection_stays(
        self, collector: LoopbackCollector, version: str, wish: str, closes: bool
    ) -> None:
        request = f"GET /health HTTP/{version}\r\nConnection: {wish}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", collector.port), timeout=10) as sock:
            sock.sendall(request)
            assert b'{"status":"ok"}' in sock.recv(1000)
            if not closes:
                sock.sendall(request)
            assert bool(sock.recv(1000)) is not closes

    def test_many_clients_at_once_lose_nothing(
        self, collector: LoopbackCollector, pool: ThreadPoolExecutor
    ) -> None:
        def work(worker: int) -> None:
            with closing(connect(collector)) as connection:
                for number in range(50):
                    ask(connection, batch(f"{worker}-{number}", f"shared-{number}"))

        list(pool.map(work, range(8)))
        assert (collector.count, collector.duplicates) == (450, 350)


class TestScriptedAnswers:
    def test_a_standing_answer_holds_until_respond_normally(
        self, collector: LoopbackCollector
    ) -> None:
        collector.respond(503, {"error": "away"}, {"Retry-After": "7"})
        for _ in range(2):
            answer = post(collector, batch("a"))
            assert (answer.status, answer.headers["retry-after"]) == (503, "7")
            assert answer.json == {"error": "away"}
        assert (collector.count, collector.received) == (0, 2)
        collector.respond_normally()
        assert post(collector, batch("a")).status == 200
        assert [request.status for request in collector.requests] == [503, 503, 200]

    def test_counted_answers_queue_up_before_the_standing_one(
        self, collector: LoopbackCollector
    ) -> None:
        collector.respond(500)
        collector.respond(429, times=2)
        collector.respond(status=418, times=1)
        assert [post(collector, batch("a")).status for _ in range(5)] == [429, 429, 418, 500, 500]

    def test_a_stored_answer_is_an_acknowledgement_that_gets_lost(
        self, collector: LoopbackCollector
    ) -> None:
        collector.respond(502, times=1, store=True)
        assert post(collector, batch("a")).status == 502
        assert collector.keys == ["a"]
        assert post(collector, batch("a")).status == 200
        assert (collector.count, collector.duplicates) == (1, 1)

    def test_what_the_normal_answer_refuses_is_not_stored_by_a_scripted_one(
        self, collector: LoopbackCollector
    ) -> None:
        collector.respond(200, store=True)
        post(collector, batch("a"), {"X-API-Key": "wrong"})
        post(collector, b"no batch")
        assert collector.count == 0

    @pytest.mark.parametrize(
        ("body", "data", "kind"),
        [
            ({"a": 1}, b'{"a":1}', "application/json"),
            (b'{"a":1}', b'{"a":1}', "application/json"),
            ("<html>", b"<html>", "text/html; charset=utf-8"),
            ("né", "né".encode(), "text/plain; charset=utf-8"),
            (b"", b"", None),
        ],
    )
    def test_a_body_is_a_dict_or_text_or_bytes(
        self, collector: LoopbackCollector, body: Any, data: bytes, kind: str | None
    ) -> None:
        collector.respond(200, body)
        answer = post(collector, batch("a"))
        assert (answer.body, answer.headers.get("content-type")) == (data, kind)

    def test_given_headers_win_over_those_that_are_made(self, collector: LoopbackCollector) -> None:
        collector.respond(200, "<x/>", {"content-type": "text/xml", "Content-Length": "2"})
        answer = post(collector, batch("a"))
        assert (answer.body, answer.headers["content-type"]) == (b"<x", "text/xml")

    def test_a_204_has_no_body(self, collector: LoopbackCollector) -> None:
        collector.respond(204, "ignored", times=1)
        with closing(connect(collector)) as connection:
            answer = ask(connection, batch("a"))
            assert (answer.status, answer.body) == (204, b"")
            assert "content-length" not in answer.headers
            assert ask(connection, batch("a")).status == 200

    def test_only_batches_are_scripted(self, collector: LoopbackCollector) -> None:
        collector.respond(500)
        assert get(collector, "/health").status == 200

    def test_a_dropped_request_gets_no_answer(self, collector: LoopbackCollector) -> None:
        collector.drop_next()
        collector.drop_next(store=True)
        for kept in ([], ["a"]):
            with pytest.raises(http.client.RemoteDisconnected):
                post(collector, batch("a"))
            assert collector.keys == kept
        assert post(collector, batch("a")).status == 200
        assert [request.status for request in collector.requests] == [0, 0, 200]

    @pytest.mark.parametrize("times", [0, -1, True, 1.5])
    def test_times_must_be_a_positive_whole_number(
        self, collector: LoopbackCollector, times: Any
    ) -> None:
        with pytest.raises(ValueError, match="times must be"):
            collector.respond(500, times=times)

    @pytest.mark.parametrize("status", [100, 199, 600])
    def test_a_status_must_be_a_final_one(self, collector: LoopbackCollector, status: int) -> None:
        with pytest.raises(ValueError, match="status must be"):
            collector.respond(status)

    def test_accept_only_names_the_result_of_each_event(self, collector: LoopbackCollector) -> None:
        collector.accept_only(lambda index, event: index == 0 or event["idempotency_key"] == "c")
        answer = post(collector, batch("a", "b", "c"))
        assert answer.status == 200
        assert answer.json == {
            "acceptedCount": 2,
            "rejectedCount": 1,
            "results": [
                {"index": 0, "eventId": "a", "status": "accepted"},
                {
                    "index": 1,
                    "eventId": "b",
                    "status": "rejected",
                    "error": "rejected by accept_only",
                },
                {"index": 2, "eventId": "c", "status": "accepted"},
            ],
        }
        assert collector.keys == ["a", "c"]
        collector.accept_only(None)
        assert post(collector, batch("b")).json == {"acceptedCount": 1, "rejectedCount": 0}

    def test_an_answerer_decides_by_the_request(self, collector: LoopbackCollector) -> None:
        seen: list[ReceivedRequest] = []

        def answer(request: ReceivedRequest) -> ScriptedAnswer | None:
            seen.append(request)
            if request.count > 1:
                return ScriptedAnswer(status=413, body="too many")
            if request.events[0]["idempotency_key"] == "drop":
                return ScriptedAnswer(drop=True, store=True)
            return None

        collector.answer_with(answer)
        assert post(collector, batch("a", "b")).status == 413
        with pytest.raises(http.client.RemoteDisconnected):
            post(collector, batch("drop"))
        assert post(collector, batch("c")).status == 200
        assert collector.keys == ["drop", "c"]
        assert [request.status for request in seen] == [0, 0, 0]
        collector.respond_normally()
        assert post(collector, batch("a", "b")).status == 200

    def test_what_a_callable_raises_is_a_500_and_kept_for_the_test(
        self, collector: LoopbackCollector, capfd: pytest.CaptureFixture[str]
    ) -> None:
        collector.accept_only(lambda _index, event: bool(event["missing"]))
        assert post(collector, batch("a")).status == 500
        collector.answer_with(lambda _request: "wrong")  # type: ignore[arg-type, return-value]
        assert post(collector, batch("a")).status == 500
        assert [type(error) for error in collector.errors] == [KeyError, TypeError]
        assert collector.count == 0
        assert capfd.readouterr() == ("", "")


class TestSlowAndStuck:
    def test_a_paused_server_holds_requests_until_it_is_resumed(
        self, collector: LoopbackCollector, pool: ThreadPoolExecutor
    ) -> None:
        collector.pause()
        answers = [pool.submit(post, collector, batch(key)) for key in "abc"]
        assert collector.wait_for_held(3)
        assert (collector.held, collector.count, collector.request_count) == (3, 0, 0)
        collector.resume()
        assert [answer.result(10).status for answer in answers] == [200, 200, 200]
        assert (collector.held, collector.count) == (0, 3)

    def test_a_held_request_of_a_client_that_gave_up_is_still_dealt_with(
        self, collector: LoopbackCollector
    ) -> None:
        collector.pause()
        with closing(connect(collector)) as connection:
            connection.request("POST", PATH, batch("a"), KEY)
            assert collector.wait_for_held()
        collector.resume()
        assert collector.wait_for(1)

    def test_a_delay_comes_before_the_answer(self, collector: LoopbackCollector) -> None:
        collector.delay(0.05)
        start = time.monotonic()
        assert post(collector, batch("a")).status == 200
        assert time.monotonic() - start >= 0.05

    def test_the_end_of_a_delay_frees_those_who_wait(
        self, collector: LoopbackCollector, pool: ThreadPoolExecutor
    ) -> None:
        collector.delay(3600)
        answer = pool.submit(post, collector, batch("a"))
        assert collector.wait_for_held()
        collector.delay(0)
        assert answer.result(10).status == 200

    @pytest.mark.parametrize("seconds", [-1, float("nan")])
    def test_a_delay_is_not_negative(self, collector: LoopbackCollector, seconds: float) -> None:
        with pytest.raises(ValueError, match="seconds"):
            collector.delay(seconds)

    @pytest.mark.parametrize("ending", ["down", "stop"])
    def test_a_held_request_ends_with_the_server_and_is_not_kept(
        self, collector: LoopbackCollector, pool: ThreadPoolExecutor, ending: str
    ) -> None:
        collector.pause()
        collector.delay(3600)
        answer = pool.submit(post, collector, batch("a"))
        assert collector.wait_for_held()
        getattr(collector, ending)()
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            answer.result(10)
        assert collector.wait_for_requests(1)
        assert collector.requests[0].status == 0
        assert collector.count == 0


class TestAwayAndBack:
    def test_down_closes_connections_and_refuses_new_ones_until_up(
        self, collector: LoopbackCollector
    ) -> None:
        port = collector.port
        with closing(connect(collector)) as connection:
            ask(connection, batch("a"))
            collector.down()
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                ask(connection, batch("b"))
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                post(collector, batch("b"))
        collector.up()
        assert collector.port == port
        assert post(collector, batch("b")).status == 200
        assert collector.keys == ["a", "b"]

    def test_down_and_up_may_be_called_twice_and_often(self, collector: LoopbackCollector) -> None:
        for number in range(20):
            collector.down()
            collector.down()
            with pytest.raises(ConnectionRefusedError):
                post(collector, batch("x"))
            collector.up()
            collector.up()
            post(collector, batch(str(number)))
        assert collector.count == 20

    def test_nobody_else_gets_the_port_while_it_is_down(self, collector: LoopbackCollector) -> None:
        collector.down()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", collector.port))

    def test_a_request_that_is_being_answered_is_not_kept_once_it_is_down(
        self, collector: LoopbackCollector
    ) -> None:
        """The callable runs between the request and the store, and takes the server down there."""

        def crash(_request: ReceivedRequest) -> None:
            collector.down()

        collector.answer_with(crash)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            post(collector, batch("a"))
        assert collector.wait_for_requests(1)
        assert collector.count == 0

    def test_behaviour_survives_down_and_up(self, collector: LoopbackCollector) -> None:
        collector.respond(503)
        collector.down()
        collector.up()
        assert post(collector, batch("a")).status == 503

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_does_not_keep_the_port_open(self) -> None:
        run_strictly(
            """
            import os
            collector = LoopbackCollector().start()
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(writer)
                os.read(reader, 1)
                os._exit(0)
            for again in range(2):
                collector.down()
                try:
                    socket.create_connection(("127.0.0.1", collector.port), timeout=10)
                except ConnectionRefusedError:
                    pass
                else:
                    raise AssertionError("connected")
                collector.up()
            collector.stop()
            os.close(writer)
            os.close(reader)
            assert os.waitpid(child, 0)[1] == 0
            """
        )


class TestWaiting:
    def test_wait_for_returns_when_the_events_are_there(
        self, collector: LoopbackCollector, pool: ThreadPoolExecutor
    ) -> None:
        reached: Future[bool] = pool.submit(collector.wait_for, 3)
        post(collector, batch("a", "b"))
        post(collector, batch("b", "c"))
        assert reached.result(10)
        assert collector.wait_for(3, timeout=0)

    def test_wait_for_requests_counts_every_request(
        self, collector: LoopbackCollector, pool: ThreadPoolExecutor
    ) -> None:
        reached: Future[bool] = pool.submit(collector.wait_for_requests, 2)
        get(collector, "/health")
        post(collector, b"no batch")
        assert reached.result(10)

    def test_wait_for_held_returns_when_a_request_is_held(
        self, collector: LoopbackCollector, pool: ThreadPoolExecutor
    ) -> None:
        collector.pause()
        reached: Future[bool] = pool.submit(collector.wait_for_held)
        answer = pool.submit(post, collector, batch("a"))
        assert reached.result(15)
        collector.resume()
        assert answer.result(10).status == 200

    def test_waiting_ends_with_its_timeout(self, collector: LoopbackCollector) -> None:
        assert not collector.wait_for(1, timeout=0)
        assert not collector.wait_for_requests(1, timeout=0.001)
        assert not collector.wait_for_held(timeout=0)

    def test_a_client_that_has_its_answer_need_not_wait(self, collector: LoopbackCollector) -> None:
        with closing(connect(collector)) as connection:
            for number in range(1, 200):
                ask(connection, batch(str(number)))
                assert collector.count == collector.request_count == number


class TestItsLife:
    def test_start_and_stop_may_be_called_twice(self) -> None:
        collector = LoopbackCollector()
        collector.stop()
        assert collector.start() is collector.start()
        assert collector.endpoint == f"http://127.0.0.1:{collector.port}"
        post(collector, batch("a"))
        collector.stop()
        collector.stop()
        assert collector.keys == ["a"]
        with pytest.raises(ConnectionRefusedError):
            post(collector, batch("b"))

    def test_a_restart_keeps_port_and_events(self) -> None:
        collector = LoopbackCollector()
        with collector:
            port = collector.port
            post(collector, batch("a"))
        with collector:
            assert collector.port == port
            post(collector, batch("a", "b"))
        assert (collector.keys, collector.duplicates) == (["a", "b"], 1)

    def test_a_port_may_be_asked_for(self, collector: LoopbackCollector) -> None:
        port = collector.port
        collector.stop()
        with LoopbackCollector(port=port) as other:
            assert other.port == port
            with pytest.raises(OSError, match="in use"):
                collector.start()
        collector.start()

    def test_what_needs_it_running_says_so(self) -> None:
        collector = LoopbackCollector()
        for call in (collector.up, collector.down, lambda: collector.endpoint):
            with pytest.raises(RuntimeError, match="start"):
                call()

    def test_stop_ends_every_thread_and_connection(self) -> None:
        before = set(threading.enumerate())
        collector = LoopbackCollector().start()
        idle = [socket.create_connection(("127.0.0.1", collector.port)) for _ in range(5)]
        idle[0].sendall(b"POST /v1/events/batch HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        get(collector, "/health")
        collector.stop()
        assert set(threading.enumerate()) <= before
        for sock in idle:
            with sock:
                sock.settimeout(10)
                with suppress(ConnectionError):
                    assert sock.recv(1) == b""
        assert collector.request_count == 1

    def test_stop_may_be_called_by_a_callable_of_its_own(
        self, collector: LoopbackCollector
    ) -> None:
        collector.answer_with(lambda _request: collector.stop())
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            post(collector, batch("a"))
        assert collector.wait_for_requests(1)
        assert collector.errors == []

    def test_it_leaves_no_warning_and_prints_nothing_whatever_the_clients_do(self) -> None:
        run_strictly(
            """
            with LoopbackCollector() as collector:
                address = ("127.0.0.1", collector.port)
                for text in (b"", b"POST", b"POST / HTTP/1.1\\r\\nContent-Length: 9\\r\\n\\r\\nx"):
                    for linger in (False, True):
                        with socket.create_connection(address) as client:
                            client.sendall(text)
                            if linger:  # closing sends a reset
                                value = struct.pack("ii", 1, 0)
                                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, value)
                left_open = socket.create_connection(address)
                left_open.sendall(b"GET /health HTTP/1.1\\r\\n\\r\\n")
                assert collector.wait_for_requests(1)
                collector.down()
                collector.up()
            left_open.close()
            """
        )

    def test_a_collector_that_is_never_stopped_does_not_hold_up_the_exit(self) -> None:
        run_strictly(
            """
            collector = LoopbackCollector().start()
            client = socket.create_connection(("127.0.0.1", collector.port))
            collector.pause()
            client.sendall(b"GET /health HTTP/1.1\\r\\n\\r\\n")
            assert collector.wait_for_held()
            client.close()
            """,
            "-W",
            "ignore::ResourceWarning",
        )


def run_strictly(script: str, *options: str) -> None:
    """Runs `script` in development mode, where a warning about a leak would go to stderr."""
    lines = script.splitlines()
    indent = len(lines[1]) - len(lines[1].lstrip())
    header = "import socket, struct\nfrom causality_sdk.testing import LoopbackCollector\n"
    code = header + "\n".join(line[indent:] for line in lines)
    # Python warns about any fork of a process with threads; that is the point of the test.
    fork = ("-W", "ignore:This process:DeprecationWarning")
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", *fork, *options, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
