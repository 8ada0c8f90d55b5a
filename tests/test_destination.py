"""Whom queued events are for: a new key strands nothing, another server gets nothing unasked."""

from __future__ import annotations

import gzip
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disk import ask
from shell import KEY, NOWHERE, Shell

from causality_sdk import Client, schema
from causality_sdk.destination import Destination, Elsewhere, fingerprint
from causality_sdk.testing import LoopbackCollector

OLD_FILE = Path(__file__).parent / "data" / "queue-0.1.db.gz"
"""Three events for http://127.0.0.1:9, tracked with the key `old-key` by the first release."""

FREE = Destination("http://here", "causality", "aaaa")
OTHER_KEY = FREE._replace(key_fingerprint="bbbb")


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, collector: LoopbackCollector) -> Shell:
    return Shell(tmp_path, collector.endpoint)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q" / "queue.db"


def make(path: Path, **options: Any) -> Client:
    given: dict[str, Any] = {
        "api_key": KEY, "endpoint": NOWHERE, "app_id": "a", "queue_path": path,
        "start": False, "close_timeout": 0.0,
    }  # fmt: skip
    return Client(**(given | options))


def leave(path: Path, events: int = 1, **options: Any) -> None:
    """What a process leaves at this very path."""
    with make(path, **options) as client:
        for number in range(events):
            assert client.track("x", {"number": number})
        assert client.stats().queue_path == str(path)


class TestWhoTakesWhat:
    @pytest.mark.parametrize(
        ("ours", "found", "taken"),
        [
            (FREE, FREE, True),
            (FREE, OTHER_KEY, True),
            (FREE, FREE._replace(endpoint="http://there"), False),
            (FREE, FREE._replace(wire="packtrack"), False),
            (FREE.bound(), FREE, True),
            (FREE.bound(), OTHER_KEY, False),
            (FREE, FREE.bound(), True),
            (FREE, OTHER_KEY.bound(), False),
            (FREE.bound(), OTHER_KEY.bound(), False),
            (FREE.bound(), FREE.bound(), True),
        ],
    )
    def test_the_key_counts_if_either_side_says_that_it_names_the_project(
        self, ours: Destination, found: Destination, taken: bool
    ) -> None:
        assert ours.takes(found) is taken

    def test_a_bound_file_stays_bound_and_a_free_one_follows_who_takes_it(self) -> None:
        assert FREE.over(FREE.bound()) == FREE.bound()
        assert FREE.bound().over(FREE) == FREE.bound()
        assert FREE.over(OTHER_KEY) == FREE


