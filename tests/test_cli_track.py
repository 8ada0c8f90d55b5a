"""`causality track`: what is queued stays queued, whatever ends the command."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from shell import KEY, ROOT, Shell, ndjson

from causality_sdk.cli.event_source import EventSource
from causality_sdk.cli.exits import InputError
from causality_sdk.testing import LoopbackCollector

NEEDS_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and shells of POSIX")


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as server:
        yield server


@pytest.fixture
def online(tmp_path: Path, collector: LoopbackCollector) -> Shell:
    return Shell(tmp_path, collector.endpoint)


@pytest.fixture
def offline(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def queued(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT payload FROM queue ORDER BY id").fetchall()
    return [json.loads(row[0]) for row in rows]


class TestOneEvent:
    def test_it_is_delivered_and_its_key_printed(
        self, online: Shell, collector: LoopbackCollector
    ) -> None:
        result = online(
            "track", "purchase", "order_id=A-1", "total_cents:=1299", "note=a=b",
            "--properties", '{"total_cents":1,"gift":true}', "--user-id", "u-42",
            "--session-id", "s", "--device-id", "d", "--timestamp", "2026-11-21T08:30:00Z",
        )  # fmt: skip
        assert result.out.split() == collector.keys
        (event,) = collector.events
        del event["properties"]["_server"]
        assert event == {
            "app_id": "shop",
            "event_type": "purchase",
            "idempotency_key": result.out.strip(),
            "timestamp_ms": 1795249800000,
            "device_id": "d",
            "user_id": "u-42",
            "session_id": "s",
            "properties": {"order_id": "A-1", "total_cents": 1299, "note": "a=b", "gift": True},
        }
        assert result.err == ""

    def test_without_a_server_it_waits_and_that_is_success(self, offline: Shell) -> None:
        result = offline("track", "a", "--idempotency-key", "k-1", "--timeout", "5")
        assert result.out == "k-1\n"
        assert "note: 1 event in" in result.err
        assert "refuses the connection" in result.err
        assert [event["idempotency_key"] for event in queued(offline.queue)] == ["k-1"]

    def test_the_next_run_delivers_it(self, online: Shell, collector: LoopbackCollector) -> None:
        first = online("track", "a", "--no-flush")
        assert collector.count == 0
        second = online("track", "b", "--json").summary
        assert collector.keys == [first.out.strip(), *second["keys"]]
        assert (second["delivered"], second["pending"]) == (2, 0)

    def test_a_dry_run_prints_it_and_touches_nothing(self, offline: Shell) -> None:
        result = offline("track", "a", "n:=1", "--dry-run")
        assert json.loads(result.out)["properties"]["n"] == 1
        assert not offline.queue.exists()

    def test_verbose_tells_of_attempts_and_never_of_payloads(self, online: Shell) -> None:
        result = online("track", "a", "secret=hidden-value", "-v")
        assert "/v1/events/batch (" in result.err
        assert ": 200 (" in result.err
        assert "hidden-value" not in result.err

    def test_quiet_leaves_out_the_notes(self, offline: Shell) -> None:
        result = offline("track", "a", "-q", "--timeout", "5", "--max-retries", "0")
        assert result.err == ""
        assert len(result.out.split()) == 1

    def test_switched_off_it_does_nothing(self, offline: Shell) -> None:
        result = offline("track", "a", CAUSALITY_ENABLED="false")
        assert result.out == ""
        assert "switched off" in result.err
        assert not offline.queue.exists()

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["a", "pair"], "neither key=value nor key:=json"),
            (["a", "n:=x"], "property 'n' is not JSON"),
            (["a", "n=1", "n:=2"], "given twice"),
            (["a", "--properties", "[1]"], "must be a JSON object"),
            (["a", "--timestamp", "now"], "neither milliseconds nor ISO 8601"),
            (["a", "--timestamp", "2026-11-21T08:30:00"], "has no time zone"),
            (["a", "--timestamp", "1700000000"], "milliseconds"),
            (["a", "--timestamp", "1700000000", "--dry-run"], "milliseconds"),
            (["a", "--verify", "maybe"], "verify cannot be read, got 'maybe'"),
            (["a", "--endpoint", "http://x/v1/events/batch"], "endpoint must be the base URL"),
            (["", "n=1"], "event_type must not be empty"),
            (["a", "--file", "x"], "one of the three"),
            ([], "one of the three"),
            (["--file", "x", "--user-id", "u"], "belong to EVENT_TYPE"),
            (["a", "--batch-size", "0"], "batch_size must be at least 1"),
            (["a", "--app-id", ""], "app_id is required: give --app-id"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_cannot_be_an_event_exits_with_1(
        self, offline: Shell, arguments: list[str], complaint: str
    ) -> None:
        assert complaint in offline("track", *arguments, code=1).err
        assert not offline.queue.exists() or queued(offline.queue) == []

    def test_what_the_queue_refuses_exits_with_1(self, offline: Shell) -> None:
        offline.queue.parent.mkdir()
        offline.queue.write_text("this is somebody's file, and no queue")
        result = offline("track", "a", code=1, CAUSALITY_FALLBACK="memory")  # gone with the command
        assert "is not a causality queue" in result.err


class TestManyEvents:
    @pytest.mark.parametrize("form", ["array", "one", "pretty", "ndjson", "gzip", "stdin"])
    def test_a_file_may_have_any_form(
        self, online: Shell, collector: LoopbackCollector, tmp_path: Path, form: str
    ) -> None:
        events = [{"event_type": "a", "properties": {"n": n}} for n in range(3)]
        data = {
            "array": json.dumps(events, indent=2).encode(),
            "one": json.dumps(events[0]).encode(),
            "pretty": b"\n " + json.dumps(events[0], indent=1).encode(),
            "gzip": gzip.compress(b"\n".join(json.dumps(event).encode() for event in events)),
        }.get(form, b"\r\n\n".join(json.dumps(event).encode() for event in events))
        path = tmp_path / "events"
        path.write_bytes(data)
        stdin = form == "stdin"
        result = online("track", "--file", "-" if stdin else path, stdin=data if stdin else b"")
        wanted = 1 if form in ("one", "pretty") else 3
        assert [event["properties"]["n"] for event in collector.events] == list(range(wanted))
        plural = "event" if wanted == 1 else "events"
        assert result.out == f"{wanted} {plural} queued; {wanted} delivered, 0 waiting\n"

    @NEEDS_POSIX
    def test_a_pipe_in_a_real_shell(self, online: Shell, collector: LoopbackCollector) -> None:
        (online.home / "events.ndjson").write_bytes(ndjson(2500))
        result = online.line("gzip -c events.ndjson | causality track --ndjson - && echo done")
        assert (result.code, result.out.splitlines()[-1]) == (0, "done")
        assert collector.count == 2500

    def test_a_malformed_line_exits_with_4_and_loses_nothing_before_it(
        self, offline: Shell
    ) -> None:
        data = ndjson(3) + b'{"event_type": \n' + ndjson(2)
        result = offline("track", "--ndjson", "-", "--no-flush", stdin=data, code=4)
        assert "standard input, line 4: not JSON (" in result.err
        assert "3 events up to line 3 queued" in result.err
        assert len(queued(offline.queue)) == 3

    def test_an_event_that_cannot_be_sent_exits_with_1(self, offline: Shell) -> None:
        data = ndjson(2) + b'{"event_type":"a","user":"u"}\n' + ndjson(2)
        result = offline("track", "--ndjson", "-", "--no-flush", "--json", stdin=data, code=1)
        assert "line 3: 'user' is not a field of an event" in result.err
        assert result.summary["queued"] == result.summary["line"] == 2
        assert "line 3" in result.summary["error"]
        assert len(queued(offline.queue)) == 2

    def test_an_event_that_is_too_large_stops_at_its_line(self, offline: Shell) -> None:
        large = b'{"event_type":"a","properties":{"x":"%s"}}\n' % (b"x" * 2000)
        options = ("--no-flush", "--max-event-bytes", "1000")
        result = offline("track", "--ndjson", "-", *options, stdin=ndjson(2) + large, code=1)
        assert "line 3: event str 'a' is 2" in result.err
        assert len(queued(offline.queue)) == 2

    def test_on_error_skip_goes_on_and_says_what_it_left_out(self, offline: Shell) -> None:
        large = b'{"event_type":"a","properties":{"x":"%s"}}\n' % (b"x" * 2000)
        data = b"nonsense\n" + ndjson(2) + large + b"{}\n" + ndjson(1)
        options = ("--on-error", "skip", "--no-flush", "--max-event-bytes", "1000", "--json")
        result = offline("track", "--ndjson", "-", *options, stdin=data)
        assert result.summary["queued"] == 3
        assert result.summary["skipped"] == 3
        assert [each["line"] for each in result.lines if each["kind"] == "skipped"] == [1, 5, 4]
        assert "line 1: not JSON" in result.err
        assert len(queued(offline.queue)) == 3

    @pytest.mark.parametrize(
        ("data", "complaint"),
        [
            (b"\x1f\x8b\x08 no archive", "standard input is damaged"),
            (gzip.compress(ndjson(100))[:-9], "standard input is damaged"),
            (b'[{"event_type":"a"},', "standard input: not JSON"),
        ],
    )
    def test_input_that_cannot_be_read_exits_with_4(
        self, offline: Shell, data: bytes, complaint: str
    ) -> None:
        assert complaint in offline("track", "--file", "-", "--no-flush", stdin=data, code=4).err

    def test_a_file_that_is_not_there_exits_with_4(self, offline: Shell) -> None:
        result = offline("track", "--file", "/nowhere/events.json", code=4)
        assert "/nowhere/events.json cannot be read: No such file" in result.err

    def test_a_dry_run_of_many_prints_them(self, offline: Shell) -> None:
        result = offline("track", "--ndjson", "-", "--dry-run", stdin=ndjson(2500))
        assert len(result.lines) == 2500
        assert "2,500 events valid" in result.err
        assert not offline.queue.exists()


class TestTheCap:
    def test_what_is_queued_makes_room_by_being_delivered(
        self, online: Shell, collector: LoopbackCollector
    ) -> None:
        options = ("--max-queue-events", "700", "--json")
        data = ndjson(3000)
        result = online("track", "--ndjson", "-", *options, stdin=data, CAUSALITY_START="false")
        assert result.summary["queued"] == result.summary["delivered"] == 3000
        assert result.summary["evicted"] == 0
        assert [event["properties"]["n"] for event in collector.events] == list(range(3000))

    def test_without_a_server_it_stops_says_how_far_it_came_and_evicts_nothing(
        self, offline: Shell
    ) -> None:
        options = ("--max-queue-events", "700", "--timeout", "5", "--max-retries", "0")
        result = offline("track", "--ndjson", "-", *options, stdin=ndjson(3000), code=3)
        assert "max_queue_events is 700" in result.err
        assert "700 events up to line 700 queued" in result.err
        assert [event["properties"]["n"] for event in queued(offline.queue)] == list(range(700))

    def test_with_no_flush_it_is_a_mistake_of_the_caller(self, offline: Shell) -> None:
        options = ("--max-queue-events", "10", "--no-flush")
        result = offline("track", "--ndjson", "-", *options, stdin=ndjson(30), code=1)
        assert "10 events up to line 10 queued" in result.err

    def test_whoever_asks_for_eviction_gets_it_counted(self, offline: Shell) -> None:
        options = ("--max-queue-events", "10", "--no-flush", "--overflow", "drop_oldest", "--json")
        result = offline("track", "--ndjson", "-", *options, stdin=ndjson(30))
        assert (result.summary["queued"], result.summary["evicted"]) == (30, 20)
        assert "20 events evicted" in result.err


@NEEDS_POSIX
class TestWhatEndsIt:
    def feeding(self, shell: Shell, *options: str) -> tuple[subprocess.Popen[bytes], int]:
        """A run that has reported at least 3,000 events, and waits for more."""
        process = shell.start(
            "track", "--ndjson", "-", "--json", *options,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(ndjson(3000) + b'{"event_type":"half')
        process.stdin.flush()
        reported = 0
        while reported < 3000:
            reported = json.loads(process.stdout.readline())["queued"]
        return process, reported

    def test_sigkill_loses_nothing_that_was_reported(self, offline: Shell) -> None:
        process, reported = self.feeding(offline, "--no-flush")
        process.kill()
        process.communicate()
        found = [event["properties"]["n"] for event in queued(offline.queue)]
        assert found == list(range(reported)) == list(range(3000))

    def test_ctrl_c_exits_with_130_and_says_how_far_it_came(self, offline: Shell) -> None:
        process, _ = self.feeding(offline)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        summary = json.loads(out.splitlines()[-1])
        assert (summary["queued"], summary["line"]) == (3000, 3000)
        assert summary["error"] == "interrupted"
        assert b"interrupted: 3,000 events up to line 3000 queued" in err
        assert b"Traceback" not in err
        assert len(queued(offline.queue)) == 3000

    def test_a_closed_pipe_ends_it_with_141_and_without_a_word(self, offline: Shell) -> None:
        (offline.home / "events.ndjson").write_bytes(ndjson(20000))
        result = offline.line(
            "causality track --ndjson events.ndjson --no-flush --json | head -n 1;"
            ' echo "${PIPESTATUS[0]}"'
        )
        assert json.loads(result.out.splitlines()[0])["queued"] == 1000
        assert result.out.splitlines()[1] == "141"
        assert result.err == ""
        assert len(queued(offline.queue)) >= 1000

    def test_events_of_a_slow_pipe_are_queued_as_they_come(self, offline: Shell) -> None:
        process = offline.start(
            "track", "--ndjson", "-", "--json", "--no-flush",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (1, 2, 3):
            process.stdin.write(ndjson(1))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["queued"] == number
        process.communicate(timeout=60)
        assert process.returncode == 0


# Not ru_maxrss on Linux: it counts what the parent had before the exec, a collector full of events.
MEMORY = """
import resource, sys
from pathlib import Path
from causality_sdk.cli import main
try:
    main(sys.argv[1:], prog_name="causality")
