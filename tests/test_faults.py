"""The quick part of `python -m tests.faults`: every row, and the control that must be caught."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from faults import oracle, page, registry, strace
from faults.children import Place, produce
from faults.command import report_on
from faults.disk_model import KINDS, Disk
from faults.events import departures, encoded
from faults.oracle import Found, judge
from faults.strace import Call

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="made on Linux")


@linux_only
@pytest.mark.parametrize("name", registry.ROWS)
def test_the_promise_is_kept_and_its_control_is_caught(
    name: str,
) -> None:
    report = report_on(name, quick=True)
    if report.unavailable:
        pytest.skip(report.unavailable)
    assert report.outcome.failures == []
    assert report.control.failures != [], "the control was not caught"


@pytest.mark.parametrize("sabotage", ["", "server lies", "settle without ack"])
def test_the_judge_sees_what_a_program_does_wrong(sabotage: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    code, errors = produce(place.spec(events=30, flush_every=10, close=False, sabotage=sabotage))
    assert code == 0, errors
    verdict = place.judge()
    assert verdict.promised == 30
    assert bool(verdict.lost) == bool(sabotage)
    assert bool(verdict.failures) == bool(sabotage)


class TestTheOracle:
    PROMISED = {"a": "1", "b": "2", "c": "3"}  # noqa: RUF012 - read only

    def test_what_arrived_or_is_queued_or_buried_is_not_lost(self) -> None:
        found = Found(pending={"b": "2"}, buried=frozenset({"c"}))
        verdict = judge(self.PROMISED, [("a", "1")], [found])
        assert verdict.failures == []
        assert (verdict.promised, verdict.arrived, verdict.pending) == (3, 1, 1)

    def test_one_that_is_nowhere_is_lost_although_another_came_twice(self) -> None:
        verdict = judge(self.PROMISED, [("a", "1"), ("a", "1"), ("b", "2")], [])
        assert verdict.lost == ("c",)
        assert verdict.duplicates == 1
        assert verdict.failures != []

    def test_other_bytes_under_a_promised_key_are_seen_on_both_sides(self) -> None:
        assert judge({"a": "1"}, [("a", "x")], []).altered == ("a",)
        assert judge({"a": "1"}, [], [Found(pending={"a": "x"})]).altered == ("a",)

    def test_an_eviction_counts_only_where_there_was_a_reason_for_one(self) -> None:
        evicting = [Found(pending={"a": "1", "b": "2"}, evicted=1)]
        assert judge(self.PROMISED, [], evicting, evictions=True).failures == []
        assert judge(self.PROMISED, [], evicting).lost == ("c",)
        assert judge({"a": "1"}, [("a", "1")], evicting).failures != []

    def test_residuals_of_two_files_do_not_cancel_out(self) -> None:
        assert judge({}, [], [Found(residual=2), Found(residual=-2)]).residual == 4

    def test_a_line_that_was_cut_short_is_no_promise(self) -> None:
        assert oracle.parse_journal(b"a 1\nb 2") == [("a", "1")]

    def test_a_file_that_is_none_of_ours_is_trouble(self, tmp_path: Path) -> None:
        (tmp_path / "queue.db").write_bytes(b"something else")
        assert "cannot be opened" in oracle.look(tmp_path / "queue.db").trouble

    def test_the_same_line_has_the_same_key_in_every_process(self) -> None:
        first = [event.idempotency_key for event in departures(3)]
        assert [event.idempotency_key for event in departures(2, first=1)] == first[1:]
        assert [key for _, key, _ in encoded(3)] == first


class TestTheDisk:
    """What the model of a disk may leave, on made-up calls."""

    def disk(self, *calls: Call) -> Disk:
        disk = Disk("/d")
        for call in calls:
            disk.apply(call)
        return disk

    def states(self, disk: Disk, seed: int = 1) -> dict[str, dict[str, bytes]]:
        rng = random.Random(seed)  # noqa: S311
        return dict(disk.states(rng))

    def call(self, number: int, name: str, path: str = "/d/f", **more: object) -> Call:
        began = more.pop("began", number)
        return Call(number, began, 0.0, name, path, more.pop("result", 0), **more)  # type: ignore[arg-type]

    def created(self) -> list[Call]:
        return [
            self.call(0, "openat", flags="O_RDWR|O_CREAT"),
            self.call(1, "fdatasync", "/d"),
        ]

    def test_what_was_not_synced_may_be_missing_and_may_be_there(self) -> None:
        disk = self.disk(*self.created(), self.call(2, "pwrite64", data=b"abc"))
        states = self.states(disk)
        assert set(states) == set(KINDS)
        assert states["all"] == {"f": b"abc"}
        assert states["none"] == {"f": b""}
        assert states["grown"] == {"f": b"\0\0\0"}
        subsets = {self.states(disk, seed)["subset"]["f"] for seed in range(20)}
        assert subsets == {b"", b"abc"}

    def test_what_was_synced_is_in_every_state(self) -> None:
        synced = [self.call(2, "pwrite64", data=b"abc"), self.call(3, "fdatasync")]
        for state in self.states(self.disk(*self.created(), *synced)).values():
            assert state == {"f": b"abc"}

    def test_a_sync_covers_only_what_was_written_before_it_began(self) -> None:
        late = [
            self.call(2, "pwrite64", data=b"a"),
            self.call(3, "pwrite64", data=b"b", offset=1),
            self.call(4, "fdatasync", began=3),
        ]
        assert self.states(self.disk(*self.created(), *late))["none"] == {"f": b"a"}

    def test_a_sync_that_failed_covers_nothing(self) -> None:
        failed = [self.call(2, "pwrite64", data=b"a"), self.call(3, "fdatasync", result=-1)]
        disk = self.disk(*self.created(), *failed)
        assert self.states(disk)["none"] == {"f": b""}
        disk.apply(self.call(4, "fdatasync"))
        assert self.states(disk)["none"] == {"f": b"a"}

    def test_a_forgetful_disk_never_writes_what_a_failed_sync_covered(self) -> None:
        disk = Disk("/d", forgetful=True)
        for call in (
            *self.created(),
            self.call(2, "pwrite64", data=b"a"),
            self.call(3, "fdatasync", result=-1),
            self.call(4, "fdatasync"),
        ):
            disk.apply(call)
        assert self.states(disk)["none"] == {"f": b""}

    def test_a_write_may_be_torn_at_a_sector(self) -> None:
        disk = self.disk(*self.created(), self.call(2, "pwrite64", data=b"x" * 4096))
        torn = {len(self.states(disk, seed)["torn"]["f"]) for seed in range(40)}
        assert torn <= set(range(512, 4096, 512))
        assert len(torn) > 3

    def test_a_name_lasts_once_its_directory_is_synced(self) -> None:
        disk = self.disk(self.call(0, "openat", flags="O_CREAT"))
        assert self.states(disk)["none"] == {}
        assert self.states(disk)["all"] == {"f": b""}
        removed = self.disk(*self.created(), self.call(2, "unlink"))
        assert self.states(removed)["none"] == {"f": b""}
        assert self.states(removed)["all"] == {}

    def test_memory_and_lock_files_are_not_on_the_disk(self) -> None:
        disk = self.disk(self.call(0, "openat", "/d/q.db-shm", flags="O_CREAT"))
        assert self.states(disk)["all"] == {}


def test_a_recording_is_read_with_its_bytes_and_with_calls_that_overlap(tmp_path: Path) -> None:
    def hexed(text: str) -> str:
        return "".join(f"\\x{ord(character):02x}" for character in text)

    trace = tmp_path / "trace"
    name = hexed("/d/f")
    trace.write_text(
        f'1  1.5 openat(AT_FDCWD<{hexed("/")}>, "{name}", O_RDWR|O_CREAT, 0600) = 3<{name}>\n'
        f"1  1.6 fdatasync(3<{name}> <unfinished ...>\n"
        f'2  1.7 pwrite64(3<{name}>, "{hexed("ab")}", 2, 4096) = 2\n'
        "1  1.8 <... fdatasync resumed>) = 0\n"
        f'1  1.9 unlink("{name}") = -1 ENOENT (No such file or directory)\n'
        "1  2.0 +++ exited with 0 +++\n"
    )
    opened, wrote, synced, removed = strace.parse(trace)
    assert (opened.path, opened.result, "O_CREAT" in opened.flags) == ("/d/f", 3, True)
    assert (wrote.path, wrote.data, wrote.offset) == ("/d/f", b"ab", 4096)
    assert (synced.name, synced.began, synced.number) == ("fdatasync", 1, 2)
    assert (removed.name, removed.result) == ("unlink", -1)


def test_the_page_keeps_what_people_wrote_around_the_table() -> None:
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    row = page.Row("a | b", "how", "p", ["x 1"], "broken", "/tmp/secret/queue.db is gone", "c", 1.0)  # noqa: S108
    circumstances = page.Circumstances("2025-01-01", "3.11.7", "3.40.1", "Linux", "command")
    spliced = page.splice(text, page.render([row], circumstances))
    assert spliced.startswith("before\n")
    assert spliced.endswith(f"{page.END}\nafter\n")
    assert "old" not in spliced
    assert "a \\| b" in spliced
    assert "secret" not in spliced
    assert "0 of 1 rows" in spliced
    with pytest.raises(ValueError, match="no markers"):
        page.splice("nothing", "x")


def test_every_row_of_the_registry_is_a_module_and_every_module_a_row() -> None:
    rows = Path(registry.__file__).parent / "rows"
    assert {path.stem for path in rows.glob("*.py")} - {"__init__"} == set(registry.ROWS)
    for name in registry.ROWS:
        fault = registry.load(name)
        assert fault.name
        assert fault.how
        assert fault.promise
        assert fault.broken
