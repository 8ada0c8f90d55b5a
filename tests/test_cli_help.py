"""Help, colour, and errors: what a person sees first, and a program reads."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from shell import KEY, ROOT, Shell, ndjson, terminal
from test_cli import every_command

from causality_sdk.cli import main
from causality_sdk.cli.ending import wants_color
from causality_sdk.cli.guesses import nearest
from causality_sdk.cli.option_words import PROGRAM_ONLY, WORDS
from causality_sdk.cli.options import ConfigOption
from causality_sdk.cli.settings import FIELDS, flag_name
from causality_sdk.testing import LoopbackCollector

NEEDS_TERMINAL = pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
WITH_CLIENT = sorted(
    path
    for path, command in every_command().items()
    if any(isinstance(each, ConfigOption) for each in command.params)
)


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, collector: LoopbackCollector) -> Shell:
    return Shell(tmp_path, collector.endpoint)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="causality")


class TestHelp:
    @pytest.mark.parametrize("path", sorted(every_command()))
    def test_it_is_in_the_words_of_a_shell(self, path: str) -> None:
        text = run(*path.split(), "--help-all" if path in WITH_CLIENT else "--help").output
        for word in (
            "None", "True", "False", "as in requests", "QueueError", "interpreter", "protocol",
            "Wire", "Required to send. Required", "api_key=",
        ):  # fmt: skip
            assert word not in text, word
        assert not re.search(r"\w\(\)", text.replace("client.stats()", "").replace(
            "client.dead_letters.", "").replace("requeue()", "").replace("delete()", "").replace(
            "track(), track_many()", "")), text  # fmt: skip

    @pytest.mark.parametrize("path", WITH_CLIENT)
    def test_it_shows_what_the_command_uses_and_all_of_it_when_asked(self, path: str) -> None:
        short = run(*path.split(), "--help").output
        whole = run(*path.split(), "--help-all").output
        assert "--help-all" in short
        for name in FIELDS:
            shown = f"{flag_name(name)} " in f"{whole} "
            assert shown == (name not in PROGRAM_ONLY), name
        assert len(short.splitlines()) < len(whole.splitlines())

    @pytest.mark.parametrize(
        "path", ["queue status", "queue list", "queue show", "dead-letters show", "queue purge"]
    )
    def test_a_command_that_reads_files_shows_nothing_of_a_server(self, path: str) -> None:
        short = run(*path.split(), "--help").output
        assert len(short.splitlines()) <= 45
        for flag in ("--endpoint", "--api-key", "--jitter", "--max-retries", "--gzip", "--wire"):
            assert flag not in short

    def test_options_of_a_program_are_no_flags(self) -> None:
        for name in PROGRAM_ONLY:
            result = run("track", "x", flag_name(name))
            assert (result.exit_code, "No such option" in result.output) == (1, True), name

    def test_a_field_without_words_of_its_own_has_those_of_its_docstring(self) -> None:
        for command in every_command().values():
            for each in command.params:
                if isinstance(each, ConfigOption):
                    assert each.help
                    assert each.help.startswith(WORDS.get(each.field, ""))

    def test_its_types_are_those_of_every_release_of_click(self) -> None:
        """A subscript, which only newer ones have, would keep a whole module from being loaded."""
        for path in (ROOT / "causality_sdk").rglob("*.py"):
            assert "click.ParamType[" not in path.read_text(encoding="utf-8"), path

    def test_it_fits_a_narrow_terminal(self) -> None:
        for path in ["", *every_command()]:
            for line in run(*path.split(), "--help").output.splitlines():
                example = line.startswith("    ")
                assert len(line) <= (100 if example else 80), (path, line)
        assert all(len(line) <= 80 for line in run().output.splitlines())


class TestGuesses:
    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("trakc", "causality track"),
            ("queue statsu", "causality queue status"),
            ("replay", "causality queue replay"),
            ("status", "causality queue status"),
            ("doctr", "causality queue doctor"),
            ("requeue", "causality dead-letters requeue"),
            ("dead-letter", "causality dead-letters"),
            ("queue track", "causality track"),
        ],
    )
    def test_a_command_that_is_not_there(self, given: str, meant: str) -> None:
        result = run(*given.split())
        assert result.exit_code == 1
        assert f"No such command {given.split()[-1]!r}. Did you mean {meant}" in result.output

    def test_nothing_is_guessed_where_nothing_is_like_it(self) -> None:
        assert "Did you mean" not in run("xyzzy").output
        assert nearest("xyzzy", ["track"]) == []

    @pytest.mark.parametrize(
        ("given", "path"),
        [
            ("--json track x", "causality track --json"),
            ("--json queue status", "causality queue status --json"),
            ("queue --json status", "causality queue status --json"),
            ("--endpoint track", "causality track --endpoint"),
        ],
    )
    def test_an_option_that_stands_too_early(self, given: str, path: str) -> None:
        result = run(*given.split())
        assert result.exit_code == 1
        assert f"stands behind the command: {path}" in result.output

    def test_an_option_that_no_command_has(self) -> None:
        assert "No such option" in run("--nonsense", "track").output


class TestColour:
    @pytest.mark.parametrize(
        ("environ", "wanted"),
        [
            ({}, None),
            ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
            ({"NO_COLOR": ""}, None),
            ({"FORCE_COLOR": "1"}, True),
            ({"FORCE_COLOR": "0"}, None),
            ({"CLICOLOR_FORCE": "1", "CLICOLOR": "0"}, True),
            ({"CLICOLOR_FORCE": "0"}, None),
            ({"CLICOLOR": "0"}, False),
            ({"CLICOLOR": "1"}, None),
            ({"TERM": "dumb"}, False),
        ],
    )
    def test_what_the_environment_says(
        self, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], wanted: bool | None
    ) -> None:
        for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, text in environ.items():
            monkeypatch.setenv(name, text)
        assert wants_color() is wanted

    @pytest.mark.parametrize(
        "arguments",
        [["--help"], ["queue", "status", "--help"], ["queue", "doctor", "--offline"], ["trakc"]],
        ids=" ".join,
    )
    def test_a_pipe_gets_none_unless_it_is_asked_for(
        self, shell: Shell, arguments: list[str]
    ) -> None:
        code = 1 if arguments == ["trakc"] else 0
        plain = shell(*arguments, code=code)
        assert "\x1b" not in plain.out + plain.err
        forced = shell(*arguments, code=code, FORCE_COLOR="1")
        assert "\x1b[1m" in forced.out + forced.err or "\x1b[31m" in forced.out + forced.err

    @NEEDS_TERMINAL
    @pytest.mark.parametrize("arguments", [["--help"], ["queue", "doctor", "--offline"]])
    def test_a_terminal_gets_it_unless_it_is_not_wanted(
        self, shell: Shell, arguments: list[str]
    ) -> None:
        for environ, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
            with terminal(shell, *arguments, **environ) as screen:
                assert ("\x1b[" in screen.read_to_end()) == coloured

    def test_json_never_has_any(self, shell: Shell) -> None:
        result = shell("queue", "doctor", "--offline", "--json", FORCE_COLOR="1")
        assert "\x1b" not in result.out + result.err


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "kind", "code"),
        [
            (["track", "--json"], "UsageError", 1),
            (["trakc", "--json"], "UsageError", 1),
            (["track", "x", "--nonsense", "--json"], "UsageError", 1),
            (["track", "x", "n:=x", "--json"], "EventError", 1),
            (["track", "x", "--batch-size", "0", "--json"], "ConfigError", 1),
            (["track", "--file", "/nowhere", "--json"], "InputError", 4),
            (["queue", "import", "/nowhere", "--json"], "InputError", 4),
            (["queue", "show", "k", "--json"], "CommandError", 1),
            (["config", "--batch-size", "0", "--json"], "ConfigError", 1),
            (["send", "x", "--endpoint", "http://127.0.0.1:9", "--json", "--max-retries", "0"],
             "DeliveryError", 3),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )  # fmt: skip
    def test_with_json_an_error_is_an_object_on_stderr(
        self, shell: Shell, arguments: list[str], kind: str, code: int
    ) -> None:
        result = shell(*arguments, code=code)
        found = [json.loads(line) for line in result.err.splitlines()]
        (error,) = [each["error"] for each in found if "note" not in each]
        assert (error["type"], error["exit_code"]) == (kind, code)
        assert error["message"]

    def test_notes_and_details_are_objects_too(self, shell: Shell) -> None:
        result = shell("track", "x", "--api-key", KEY, "-v", "--json")
        found = [json.loads(line) for line in result.err.splitlines()]
        assert {name for each in found for name in each} == {"note", "detail"}

    def test_a_json_that_is_a_value_is_none(self, shell: Shell) -> None:
        assert shell("track", "--", "--json", "k", code=1).err.startswith("Usage: ") is False
        assert "Error: " in shell("track", "--", "--json", "k", code=1).err

    def test_what_json_cannot_have_is_refused(self, shell: Shell) -> None:
        shell("track", "x", "--no-flush")
        for kind in ("csv", "table"):
            result = shell("queue", "list", "--json", "--format", kind, code=1)
            assert "--json prints NDJSON" in result.err
        shell("queue", "list", "--json", "--format", "ndjson")

    def test_a_file_that_cannot_be_opened_is_one_line(self) -> None:
        """Also one that no command thought of."""

        @click.pass_context
        def broken(_context: click.Context) -> None:
            raise PermissionError(13, "Permission denied", "/x")

        made = type(main)("causality", invoke_without_command=True, callback=broken)
        made.params.append(click.Option(["--now"], is_flag=True, expose_value=False))
        result = CliRunner().invoke(made, ["--now"])
        assert result.exit_code == 1
        assert result.output == "Error: /x: Permission denied\n"


class TestTables:
    @NEEDS_TERMINAL
    @pytest.mark.parametrize("columns", [60, 80, 100, 200])
    def test_lines_fit_the_terminal(self, shell: Shell, columns: int) -> None:
        long = "a_very_long_event_type_that_nobody_would_ever_give_to_an_event"
        for number, name in enumerate((long, "注文が確定しました。これは長い名前です", "short")):
            shell("track", name, "--no-flush", "--idempotency-key", f"01a2-{number}-" + "x" * 30)
        with terminal(shell, "queue", "list", COLUMNS=str(columns)) as screen:
            found = screen.read_to_end().splitlines()
        from causality_sdk.cli.words import width

        assert len(found) == 4
        assert all(width(line) <= columns for line in found), found
        ends = {width(line[: line.index("queue.db")]) for line in found[1:]}
        assert len(ends) == 1  # the last column is one below the other
        whole = shell("queue", "list", COLUMNS=str(columns)).out
        assert long in whole
        assert "…" not in whole

    def test_a_pipe_gets_every_row_whole_however_many_there_are(self, shell: Shell) -> None:
        data = ndjson(300) + b'{"event_type":"%s"}\n' % (b"t" * 90)
        shell("track", "-", "--no-flush", stdin=data)
        found = shell("queue", "list", "--limit", "0").out.splitlines()
        assert len(found) == 302
        assert "t" * 90 in found[-1]

    @NEEDS_TERMINAL
    def test_the_reasons_of_dead_letters_fit_too(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        collector.accept_only(lambda _index, event: event["event_type"] != "bad")
        with shell.client() as client:
            client.track("bad")
            while not client.stats().buried:
                client.track("good")
                client.flush(timeout=10)
        with terminal(shell, "dead-letters", "list", COLUMNS="80") as screen:
            found = screen.read_to_end().splitlines()
        assert len(found) == 2
        assert all(len(line) <= 80 for line in found), found
