"""`causality demo`: run as people run it, and its judge shown losses that it has to see."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from causality_sdk import Client, Event
from causality_sdk.cli import _demo_plan as plan
from causality_sdk.cli import main
from causality_sdk.cli._demo_judge import Evidence, QueueCounts, is_same, judge, read_queues
from causality_sdk.cli._demo_process import child_environment
from causality_sdk.cli._demo_screen import sentence, table
from causality_sdk.cli.demo import Marks, conclude
from causality_sdk.testing import RecordingTransport

ROOT = Path(__file__).resolve().parent.parent
DEMO = [sys.executable, "-m", "causality_sdk", "demo"]
SECONDS = 120  # until a run that hangs is given up

NEEDS_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")


@pytest.fixture(scope="session")
def departures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 departures: enough for every phase, and quick."""
    path = tmp_path_factory.mktemp("demo") / "departures.ndjson"
    with gzip.open(plan.SAMPLE) as sample:
        path.write_bytes(b"".join(islice(sample, 600)))
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """Where the demo puts its temporary directory; nothing may be left in it."""
    path = tmp_path / "scratch"
    path.mkdir()
    yield path
    assert list(path.iterdir()) == []


def environment(scratch: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), **more}


def run(*args: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *map(str, args)],
        capture_output=True, text=True, cwd=ROOT, env=env, timeout=SECONDS, check=False,
    )  # fmt: skip


def rows(output: str) -> dict[str, int]:
    """The table at the end, read back."""
    found = re.findall(r"^  ([a-z ]+?) +([\d,]+)$", output, re.MULTILINE)
    return {name: int(count.replace(",", "")) for name, count in found}


def sabotage(directory: Path, deed: str) -> str:
    """A module path with which `track()` does `deed` at the 300th event, in every process."""
    (directory / "sitecustomize.py").write_text(
        "from causality_sdk import Client\n"
        "honest = Client.track\n"
        "def track(self, event):\n"
        f"    if event.idempotency_key == {plan.key_of(300)!r}:\n"
        f"        {deed}\n"
        "    return honest(self, event)\n"
        "Client.track = track\n",
        encoding="utf-8",
    )
    return os.pathsep.join([str(directory), str(ROOT)])


