"""What is typed: `-`, names of files, times, the beginnings of keys, targets of an export."""

from __future__ import annotations

import gzip
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shell import KEY, NOWHERE, Shell, ndjson, terminal

from causality_sdk import Event
from causality_sdk.cli.queue._target import opened
from causality_sdk.cli.queue.selection import milliseconds, one_key
from causality_sdk.cli.settings import unknown_variables
from causality_sdk.testing import LoopbackCollector

NEEDS_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="devices, pipes and links")


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, collector: LoopbackCollector) -> Shell:
    return Shell(tmp_path, collector.endpoint)


class TestStandardInput:
    @pytest.mark.parametrize("command", ["track", "send"])
    @pytest.mark.parametrize("form", ["lines", "array", "gzip"])
    def test_a_dash_is_what_comes_in(
        self, shell: Shell, collector: LoopbackCollector, command: str, form: str
    ) -> None:
        events = [{"event_type": "a"}, {"event_type": "b"}]
        data = "\n".join(map(json.dumps, events)).encode()
        data = {"array": json.dumps(events).encode(), "gzip": gzip.compress(data)}.get(form, data)
        shell(command, "-", stdin=data)
        assert [event["event_type"] for event in collector.events] == ["a", "b"]

    @pytest.mark.parametrize("more", [["k=v"], ["--user-id", "u"], ["--file", "x"]])
    def test_what_belongs_to_one_event_does_not_go_with_it(
        self, shell: Shell, more: list[str]
    ) -> None:
        shell("track", "-", *more, stdin=ndjson(1), code=1)
        assert not shell.queue.exists()

    @NEEDS_POSIX
    def test_a_person_who_is_waited_for_is_told(self, shell: Shell) -> None:
        with terminal(shell, "track", "-", "--no-flush") as screen:
            screen.read_until("Ctrl-D ends it")
            screen.type("\x04")
            screen.read_to_end()
        assert screen.process.returncode == 0

    def test_a_type_that_is_the_name_of_a_file_is_noted(self, shell: Shell) -> None:
        path = shell.home / "events.ndjson"
        path.write_bytes(ndjson(2))
        result = shell("track", path, "--no-flush")
        assert f"for the events in it: --file {path}" in result.err
        assert len(result.out.split()) == 1
        assert shell("track", path.with_name("other"), "--no-flush").err == ""
        assert shell("track", shell.home, "--no-flush").err == ""  # a directory


class TestNothingYet:
    """No queue file: nothing to do, which is success."""

    @pytest.mark.parametrize(
        "command",
        [
            "queue status", "queue list", "queue replay", "queue replay --dry-run",
            "queue purge --yes", "dead-letters list", "dead-letters requeue --all",
            "dead-letters delete --all --yes",
        ],
    )  # fmt: skip
    def test_it_is_said_once_and_quietly_not_at_all(self, shell: Shell, command: str) -> None:
        result = shell(*command.split())
        note = f"note: there is no queue file {shell.queue}: nothing was tracked here yet\n"
        assert result.err == note
        assert shell(*command.split(), "--quiet").err == ""
        for line in shell(*command.split(), "--json").out.splitlines():
            assert json.loads(line).get("files", []) == []
        assert not shell.queue.parent.exists()

    @pytest.mark.parametrize(
        ("command", "code"),
        [("queue export", 4), ("queue show k", 1), ("dead-letters show 1", 1)],
    )
    def test_what_was_asked_for_by_name_is_missing(
        self, shell: Shell, command: str, code: int
    ) -> None:
        """An export of nothing would look like one that worked."""
        assert "Error: " in shell(*command.split(), code=code).err


