"""The recipes of the documentation, run as cron and CI run them: with hardly a variable set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import packtrack_shell
import pytest
from shell import KEY, ROOT, Shell

from causality_sdk.testing import LoopbackCollector, LoopbackPackTrack

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cron, and a POSIX shell")

HOW_TO = ROOT / "docs" / "how-to"


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as server:
        yield server


class Cron:
    """Runs lines with the environment that cron gives them: HOME, PATH, and little more.

    All else is in the config file, as docs/how-to/shell-and-cron.md has it.
    """

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home = home
        (home / "key").write_text(f"{KEY}\n")
        place = Shell(home)("config", "--json").json["config_file"]
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_text(
            f'endpoint = "{endpoint}"\napp_id = "backup"\napi_key_file = "{home}/key"\n'
            "max_retries = 0\n"
        )
        programs = home / "bin"
        programs.mkdir()
        for name, module in (
            ("causality", "causality_sdk"),
            ("packtrack-logger", "causality_sdk.packtrack_logger"),
        ):
            script = programs / name
            script.write_text(
                f'#!/bin/sh\nPYTHONPATH={ROOT} exec "{sys.executable}" -m {module} "$@"\n'
            )
            script.chmod(0o755)
        self.environ = {
            "HOME": str(home),
            "PATH": f"{programs}{os.pathsep}{os.defpath}",
            "SHELL": "/bin/sh",
            "LOGNAME": "backup",
        }

    def __call__(self, line: str, **environ: str) -> tuple[int, str]:
        """The exit code, and what cron would mail."""
        done = subprocess.run(
            ["/bin/sh", "-ec", line], env=self.environ | environ, capture_output=True, text=True,
            timeout=120, check=False, cwd=self.home, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def cron(tmp_path: Path, collector: LoopbackCollector) -> Cron:
    return Cron(tmp_path, collector.endpoint)


def recipe(page: str, beginning: str) -> str:
    """The command of a page that begins so, with the lines that it goes on."""
    text = (HOW_TO / page).read_text(encoding="utf-8")
    found = re.search(rf"{re.escape(beginning)}(?:.*\\\n)*.*", text)
    assert found is not None, beginning
    return found[0]


class TestTheCrontab:
    @pytest.fixture
    def line(self) -> str:
        return recipe("shell-and-cron.md", "*/5 * * * *").split(maxsplit=5)[5]

    def test_before_the_first_event_there_is_nothing_to_do_and_no_mail(
        self, cron: Cron, line: str
    ) -> None:
        assert line.startswith("causality queue replay")
        assert cron(line) == (0, "")

    def test_what_was_queued_is_delivered_without_a_mail(
        self, cron: Cron, line: str, collector: LoopbackCollector
    ) -> None:
        code, key = cron(recipe("shell-and-cron.md", "causality track backup_done --no-flush"))
        assert code == 0
        assert cron(line) == (0, "")
        assert collector.keys == [key.strip()]

    def test_a_server_that_is_away_is_no_mail_and_one_that_refuses_is(
        self, cron: Cron, line: str, collector: LoopbackCollector
    ) -> None:
        cron("causality track backup_done --no-flush")
        collector.down()
        assert cron(line) == (3, "")
        collector.up()
        collector.api_key = "another"
        code, mail = cron(line)
        assert code == 2
        assert "check api_key" in mail

    def test_a_timer_that_looks_at_the_exit_code_has_a_line_too(
        self, cron: Cron, collector: LoopbackCollector
    ) -> None:
        cron("causality track backup_done --no-flush")
        collector.down()
        line = recipe("shell-and-cron.md", "causality queue replay --quiet || ")
        assert cron(line) == (0, "")

    def test_track_in_a_job_does_not_fail_because_a_server_is_away(
        self, cron: Cron, collector: LoopbackCollector
    ) -> None:
        collector.down()
        code, _ = cron(recipe("shell-and-cron.md", "causality track backup_done host="))
        assert code == 0


def test_the_line_of_the_example_runs_as_it_stands(
    cron: Cron, tmp_path: Path, collector: LoopbackCollector
) -> None:
    """In a directory of its own, with the file of variables that it speaks of."""
    source = ROOT / "examples" / "deploy" / "nightly.py"
    text = source.read_text(encoding="utf-8")
    line = re.search(r"^15 3 \* \* \*  (.*)$", text, re.MULTILINE)
    assert line is not None
    variables = re.findall(r"^CAUSALITY_\w+=.*$", text, re.MULTILINE)
    given = {
        "CAUSALITY_ENDPOINT": collector.endpoint,
        "CAUSALITY_API_KEY": KEY,
        "CAUSALITY_QUEUE_PATH": str(tmp_path / "queue.db"),
    }
    assert [each.partition("=")[0] for each in variables] == list(given)
    place = tmp_path / "shop"
    place.mkdir()
    (place / "nightly.py").write_text(text)
    (place / "nightly.env").write_text("".join(f"{n}={v}\n" for n, v in given.items()))
    program = f"PYTHONPATH={ROOT} {sys.executable}"
    command = line[1].replace("/srv/shop", str(place)).replace("python3", program)
    assert cron(command) == (0, "2 delivered, 0 wait for the next run\n")


class TestPipelines:
    def test_the_first_job_has_an_empty_cache(self, cron: Cron) -> None:
        line = recipe("ci-pipelines.md", "causality queue replay")
        code, said = cron(f"{line}\necho goes on", CAUSALITY_QUEUE_PATH=f"{cron.home}/c/queue.db")
        assert code == 0
        assert "goes on" in said.splitlines()

    def test_what_a_job_has_spooled_the_next_delivers(
        self, cron: Cron, collector: LoopbackCollector
    ) -> None:
        cache = {"CAUSALITY_QUEUE_PATH": f"{cron.home}/c/queue.db"}
        collector.down()
        assert cron("causality send deploy_finished --spool", **cache)[0] == 0
        collector.up()
        assert cron(recipe("ci-pipelines.md", "causality queue replay"), **cache)[0] == 0
        assert collector.count == 1

    def test_a_fork_without_secrets_can_check_events(self, cron: Cron, tmp_path: Path) -> None:
        line = recipe("ci-pipelines.md", "causality send --ndjson fixtures/events.ndjson --dry-run")
        fixtures = tmp_path / "fixtures"
        fixtures.mkdir()
        (fixtures / "events.ndjson").write_text('{"event_type":"a"}\n{"event_type":""}\n')
        code, said = cron(line, XDG_CONFIG_HOME=str(tmp_path / "empty"))
        assert code == 1
        assert "events.ndjson, line 2: event_type must not be empty" in said


def test_a_queue_for_packtrack_sends_no_mail_while_its_server_is_away(
    cron: Cron, tmp_path: Path
) -> None:
    line = recipe("log-from-a-shell.md", "said=$(packtrack-logger --async")
    with LoopbackPackTrack(api_key=packtrack_shell.KEY) as server:
        environ = {
            "PACKTRACK_API_KEY": packtrack_shell.KEY,
            "PACKTRACK_BASE_URL": server.endpoint,
            "PACKTRACK_RETRIES": "0",
            "XDG_DATA_HOME": str(tmp_path),
        }
        server.respond(503)
        assert cron(line, **environ) == (0, "")
        server.respond(401)
        _, mail = cron(line, **environ)
        assert "Error: " in mail
        server.respond_normally()
        assert cron(line, **environ) == (0, "")
        assert len(server.events) == 3