class TestARun:
    def test_nothing_is_lost_and_the_table_says_so(self, departures: Path, scratch: Path) -> None:
        result = run("--file", departures, env=environment(scratch))
        assert result.returncode == 0, result.stdout + result.stderr
        found = rows(result.stdout)
        # One more if the kill came between the commit of an event and the note about it.
        assert found.pop("tracked") in (600, 601)
        assert found.pop("acknowledged") in (600, 601)
        assert found.pop("duplicates on the wire") > 0  # an acknowledgement got lost
        assert found == {
            "duplicates after deduplication": 0, "evicted": 0, "pending": 0, "lost": 0,
            "residual": 0,
        }  # fmt: skip
        assert re.findall(r"^(\d)\. ", result.stdout, re.MULTILINE) == list("12345")
        assert "Every event that was tracked arrived" in result.stdout.splitlines()[-1]
        assert result.stderr == ""

    def test_without_a_terminal_there_is_no_control_character(
        self, departures: Path, scratch: Path
    ) -> None:
        output = run("--file", departures, env=environment(scratch)).stdout
        assert output.replace("\n", "").isprintable()

    def test_json_is_one_object_and_the_environment_does_not_matter(
        self, departures: Path, scratch: Path
    ) -> None:
        """Options of the user's, and a proxy that is not there, would spoil it."""
        env = environment(
            scratch,
            CAUSALITY_ENABLED="false",
            CAUSALITY_MAX_QUEUE_EVENTS="1",
            CAUSALITY_QUEUE_PATH=str(scratch / "of-the-user.db"),
            HTTP_PROXY="http://127.0.0.1:9",
            http_proxy="http://127.0.0.1:9",
        )
        result = run("--json", "--file", departures, env=env)
        assert result.returncode == 0, result.stdout + result.stderr
        found = json.loads(result.stdout)
        assert found["ok"] is True
        assert found["events"] == 600
        assert (found["lost"], found["residual"], found["pending"]) == (0, 0, 0)
        assert (found["altered"], found["untracked"], found["buried"]) == (0, 0, 0)
        marks = Marks.of(600)
        assert marks.kill <= found["killed_after_line"] <= marks.ahead
        assert found["directory"] is None

    def test_a_directory_is_kept_and_not_taken_twice(
        self, departures: Path, scratch: Path, tmp_path: Path
    ) -> None:
        kept = tmp_path / "kept"
        result = run("--file", departures, "--directory", kept, env=environment(scratch))
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"The queue file is kept: {kept / 'queue.db'}" in result.stdout
        assert read_queues(kept, "queue*.db").acknowledged in (600, 601)
        again = CliRunner().invoke(main, ["demo", "--directory", str(kept)])
        assert again.exit_code == 1
        assert "is not empty" in again.output

    def test_a_client_that_loses_one_event_is_found_out(
        self, departures: Path, scratch: Path, tmp_path: Path
    ) -> None:
        """The whole demo goes red: one `track()` in the child returns a key and does nothing."""
        env = environment(scratch, PYTHONPATH=sabotage(tmp_path, "return event.idempotency_key"))
        result = run("--file", departures, env=env)
        assert result.returncode == 1, result.stdout + result.stderr
        assert rows(result.stdout)["lost"] == 1
        assert "FAILED: 1 lost" in result.stdout

    def test_a_child_that_fails_is_reported(
        self, departures: Path, scratch: Path, tmp_path: Path
    ) -> None:
        env = environment(scratch, PYTHONPATH=sabotage(tmp_path, "raise OSError('disk on fire')"))
        result = run("--file", departures, env=env)
        assert result.returncode == 1
        assert result.stderr == "Error: the tracking process failed: OSError: disk on fire\n"

    @NEEDS_POSIX
    def test_on_a_terminal_there_is_a_bar_and_the_table(
        self, departures: Path, scratch: Path
    ) -> None:
        pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80)) if hasattr(termios, "tcsetwinsize") else None
        with subprocess.Popen(
            [*DEMO, "--file", str(departures)],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
            env=environment(scratch, TERM="xterm"),
        ) as process:  # fmt: skip
            os.close(theirs)
            output = read_to_the_end(ours)
        assert process.returncode == 0, output
        assert re.search(r"\r(\x1b\[\?25l)?tracked +\[#+-*\] ", output), output
        assert re.search(r"600/600", output), output
        assert rows(output.replace("\r\n", "\n"))["lost"] == 0

    @NEEDS_POSIX
    def test_an_interrupt_ends_it_cleanly(self, scratch: Path) -> None:
        """Exit code 130; no child and no temporary directory is left."""
        with subprocess.Popen(
            DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env=environment(scratch),
        ) as process:  # fmt: skip
            assert process.stdout is not None
            while not process.stdout.readline().startswith("1. "):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            # Both streams end when nobody holds them any more, the child included.
            _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 130
        assert "Traceback" not in errors


def read_to_the_end(terminal: int) -> str:
    """All that is written to a terminal until its last writer is gone."""
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux: the other end was closed
            break
        if not part:
            break
        parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


