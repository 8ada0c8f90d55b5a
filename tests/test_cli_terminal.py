"""The command line on a terminal and in a shell: bars, questions, Ctrl-C, completion."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shell import KEY, Shell, ndjson, terminal

from causality_sdk.cli.observed import ObservedTransport
from causality_sdk.cli.output import Output
from causality_sdk.testing import LoopbackCollector
from causality_sdk.wire.base import Request, Response

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, collector: LoopbackCollector) -> Shell:
    return Shell(tmp_path, collector.endpoint)


def fill(shell: Shell, count: int) -> None:
    shell("track", "--ndjson", "-", "--no-flush", "-q", stdin=ndjson(count))


def test_track_shows_a_bar_for_a_file(shell: Shell) -> None:
    path = shell.home / "events.ndjson"
    path.write_bytes(ndjson(5000))
    with terminal(shell, "track", "--file", path, "--no-flush") as screen:
        text = screen.read_to_end()
    assert screen.process.returncode == 0
    assert re.search(r"queued 5,000 +\[#+\] +100%", text), text
    assert "5,000 events queued; 0 delivered, 5,000 waiting" in text


def test_track_counts_what_a_person_types(shell: Shell, collector: LoopbackCollector) -> None:
    with terminal(shell, "track", "--ndjson", "-") as screen:
        screen.type('{"event_type":"typed"}\n')
        screen.read_until("queued 1")
        screen.type("\x04")  # Ctrl-D: the end of the input
        text = screen.read_to_end()
    assert screen.process.returncode == 0, text
    assert "1 event queued; 1 delivered, 0 waiting" in text
    assert collector.count == 1


def test_a_person_is_told_what_the_command_waits_for(tmp_path: Path) -> None:
    """With a server that refuses connections; each attempt has its line, the last is the error."""
    with terminal(Shell(tmp_path), "send", "x", "--max-retries", "2") as screen:
        text = screen.read_to_end()
    assert screen.process.returncode == 3
    assert "attempt 1 of 3: 127.0.0.1:9 refuses the connection" in text
    assert "attempt 2 of 3: " in text
    assert "attempt 3 of 3: " not in text
    assert "Error:" in text


class TestWaiting:
    """The words while an answer does not come, on a clock of the test."""

    def told(self, out: Output, capsys: pytest.CaptureFixture[str]) -> str:
        class Slow:
            def send(self, _request: Request, _timeout: float) -> Response:
                for call in due:
                    call()
                return Response(200, {}, b"")

            def close(self) -> None: ...

        class AtOnce:
            """Is due as soon as somebody waits."""

            def __init__(self, _seconds: float, call: Callable[[], Any]) -> None:
                self._call = call

            def start(self) -> None:
                due.append(self._call)

            def cancel(self) -> None: ...

        due: list[Callable[[], Any]] = []
        transport = ObservedTransport(Slow(), out, attempts=4, alarm=AtOnce)
        transport.send(Request(path="/", method="GET", body=b""), 10.0)
        return capsys.readouterr().err

    def test_are_for_a_terminal(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.told(Output(), capsys) == ""
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        assert "waiting for the server, up to 10 s (attempt 1 of 4)" in self.told(Output(), capsys)
        assert self.told(Output(quiet=True), capsys) == ""
        assert self.told(Output(as_json=True), capsys) == ""


def test_a_single_event_leaves_nothing_above_its_key(
    shell: Shell, collector: LoopbackCollector
) -> None:
    with terminal(shell, "track", "x") as screen:
        text = screen.read_to_end()
    assert text.split() == collector.keys


def test_replay_shows_a_bar_and_a_summary(shell: Shell, collector: LoopbackCollector) -> None:
    fill(shell, 3000)
    with terminal(shell, "queue", "replay") as screen:
        text = screen.read_to_end()
    assert screen.process.returncode == 0
    assert re.search(r"replayed 3,000 +\[#+\] +100%", text), text
    assert re.search(r"3,000 events delivered in [\d.]+ s .* 0 left", text), text
    assert collector.count == 3000


def test_ctrl_c_ends_a_replay_and_the_next_goes_on(
    shell: Shell, collector: LoopbackCollector
) -> None:
    fill(shell, 300)
    with terminal(shell, "queue", "replay", "--rate", "20") as screen:
        assert collector.wait_for(40, 60)  # the first 20 are settled when the next are sent
        screen.interrupt()
        text = screen.read_to_end()
    assert screen.process.returncode == 130, text
    assert "Traceback" not in text
    left = shell("queue", "status", "--json").json["pending"]
    assert 0 < left <= 280
    shell("queue", "replay")
    assert sorted(event["properties"]["n"] for event in collector.events) == list(range(300))


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("n", 1, 5)])
def test_purge_asks(shell: Shell, answer: str, code: int, left: int) -> None:
    fill(shell, 5)
    with terminal(shell, "queue", "purge") as screen:
        screen.read_until("[y/N]")
        assert "Delete 5 events from" in screen.text
        screen.type(answer + "\n")
        screen.read_to_end()
    assert screen.process.returncode == code
    assert shell("queue", "status", "--json").json["pending"] == left


def test_ctrl_c_at_a_question_changes_nothing(shell: Shell) -> None:
    fill(shell, 5)
    with terminal(shell, "queue", "purge") as screen:
        screen.read_until("[y/N]")
        screen.interrupt_question()
        text = screen.read_to_end()
    assert screen.process.returncode == 130
    assert text.endswith("\n")
    assert shell("queue", "status", "--json").json["pending"] == 5


def test_what_an_event_holds_does_not_drive_the_terminal(shell: Shell) -> None:
    shell("track", "--no-flush", "evil\x1b[2Jtype")
    assert "\x1b" not in shell("queue", "list").out


class TestCompletion:
    def complete(self, shell: Shell, words: str) -> list[str]:
        result = subprocess.run(
            [sys.executable, "-m", "causality_sdk"],
            env=shell.environ
            | {
                "_CAUSALITY_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split(" ")) - 1),
            },
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert result.stderr == ""
        return [line.partition(",")[2] for line in result.stdout.splitlines()]

    def test_of_commands_options_and_values(self, shell: Shell) -> None:
        assert self.complete(shell, "causality tr") == ["track"]
        assert self.complete(shell, "causality queue ex") == ["export"]
        assert "--on-error" in self.complete(shell, "causality track --on")
        assert self.complete(shell, "causality completion z") == ["zsh"]
        wires = self.complete(shell, "causality track --wire ")
        assert wires == ["causality", "causality-proto", "packtrack"]
        assert self.complete(shell, "causality track --on-error s") == ["stop", "skip"]
        assert self.complete(shell, "causality send --durability p") == ["process", "power"]

    @pytest.mark.parametrize(
        "words",
        [
            "track --file ", "track --ndjson ", "send --file ", "queue import ", "demo --file ",
            "queue export --output ", "track --config ", "track --api-key-file ",
            "queue status --queue-path ", "bench --directory ",
        ],
    )  # fmt: skip
    def test_the_shell_is_asked_for_names_of_files(self, shell: Shell, words: str) -> None:
        result = subprocess.run(
            [sys.executable, "-m", "causality_sdk"],
            env=shell.environ
            | {
                "_CAUSALITY_COMPLETE": "bash_complete",
                "COMP_WORDS": f"causality {words}ev",
                "COMP_CWORD": str(len(words.split())+ 1),
            },
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert result.stdout in ("file,ev\n", "dir,ev\n")

    def test_apps_that_have_a_queue_here(self, shell: Shell) -> None:
        for name in ("shop", "kiosk-7", "a/b"):
            shell("track", "x", "--no-flush", "--app-id", name, CAUSALITY_QUEUE_PATH="")
        assert self.complete(shell, "causality queue status --app-id ") == [
            "a/b",
            "kiosk-7",
            "shop",
        ]

    @pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
    def test_the_command_prints_what_the_variable_does(self, shell: Shell, name: str) -> None:
        found = shell("completion", name).out
        assert found.strip() == shell(_CAUSALITY_COMPLETE=f"{name}_source").out.strip()
        assert "_CAUSALITY_COMPLETE" in found

    @pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
    def test_the_script_is_one_the_shell_can_read(self, shell: Shell, name: str) -> None:
        if name == "bash" and shutil.which("bash") is None:
            pytest.skip("no bash here")
        result = subprocess.run(
            [sys.executable, "-m", "causality_sdk"],
            env=shell.environ | {"_CAUSALITY_COMPLETE": f"{name}_source"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert "_causality_completion" in result.stdout
        if shutil.which(name) is not None:
            checked = subprocess.run(
                [name, "-n"], input=result.stdout, capture_output=True, text=True, check=False,
                timeout=60,
            )  # fmt: skip
            assert checked.returncode == 0, checked.stderr
