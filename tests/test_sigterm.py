"""SIGTERM with the handler that one can ask for, and the limits of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from child_program import unmeasured

from causality_sdk import ConfigError, exit_on_sigterm
from causality_sdk.testing import LoopbackCollector

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import signal, sys
from pathlib import Path
from causality_sdk import Client, exit_on_sigterm

path, endpoint = sys.argv[1:]
print(exit_on_sigterm(), exit_on_sigterm(), flush=True)
client = Client(api_key="test-key", endpoint=endpoint, app_id="daemon", queue_path=Path(path),
                close_timeout=1.0)
print(client.track("started"), flush=True)
while True:
    signal.pause()
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")


def start(tmp_path: Path, endpoint: str, program: str = PROGRAM) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "queue.db"), endpoint],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**unmeasured(os.environ), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )


def test_it_ends_the_program_as_sys_exit_does_and_what_waits_is_sent(tmp_path: Path) -> None:
    with LoopbackCollector() as collector:
        program = start(tmp_path, collector.endpoint)
        assert program.stdout is not None
        assert program.stdout.readline() == "True True\n"
        key = program.stdout.readline().strip()
        program.send_signal(signal.SIGTERM)
        output, errors = program.communicate(timeout=30)
        assert (program.returncode, output, errors) == (143, "", "")
        assert collector.keys == [key]


def test_with_a_server_that_hangs_it_takes_no_longer_than_the_close_timeout(
    tmp_path: Path,
) -> None:
    with LoopbackCollector() as collector:
        collector.pause()
        program = start(tmp_path, collector.endpoint)
        assert program.stdout is not None
        program.stdout.readline()
        program.stdout.readline()
        began = time.monotonic()
        program.send_signal(signal.SIGTERM)
        _, errors = program.communicate(timeout=30)
        assert time.monotonic() - began < 1.0 + 1.0  # close_timeout, and a loaded machine's exit
        assert (program.returncode, errors) == (143, "")


def test_a_second_one_ends_it_at_once(tmp_path: Path) -> None:
    with LoopbackCollector() as collector:
        collector.pause()
        program = start(tmp_path, collector.endpoint, PROGRAM.replace("=1.0", "=60.0"))
        assert program.stdout is not None
        program.stdout.readline()
        program.stdout.readline()
        program.send_signal(signal.SIGTERM)
        assert collector.wait_for_held()  # it is in its exit hook
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=30)
        assert program.returncode == -signal.SIGTERM


def test_a_handler_of_the_programs_own_is_left_alone() -> None:
    def own(_number: int, _frame: object) -> None:
        raise AssertionError("no signal is sent here")

    before = signal.signal(signal.SIGTERM, own)
    try:
        assert not exit_on_sigterm()
        assert signal.getsignal(signal.SIGTERM) is own
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert not exit_on_sigterm()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_it_says_where_to_call_it() -> None:
    raised: list[Exception] = []

    def call() -> None:
        try:
            exit_on_sigterm()
        except ConfigError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])