class TestTimes:
    NOW = 1795249800.0  # 2026-11-21T08:30:00Z

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("2026-11-21", "2026-11-21T00:00:00+00:00"),
            ("2026-11-21T08:30", "2026-11-21T08:30:00+00:00"),
            ("2026-11-21T08:30:00Z", "2026-11-21T08:30:00+00:00"),
            ("2026-11-21T08:30+02:00", "2026-11-21T06:30:00+00:00"),
            ("1795249800000", "2026-11-21T08:30:00+00:00"),
            ("90m", "2026-11-21T07:00:00+00:00"),
            ("2h", "2026-11-21T06:30:00+00:00"),
            ("3d", "2026-11-18T08:30:00+00:00"),
            ("1w", "2026-11-14T08:30:00+00:00"),
            ("3d ago", "2026-11-18T08:30:00+00:00"),
            ("now", "2026-11-21T08:30:00+00:00"),
            ("today", "2026-11-21T00:00:00+00:00"),
            ("Yesterday", "2026-11-20T00:00:00+00:00"),
        ],
    )
    def test_what_people_write(self, text: str, wanted: str) -> None:
        from datetime import datetime

        expected = int(datetime.fromisoformat(wanted).timestamp() * 1000)
        assert milliseconds(text, self.NOW) == expected

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("soon", "is no time; write 2026-11-21"),
            ("1795249800", "for seconds write 1795249800000"),
            ("٣d", "is no time"),
            ("", "is no time"),
            ("99999999999d", "is no time"),
        ],
    )
    def test_what_is_none(self, text: str, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            milliseconds(text, self.NOW)

    def test_the_help_says_which_zone(self, shell: Shell) -> None:
        text = " ".join(shell("queue", "list", "--help").out.split())
        assert "in UTC unless it ends in a zone" in text

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("1795249800", "for seconds write 1795249800000 (date +%s000)"),
            ("2026-01-01", "has no time zone; write 2026-01-01T00:00:00Z for UTC"),
        ],
    )
    def test_a_timestamp_is_refused_in_the_words_of_a_shell(
        self, shell: Shell, text: str, words: str
    ) -> None:
        assert words in shell("track", "x", "--timestamp", text, code=1).err


class TestKeys:
    def test_the_beginning_is_enough_if_it_is_that_of_one(self) -> None:
        keys = ["ab-1", "ab-2", "ab-22", "c"]
        assert one_key("c", keys) == "c"
        assert one_key("ab-2", keys) == "ab-2"  # whole, though another begins so
        assert one_key("ab-1…", keys) == "ab-1"
        assert one_key("x", keys) is None
        assert one_key("", keys) is None

    def test_show_takes_a_beginning_and_names_the_candidates(self, shell: Shell) -> None:
        for key in ("01a2-first", "01a2-second", "01b0"):
            shell("track", "x", "--no-flush", "--idempotency-key", key)
        assert shell("queue", "show", "01b", "--json").json["event"]["idempotency_key"] == "01b0"
        result = shell("queue", "show", "01a2", code=1)
        assert "01a2 is the beginning of 2 keys" in result.err
        assert "01a2-first" in result.err
        assert "01a2-second" in result.err
        error = json.loads(shell("queue", "show", "01a2", "--json", code=1).err)["error"]
        assert "01a2-second" in error["message"]

    def test_many_candidates_are_counted(self) -> None:
        with pytest.raises(Exception, match="and 5 more"):
            one_key("k", [f"k{n}" for n in range(15)])

    def test_dead_letters_take_one_too(self, shell: Shell, collector: LoopbackCollector) -> None:
        collector.accept_only(lambda _index, event: event["event_type"] == "good")
        keys = ("7-first", "7-second", "88")
        with shell.client() as client:
            client.track_many([Event("bad", idempotency_key=key) for key in keys])
            while client.stats().buried < 3:
                client.track("good")
                client.flush(timeout=10)
        for command in (["show"], ["requeue"], ["delete", "--yes"]):
            result = shell("dead-letters", *command, "7", code=1)
            assert "7 is the beginning of 2 keys" in result.err
            assert "no dead letter 9" in shell("dead-letters", *command, "9", code=1).err
        rows = shell("dead-letters", "list", "--json").lines
        numbers = {row["idempotency_key"]: row["id"] for row in rows}
        shown = shell("dead-letters", "show", "7-f", "--json").json
        assert shown["id"] == numbers["7-first"]
        assert shell("dead-letters", "requeue", "8", "--json").json["requeued"] == 1
        # One that is wrong changes nothing.
        shell("dead-letters", "delete", "7-first", "nowhere", "--yes", code=1)
        number = numbers["7-second"]
        assert shell("dead-letters", "delete", number, "--yes", "--json").json["deleted"] == 1
        (left,) = shell("dead-letters", "list", "--json").lines
        assert left["idempotency_key"] == "7-first"


