"""The group `causality`: its help, its exit codes, what it loads, how it reads files of events."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import click
import pytest
from child_program import unmeasured
from click.testing import CliRunner, Result

from causality_sdk import __version__
from causality_sdk.cli import COMMANDS, main
from causality_sdk.cli.exits import InputError
from causality_sdk.cli.groups import LazyGroup
from causality_sdk.cli.ndjson import parse_event, read_events
from causality_sdk.event import Encoder

ROOT = Path(__file__).resolve().parent.parent


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args, prog_name="causality")


def every_command(group: click.Group = main, path: str = "") -> dict[str, click.Command]:
    """All commands that do something, by the words that call them."""
    found: dict[str, click.Command] = {}
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            assert command.help
            assert "Examples:" in (command.epilog or "")
            found |= every_command(command, f"{path}{name} ")
        else:
            found[path + name] = command
    return found


def python(*args: str) -> str:
    result = subprocess.run(
        [sys.executable, *args],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=unmeasured(os.environ),  # what is loaded, and how soon, is asked of the program alone
    )
    return result.stdout


class TestHelp:
    def test_it_names_every_command_and_gives_an_example(self) -> None:
        result = run("--help")
        assert result.exit_code == 0
        for name, (_, line) in COMMANDS.items():
            assert name in result.output
            assert line in result.output
        assert "causality track purchase_complete" in result.output

    @pytest.mark.parametrize("path", sorted(every_command()))
    def test_every_command_and_every_option_of_it_has_a_help(self, path: str) -> None:
        command = every_command()[path]
        assert command.help
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, option.name
        result = run(*path.split(), "-h")
        assert result.exit_code == 0
        assert "\n  Examples:\n" in result.output
        assert f"\n    causality {path}" in result.output

    @pytest.mark.parametrize("path", sorted(every_command()))
    def test_every_example_is_of_a_command_that_exists_with_options_that_it_has(
        self, path: str
    ) -> None:
        from test_docs import commands, unknown_command

        examples = (every_command()[path].epilog or "").replace("\b", "").partition(":\n")[2]
        found = [each for each in commands(examples) if each.program == "causality"]
        assert found
        for each in found:
            assert unknown_command(each, main) is None

    @pytest.mark.parametrize("group", ["", "queue", "dead-letters"])
    def test_a_group_alone_shows_its_help_on_stdout(self, group: str) -> None:
        result = run(*group.split())
        assert result.exit_code == 0
        assert result.stdout.startswith("Usage: causality")
        assert result.stdout == run(*group.split(), "--help").stdout

    def test_the_help_of_the_group_loads_no_command_and_nothing_slow(self) -> None:
        script = (
            "import sys\n"
            "from causality_sdk.cli import main\n"
            "main(['--help'], standalone_mode=False)\n"
            "slow = {'requests', 'sqlite_utils', 'filelock', 'orjson', 'sqlite3', 'uuid6',"
            " 'causality_sdk.client', 'causality_sdk.testing', 'causality_sdk.cli.demo'}\n"
            "print(sorted(slow & set(sys.modules)))"
        )
        assert python("-c", script).splitlines()[-1] == "[]"

    def test_the_help_of_the_group_starts_in_150_ms(self) -> None:
        """Processor time, the best of several: how busy the machine is must not matter."""
        seconds = []
        for _ in range(5):
            started = os.times()
            python("-m", "causality_sdk", "--help")
            ended = os.times()
            seconds.append(
                ended.children_user + ended.children_system
                - started.children_user - started.children_system
            )  # fmt: skip
        assert min(seconds) <= 0.150, seconds

    def test_a_command_is_loaded_when_it_is_called(self) -> None:
        script = (
            "import sys\n"
            "from causality_sdk.cli import main\n"
            "main(['demo', '--help'], standalone_mode=False)\n"
            "print('causality_sdk.cli.demo' in sys.modules)"
        )
        assert python("-c", script).splitlines()[-1] == "True"


class TestVersion:
    def test_the_command_prints_it(self) -> None:
        result = run("--version")
        assert result.exit_code == 0
        assert result.output == f"causality, version {__version__}\n"

    def test_the_module_is_the_same_command(self) -> None:
        assert python("-m", "causality_sdk", "--version") == f"causality, version {__version__}\n"
        assert "causality queue status" in python("-m", "causality_sdk", "--help")


class TestExitCodes:
    @pytest.mark.parametrize(
        "args",
        [
            ["nonsense"],
            ["--nonsense"],
            ["demo", "--nonsense"],
            ["demo", "--file"],
            ["demo", "surplus"],
        ],
        ids=" ".join,
    )
    def test_wrong_arguments_exit_with_1(self, args: Sequence[str]) -> None:
        """Click's own code for it is 2, which says here that the server refused."""
        result = run(*args)
        assert result.exit_code == 1
        assert "Error: " in result.output

    def test_input_that_cannot_be_read_exits_with_4(self, tmp_path: Path) -> None:
        result = run("demo", "--file", str(tmp_path / "nowhere.ndjson"))
        assert result.exit_code == 4
        assert "nowhere.ndjson cannot be read: No such file" in result.output

    def test_an_interrupt_exits_with_130(self) -> None:
        @click.pass_context
        def interrupted(_context: click.Context) -> None:
            raise KeyboardInterrupt

        group = LazyGroup("causality", invoke_without_command=True, callback=interrupted)
        group.params.append(click.Option(["--now"], is_flag=True, expose_value=False))
        assert CliRunner().invoke(group, ["--now"]).exit_code == 130


