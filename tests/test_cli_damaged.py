"""The command line salvages as a client does, and what it advises works."""

from __future__ import annotations

import random
import shlex
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from damaged import PAGE, overwrite
from disk import ask
from shell import KEY, Shell

from causality_sdk import Event, quarantine
from causality_sdk.testing import LoopbackCollector

EVENTS = 600


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, collector: LoopbackCollector) -> Shell:
    return Shell(tmp_path, collector.endpoint)


@pytest.fixture
def keys(shell: Shell) -> list[str]:
    """Of the events in a file that nobody owns, which is not damaged yet."""
    with shell.client() as client:
        found = client.track_many(Event("x", {"n": n, "pad": "y" * 200}) for n in range(EVENTS))
    assert found is not None
    return found


def many_wounds(path: Path) -> None:
    """As a dying disk leaves it: bytes at random places, behind the first pages."""
    chance = random.Random(3)  # noqa: S311 - no secret
    size = path.stat().st_size
    for _ in range(20):
        overwrite(path, chance.randrange(3 * PAGE, size - 64), chance.randbytes(64))


def wrong_header(path: Path) -> None:
    overwrite(path, 0, b"z" * 200)


def no_mark(path: Path) -> None:
    overwrite(path, 68, bytes(4))


def no_state(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM state")
        connection.commit()


def a_repair_cut_short(path: Path) -> None:
    many_wounds(path)
    quarantine.set_aside(path)


def a_page_of_the_middle(path: Path) -> None:
    overwrite(path, path.stat().st_size // PAGE // 2 * PAGE, b"\x05" * PAGE)


WOUNDS: dict[str, Callable[[Path], None]] = {
    "many wounds": many_wounds,
    "a wrong header": wrong_header,
    "no mark": no_mark,
    "no state": no_state,
    "a repair cut short": a_repair_cut_short,
    "a page of the middle": a_page_of_the_middle,
}


FEW = pytest.mark.parametrize("wounded", ["many wounds", "a repair cut short"], indirect=True)


@pytest.fixture(params=WOUNDS)
def wounded(request: pytest.FixtureRequest, shell: Shell, keys: list[str]) -> str:
    """The kind of damage in the file of `keys`."""
    assert keys
    WOUNDS[request.param](shell.queue)
    return str(request.param)


def as_a_client_salvages(shell: Shell, tmp_path: Path) -> list[str]:
    """The keys of what a client finds in a copy, in its order."""
    copy = tmp_path / "copy" / "queue.db"
    copy.parent.mkdir()
    for file in shell.queue.parent.iterdir():
        if not file.name.endswith(".lock"):
            shutil.copyfile(file, copy.with_name(file.name))
    with LoopbackCollector(api_key=KEY) as other:
        options = {"endpoint": other.endpoint, "take_over": True, "queue_path": copy}
        with shell.client(**options) as client:
            while client.stats().pending:
                client.flush(10)
        return other.keys


def keys_of(ndjson: str) -> list[str]:
    return [orjson.loads(line)["idempotency_key"] for line in ndjson.splitlines()]


def test_replay_delivers_all_that_a_client_would_and_says_what_is_lost(
    shell: Shell, collector: LoopbackCollector, keys: list[str], wounded: str, tmp_path: Path
) -> None:
    expected = as_a_client_salvages(shell, tmp_path)
    summary = shell("queue", "replay", "--json").summary
    assert collector.keys == expected
    assert (summary["delivered"], summary["pending"]) == (len(expected), 0)
    if wounded != "no state":  # the counters are gone with it
        assert summary["lost"] == EVENTS - len(expected)
    assert set(expected) <= set(keys)
    assert len(expected) > EVENTS * 0.8
    assert shell("queue", "replay", "--json").summary["pending"] == 0
    assert "ok" in shell("queue", "doctor", "--offline").out


def test_export_writes_all_that_can_be_read_and_counts_the_rest(
    shell: Shell, wounded: str, tmp_path: Path
) -> None:
    expected = as_a_client_salvages(shell, tmp_path)
    before = {file.name: file.read_bytes() for file in shell.queue.parent.iterdir()}
    result = shell("queue", "export", "--output", tmp_path / "x.ndjson", "--json")
    assert keys_of((tmp_path / "x.ndjson").read_text()) == expected
    if wounded != "no state":
        assert result.json["damaged"] + result.json["lost"] == EVENTS - len(expected)
    else:
        assert result.json["lost"] is None
    assert "is damaged: what can be read of it is here" in result.err
    after = {file.name: file.read_bytes() for file in shell.queue.parent.iterdir()}
    assert {name: after[name] for name in before} == before, "nothing is changed by a look"
    listed = shell("queue", "list", "--limit", "0", "--json")
    assert len(listed.lines) == len(expected) + result.json["damaged"]


@pytest.mark.usefixtures("wounded")
def test_what_the_doctor_advises_works(shell: Shell, collector: LoopbackCollector) -> None:
    findings = shell("queue", "doctor", "--offline", "--json", code=1).json["findings"]
    (problem,) = (each for each in findings if each["level"] == "problem")
    assert "is damaged" in problem["text"]
    assert "\n" not in problem["text"]
    command = problem["fix"].partition("deliver it: ")[2]
    shell(*shlex.split(command)[1:])
    assert collector.count > EVENTS * 0.8
    assert shell("queue", "doctor", "--offline", "--json").json["ok"] is True


@FEW
@pytest.mark.usefixtures("wounded")
def test_track_and_import_go_on_in_a_damaged_file(
    shell: Shell, collector: LoopbackCollector
) -> None:
    new = shell("track", "y", "--no-flush").out.strip()
    exported = (
        '{"event_type":"z","idempotency_key":"01a1fd3f-a65a-7579-a2e3-f9b809e87fb8",'
        '"timestamp_ms":1700000000000,"app_id":"a"}'
    )
    shell("queue", "import", "-", stdin=exported)
    shell("queue", "replay")
    assert {new, "01a1fd3f-a65a-7579-a2e3-f9b809e87fb8"} <= set(collector.keys)
    assert len(collector.keys) > EVENTS * 0.8


def test_track_mends_what_only_its_own_write_meets(
    shell: Shell, collector: LoopbackCollector, keys: list[str]
) -> None:
    """A page in the list of free ones: nothing reads it before a commit needs a page."""
    with closing(sqlite3.connect(shell.queue)) as connection:
        connection.execute("DELETE FROM queue WHERE id BETWEEN 100 AND 400")
        connection.commit()
    with shell.queue.open("rb") as file:
        trunk = int.from_bytes(file.read(36)[32:36], "big")
    assert trunk
    overwrite(shell.queue, (trunk - 1) * PAGE, b"\xff" * 64)
    result = shell("track", "y", f"pad={'z' * 9000}", "--no-flush")
    assert "were salvaged" in result.err
    shell("queue", "replay")
    assert result.out.strip() in collector.keys
    assert set(keys[:99] + keys[400:]) <= set(collector.keys)


def test_dead_letters_of_a_damaged_file_are_exported(
    shell: Shell, collector: LoopbackCollector
) -> None:
    collector.accept_only(lambda _index, event: event["event_type"] != "bad")
    with shell.client() as client:
        key = client.track("bad")
        while not client.stats().buried:
            client.track("good")
            client.flush(10)
    wrong_header(shell.queue)
    exported = shell("queue", "export", "--dead-letters").out
    assert keys_of(exported) == [key]


@FEW
@pytest.mark.usefixtures("wounded")
def test_purge_salvages_first_and_deletes_what_was_asked_for(
    shell: Shell, collector: LoopbackCollector, keys: list[str]
) -> None:
    shell("queue", "purge", "--key", keys[-1], "--yes")
    shell("queue", "replay")
    assert keys[-1] not in collector.keys
    assert len(collector.keys) > EVENTS * 0.8


def test_one_file_that_cannot_be_read_keeps_no_command_from_the_others(
    shell: Shell, collector: LoopbackCollector, keys: list[str]
) -> None:
    shell.queue.with_name("queue.1.db").write_text("Dear diary,\n")
    exported = shell("queue", "export", code=4)
    assert keys_of(exported.out) == keys
    assert "queue.1.db cannot be read" in exported.err
    assert len(shell("queue", "list", "--limit", "0", "--json", code=4).lines) == EVENTS
    assert shell("queue", "show", keys[3], "--json").json["id"] == 4
    replayed = shell("queue", "replay", code=4)
    assert "queue.1.db cannot be read" in replayed.err
    assert collector.keys == keys
    assert ask(shell.queue, "SELECT count(*) FROM queue") == [(0,)]
