"""Processes that end in every way but the good one: a key `track()` returned is on disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from causality_sdk import Client
from causality_sdk.testing import LoopbackCollector

START = """
import atexit, os, signal, sys
from pathlib import Path
from causality_sdk import Client, Event

client = Client(
    api_key="test-key", endpoint=sys.argv[2], app_id="crash", queue_path=Path(sys.argv[1]),
    **options
)
"""

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


def run(
    queue: Path, body: str, *, endpoint: str = NOWHERE, options: str = "{}"
) -> subprocess.CompletedProcess[str]:
    """A program that makes a client and then runs `body`."""
    script = f"options = {options}\n" + START + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script, str(queue), endpoint],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def queued(path: Path) -> list[str]:
    """Event types in the file, in order; opened as the next process would find it."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [
            row[0] for row in connection.execute("SELECT event_type FROM queued_events ORDER BY id")
        ]
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("options", ["{}", "{'start': False}", "{'durability': 'power'}"])
def test_killed_on_the_line_after_track_the_event_is_in_the_file(path: Path, options: str) -> None:
    body = """
        client.track("first")
        client.track_many([Event("second"), Event("third")])
        os.kill(os.getpid(), signal.SIGKILL)
        """
    result = run(path, body, options=options)
    assert result.returncode == -signal.SIGKILL
    assert queued(path) == ["first", "second", "third"]


def test_os_exit_on_the_line_after_track_the_event_is_in_the_file(path: Path) -> None:
    result = run(path, 'client.track("only")\nos._exit(3)\n')
    assert (result.returncode, result.stderr) == (3, "")
    assert queued(path) == ["only"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('client.track("only")', 0),
        ('client.track("only")\nsys.exit(7)', 7),
        ('client.track("only")\nraise SystemExit', 0),
    ],
)
def test_a_program_that_ends_without_close_keeps_its_events_and_prints_nothing(
    path: Path, body: str, code: int
) -> None:
    result = run(path, body)
    assert result.returncode == code
    # One line of the log: the server is away. No traceback, no warning.
    assert all(line.startswith("causality: delivery failed") for line in result.stderr.splitlines())
    assert queued(path) == ["only"]


def test_an_exception_keeps_the_events_and_stays_the_only_traceback(path: Path) -> None:
    result = run(path, 'client.track("only")\nraise ValueError("mine")')
    assert result.returncode == 1
    assert result.stderr.count("Traceback") == 1
    assert "ValueError: mine" in result.stderr
    assert queued(path) == ["only"]


def test_a_program_that_ends_without_close_delivers_what_it_can(path: Path) -> None:
    with LoopbackCollector() as collector:
        result = run(path, 'print(client.track("only"))', endpoint=collector.endpoint)
        assert (result.returncode, result.stderr) == (0, "")
        assert collector.keys == result.stdout.split()
    assert queued(path) == []


def test_track_from_a_later_atexit_hook_still_commits(path: Path) -> None:
    """Hooks run last in, first out: the one registered before the client was made runs after it."""
    script = """
import atexit
def late():
    print(client.track("late"))
atexit.register(late)
options = {}
"""
    script += START + 'client.track("early")\n'
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script, str(path), NOWHERE],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.strip() not in ("", "None")
    assert "Traceback" not in result.stderr
    assert queued(path) == ["early", "late"]


def test_a_client_made_while_the_interpreter_shuts_down_commits_without_a_thread(
    path: Path,
) -> None:
    script = """
import atexit
def late():
    exec(start, globals())
    print(client.track("late"))
    client.close()
atexit.register(late)
options = {}
start = '''START'''
""".replace("START", START)
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script, str(path), NOWHERE],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.strip() not in ("", "None")
    assert "Traceback" not in result.stderr
    assert queued(path) == ["late"]


def test_a_stuck_server_does_not_hold_up_the_exit_for_longer_than_close_timeout(
    path: Path,
) -> None:
    with LoopbackCollector() as collector:
        collector.pause()
        body = """
            import time
            client.track("only")
            began = time.monotonic()
            atexit.unregister(client._at_exit)
            client._at_exit()
            print(time.monotonic() - began)
            """
        options = "{'close_timeout': 0.3, 'batch_size': 1}"
        result = run(path, body, endpoint=collector.endpoint, options=options)
        assert result.returncode == 0, result.stderr
        assert 0.2 < float(result.stdout) < 1.5
        assert "Traceback" not in result.stderr
    assert queued(path) == ["only"]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_what_a_killed_process_left_is_sent_by_the_next_and_counted_on(path: Path) -> None:
    with LoopbackCollector() as collector:
        body = 'client.track("first")\nos.kill(os.getpid(), signal.SIGKILL)'
        options = "{'flush_interval': 3600}"
        result = run(path, body, endpoint=collector.endpoint, options=options)
        assert result.returncode == -signal.SIGKILL
        with Client(
            api_key="test-key",
            endpoint=collector.endpoint,
            app_id="crash",
            queue_path=path,
        ) as client:
            client.track("second")
            assert client.flush(timeout=10).remaining == 0
            stats = client.stats()
        assert [event["event_type"] for event in collector.events] == ["first", "second"]
        assert (stats.tracked, stats.acknowledged, stats.pending) == (2, 2, 0)
