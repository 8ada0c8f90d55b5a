"""`packtrack-logger --async`: the queue on disk; and how the command ends when it is cut short."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packtrack_shell import EVENT, KEY, Shell, flags

from causality_sdk.packtrack_logger.flags import Flags
from causality_sdk.packtrack_logger.run import Run
from causality_sdk.testing import LoopbackPackTrack


@pytest.fixture
def server() -> Iterator[LoopbackPackTrack]:
    with LoopbackPackTrack(api_key=KEY) as running:
        yield running


@pytest.fixture
def shell(tmp_path: Path, server: LoopbackPackTrack) -> Shell:
    return Shell(tmp_path, server)


def lines(*messages: str) -> str:
    return "".join(json.dumps({"message": message}) + "\n" for message in messages)


def messages(server: LoopbackPackTrack) -> list[str]:
    return [event["message"] for event in server.events]


PIPE = (*flags(EVENT), "--stdin", "--ndjson", "--async")


class TestQueue:
    def test_success_is_silent_and_leaves_nothing_behind(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        result = shell.event("--async")
        assert (result.exit_code, result.output) == (0, "")
        assert messages(server) == ["backup finished"]
        told = json.loads(shell.event("--async", "--json").stdout)
        assert (told["ok"], told["submitted"], told["queued"], told["remaining"]) == (True, 1, 1, 0)
        assert Path(told["queue_path"]).is_relative_to(shell.home)

    def test_an_outage_loses_none_and_the_next_run_sends_what_was_left(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        server.down()
        for message in ("one", "two"):
            result = shell.event("--async", "--message", message)
            assert result.exit_code == 3
            assert result.stdout == ""
            assert "refuses the connection" in result.stderr
            assert "the next run with --async sends them" in result.stderr
        assert "2 events wait in" in result.stderr
        server.up()
        assert shell.event("--async", "--message", "three").exit_code == 0
        assert messages(server) == ["one", "two", "three"]

    def test_an_outage_is_told_as_json(self, shell: Shell, server: LoopbackPackTrack) -> None:
        server.down()
        told = json.loads(shell.event("--async", "--json", "--retries", "0").stdout)
        assert (told["ok"], told["exit_code"]) == (False, 3)
        assert (told["queued"], told["remaining"]) == (1, 1)

    def test_no_flush_writes_to_the_queue_and_does_not_ask_the_network(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        for _ in range(2):
            assert shell.event("--async", "--no-flush").exit_code == 0
        assert server.requests == []
        assert shell.event("--async").exit_code == 0
        assert len(server.events) == 3

    def test_without_async_what_is_queued_stays_there(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        shell.event("--async", "--no-flush", "--message", "queued")
        assert shell.event("--message", "direct").exit_code == 0
        assert messages(server) == ["direct"]

    def test_a_wrong_key_exits_with_2_and_keeps_the_events(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        server.respond(401, times=1)
        result = shell.event("--async")
        assert result.exit_code == 2
        assert "1 event waits in" in result.stderr
        assert shell.event("--async").exit_code == 0
        assert len(server.events) == 2

    def test_verbose_tells_where_the_events_are(self, shell: Shell) -> None:
        result = shell.event("--async", "--verbose")
        assert result.exit_code == 0
        assert result.stdout == ""
        assert "1 event queued in" in result.stderr
        assert "1 event submitted" in result.stderr

    def test_a_queue_that_cannot_be_opened_exits_with_2_and_names_it(self, shell: Shell) -> None:
        (shell.home / "causality").write_text("in the way")
        result = shell.event("--async")
        assert result.exit_code == 2
        assert str(shell.home / "causality") in result.stderr
        assert result.stderr.count("\n") == 1


class TestFlags:
    def test_batch_size_is_the_most_that_goes_in_a_request(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        text = lines(*(str(n) for n in range(7)))
        assert shell.run(*PIPE, "--no-flush", stdin=text).exit_code == 0
        assert shell.run(*PIPE, "--batch-size", "3", stdin=lines("last")).exit_code == 0
        assert max(request.count for request in server.requests) <= 3
        assert messages(server) == [*(str(n) for n in range(7)), "last"]

    def test_flush_interval_sends_while_the_pipe_is_open(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        with shell.start(*PIPE, "--flush-interval", "10ms") as process:
            assert process.stdin is not None
            process.stdin.write(lines("first"))
            process.stdin.flush()
            assert server.wait_for(1)
            out, err = process.communicate(lines("second"), timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
        assert messages(server) == ["first", "second"]

    def test_at_its_capacity_the_queue_is_sent_to_make_room(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        text = lines(*(str(n) for n in range(10)))
        assert shell.run(*PIPE, "--queue-capacity", "3", stdin=text).exit_code == 0
        assert messages(server) == [str(n) for n in range(10)]

    def test_a_full_queue_without_a_server_exits_with_3_and_names_the_line(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        server.down()
        arguments = (*PIPE, "--queue-capacity", "3", "--retries", "0")
        result = shell.run(*arguments, stdin=lines(*"abcdef"))
        assert result.exit_code == 3
        assert "standard input, line 4:" in result.stderr
        assert "(3 events before it were queued)" in result.stderr
        server.up()
        assert shell.run(*PIPE, stdin=lines("z")).exit_code == 0
        assert messages(server) == [*"abc", "z"]

    def test_a_full_queue_that_is_not_to_be_sent_exits_with_3(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        arguments = ("--async", "--no-flush", "--queue-capacity", "1")
        assert shell.event(*arguments).exit_code == 0
        assert shell.event(*arguments).exit_code == 3
        assert server.requests == []

    def test_an_event_that_the_queue_cannot_take_exits_with_1_and_names_the_line(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        old = json.dumps({"timestamp": "1969-12-31T23:59:59Z"}) + "\n"
        result = shell.run(*PIPE, stdin=lines("a") + old)
        assert result.exit_code == 1
        assert "standard input, line 2: timestamp must lie between" in result.stderr
        assert messages(server) == ["a"]

    def test_the_idempotency_key_is_that_of_the_event_and_numbered_for_many(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        assert shell.event("--async", "--idempotency-key", "one").exit_code == 0
        arguments = (*PIPE, "--idempotency-key", "many")
        for _ in range(2):
            shell.run(*arguments, "--no-flush", stdin=lines("a", "b"))
            assert shell.run("--async", *flags(EVENT), "--idempotency-key", "x").exit_code == 0
        keys = [event["extra"]["_causality"]["idempotency_key"] for event in server.events]
        assert keys == ["one", "many-1", "many-2", "x"]
        assert server.repeats == 1  # the same events in the same request: dropped by its header

    def test_a_bad_line_exits_with_4_and_what_came_before_it_is_submitted(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        result = shell.run(*PIPE, stdin=lines("a", "b") + "{\n" + lines("c"))
        assert result.exit_code == 4
        assert "standard input, line 3: not JSON" in result.stderr
        assert "(2 events before it were queued)" in result.stderr
        assert messages(server) == ["a", "b"]

    def test_empty_input_exits_with_4(self, shell: Shell) -> None:
        assert shell.run(*PIPE, stdin="").exit_code == 4

    def test_a_file_of_many_goes_through_the_queue_too(
        self, shell: Shell, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        path = tmp_path / "events.json"
        path.write_text(json.dumps([{"message": "a"}, {"message": "b"}]))
        assert shell.event("--async", "--file", str(path)).exit_code == 0
        assert messages(server) == ["a", "b"]


class TestProcesses:
    def test_what_was_read_survives_a_kill(self, shell: Shell, server: LoopbackPackTrack) -> None:
        server.down()
        with shell.start(*PIPE, "--verbose") as process:
            assert process.stdin is not None
            assert process.stderr is not None
            process.stdin.write(lines("a", "b"))
            process.stdin.flush()
            assert "delivery failed" in process.stderr.readline()
            process.kill()
            process.communicate(timeout=30)
        server.up()
        assert shell.run(*PIPE, stdin=lines("c")).exit_code == 0
        assert messages(server)[-1] == "c"
        assert messages(server)[0] == "a"

    @pytest.mark.skipif(os.name == "nt", reason="there are no signals of this kind")
    @pytest.mark.parametrize("extra", [(), ("--async",)], ids=["sync", "async"])
    def test_ctrl_c_ends_with_130_and_no_traceback(
        self, shell: Shell, server: LoopbackPackTrack, extra: tuple[str, ...]
    ) -> None:
        server.respond(503)
        arguments = (*flags(EVENT), *extra, "--verbose", "--retries", "9")
        with shell.start(*arguments, "--backoff-initial", "1m", "--backoff-max", "1m") as process:
            assert process.stderr is not None
            first = process.stderr.readline()
            assert "503" in first
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert out == ""
        assert "Traceback" not in err
        if extra:
            server.respond_normally()
            assert shell.event("--async").exit_code == 0
            assert len(server.events) == 2

    @pytest.mark.skipif(os.name == "nt", reason="a pipe ends in another way there")
    @pytest.mark.parametrize("extra", [("--dry-run",), ("--json",)], ids=["dry", "json"])
    def test_a_reader_that_goes_away_is_no_error(
        self, shell: Shell, extra: tuple[str, ...]
    ) -> None:
        read, write = os.pipe()
        os.close(read)
        arguments: list[Any] = [sys.executable, "-m", "causality_sdk.packtrack_logger"]
        process = subprocess.run(
            [*arguments, *flags(EVENT), *extra],
            stdout=write,
            stderr=subprocess.PIPE,
            env=shell.environ,
            cwd=shell.home,
            encoding="utf-8",
            timeout=30,
            check=False,
        )
        os.close(write)
        assert (process.returncode, process.stderr) == (0, "")

    def test_it_runs_from_a_shell_as_cron_would(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        with shell.start(*flags(EVENT)) as process:
            out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
        assert messages(server) == ["backup finished"]


def test_a_server_that_asks_for_an_hour_does_not_hold_a_cron_job_that_long(
    shell: Shell, server: LoopbackPackTrack
) -> None:
    server.respond(429, headers={"Retry-After": "3600"})
    options = {"api_key": KEY, "base_url": server.endpoint, "durable": True, "retries": 9}
    made = Run(Flags(**options, **event_flags()), io.BytesIO())  # type: ignore[arg-type]
    made._config = replace(
        made._config, retry_after_max=0.0, timeout=0.3, queue_path=shell.home / "queue.db"
    )
    assert made.go() == 3
    assert len(server.requests) == 1


def event_flags() -> dict[str, str]:
    return {name.lstrip("-").replace("-", "_"): value for name, value in EVENT.items()}