finally:
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        print(peak.split()[1], file=sys.stderr)
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""
SMALL, PEAK_KIB = 50_000, 96 * 1024


@NEEDS_POSIX
class TestMemory:
    def peak(self, shell: Shell, events: int) -> int:
        """KiB at most, for so many lines on a pipe."""
        process = subprocess.Popen(
            [sys.executable, "-c", MEMORY, "track", "--ndjson", "-", "-q"],
            env=shell.environ, cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        for start in range(0, events, 1000):
            process.stdin.write(ndjson(1000, start))
        process.stdin.close()
        with process, process.stderr:
            peak = int(process.stderr.read().split()[-1])
        assert process.returncode == 0
        return peak

    def test_50_000_lines(self, online: Shell, collector: LoopbackCollector) -> None:
        assert self.peak(online, SMALL) < PEAK_KIB
        assert collector.count == SMALL

    @pytest.mark.long
    def test_1_000_000_lines_take_no_more_than_100_000(self, tmp_path: Path) -> None:
        peaks = {}
        for events in (100_000, 1_000_000):
            with LoopbackCollector(api_key=KEY) as server:
                home = tmp_path / str(events)
                home.mkdir()
                peaks[events] = self.peak(Shell(home, server.endpoint), events)
                assert server.count == events
        assert peaks[1_000_000] < PEAK_KIB, peaks
        assert peaks[1_000_000] < peaks[100_000] + 16 * 1024, peaks


class TestTheSource:
    def test_a_line_longer_than_any_event_is_named_and_the_next_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("causality_sdk.cli.event_source.LINE_BYTES", 1000)
        monkeypatch.setattr("causality_sdk.cli.event_source._READ", 300)
        path = tmp_path / "events"
        path.write_bytes(ndjson(1) + b'{"x":"' + b"y" * 5000 + b'"}\n' + ndjson(1, 1))
        with closing(EventSource(str(path))) as source:
            entries = [entry for chunk in source.chunks() for entry in chunk]
        assert [entry.number for entry in entries] == [1, 2, 3]
        assert "longer than" in str(entries[1].error)
        assert entries[2].event is not None

    def test_an_array_that_is_too_long_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("causality_sdk.cli.event_source.DOCUMENT_BYTES", 1000)
        path = tmp_path / "events"
        path.write_text("[\n" + ",\n".join(['{"event_type":"a"}'] * 1000) + "]")
        monkeypatch.setattr("causality_sdk.cli.event_source._READ", 300)
        with (
            closing(EventSource(str(path))) as source,
            pytest.raises(InputError, match="write one event a line"),
        ):
            list(source.chunks())

    def test_a_pipe_with_a_name_can_be_read(self, offline: Shell) -> None:
        if not hasattr(os, "mkfifo"):
            pytest.skip("Windows has no named pipes of this kind")
        os.mkfifo(offline.home / "pipe")
        (offline.home / "events").write_bytes(ndjson(5))
        result = offline.line("cat events > pipe & causality track --ndjson pipe --no-flush; wait")
        assert result.out == "5 events queued; 0 delivered, 5 waiting\n"
