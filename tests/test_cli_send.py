"""`causality send` and `causality health`: what their exit codes promise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import KEY, Shell, ndjson

from causality_sdk.cli.exits import REFUSED, RETRIES_EXHAUSTED, delivery_code
from causality_sdk.errors import ResponseError, TransportError
from causality_sdk.testing import LoopbackCollector, ReceivedRequest, ScriptedAnswer


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, collector: LoopbackCollector) -> Shell:
    return Shell(tmp_path, collector.endpoint)


class TestSend:
    def test_0_what_was_sent_is_acknowledged_and_no_queue_is_made(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        result = shell("send", "deploy", "version=1.4", "--gzip", "--json")
        assert collector.keys == result.summary["keys"]
        assert collector.requests[-1].headers["content-encoding"] == "gzip"
        assert not shell.queue.parent.exists()

    def test_a_stream_goes_in_order(self, shell: Shell, collector: LoopbackCollector) -> None:
        result = shell("send", "--ndjson", "-", stdin=ndjson(3500))
        assert result.out == "3,500 events sent\n"
        assert [event["properties"]["n"] for event in collector.events] == list(range(3500))

    def test_a_server_that_stumbles_is_tried_again(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        collector.respond(503, times=2)
        assert shell("send", "a", "-v").out == "1 event sent\n"
        assert len(collector.requests) == 3

    def test_1_an_event_that_cannot_be_sent(self, shell: Shell) -> None:
        assert "not JSON" in shell("send", "a", "n:={", code=1).err

    @pytest.mark.parametrize("status", [401, 404, 400, 422])
    def test_2_a_server_that_refuses(
        self, shell: Shell, collector: LoopbackCollector, status: int
    ) -> None:
        collector.respond(status)
        result = shell("send", "a", "--json", code=2)
        assert f"answered {status}" in result.err
        assert result.summary["sent"] == 0
        assert f"answered {status}" in result.summary["delivery_error"]

    def test_2_an_event_that_is_refused_while_others_pass_is_named(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        collector.accept_only(lambda _index, event: event["properties"]["n"] != 1)
        result = shell("send", "--ndjson", "-", "--json", stdin=ndjson(3), code=2)
        (refused,) = result.summary["refused"]
        assert result.summary["sent"] == 2
        assert f"{refused['key']} was refused" in result.err

    def test_3_no_server(self, tmp_path: Path) -> None:
        result = Shell(tmp_path)("send", "a", "--max-retries", "1", "-v", code=3)
        assert "1 event not sent: 127.0.0.1:9 refuses the connection" in result.err
        assert result.err.count("(refused)") + result.err.count("(refused, ") == 2

    def test_3_a_server_that_fails_for_now(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        collector.respond(503)
        assert "answered 503" in shell("send", "a", "--max-retries", "1", code=3).err

    def test_3_the_time_is_over(self, shell: Shell, collector: LoopbackCollector) -> None:
        collector.pause()
        try:
            assert "not sent" in shell("send", "a", "--timeout", "0.3", code=3).err
        finally:
            collector.resume()

    def test_4_input_that_cannot_be_parsed_and_what_came_before_is_sent(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        result = shell("send", "--ndjson", "-", "--json", stdin=ndjson(2) + b"[}\n", code=4)
        assert "line 3: not JSON" in result.err
        assert (result.summary["sent"], result.summary["line"]) == (2, 2)
        assert collector.count == 2

    def test_after_a_failure_nothing_else_is_sent_and_it_says_up_to_where(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        def only_the_first(request: ReceivedRequest) -> ScriptedAnswer | None:
            return ScriptedAnswer(status=503) if b'"n":1000,' in request.body else None

        collector.answer_with(only_the_first)
        options = ("--json", "--max-retries", "0", "--max-batch-events", "1000")
        result = shell("send", "--ndjson", "-", *options, stdin=ndjson(3000), code=3)
        assert result.summary["line"] == 1000
        assert collector.count == result.summary["sent"]

    def test_with_spool_what_could_not_be_sent_is_in_the_queue(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        collector.down()
        options = ("--spool", "--json", "--max-retries", "0")
        result = shell("send", "--ndjson", "-", *options, stdin=ndjson(2500))
        assert (result.summary["sent"], result.summary["spooled"]) == (0, 2500)
        assert str(shell.queue) in result.err
        collector.up()
        shell("track", "last", "n:=2500")
        assert [event["properties"]["n"] for event in collector.events] == list(range(2501))

    def test_with_spool_a_refused_event_is_kept_too(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        collector.accept_only(lambda _index, event: event["properties"]["n"] != 1)
        result = shell("send", "--ndjson", "-", "--spool", "--json", stdin=ndjson(3))
        assert (result.summary["sent"], result.summary["spooled"]) == (2, 1)

    def test_a_dry_run_sends_nothing(self, shell: Shell, collector: LoopbackCollector) -> None:
        assert shell("send", "a", "--dry-run").out.startswith('{"app_id":"shop"')
        assert collector.requests == []


class TestHealth:
    def test_0_it_is_well(self, shell: Shell) -> None:
        assert shell("health", "--json").json["status"] == 200
        assert ": well: 200 after " in shell("health").out

    def test_2_it_says_no(self, shell: Shell) -> None:
        endpoint = shell.environ["CAUSALITY_ENDPOINT"] + "/elsewhere"
        result = shell("health", "--endpoint", endpoint, "--json", code=2)
        assert result.json["status"] == 404

    def test_3_no_answer(self, tmp_path: Path) -> None:
        result = Shell(tmp_path)("health", "--json", code=3)
        assert (result.json["ok"], result.json["reason"]) == (False, "refused")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, RETRIES_EXHAUSTED),
        (TimeoutError(), RETRIES_EXHAUSTED),
        (TransportError("x", reason="dns"), RETRIES_EXHAUSTED),
        (TransportError("x", reason="tls"), REFUSED),
        (ResponseError("x", status=401, retryable=False), REFUSED),
        (ResponseError("x", status=301, retryable=False), REFUSED),
        (ResponseError("x", status=400, retryable=True), REFUSED),
        (ResponseError("x", status=413, retryable=True), REFUSED),
        (ResponseError("x", status=429, retryable=True), RETRIES_EXHAUSTED),
        (ResponseError("x", status=408, retryable=True), RETRIES_EXHAUSTED),
        (ResponseError("x", status=500, retryable=True), RETRIES_EXHAUSTED),
        (ResponseError("x", status=200, retryable=True), RETRIES_EXHAUSTED),
    ],
)
def test_the_code_says_whether_trying_again_can_help(error: Exception | None, code: int) -> None:
    assert delivery_code(error) == code
