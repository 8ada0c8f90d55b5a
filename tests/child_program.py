"""Runs a program of a test in a process group of its own, and ends all of it when time is up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SECONDS = 60.0  # longer than any program needs on a busy machine

PRELUDE = """
import atexit, gc, json, os, signal, sys, threading, time
from pathlib import Path
from causality_sdk import Client, Event, QueueError

QUEUE, ENDPOINT = Path(sys.argv[1]), sys.argv[2]

def make(**options):
    options = {"queue_path": QUEUE, "app_id": "child", "close_timeout": 20, **options}
    return Client(api_key="test-key", endpoint=ENDPOINT, **options)

def fork(work):
    "Forks a child that does `work` and ends, and gives the child's exit code."
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            sys.stdout.flush()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def name(client):
    "The file of the client's queue."
    return Path(client.stats().queue_path).name
"""


def unmeasured(environ: Mapping[str, str]) -> dict[str, str]:
    """Without the measuring of coverage, whose tracer has a lock: a signal handler, or a fork, that
    comes while it is held would wait for ever, in a tool that no user of ours runs.
    """
    return {name: value for name, value in environ.items() if not name.startswith("COVERAGE_")}


class Ended(NamedTuple):
    """How a program ended, and what it and its children printed."""

    code: int
    out: str
    err: str


class Program:
    """A Python program that runs `body` after the prelude and `prelude`. `wait()` for it."""

    def __init__(
        self, body: str, queue: Path, endpoint: str, *flags: str, prelude: str = ""
    ) -> None:
        source = PRELUDE + prelude + textwrap.dedent(body)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-X", "faulthandler", "-W", "error", *flags, "-c", source),
                *(str(queue), endpoint),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=unmeasured(os.environ),
            start_new_session=True,
        )

    def tell(self, line: str) -> None:
        """A line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def line(self) -> str:
        """The next line that it, or a child, prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def wait(self) -> Ended:
        """Until it and all of its children have closed their output."""
        try:
            out, err = self.process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGABRT)  # each says where all its threads are
            out, err = self.process.communicate()
            raise AssertionError(f"it did not end in {SECONDS} s\n{out}\n{err}") from None
        return Ended(self.process.returncode, out, err)

    def end(self) -> None:
        """SIGKILL for it and its children."""
        os.killpg(self.process.pid, signal.SIGKILL)


def run(body: str, queue: Path, endpoint: str, *flags: str, prelude: str = "") -> str:
    """What a program printed that must end well and print no error."""
    ended = Program(body, queue, endpoint, *flags, prelude=prelude).wait()
    assert (ended.code, ended.err) == (0, ""), ended
    return ended.out