@NEEDS_POSIX
class TestTargets:
    @pytest.fixture
    def filled(self, shell: Shell) -> Shell:
        shell("track", "-", "--no-flush", stdin=ndjson(3))
        return shell

    def test_a_link_is_followed_and_stays(self, filled: Shell) -> None:
        target, link = filled.home / "target", filled.home / "link"
        target.write_text("old")
        link.symlink_to("target")
        assert "is there already" in filled("queue", "export", "--output", link, code=1).err
        assert target.read_text() == "old"
        filled("queue", "export", "--output", link, "--force")
        assert link.is_symlink()
        assert len(target.read_bytes().splitlines()) == 3
        assert [path.name for path in filled.home.iterdir() if "part" in path.name] == []

    def test_a_link_to_nothing_makes_what_it_points_to(self, filled: Shell) -> None:
        link = filled.home / "link"
        link.symlink_to("target")
        filled("queue", "export", "--output", link)
        assert link.is_symlink()
        assert len((filled.home / "target").read_bytes().splitlines()) == 3

    def test_a_pipe_is_written_into(self, filled: Shell) -> None:
        pipe = filled.home / "pipe"
        os.mkfifo(pipe)
        result = filled("queue", "export", "--output", pipe, code=1)
        assert "is a pipe; --force writes into it, - is standard output" in result.err
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
        reader.start()
        filled("queue", "export", "--output", pipe, "--force")
        reader.join()
        assert len(got[0].splitlines()) == 3
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    @pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
    def test_a_device_stays_one(self, filled: Shell, device: str) -> None:
        if not Path(device).exists():
            pytest.skip("a device of Linux")
        code = 5 if device == "/dev/full" else 0
        before = os.stat(device).st_rdev  # noqa: PTH116 (beside the other)
        result = filled("queue", "export", "--output", device, "--force", code=code)
        assert ("No space left on device" in result.err) == bool(code)
        assert stat.S_ISCHR(os.stat(device).st_mode)  # noqa: PTH116
        assert os.stat(device).st_rdev == before  # noqa: PTH116
        assert not Path(device + ".part").exists()

    def test_the_name_of_stdout_is_stdout(self, filled: Shell) -> None:
        result = filled("queue", "export", "--output", "/dev/stdout", "--force", "-q")
        assert len(result.out.splitlines()) == 3
        (filled.home / "out").write_text("")
        filled.line("causality queue export --output /dev/stdout --force -q >> out")
        assert len((filled.home / "out").read_bytes().splitlines()) == 3

    def test_a_directory_is_refused(self, filled: Shell) -> None:
        result = filled("queue", "export", "--output", filled.home, "--force", code=1)
        assert "is a directory; name a file in it" in result.err

    def test_an_export_that_ends_early_leaves_the_old_file(self, tmp_path: Path) -> None:
        target = tmp_path / "x"
        target.write_text("old")

        def half() -> None:
            with opened(str(target), force=True) as stream:
                stream.write(b"new")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            half()
        assert target.read_text() == "old"
        assert list(tmp_path.iterdir()) == [target]


class TestOptions:
    def test_a_dry_run_needs_no_server_and_no_key(self, tmp_path: Path) -> None:
        unset: Any = dict.fromkeys(
            ("CAUSALITY_API_KEY", "CAUSALITY_ENDPOINT", "CAUSALITY_APP_ID"), ""
        )
        shell = Shell(tmp_path, NOWHERE)
        for command in (["track", "x"], ["send", "x"], ["track", "-"], ["send", "-"]):
            out = shell(*command, "--dry-run", stdin=ndjson(1), **unset).out
            assert json.loads(out)["event_type"] in ("x", "order_placed")
        exported = '{"event_type":"a","idempotency_key":"k","timestamp_ms":1700000000000}'
        shell("queue", "import", "-", "--dry-run", stdin=exported, **unset)
        for command in (["track", "x"], ["send", "x"]):
            assert " required: give " in shell(*command, code=1, **unset).err

    def test_variables_that_are_no_options_are_named(self, shell: Shell) -> None:
        environ: Any = {"CAUSALITY_FLUSH_INTERVALL": "3", "CAUSALITY_XYZZY": "secret"}
        result = shell("config", **environ)
        meant = "CAUSALITY_FLUSH_INTERVALL is set, and is no option; did you mean"
        assert f"{meant} CAUSALITY_FLUSH_INTERVAL?" in result.err
        assert "CAUSALITY_XYZZY is set, and is no option\n" in result.err
        assert "secret" not in result.out + result.err
        found = shell("config", "--json", **environ).json["unknown_variables"]
        assert found == {
            "CAUSALITY_FLUSH_INTERVALL": "CAUSALITY_FLUSH_INTERVAL",
            "CAUSALITY_XYZZY": None,
        }

    def test_every_variable_that_is_read_is_known(self) -> None:
        known = ("API_KEY_FILE", "CONFIG", "HEADERS", "PROXIES", "START", "ENABLED", "TIMEOUT")
        assert unknown_variables({f"CAUSALITY_{name}": "x" for name in known}) == {}
        assert unknown_variables({"PATH": "x", "_CAUSALITY_COMPLETE": "x"}) == {}
