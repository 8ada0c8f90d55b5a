"""What `packtrack-logger` reads: files and pipes, JSON and NDJSON, and the line that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import packtrack_schema
import pytest
from packtrack_shell import EVENT, KEY, Shell, flags

from causality_sdk.testing import LoopbackPackTrack


@pytest.fixture
def server() -> Iterator[LoopbackPackTrack]:
    with LoopbackPackTrack(api_key=KEY) as running:
        yield running


@pytest.fixture
def shell(tmp_path: Path, server: LoopbackPackTrack) -> Shell:
    return Shell(tmp_path, server)


def found(message: str = "m", **changes: Any) -> dict[str, Any]:
    return {
        "timestamp": "2026-01-31T12:00:00Z",
        "source": {"system": "s"},
        "workflow": {"id": "w"},
        "actor": {"type": "cron", "id": "a"},
        "severity": "info",
        "status": "ok",
        "message": message,
        **changes,
    }


def ndjson(*events: Any) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def messages(server: LoopbackPackTrack) -> list[str]:
    return [event["message"] for event in server.events]


class TestFiles:
    def test_an_object_is_sent_as_an_object(
        self, shell: Shell, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        path = tmp_path / "event.json"
        path.write_text("\ufeff" + json.dumps(found(metadata={"n": 2**70}), indent=2) + "\n")
        assert shell.run("--file", str(path)).exit_code == 0
        assert json.loads(server.requests[0].body) == found(metadata={"n": str(2**70)})

    def test_an_array_is_sent_as_an_array(
        self, shell: Shell, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        path = tmp_path / "events.json"
        path.write_text(json.dumps([found("a"), found("b")]))
        assert shell.run("--file", str(path)).exit_code == 0
        assert json.loads(server.requests[0].body) == [found("a"), found("b")]

    def test_ndjson_is_read_from_a_file_too(
        self, shell: Shell, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        path = tmp_path / "events.ndjson"
        path.write_text("\n" + ndjson(found("a"), found("b")) + "  \r\n")
        assert shell.run("--file", str(path), "--ndjson").exit_code == 0
        assert messages(server) == ["a", "b"]

    def test_batch_size_splits_and_the_key_gets_a_suffix_for_each_request(
        self, shell: Shell, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        path = tmp_path / "events.json"
        path.write_text(json.dumps([found(str(n)) for n in range(5)]))
        arguments = ("--file", str(path), "--batch-size", "2", "--idempotency-key", "run-7")
        assert shell.run(*arguments).exit_code == 0
        assert [request.count for request in server.requests] == [2, 2, 1]
        keys = [request.headers["idempotency-key"] for request in server.requests]
        assert keys == ["run-7-1", "run-7-2", "run-7-3"]
        assert messages(server) == list("01234")
        assert shell.run(*arguments).exit_code == 0
        assert (len(server.events), server.repeats) == (5, 3)

    def test_the_default_batch_is_100(
        self, shell: Shell, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        path = tmp_path / "events.json"
        path.write_text(json.dumps([found()] * 101))
        assert shell.run("--file", str(path)).exit_code == 0
        assert [request.count for request in server.requests] == [100, 1]

    def test_what_was_submitted_before_a_failure_is_told(
        self, shell: Shell, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        path = tmp_path / "events.json"
        path.write_text(json.dumps([found()] * 3))
        server.respond(202, times=1, store=True)
        server.respond(400)
        result = shell.run("--file", str(path), "--batch-size", "2", "--json")
        assert result.exit_code == 2
        assert "2 events before it were submitted" in result.stderr
        assert json.loads(result.stdout)["submitted"] == 2

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "line 1: the input is empty"),
            (" \n\n", "line 3: the input is empty"),
            ("[]", "line 1: the array is empty"),
            ("\n[\n]", "line 2: the array is empty"),
            ("{", "line 1: not JSON"),
            ('{\n"a":\n}', "line 3: not JSON (Expecting value at column 1)"),
            ("[\n{}\n{}]", "line 3: not JSON (the array goes wrong here)"),
            ("hello", "line 1: not JSON"),
            ('"text"', "line 1: not a JSON object but a string"),
            ("null", "line 1: not a JSON object but null"),
            ("7", "line 1: not a JSON object but a number"),
            ('{"a":1}\n{"a":1}', "line 1"),
            ("[1]", "line 1: not a JSON object but a number"),
            ('[\n{"metadata":NaN}]', "line 2: not JSON that can be read (NaN is not JSON)"),
            ("[" * 100_000, "line 1"),
        ],
    )
    def test_what_is_no_json_of_events_exits_with_4_and_names_the_line(
        self, shell: Shell, server: LoopbackPackTrack, tmp_path: Path, text: str, complaint: str
    ) -> None:
        path = tmp_path / "events.json"
        path.write_text(text)
        result = shell.event("--file", str(path))
        if text.startswith('{"a":1}'):  # valid JSON by itself; what follows it is not
            assert result.exit_code == 4
            assert "line 2: something follows the end of the JSON" in result.output
            assert "add --ndjson" in result.output
            return
        assert result.exit_code == 4, result.output
        assert f"events.json, {complaint}" in result.output
        assert server.requests == []

    def test_mixed_input_exits_with_4_names_the_line_and_sends_nothing(
        self, shell: Shell, server: LoopbackPackTrack, tmp_path: Path
    ) -> None:
        path = tmp_path / "events.json"
        path.write_text(json.dumps(found()).join(["[", ",\n[1],\n{}]"]))
        result = shell.run("--file", str(path))
        assert result.exit_code == 4
        assert "events.json, line 2: not a JSON object but an array" in result.output
        assert server.requests == []

    def test_metadata_that_is_nested_too_deeply_exits_with_1(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        deep = '{"a":' * 300 + "1" + "}" * 300
        for value in (deep, '{"a":' * 100_000):
            assert shell.event("--metadata", value).exit_code == 1
        assert server.requests == []

    def test_a_trailing_comma_is_malformed(self, shell: Shell, tmp_path: Path) -> None:
        path = tmp_path / "events.json"
        path.write_text(f"[{json.dumps(found())},\n]")
        result = shell.run("--file", str(path))
        assert result.exit_code == 4
        assert "line 2: not JSON" in result.output

    def test_bytes_that_are_no_text_are_malformed(self, shell: Shell, tmp_path: Path) -> None:
        path = tmp_path / "events.json"
        path.write_bytes(b'[\n{"message": "\xff"}]')
        result = shell.run("--file", str(path))
        assert result.exit_code == 4
        assert "line 2: not UTF-8" in result.output

    @pytest.mark.parametrize("name", ["nowhere.json", ".", "a\0b"])
    def test_a_file_that_cannot_be_read_exits_with_4(
        self, shell: Shell, tmp_path: Path, name: str
    ) -> None:
        result = shell.run("--file", f"{tmp_path}/{name}")
        assert result.exit_code == 4
        assert "cannot be read" in result.output

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"severity": "fatal"}, "severity must be one of"),
            ({"status": None}, "status is missing"),
            ({"source": {}}, "source.system is missing"),
            ({"level": 3}, "'level' is not a field of an event"),
            ({"timestamp": "now"}, "timestamp must be a date and time of RFC 3339"),
            ({"metadata": [1]}, "metadata must be a mapping"),
            ({"message": "\ud800"}, "message holds a lone surrogate"),
        ],
    )
    def test_an_event_that_is_not_valid_exits_with_1_and_names_the_line(
        self,
        shell: Shell,
        server: LoopbackPackTrack,
        tmp_path: Path,
        change: dict[str, Any],
        complaint: str,
    ) -> None:
        path = tmp_path / "events.json"
        path.write_text(f"[{json.dumps(found())},\n{json.dumps(found(**change))}]")
        result = shell.run("--file", str(path))
        assert result.exit_code == 1
        assert f"events.json, line 2: {complaint}" in result.output
        assert server.requests == []

    def test_a_file_name_that_is_no_text_can_be_told(self, shell: Shell) -> None:
        result = shell.run("--file", "nowhere/\udcff", "--json")
        assert result.exit_code == 4
        assert "cannot be read" in json.loads(result.stdout)["error"]


class TestPipes:
    def test_lines_are_sent_in_order(self, shell: Shell, server: LoopbackPackTrack) -> None:
        lines = ndjson(*(found(str(n)) for n in range(250)))
        result = shell.run("--stdin", "--ndjson", stdin=lines)
        assert (result.exit_code, result.output) == (0, "")
        assert [request.count for request in server.requests] == [100, 100, 50]
        assert messages(server) == [str(n) for n in range(250)]

    def test_stdin_without_ndjson_is_an_error_that_says_so(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        result = shell.run("--stdin", stdin=ndjson(found()))
        assert result.exit_code == 1
        assert "Error: --stdin needs --ndjson" in result.output
        assert server.requests == []

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--ndjson"], "--ndjson needs an input: --stdin, or --file PATH"),
            (["--stdin", "--ndjson", "--file", "x"], "--stdin and --file are two inputs"),
            (["--no-flush"], "--no-flush needs --async"),
        ],
    )
    def test_flags_that_contradict_one_another_exit_with_1(
        self, shell: Shell, arguments: list[str], complaint: str
    ) -> None:
        result = shell.event(*arguments)
        assert result.exit_code == 1
        assert complaint in result.output

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "line 1: the input is empty"),
            ("\n \n", "line 2: the input is empty"),
            ("{good}\n{", "line 2: not JSON"),
            ("{good}\n\n[1]\n", "line 3: not a JSON object but an array"),
            ("{good}\n7\n", "line 2: not a JSON object but a number"),
            ("{good}{good}\n", "line 1: not JSON (Extra data"),
            ("{good}\n\xff\n", "line 2: not UTF-8"),
            ('{good}\n{"a": Infinity}\n', "line 2: not JSON that can be read"),
            ("[\n{good}\n]\n", "line 1: not JSON"),
        ],
    )
    @pytest.mark.parametrize("extra", [[], ["--dry-run"]], ids=["send", "dry"])
    def test_mixed_malformed_or_empty_input_exits_with_4_names_the_line_and_sends_nothing(
        self,
        shell: Shell,
        server: LoopbackPackTrack,
        text: str,
        complaint: str,
        extra: list[str],
    ) -> None:
        text = text.replace("{good}", json.dumps(found()))
        result = shell.run("--stdin", "--ndjson", *extra, stdin=text.encode("latin-1"))
        assert result.exit_code == 4
        assert f"standard input, {complaint}" in result.stderr
        assert server.requests == []

    def test_a_line_that_is_not_valid_exits_with_1(self, shell: Shell) -> None:
        result = shell.run("--stdin", "--ndjson", stdin=ndjson(found(), found(severity="x")))
        assert result.exit_code == 1
        assert "standard input, line 2: severity must be one of" in result.output

    def test_json_tells_of_malformed_input(self, shell: Shell) -> None:
        result = shell.run("--stdin", "--ndjson", "--json", stdin="{")
        told = json.loads(result.stdout)
        assert (told["ok"], told["exit_code"], result.exit_code) == (False, 4, 4)
        assert "line 1" in told["error"]


class TestFilledIn:
    def test_flags_fill_in_what_an_event_leaves_out(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        lines = ndjson(
            {"message": "one", "severity": "error"},
            {"message": "two", "source": {"env": "test"}, "workflow": {"id": "other"}},
            {"severity": None},
        )
        given = flags({**EVENT, "--source-env": "prod", "--run-id": "r-1"})
        assert shell.run(*given, "--stdin", "--ndjson", stdin=lines).exit_code == 0
        one, two, three = server.events
        for event in server.events:
            packtrack_schema.check(event)
        assert (one["message"], one["severity"], one["status"]) == ("one", "error", "ok")
        assert one["source"] == {"system": "backup", "env": "prod"}
        assert two["source"] == {"system": "backup", "env": "test"}
        assert two["workflow"] == {"id": "other", "run_id": "r-1"}
        assert (three["message"], three["severity"]) == ("backup finished", "info")

    def test_the_time_of_an_event_without_one_is_now(
        self, shell: Shell, server: LoopbackPackTrack
    ) -> None:
        lines = ndjson(found(timestamp=None), found(timestamp="2026-01-31T12:00:00.5Z"))
        assert shell.run("--stdin", "--ndjson", stdin=lines).exit_code == 0
        packtrack_schema.check_time(server.events[0]["timestamp"])
        assert server.events[1]["timestamp"] == "2026-01-31T12:00:00.5Z"
