"""`packtrack-logger`: each flag, each variable, each exit code, against a server on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import packtrack_schema
import pytest
from hostile import HostileServer, Peer
from packtrack_shell import EVENT, KEY, Shell, flags

from causality_sdk import __version__
from causality_sdk.packtrack_logger import main
from causality_sdk.testing import LoopbackPackTrack

FLAGS = [
    "--api-key", "--base-url", "--timeout", "--retries", "--backoff-initial", "--backoff-max",
    "--jitter", "--user-agent", "--idempotency-key", "--gzip", "--timestamp", "--source-system",
    "--source-env", "--workflow-id", "--workflow-name", "--run-id", "--step-id", "--actor-type",
    "--actor-id", "--actor-display", "--severity", "--status", "--message", "--metadata",
    "--extra", "--file", "--stdin", "--ndjson", "--verbose", "--dry-run", "--health",
    "--version", "--json", "--async", "--batch-size", "--flush-interval", "--queue-capacity",
    "--no-flush",
]  # fmt: skip


@pytest.fixture
def server() -> Iterator[LoopbackPackTrack]:
    with LoopbackPackTrack(api_key=KEY) as running:
        yield running


@pytest.fixture
def shell(tmp_path: Path, server: LoopbackPackTrack) -> Shell:
    return Shell(tmp_path, server)


class TestHelp:
    def test_it_has_exactly_these_flags_each_with_a_help(self) -> None:
        found = [option for option in main.params if isinstance(option, click.Option)]
        assert [name for option in found for name in option.opts] == FLAGS
        assert [option.name for option in found if not option.help] == []

    def test_it_tells_exit_codes_examples_and_every_variable(self, shell: Shell) -> None:
        result = shell.run("--help")
        assert result.exit_code == 0
        for name in ("API_KEY", "BASE_URL", "TIMEOUT", "RETRIES", "USER_AGENT"):
            assert f"env: PACKTRACK_{name}" in " ".join(result.output.split())
        assert "PACKTRACK_HEALTH_ENABLE" in result.output
        assert "PACKTRACK_HEALTH_PATH" in result.output
        for code in (0, 1, 2, 3, 4, 130):
            assert f"\n    {code:<4} " in result.output
        assert "\n    packtrack-logger --file events.json\n" in result.output

    def test_it_loads_nothing_slow(self) -> None:
        script = (
            "import sys\n"
            "from causality_sdk.packtrack_logger import main\n"
            "main(['--help'], standalone_mode=False)\n"
            "slow = {'requests', 'sqlite_utils', 'filelock', 'causality_sdk.testing',"
            " 'causality_sdk.packtrack_logger.run'}\n"
            "print(sorted(slow & set(sys.modules)))"
        )
        shown = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True
        )
        assert shown.stdout.splitlines()[-1] == "[]"

    def test_version(self, shell: Shell) -> None:
        result = shell.run("--version", PACKTRACK_API_KEY=None)
        assert (result.exit_code, result.output) == (
            0,
            f"packtrack-logger, version {__version__}\n",
        )

    def test_the_module_is_the_same_command(self) -> None:
        shown = subprocess.run(
            [sys.executable, "-m", "causality_sdk.packtrack_logger", "--version"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert shown.stdout == f"packtrack-logger, version {__version__}\n"


class TestTheEvent:
    def test_a_submitted_event_leaves_no_word(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        result = shell.event()
        assert (result.exit_code, result.output) == (0, "")
        (found,) = server.events
        packtrack_schema.check(found)
        packtrack_schema.check_time(found.pop("timestamp"))
        assert found == {
            "source": {"system": "backup"},
            "workflow": {"id": "nightly"},
            "actor": {"type": "cron", "id": "db1"},
            "severity": "info",
            "status": "ok",
            "message": "backup finished",
        }

    @pytest.mark.parametrize(
        ("flag", "value", "path"),
        [
            ("--timestamp", "2026-01-31T12:00:00.123456789+01:00", ("timestamp",)),
            ("--source-system", "shop", ("source", "system")),
            ("--source-env", "prod", ("source", "env")),
            ("--workflow-id", "w-1", ("workflow", "id")),
            ("--workflow-name", "Wörkflow", ("workflow", "name")),
            ("--run-id", "run-7", ("workflow", "run_id")),
            ("--step-id", "step-2", ("workflow", "step_id")),
            ("--actor-type", "user", ("actor", "type")),
            ("--actor-id", "u-42", ("actor", "id")),
            ("--actor-display", "Ada", ("actor", "display_name")),
            ("--severity", "error", ("severity",)),
            ("--status", "failed", ("status",)),
            ("--message", "no space left", ("message",)),
            ("--metadata", '{"bytes": 7, "deep": {"list": [1.5, null]}}', ("metadata",)),
            ("--extra", '{"note": "x"}', ("extra",)),
        ],
    )
    def test_each_flag_goes_to_its_field(
        self,
        shell: Shell,
        server: LoopbackPackTrack,
        flag: str,
        value: str,
        path: tuple[str, ...],
    ) -> None:
        assert shell.run(*flags({**EVENT, flag: value})).exit_code == 0
        found: Any = server.events[0]
        for name in path:
            found = found[name]
        assert found == (json.loads(value) if flag in ("--metadata", "--extra") else value)

    @pytest.mark.parametrize("flag", EVENT)
    def test_a_required_flag_that_is_missing_is_named(
        self, shell: Shell, server: LoopbackPackTrack, flag: str
    ) -> None:
        given = {name: value for name, value in EVENT.items() if name != flag}
        result = shell.run(*flags(given))
        assert result.exit_code == 1
        assert f"Error: missing {flag};" in result.output
        assert server.requests == []

    def test_all_that_is_missing_is_named_at_once(self, shell: Shell) -> None:
        result = shell.run()
        assert result.exit_code == 1
        assert f"missing {', '.join(EVENT)};" in result.output

    def test_an_empty_optional_flag_is_what_a_shell_makes_of_an_unset_variable(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        assert shell.event("--source-env", "", "--run-id", "").exit_code == 0
        assert server.events[0]["source"] == {"system": "backup"}

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--severity", "fatal"], "'fatal' is not one of 'debug', 'info', 'warn', 'error'"),
            (["--status", "done"], "'done' is not one of 'ok', 'failed'"),
            (["--timestamp", "today"], "timestamp must be a date and time of RFC 3339"),
            (["--timestamp", "2026-02-30T00:00:00Z"], "timestamp is no time that exists"),
            (["--message", "  "], "message must not be empty"),
            (["--metadata", "{"], "'--metadata': not JSON"),
            (["--metadata", "[1]"], "'--metadata': must be a JSON object"),
            (["--extra", '{"a": NaN}'], "'--extra': NaN is not JSON"),
            (["--extra", '{"a": 1e999}'], "extra.a is inf"),
            (["--nonsense"], "No such option"),
            (["surplus"], "unexpected extra argument"),
        ],
    )
    def test_what_is_not_valid_exits_with_1_and_sends_nothing(
        self, shell: Shell, server: LoopbackPackTrack, arguments: list[str], complaint: str
    ) -> None:
        result = shell.event(*arguments)
        assert result.exit_code == 1
        assert complaint in result.output
        assert server.requests == []


class TestTheRequest:
    def test_the_key_may_come_from_flag_or_variable_and_the_flag_wins(self, shell: Shell) -> None:
        assert shell.event().exit_code == 0
        assert shell.event("--api-key", KEY, PACKTRACK_API_KEY="wrong").exit_code == 0
        assert shell.event("--api-key", "wrong").exit_code == 2

    @pytest.mark.parametrize("value", [None, "", "  "])
    def test_without_a_key_it_exits_with_1(
        self, shell: Shell, server: LoopbackPackTrack, value: str | None
    ) -> None:
        result = shell.event(PACKTRACK_API_KEY=value)
        assert result.exit_code == 1
        assert "api_key is required" in result.output
        assert "PACKTRACK_API_KEY" in result.output
        assert server.requests == []

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--api-key", "TOPSECRET-1"],
            ["--api-key", "TOPSECRET-1", "--verbose"],
            ["--api-key", "TOPSECRET-1", "--json"],
            ["--api-key", "TOPSECRET-1", "--dry-run", "--verbose", "--json"],
            ["--api-key", "TOPSECRET-1", "--async"],
            ["--api-key", "TOPSECRET-1", "--health"],
            ["--api-key", "TOPSECRET-1\n"],
            ["--api-key", "TOPSECRET-1", "--timeout", "x"],
            ["--api-key=TOPSECRET-1", "--nonsense"],
            ["--api-key", "https://TOPSECRET-1"],
        ],
    )
    def test_the_key_is_never_printed(
        self, shell: Shell, server: LoopbackPackTrack, arguments: list[str]
    ) -> None:
        server.respond(401, "no such key: TOPSECRET-1")
        result = shell.event(*arguments)
        assert "TOPSECRET-1" not in result.output
        assert "TOPSECRET-1" not in repr(result.exception)

    def test_the_server_may_come_from_flag_or_variable_and_the_flag_wins(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        nowhere = "http://127.0.0.1:9"
        assert shell.event("--base-url", server.endpoint, PACKTRACK_BASE_URL=nowhere).exit_code == 0
        result = shell.event("--retries", "0", PACKTRACK_BASE_URL=nowhere)
        assert result.exit_code == 3
        assert "127.0.0.1:9 refuses the connection" in result.output

    def test_the_default_server_is_packtracks(self) -> None:
        """Known from the options, since no test leaves loopback."""
        from causality_sdk.packtrack_logger.flags import Flags
        from causality_sdk.packtrack_logger.run import Run

        made = Run(Flags(api_key="k", base_url=""), sys.stdin.buffer)
        assert made._config.base_url == "https://pack.shimcounty.com"

    @pytest.mark.parametrize("value", ["ftp://x", "http://u:p@x", "pack.example"])
    def test_a_wrong_url_exits_with_1(self, shell: Shell, value: str) -> None:
        result = shell.event("--base-url", value)
        assert result.exit_code == 1
        assert "base_url must" in result.output

    @pytest.mark.parametrize(
        ("arguments", "environ"),
        [
            (["--timeout", "50ms"], {}),
            ([], {"PACKTRACK_TIMEOUT": "50ms"}),
            (["--timeout", "0.05s"], {"PACKTRACK_TIMEOUT": "1h"}),
        ],
    )
    def test_the_deadline_comes_from_flag_or_variable_and_the_flag_wins(
        self, shell: Shell, arguments: list[str], environ: dict[str, str]
    ) -> None:
        def silent(peer: Peer) -> None:
            peer.request()
            peer.hold()

        with HostileServer(silent) as hostile:
            result = shell.event(
                "--retries", "0", "--base-url", hostile.endpoint, *arguments, **environ
            )
        assert result.exit_code == 3
        assert "did not answer within 0.05 s" in result.output

    @pytest.mark.parametrize(
        ("arguments", "environ", "requests"),
        [
            ([], {}, 4),
            (["--retries", "1"], {}, 2),
            ([], {"PACKTRACK_RETRIES": "0"}, 1),
            (["--retries", "2"], {"PACKTRACK_RETRIES": "0"}, 3),
            ([], {"PACKTRACK_RETRIES": ""}, 4),
        ],
    )
    def test_retries_come_from_flag_or_variable_and_when_exhausted_it_exits_with_3(
        self,
        shell: Shell,
        server: LoopbackPackTrack,
        arguments: list[str],
        environ: dict[str, str],
        requests: int,
    ) -> None:
        server.respond(503)
        result = shell.event(*arguments, **environ)
        assert result.exit_code == 3
        assert f"given up after {requests} attempt" in result.output
        assert len(server.requests) == requests

    def test_delays_are_those_of_the_flags(self, shell: Shell, server: LoopbackPackTrack) -> None:
        server.respond(503, times=3)
        result = shell.event(
            "--backoff-initial", "10ms", "--backoff-max", "20ms", "--jitter", "0", "--verbose"
        )
        assert result.exit_code == 0
        told = [line.partition("again in ")[2].split()[0] for line in lines(result.stderr)[:3]]
        assert told == ["0.01", "0.02", "0.02"]

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--timeout", "soon"], "'soon' is not a duration; write for example 15s, 100ms"),
            (["--timeout", "0s"], "timeout must be above 0"),
            (["--backoff-initial", "5 s"], "'5 s' is not a duration"),
            (["--backoff-max", "10us"], "backoff_max must be at least backoff_initial"),
            (["--jitter", "2"], "jitter must be at most 1"),
            (["--retries", "-1"], "retries must be at least 0"),
            (["--retries", "x"], "'x' is not a valid integer"),
            (["--batch-size", "0"], "batch_size must be at least 1"),
            (["--queue-capacity", "0"], "queue_capacity must be at least 1"),
            (["--flush-interval", "0s"], "flush_interval must be above 0"),
            (["--user-agent", "a\nb"], "user_agent must be a string of printable ASCII"),
            (["--idempotency-key", "a\nb"], "idempotency_key must be printable ASCII"),
        ],
    )
    def test_a_wrong_option_exits_with_1(
        self, shell: Shell, server: LoopbackPackTrack, arguments: list[str], complaint: str
    ) -> None:
        result = shell.event(*arguments)
        assert result.exit_code == 1
        assert complaint in result.output
        assert server.requests == []

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("PACKTRACK_TIMEOUT", "soon"),
            ("PACKTRACK_RETRIES", "x"),
            ("PACKTRACK_HEALTH_ENABLE", "perhaps"),
            ("PACKTRACK_HEALTH_PATH", "up"),
            ("PACKTRACK_USER_AGENT", "a\nb"),
            ("PACKTRACK_BASE_URL", "x"),
        ],
    )
    def test_a_wrong_variable_exits_with_1(self, shell: Shell, variable: str, value: str) -> None:
        assert shell.event(**{variable: value}).exit_code == 1

    @pytest.mark.parametrize(
        ("arguments", "environ", "agent"),
        [
            ([], {}, f"pack-track-sdk-python/{__version__} packtrack-logger/{__version__}"),
            ([], {"PACKTRACK_USER_AGENT": "mine/1"}, "mine/1"),
            (["--user-agent", "flag/1"], {"PACKTRACK_USER_AGENT": "mine/1"}, "flag/1"),
        ],
    )
    def test_the_user_agent_comes_from_flag_or_variable(
        self,
        shell: Shell,
        server: LoopbackPackTrack,
        arguments: list[str],
        environ: dict[str, str],
        agent: str,
    ) -> None:
        for extra in ([], ["--async"]):
            assert shell.event(*arguments, *extra, **environ).exit_code == 0
            assert server.requests[-1].headers["user-agent"] == agent

    def test_the_idempotency_key_goes_along_and_drops_a_repeat(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        for _ in range(2):
            assert shell.event("--idempotency-key", "nightly-2026-01-31").exit_code == 0
        keys = [request.headers["idempotency-key"] for request in server.requests]
        assert keys == ["nightly-2026-01-31"] * 2
        assert (len(server.events), server.repeats) == (1, 1)

    def test_gzip_compresses(self, shell: Shell, server: LoopbackPackTrack) -> None:
        assert shell.event("--gzip").exit_code == 0
        assert shell.event("--gzip", "--async").exit_code == 0
        assert shell.event().exit_code == 0
        codings = [request.headers.get("content-encoding") for request in server.requests]
        assert codings == ["gzip", "gzip", None]

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 301])
    @pytest.mark.parametrize("extra", [[], ["--async"]], ids=["sync", "async"])
    def test_a_refusal_exits_with_2(
        self, shell: Shell, server: LoopbackPackTrack, status: int, extra: list[str]
    ) -> None:
        server.respond(status, "words of the server")
        result = shell.event(*extra)
        assert result.exit_code == 2
        assert f"Error: the server answered {status}" in result.stderr
        assert result.stdout == ""

    @pytest.mark.parametrize("status", [408, 429, 500, 503])
    @pytest.mark.parametrize("extra", [[], ["--async"]], ids=["sync", "async"])
    def test_what_may_pass_exits_with_3(
        self, shell: Shell, server: LoopbackPackTrack, status: int, extra: list[str]
    ) -> None:
        server.respond(status)
        result = shell.event("--retries", "1", *extra)
        assert result.exit_code == 3
        assert f"the server answered {status}" in result.stderr


class TestHealth:
    def test_a_server_that_is_well_exits_with_0_and_nothing_is_sent(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        result = shell.run("--health")
        assert (result.exit_code, result.output) == (0, "")
        assert [(each.method, each.path) for each in server.requests] == [("GET", "/api/health")]

    def test_one_that_is_not_exits_with_1(self, shell: Shell, server: LoopbackPackTrack) -> None:
        server.healthy = False
        result = shell.event("--health", "--retries", "0")
        assert result.exit_code == 1
        assert "Error: the server is not well" in result.output
        assert "503" in result.output
        assert server.events == []

    def test_no_server_exits_with_1(self, shell: Shell, server: LoopbackPackTrack) -> None:
        server.down()
        assert shell.run("--health", "--retries", "0").exit_code == 1

    def test_the_path_comes_from_its_variable(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        server.health_path = "/up"
        assert shell.run("--health").exit_code == 1
        assert shell.run("--health", PACKTRACK_HEALTH_PATH="/up").exit_code == 0

    def test_switched_on_by_its_variable_every_run_asks_first(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        assert shell.event(PACKTRACK_HEALTH_ENABLE="false").exit_code == 0
        assert shell.event(PACKTRACK_HEALTH_ENABLE="true").exit_code == 0
        paths = [request.path for request in server.requests]
        assert paths == ["/api/ingest", "/api/health", "/api/ingest"]
        server.healthy = False
        assert shell.event("--retries", "0", PACKTRACK_HEALTH_ENABLE="true").exit_code == 3
        assert len(server.events) == 2

    def test_as_json(self, shell: Shell, server: LoopbackPackTrack) -> None:
        assert json.loads(shell.run("--health", "--json").stdout) == {
            "ok": True,
            "exit_code": 0,
            "status_code": 200,
            "error": None,
        }
        server.healthy = False
        found = json.loads(shell.run("--health", "--json", "--retries", "0").stdout)
        assert (found["ok"], found["exit_code"], found["status_code"]) == (False, 1, 503)


class TestOutput:
    def test_verbose_tells_of_each_attempt_on_standard_error(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        server.respond(503, times=1)
        result = shell.event("--verbose")
        assert result.exit_code == 0
        assert result.stdout == ""
        first, second, last = lines(result.stderr)
        assert "/api/ingest, attempt 1: 503" in first
        assert "again in" in first
        assert "/api/ingest, attempt 2: 202" in second
        assert last == "packtrack-logger: 1 event submitted, requests: 1"

    def test_json_tells_of_success(self, shell: Shell) -> None:
        assert json.loads(shell.event("--json").stdout) == {
            "ok": True,
            "exit_code": 0,
            "submitted": 1,
            "requests": 1,
            "attempts": 1,
            "status_code": 202,
            "error": None,
        }

    def test_json_tells_of_a_refusal(self, shell: Shell, server: LoopbackPackTrack) -> None:
        server.respond(401)
        result = shell.event("--json")
        found = json.loads(result.stdout)
        assert (found["ok"], found["exit_code"], found["status_code"]) == (False, 2, 401)
        assert result.stderr == f"Error: {found['error']}\n"

    @pytest.mark.parametrize("arguments", [["--nonsense"], ["--retries", "-1"], ["--timeout", "x"]])
    def test_json_tells_of_wrong_arguments(self, shell: Shell, arguments: list[str]) -> None:
        result = shell.event("--json", *arguments)
        found = json.loads(result.stdout)
        assert (found["ok"], found["exit_code"], result.exit_code) == (False, 1, 1)

    def test_a_dry_run_prints_the_events_and_sends_nothing(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        for extra in ([], ["--async"]):
            result = shell.event("--dry-run", "--run-id", "r-1", *extra)
            assert result.exit_code == 0
            (line,) = lines(result.stdout)
            packtrack_schema.check(json.loads(line))
            assert json.loads(line)["workflow"]["run_id"] == "r-1"
        assert server.requests == []
        assert list(shell.home.rglob("*.db")) == []

    def test_a_dry_run_as_json(self, shell: Shell) -> None:
        found = json.loads(shell.event("--dry-run", "--json").stdout)
        assert (found["ok"], found["dry_run"]) == (True, True)
        packtrack_schema.check(found["events"][0])

    def test_a_dry_run_needs_no_key_since_nothing_is_sent(self, shell: Shell) -> None:
        result = shell.event("--dry-run", PACKTRACK_API_KEY=None)
        assert result.exit_code == 0
        assert json.loads(result.stdout)["message"] == "backup finished"
        assert shell.run("--health", "--dry-run", PACKTRACK_API_KEY=None).exit_code == 1

    def test_a_dry_run_finds_what_is_wrong(self, shell: Shell) -> None:
        assert shell.event("--dry-run", "--timestamp", "now").exit_code == 1


def lines(text: str) -> list[str]:
    return text.splitlines()