class TestInput:
    def test_a_malformed_line_is_named(self, departures: Path, tmp_path: Path) -> None:
        lines = departures.read_bytes().splitlines(keepends=True)
        lines[41] = b'{"event_type":"flight_departed",\n'
        path = tmp_path / "broken.ndjson"
        path.write_bytes(b"".join(lines))
        result = CliRunner().invoke(main, ["demo", "--file", str(path)])
        assert result.exit_code == 4
        assert f"Error: {path}, line 42: not JSON" in result.output

    def test_too_few_events_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "short.ndjson"
        path.write_bytes(b'{"event_type":"a"}\n' * 19)
        result = CliRunner().invoke(main, ["demo", "--file", str(path)])
        assert result.exit_code == 4
        assert "holds 19 events; the demo needs 20" in result.output

    def test_the_sample_is_the_5000_departures_of_the_package(self) -> None:
        events = dict(plan.departures(plan.SAMPLE))
        assert list(events) == list(range(1, 5001))
        assert {event.event_type for event in events.values()} == {
            "flight_departed",
            "flight_cancelled",
        }
        assert len({event.idempotency_key for event in events.values()}) == 5000
        assert plan.SAMPLE.read_bytes()[4:8] == bytes(4)  # no time: the same bytes in every build

    def test_the_marks_leave_something_to_do_in_every_phase(self) -> None:
        for total in (20, 21, 600, 5000):
            marks = Marks.of(total)
            assert sorted(set(marks)) == list(marks)
            assert marks.online > 0
            assert marks.end == total

    def test_a_journal_that_was_cut_short_goes_on_behind_its_last_whole_line(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "journal.txt"
        assert plan.read_journal(path) == []
        with plan.Journal(path) as journal:
            assert plan.last_tracked(path) == 0
            for line in range(1, 100):
                journal.add(line, plan.key_of(line))
        path.write_bytes(path.read_bytes()[:-5])
        assert plan.last_tracked(path) == 98
        assert plan.read_journal(path)[-1] == (98, plan.key_of(98))
        with plan.Journal(path) as journal:
            journal.add(99, plan.key_of(99))
        assert [line for line, _ in plan.read_journal(path)] == list(range(1, 100))

    def test_the_child_gets_none_of_the_users_options(self) -> None:
        found = child_environment({"CAUSALITY_API_KEY": "k", "HOME": "h"})
        assert "CAUSALITY_API_KEY" not in found
        assert found["HOME"] == "h"


def evidence(**changes: Any) -> Evidence:
    """Three events that were tracked, delivered and counted."""
    source = {key: Event("sale", {"n": n}, timestamp=n + 1) for n, key in enumerate("abc")}
    payloads = {
        key: json.dumps(
            {
                "event_type": "sale",
                "timestamp_ms": event.timestamp,
                "properties": {**event.properties, "_server": {"os": "any"}},
            }
        ).encode()
        for key, event in source.items()
    }
    good = Evidence(
        source=source,
        journaled=list("abc"),
        arrived=list("abc"),
        payloads=payloads,
        received=3,
        queue=QueueCounts(tracked=3, acknowledged=3),
    )
    return replace(good, **changes)


class TestTheJudge:
    """A check that cannot fail is a defect, so it is shown made-up losses."""

    def test_a_good_run_is_good(self) -> None:
        verdict = judge(evidence())
        assert verdict.ok
        assert (verdict.lost, verdict.residual, verdict.pending) == (0, 0, 0)
        conclude(verdict)

    def test_a_promised_event_that_is_nowhere_is_lost(self) -> None:
        verdict = judge(evidence(arrived=["a", "c"]))
        assert verdict.lost == 1
        assert not verdict.ok
        assert rows(table(verdict))["lost"] == 1
        assert sentence(verdict, 3, 1.0) == "FAILED: 1 lost"
        with pytest.raises(click.exceptions.Exit) as caught:
            conclude(verdict)
        assert caught.value.exit_code == 1

    def test_an_event_in_the_queue_is_pending_and_not_lost(self) -> None:
        queue = QueueCounts(tracked=3, acknowledged=2, pending=frozenset("b"), rows=1)
        verdict = judge(evidence(arrived=["a", "c"], queue=queue))
        assert (verdict.lost, verdict.pending, verdict.residual) == (0, 1, 0)
        assert not verdict.ok

    def test_an_evicted_event_is_accounted_for(self) -> None:
        queue = QueueCounts(tracked=3, acknowledged=2, evicted=1)
        verdict = judge(evidence(arrived=["a", "c"], queue=queue))
        assert (verdict.lost, verdict.evicted, verdict.residual) == (0, 1, 0)
        assert "1 of them were evicted" in sentence(verdict, 3, 1.0)

    def test_books_that_do_not_balance_leave_a_residual(self) -> None:
        verdict = judge(evidence(queue=QueueCounts(tracked=4, acknowledged=3)))
        assert verdict.residual == 1
        assert not verdict.ok
        # An acknowledgement too many is as wrong as one too few.
        assert not judge(evidence(queue=QueueCounts(tracked=3, acknowledged=4))).ok

    def test_a_key_that_the_server_kept_twice_is_a_duplicate(self) -> None:
        verdict = judge(evidence(arrived=[*"abc", "b"], received=4))
        assert verdict.duplicates_after_deduplication == 1
        assert verdict.duplicates_on_the_wire == 1
        assert not verdict.ok

    def test_duplicates_on_the_wire_alone_are_no_fault(self) -> None:
        verdict = judge(evidence(received=7))
        assert verdict.duplicates_on_the_wire == 4
        assert verdict.ok

    def test_a_line_that_was_never_tracked_is_no_success(self) -> None:
        verdict = judge(evidence(journaled=["a", "b"]))
        assert verdict.untracked == 1
        assert not verdict.ok

    @pytest.mark.parametrize(
        "wrong",
        [
            {"event_type": "gift", "timestamp_ms": 1, "properties": {"n": 0}},
            {"event_type": "sale", "timestamp_ms": 2, "properties": {"n": 0}},
            {"event_type": "sale", "timestamp_ms": 1, "properties": {"n": 1}},
            {"event_type": "sale", "timestamp_ms": 1, "properties": {}},
            {"event_type": "sale", "timestamp_ms": 1, "properties": {"n": 0, "m": 0}},
            {"event_type": "sale", "timestamp_ms": 1, "properties": {"n": 0}, "user_id": "u"},
        ],
    )
    def test_an_event_that_arrives_otherwise_is_altered(self, wrong: dict[str, Any]) -> None:
        good = evidence()
        payloads = {**good.payloads, "a": json.dumps(wrong).encode()}
        verdict = judge(replace(good, payloads=payloads))
        assert verdict.altered == 1
        assert not verdict.ok

    def test_an_event_that_nobody_tracked_is_altered(self) -> None:
        good = evidence()
        assert judge(replace(good, payloads={**good.payloads, "x": b"{}"})).altered == 1

    def test_a_server_context_of_the_input_must_arrive(self) -> None:
        event = Event("sale", {"_server": {"os": "theirs"}})
        assert not is_same(event, b'{"event_type":"sale","properties":{"_server":{"os":"ours"}}}')
        assert is_same(event, b'{"event_type":"sale","properties":{"_server":{"os":"theirs"}}}')


class TestTheQueueFile:
    @pytest.fixture
    def directory(self) -> Iterator[Path]:
        """A queue file with three events that nobody has taken."""
        with tempfile.TemporaryDirectory() as name:
            client = Client(
                api_key="test-key", endpoint="https://events.invalid", app_id="demo",
                queue_path=Path(name) / "queue.db", transport=RecordingTransport(), start=False,
            )  # fmt: skip
            for key in "abc":
                client.track("sale", idempotency_key=key)
            client.close(timeout=0)
            yield Path(name)

    def test_its_rows_are_counted(self, directory: Path) -> None:
        found = read_queues(directory, "queue*.db")
        assert (found.tracked, found.rows, found.residual) == (3, 3, 0)
        assert found.pending == frozenset("abc")

    def test_a_row_that_vanished_leaves_a_residual(self, directory: Path) -> None:
        connection = sqlite3.connect(directory / "queue.db")
        with connection:
            connection.execute("DELETE FROM queue WHERE id = 2")
        connection.close()
        assert read_queues(directory, "queue*.db").residual == 1