class TestANewKey:
    def test_takes_over_what_the_first_release_queued_and_tells_it_once(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.parent.mkdir()
        path.write_bytes(gzip.decompress(OLD_FILE.read_bytes()))
        before = ask(path, "SELECT payload FROM queue ORDER BY id")
        for _ in range(2):
            with make(path) as client:
                assert client.stats().queue_path == str(path)
                assert client.stats().pending == 3
        told = [text for text in caplog.messages if "api key has changed" in text]
        assert len(told) == 1
        assert "key_is_destination=True" in told[0]
        assert ask(path, "SELECT payload FROM queue ORDER BY id") == before
        assert ask(path, "SELECT key_fingerprint FROM state") == [(fingerprint(KEY),)]

    def test_the_same_key_takes_a_file_of_the_first_release_without_a_word(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.parent.mkdir()
        path.write_bytes(gzip.decompress(OLD_FILE.read_bytes()))
        with make(path, api_key="old-key", key_is_destination=True) as client:
            assert client.stats().pending == 3
        assert caplog.messages == []
        assert ask(path, "SELECT key_fingerprint FROM state") == [
            ("key:" + fingerprint("old-key"),)
        ]

    def test_delivers_the_backlog(self, path: Path, collector: LoopbackCollector) -> None:
        leave(path, 3, api_key="old-key", endpoint=collector.endpoint)
        with make(path, endpoint=collector.endpoint) as client:
            assert client.flush(10).delivered == 3
        assert collector.count == 3

    def test_adopts_what_workers_left_with_the_old_one(
        self, path: Path, collector: LoopbackCollector
    ) -> None:
        leave(path.with_name("queue.1.db"), 3, api_key="old-key", endpoint=collector.endpoint)
        with make(path, endpoint=collector.endpoint) as client:
            assert client._pipeline is not None
            adoption = client._pipeline.sender.adoption
            assert adoption is not None
            while path.with_name("queue.1.db").exists():
                assert adoption.step().failure is None
        assert collector.count == 3

    def test_is_refused_where_the_key_is_the_destination(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        leave(path, 2, api_key="project-a", key_is_destination=True)
        for options in ({"key_is_destination": True}, {}):
            with make(path, api_key="project-b", **options) as client:
                assert client.stats().queue_path != str(path)
                assert client.stats().elsewhere == 2
        assert f"another api key of {NOWHERE}" in caplog.text
        with make(path, api_key="project-a") as client:
            assert client.stats().queue_path == str(path)
        assert ask(path, "SELECT key_fingerprint FROM state") == [
            ("key:" + fingerprint("project-a"),)
        ], "it stays bound"

    def test_a_key_that_names_a_project_takes_no_file_of_an_unbound_other_key(
        self, path: Path
    ) -> None:
        leave(path, 1, api_key="project-a")
        with make(path, api_key="project-b", key_is_destination=True) as client:
            assert client.stats().queue_path != str(path)


class TestWhatWaitsElsewhere:
    def test_is_in_the_stats_with_the_command_that_sends_it(
        self, shell: Shell, collector: LoopbackCollector, caplog: pytest.LogCaptureFixture
    ) -> None:
        leave(shell.queue, 3, endpoint=collector.endpoint)
        with make(shell.queue) as client:
            client.track("mine")
            stats = client.stats()
            assert (stats.elsewhere, stats.pending, stats.tracked) == (3, 1, 1)
            theirs, mine = stats.files
            assert (theirs.elsewhere, theirs.destination) == (3, collector.endpoint)
            assert (mine.elsewhere, mine.destination, mine.command) == (0, "", "")
            assert theirs.command in caplog.text
            words = shlex.split(theirs.command)
            assert words[0] == "causality"
            shell(*words[1:])
        assert collector.count == 3

    def test_is_found_by_a_client_that_runs_as_it_looks_for_orphans(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        with make(shell.queue) as client:
            leave(shell.queue.with_name("queue.1.db"), 4, endpoint=collector.endpoint)
            assert client.stats().elsewhere == 0
            assert client._pipeline is not None
            adoption = client._pipeline.sender.adoption
            assert adoption is not None
            adoption.step()
            assert client.stats().elsewhere == 4
            assert [each.elsewhere for each in client.stats().files] == [0, 4]
            assert client.flush(0.1).remaining == 0

    def test_is_shown_by_status_with_the_command_that_sends_it(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        leave(shell.queue, 3)
        leave(shell.queue.with_name("queue.1.db"), 2, endpoint=collector.endpoint)
        shown = shell("queue", "status", "--json").json
        assert shown["elsewhere"] == 3
        stranded, well = shown["files"]
        assert well["elsewhere"] is None
        assert stranded["elsewhere"]["for"] == NOWHERE
        text = shell("queue", "status").out
        assert "NOT SENT" in text
        assert stranded["elsewhere"]["command"] in text
        assert "3 of them wait for another destination" in text
        words = shlex.split(stranded["elsewhere"]["command"])[1:]
        assert shell(*words, "--dry-run").out.startswith(f"{shell.queue}: 3 events\nto {NOWHERE}")

    def test_status_without_a_server_in_its_options_says_nothing_of_it(self, shell: Shell) -> None:
        leave(shell.queue, 1)
        shown = shell("queue", "status", "--json", CAUSALITY_ENDPOINT="", CAUSALITY_API_KEY="").json
        assert shown["elsewhere"] == 0

    def test_replay_counts_it_as_left_and_exits_with_2_again_and_again(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        leave(shell.queue, 1, endpoint=collector.endpoint)
        leave(shell.queue.with_name("queue.1.db"), 2)
        first = shell("queue", "replay", code=2)
        assert "1 event delivered" in first.out
        assert "2 left (2 for another destination)" in first.out
        assert f"--endpoint {NOWHERE}" in first.err
        assert "--take-over" in first.err
        again = shell("queue", "replay", "--quiet", code=2)
        assert again.err.startswith("Error: 2 events in ")
        leave(shell.queue, 1, endpoint=collector.endpoint)
        summary = shell("queue", "replay", "--json", code=2).summary
        assert (summary["delivered"], summary["pending"], summary["elsewhere"]) == (1, 2, 2)

    def test_replay_with_take_over_sends_it_here(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        leave(shell.queue, 1, endpoint=collector.endpoint)
        leave(shell.queue.with_name("queue.1.db"), 2)
        result = shell("queue", "replay", "--take-over")
        assert "3 events delivered" in result.out
        assert f"was written for {NOWHERE}; it goes to {collector.endpoint}" in result.err
        assert collector.count == 3

    def test_replay_says_the_same_sum_in_its_line_and_in_its_error(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        for number, events in enumerate((7, 5, 3)):
            name = "queue.db" if number == 0 else f"queue.{number}.db"
            leave(shell.queue.with_name(name), events, endpoint=collector.endpoint)
        collector.respond(503)
        result = shell("queue", "replay", "--max-retries", "0", code=3)
        assert "15 left" in result.out
        assert "Error: 15 events left" in result.err

    def test_the_command_is_for_a_shell(self, tmp_path: Path) -> None:
        each = Elsewhere(tmp_path / "my app" / "queue.db", FREE, 1, FREE.endpoint)
        words = shlex.split(each.command(FREE._replace(endpoint="http://there")))
        assert str(each.path) in words
        assert words[-2:] == ["--endpoint", FREE.endpoint]
        words = shlex.split(each.command(FREE._replace(wire="packtrack")))
        assert words[-2:] == ["--wire", "causality"]
        assert each.command(FREE).endswith("--api-key-file FILE")


def test_how_much_waits_in_a_file_is_told_without_a_look_at_its_rows(path: Path) -> None:
    leave(path, 5)
    assert schema.waiting(path) == 5


def test_the_option_is_a_flag() -> None:
    with pytest.raises(ValueError, match="key_is_destination"):
        make(Path("x"), key_is_destination="yes")