class TestEventsFromFiles:
    def test_plain_and_gzip_give_the_same_whatever_their_name(self, tmp_path: Path) -> None:
        data = (
            b'{"event_type":"a"}\n\n{"event_type":"b","timestamp_ms":1732147200005,"user_id":"u"}\n'
        )
        plain, packed = tmp_path / "plain.gz", tmp_path / "packed.txt"
        plain.write_bytes(data)
        packed.write_bytes(gzip.compress(data))
        events = list(read_events(plain))
        assert [(line, event.event_type) for line, event in events] == [(1, "a"), (3, "b")]
        assert (events[1][1].timestamp, events[1][1].user_id) == (1732147200005, "u")
        assert list(read_events(packed)) == events

    @pytest.mark.parametrize(
        ("line", "complaint"),
        [
            (b"{", "not JSON"),
            (b'{"event_type":"\xff"}', "not UTF-8"),
            (b"[]", "not a JSON object"),
            (b"{}", "event_type is missing"),
            (b'{"event_type":""}', "event_type must not be empty"),
            (b'{"event_type":7}', "event_type must be a string"),
            (b'{"event_type":"a","extra":1}', "'extra' is not a field"),
            (b'{"event_type":"a","timestamp_ms":"now"}', "timestamp_ms must be whole milliseconds"),
            (b'{"event_type":"a","timestamp_ms":1700000000}', "if it is seconds, multiply it"),
            (b'{"event_type":"a","timestamp":1700000000}', "if it is seconds, multiply it"),
            (b'{"event_type":"a","timestamp":"now"}', "neither milliseconds nor ISO 8601"),
            (b'{"event_type":"a","timestamp":"2026-01-01T00:00:00"}', "has no time zone"),
            (b'{"event_type":"a","timestamp":1,"timestamp_ms":1}', "are both given"),
            (b'{"event_type":"a","timestamp_ms":"2026-01-01T00:00:00Z"}', "goes into timestamp"),
            (b'{"event":"a"}', "'event' is not a field of an event; use event_type"),
            (b'{"event_type":"a","userId":"u"}', "'userId' is not a field of an event; did you"),
            (b'{"event_type":"a","anonymousId":"u"}', "use device_id"),
            (b'{"event_type":"a","messageId":"u"}', "use idempotency_key"),
            (b'{"event_type":"a","colour":"u"}', "use properties for it"),
            (b'{"event_type":"a","properties":[1]}', "properties must be a mapping"),
            (b'{"event_type":"a","properties":{"x":NaN}}', "NaN is not JSON"),
            (b'{"event_type":"a","properties":{"x":1e999}}', "properties.x"),
            (b'{"event_type":"a","properties":{"x":"\\ud800"}}', "properties.x"),
        ],
    )
    def test_a_line_that_is_no_event_is_named(
        self, tmp_path: Path, line: bytes, complaint: str
    ) -> None:
        path = tmp_path / "events.ndjson"
        path.write_bytes(b'{"event_type":"good"}\n' + line + b"\n")
        found = read_events(path)
        assert next(found)[0] == 1
        with pytest.raises(InputError) as caught:
            next(found)
        assert f"{path}, line 2: " in caught.value.message
        assert complaint in caught.value.message

    @pytest.mark.parametrize(
        "field",
        [
            '"timestamp":"2024-11-21T01:00:00+01:00"',
            '"timestamp":"2024-11-21T00:00:00Z"',
            '"timestamp":1732147200000',
            '"timestamp_ms":1732147200000',
        ],
    )
    def test_a_time_may_be_given_in_either_way(self, field: str) -> None:
        event = parse_event(f'{{"event_type":"a",{field}}}'.encode())
        _, payload = Encoder("app", max_event_bytes=1000).encode_event(event)
        assert json.loads(payload)["timestamp_ms"] == 1_732_147_200_000

    def test_an_export_keeps_a_time_of_long_ago(self) -> None:
        """It was encoded by a tracker, from a datetime; the number means what it says."""
        encoder = Encoder("app", max_event_bytes=1000)
        long_ago = datetime(1999, 12, 31, tzinfo=timezone.utc)
        _, exported = encoder.encode("a", timestamp=long_ago)
        assert encoder.encode_event(parse_event(exported))[1] == exported

    def test_a_whole_number_beyond_64_bits_becomes_a_string(self) -> None:
        event = parse_event(b'{"event_type":"a","properties":{"x":18446744073709551616,"y":-1}}')
        assert event.properties == {"x": "18446744073709551616", "y": -1}

    def test_a_damaged_archive_is_input_that_cannot_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "cut.gz"
        path.write_bytes(gzip.compress(b'{"event_type":"a"}\n' * 1000)[:-20])
        with pytest.raises(InputError, match="is damaged"):
            list(read_events(path))

    def test_a_directory_is_not_a_file_of_events(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="is not a regular file"):
            list(read_events(tmp_path))
