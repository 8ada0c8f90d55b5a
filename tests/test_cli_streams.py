"""Standard streams that are closed or full: what was asked is done, and the exit code says so."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import packtrack_shell
import pytest
from shell import KEY, Shell, ndjson

from causality_sdk.cli.exits import UNREADABLE, UNWRITABLE
from causality_sdk.testing import LoopbackCollector, LoopbackPackTrack

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="redirections of a POSIX shell")

NEEDS_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")

# Each command, as it is given to a shell. What it needs is in the queue of the fixture `shell`.
COMMANDS = [
    "track x --no-flush",
    "track x",
    "track - --no-flush < events",
    "send x",
    "send --ndjson events",
    "queue status",
    "queue list",
    "queue show KEY",
    "queue import --dry-run events.export",
    "queue import events.export",
    "queue replay",
    "queue purge --yes",
    "queue purge --dry-run",
    "queue doctor",
    "dead-letters list",
    "dead-letters requeue --all",
    "dead-letters delete --all --yes",
    "health",
    "config",
    "completion bash",
    "--help",
    "--version",
    "queue replay --help",
    "track --help-all",
]


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, collector: LoopbackCollector) -> Shell:
    found = Shell(tmp_path, collector.endpoint)
    with found.client() as client:
        client.track("a", idempotency_key="KEY")
    (tmp_path / "events").write_bytes(ndjson(2))
    (tmp_path / "events.export").write_text(
        '{"event_type":"a","idempotency_key":"k","timestamp_ms":1700000000000,"app_id":"shop"}\n'
    )
    return found


def waiting(shell: Shell) -> int:
    with closing(sqlite3.connect(shell.queue)) as connection:
        return int(connection.execute("SELECT count(*) FROM queue").fetchone()[0])


class TestClosed:
    @pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
    @pytest.mark.parametrize("options", ["", "--json", "--quiet"])
    def test_an_event_is_queued_and_that_is_success(
        self, shell: Shell, closed: str, options: str
    ) -> None:
        result = shell.line(f"causality track x --no-flush {options} {closed}")
        assert (result.code, waiting(shell)) == (0, 2)
        assert "Traceback" not in result.err
        assert "Traceback" not in result.out

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_does_its_work_without_stdout_and_stderr(
        self, shell: Shell, command: str
    ) -> None:
        result = shell.line(f"causality {command} >&- 2>&-")
        assert (result.code, result.out, result.err) == (0, "", "")

    def test_what_was_purged_is_gone(self, shell: Shell) -> None:
        assert shell.line("causality queue purge --yes >&-").code == 0
        assert waiting(shell) == 0

    def test_what_was_replayed_has_arrived(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        assert shell.line("causality queue replay --json >&- 2>&-").code == 0
        assert collector.keys == ["KEY"]

    def test_an_export_has_nowhere_to_go_and_says_so(self, shell: Shell) -> None:
        """Else `export && purge` would delete what was written nowhere."""
        result = shell.line("causality queue export >&-")
        assert result.code == UNWRITABLE
        assert "standard output is closed; name a file with --output" in result.err

    @pytest.mark.parametrize("arguments", ["track -", "track --ndjson -", "queue import -"])
    def test_a_closed_stdin_is_no_empty_input(self, shell: Shell, arguments: str) -> None:
        result = shell.line(f"causality {arguments} <&-")
        assert result.code == UNREADABLE
        assert "Error: standard input is closed" in result.err

    def test_the_queue_is_not_given_the_descriptor_of_stdout(self, shell: Shell) -> None:
        """What a library writes to descriptor 1 would land in the database."""
        script = (
            "import os, sys\n"
            "from causality_sdk.cli import main\n"
            "from causality_sdk.cli.track import Run\n"
            "inner = Run.feed\n"
            "def feed(self, *arguments, **options):\n"
            "    os.write(1, b'x' * 5000)\n"
            "    inner(self, *arguments, **options)\n"
            "Run.feed = feed\n"
            "main(['track', 'x', '--no-flush'])\n"
        )
        (shell.home / "program.py").write_text(script)
        assert shell.line(f'"{sys.executable}" program.py >&- 2>&-').code == 0
        assert waiting(shell) == 2


@NEEDS_FULL
class TestFull:
    @pytest.mark.parametrize("command", [*COMMANDS, "queue export"])
    def test_a_full_disk_behind_stdout_is_one_line_and_a_code_of_its_own(
        self, shell: Shell, command: str
    ) -> None:
        result = shell.line(f"causality {command} > /dev/full")
        assert result.code == UNWRITABLE
        errors = [line for line in result.err.splitlines() if not line.startswith("note: ")]
        assert errors == [
            "Error: standard output cannot be written: No space left on device; what was asked is"
            " done, but not told"
        ]

    def test_what_was_asked_is_done_to_the_end(self, shell: Shell) -> None:
        """Also where each chunk is reported: the first report is not the end of the work."""
        (shell.home / "events").write_bytes(ndjson(2500))
        result = shell.line("causality track --ndjson events --no-flush --json > /dev/full")
        assert (result.code, waiting(shell)) == (UNWRITABLE, 2501)
        assert '"type":"OutputError"' in result.err

    def test_an_error_of_the_command_keeps_its_code(self, shell: Shell) -> None:
        assert shell.line("causality config --batch-size 0 > /dev/full").code == 1

    @pytest.mark.parametrize("options", ["", "--json", "-v"])
    def test_a_full_disk_behind_stderr_changes_nothing(self, shell: Shell, options: str) -> None:
        result = shell.line(f"causality track x --no-flush --api-key {KEY} {options} 2> /dev/full")
        assert (result.code, waiting(shell)) == (0, 2)
        assert shell.line("causality track 2> /dev/full").code == 1

    def test_a_reader_who_went_away_keeps_a_code_of_its_own(self, shell: Shell) -> None:
        line = 'causality queue list | true; echo "${PIPESTATUS[0]}"'
        assert shell.line(line).out.strip() in ("0", "141")  # it may have been quicker


class TestPackTrackLogger:
    @pytest.fixture
    def server(self) -> Iterator[LoopbackPackTrack]:
        with LoopbackPackTrack(api_key=packtrack_shell.KEY) as found:
            yield found

    def line(
        self, home: Path, server: LoopbackPackTrack, arguments: str
    ) -> subprocess.CompletedProcess[str]:
        shell = packtrack_shell.Shell(home, server)
        event = " ".join(packtrack_shell.flags(packtrack_shell.EVENT)).replace(
            "backup finished", "'backup finished'"
        )
        command = f'"{sys.executable}" -m causality_sdk.packtrack_logger {event} {arguments}'
        return subprocess.run(
            ["/bin/bash", "-c", command], env=shell.environ, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    @pytest.mark.parametrize("options", ["", "--async", "--json", "--verbose", "--dry-run"])
    def test_without_its_streams_it_does_its_work(
        self, tmp_path: Path, server: LoopbackPackTrack, closed: str, options: str
    ) -> None:
        result = self.line(tmp_path, server, f"{options} {closed}")
        assert result.returncode == 0, result.stderr
        assert len(server.events) == (0 if options == "--dry-run" else 1)

    def test_a_closed_stdin_is_no_empty_input(
        self, tmp_path: Path, server: LoopbackPackTrack
    ) -> None:
        result = self.line(tmp_path, server, "--stdin --ndjson <&-")
        assert result.returncode == UNREADABLE
        assert "standard input is closed" in result.stderr

    @NEEDS_FULL
    @pytest.mark.parametrize("options", ["--json", "--dry-run", "--help", "--version"])
    def test_a_full_disk_behind_stdout_is_one_line_and_a_code_of_its_own(
        self, tmp_path: Path, server: LoopbackPackTrack, options: str
    ) -> None:
        result = self.line(tmp_path, server, f"{options} > /dev/full")
        assert result.returncode == UNWRITABLE
        (line,) = result.stderr.splitlines()
        assert "standard output cannot be written: No space left on device" in line
        assert len(server.events) == (1 if options == "--json" else 0)
