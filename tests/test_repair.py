"""A damaged queue file at start: set aside, salvaged, reported; a crash at any instant of it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from damaged import PAGE, ROOT, Life, leave_behind, overwrite
from disk import HERE, ask, check, file_state, opened, tell

from causality_sdk import Client, QueueError, header, quarantine, repair
from causality_sdk.claim import claim
from causality_sdk.counters import COLUMNS
from causality_sdk.testing import LoopbackCollector

FRAME = PAGE + 24
posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


@pytest.fixture(scope="module")
def in_database(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """600 events in a file that was closed in good order."""
    path = tmp_path_factory.mktemp("database") / "queue.db"
    return path, leave_behind(path, events=600, checkpoint=600)


@pytest.fixture(scope="module")
def in_log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """The same of a process that was killed: all of it in the log."""
    path = tmp_path_factory.mktemp("log") / "queue.db"
    return path, leave_behind(path, events=600)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "here" / "queue.db"


def copy(template: Path, path: Path) -> Path:
    """The path, with the files of another beside it."""
    shutil.copytree(template.parent, path.parent)
    return path


def wal(path: Path) -> Path:
    return quarantine.beside(path, "-wal")


def garbage(size: int, seed: int) -> bytes:
    """The same at every run."""
    return random.Random(seed).randbytes(size)  # noqa: S311


def page_of(path: Path, content: bytes) -> int:
    """The number of the first page in the file that holds `content`, from 0."""
    return path.read_bytes().index(content) // PAGE


class TestTheDatabase:
    def test_of_each_page_only_what_was_on_it_is_lost(
        self, in_database: tuple[Path, list[bytes]], tmp_path: Path
    ) -> None:
        """Garbage over one page after another, the first and the pointer map among them."""
        template, events = in_database
        repairs = 0
        for page in range(template.stat().st_size // PAGE):
            path = copy(template, tmp_path / str(page) / "queue.db")
            there = path.read_bytes()[page * PAGE : (page + 1) * PAGE]
            overwrite(path, page * PAGE, garbage(PAGE, page))
            with Life(path) as life:
                sent = life.drain()
                check(life.queue)
                repairs += len(life.repairs)
                counters = life.queue.snapshot()[0]
            survivors = [event for event in events if event not in there]
            assert sent == survivors, page
            assert counters.evicted_corrupt == len(events) - len(survivors)
        assert repairs > 30

    def test_what_was_acknowledged_is_not_sent_again(
        self, in_database: tuple[Path, list[bytes]], path: Path
    ) -> None:
        """Deleted rows lie in free pages still."""
        template, events = in_database
        copy(template, path)
        with Life(path) as life:
            life.drain(300)
        overwrite(path, 100, bytes(1000))
        with Life(path) as life:
            assert life.drain() == events[300:]
            assert life.queue.snapshot()[0].acknowledged == 5 + 594
            check(life.queue)

    def test_dead_letters_and_counters_are_kept(
        self, in_database: tuple[Path, list[bytes]], path: Path
    ) -> None:
        template, events = in_database
        copy(template, path)
        before = ask(path, "SELECT file_uuid, created_ms FROM state")
        overwrite(path, 0, garbage(PAGE, 1))
        with Life(path) as life:
            assert life.letters() == [b"000005" + bytes([5]) * 194]
            counters, tracked, pending, _ = life.queue.snapshot()
            assert (tracked, counters.acknowledged, counters.buried) == (600, 5, 1)
            assert pending == len(events)
            assert ask(path, "SELECT file_uuid, created_ms FROM state") == before
            check(life.queue)

    def test_ids_are_what_they_were_and_none_is_used_twice(
        self, in_database: tuple[Path, list[bytes]], path: Path
    ) -> None:
        copy(in_database[0], path)
        with Life(path) as life:
            life.drain()
        overwrite(path, 100, bytes(1000))
        with Life(path) as life:
            assert life.queue.append(b"next") == 601

    @pytest.mark.parametrize("value", ["-1", "1 << 61", "'text'", "NULL"])
    @pytest.mark.parametrize("column", ["mark", "acknowledged", "evicted_corrupt_bytes"])
    def test_counters_that_cannot_be_right_begin_anew(
        self, in_database: tuple[Path, list[bytes]], path: Path, column: str, value: str
    ) -> None:
        template, events = in_database
        copy(template, path)
        change_state(path, column, value)
        overwrite(path, 0, bytes(PAGE))
        with Life(path) as life:
            assert life.drain(100) == events[:100]
            check(life.queue)
            counters, tracked, _, _ = life.queue.snapshot()
            assert (tracked, counters.acknowledged, counters.buried) == (595, 100, 1)
            assert "how many are lost is not known" in str(life.repairs[0].error)

    def test_counters_that_are_no_numbers_are_damage(self, path: Path) -> None:
        with opened_there(path) as queue:
            queue.append(b"x")
        change_state(path, "acknowledged", "'many'")
        with Life(path) as life:
            assert len(life.repairs) == 1
            assert life.drain() == [b"x"]
            check(life.queue)

    def test_a_missing_table_is_damage(self, path: Path) -> None:
        with opened_there(path) as queue:
            queue.append(b"x")
        tell(path, "DROP TABLE dead_letters")
        with Life(path) as life:
            assert "no such table" in str(life.repairs[0].error)
            assert life.drain() == [b"x"]

    def test_events_of_many_pages_are_salvaged_whole_or_not_at_all(self, path: Path) -> None:
        path.parent.mkdir()
        events = leave_behind(path, events=20, size=60_000, checkpoint=20)
        overwrite(path, page_of(path, b"000007") * PAGE + 2000, bytes(4000))
        overwrite(path, 100, bytes(1000))
        with Life(path) as life:
            sent = life.drain()
            check(life.queue)
        assert set(sent) < set(events)
        assert len(sent) >= 17
        assert sent == sorted(sent)

    @pytest.mark.parametrize("size", [1, 99, 500, PAGE, 20 * PAGE, 20 * PAGE + 1234])
    def test_a_file_that_was_cut_off_gives_what_is_left(
        self, in_database: tuple[Path, list[bytes]], path: Path, size: int
    ) -> None:
        template, events = in_database
        copy(template, path)
        os.truncate(path, size)
        left = path.read_bytes()
        if size == 1:
            # One letter of a header is no proof that the file was ours.
            with pytest.raises(QueueError, match="not an SQLite database"), Life(path):
                pass
            return
        with Life(path) as life:
            assert life.drain() == [event for event in events if event in left]
            check(life.queue)

    def test_an_older_schema_is_salvaged_into_this_one(
        self, in_database: tuple[Path, list[bytes]], path: Path
    ) -> None:
        template, events = in_database
        copy(template, path)
        tell(path, "DROP TABLE adopted")
        tell(path, "ALTER TABLE state DROP COLUMN heir")
        tell(path, "DELETE FROM _sqlite_migrations WHERE name = 'm002_adopted'")
        tell(path, "PRAGMA user_version=1")
        overwrite(path, page_of(path, events[300]) * PAGE, bytes(PAGE))
        with Life(path) as life:
            assert set(life.drain()) < set(events)
        assert ask(path, "PRAGMA user_version") == [(header.VERSION,)]

    def test_the_destination_stays_that_of_the_file(
        self, in_database: tuple[Path, list[bytes]], path: Path
    ) -> None:
        template, _ = in_database
        copy(template, path)
        overwrite(path, 20, bytes(80))
        other = HERE._replace(endpoint="http://another")
        claimed = claim(path, other)
        try:
            assert claimed.lease.path != path
            assert [each.path for each in claimed.others] == [path]
            assert file_state(path)["mark"] == 600
        finally:
            claimed.lease.release()

    def test_notes_of_adoption_survive(self, path: Path) -> None:
        with opened_there(path):
            pass
        note = "00000000-0000-4000-8000-000000000000"
        tell(path, "INSERT INTO adopted VALUES (?, 7)", note)
        overwrite(path, 100, bytes(1000))
        with Life(path):
            assert ask(path, "SELECT file_uuid, adopted_ms FROM adopted") == [(note, 7)]


class TestTheLog:
    def test_after_a_power_cut_a_gap_is_no_damage(
        self, in_log: tuple[Path, list[bytes]], path: Path
    ) -> None:
        """Nothing behind it was promised; SQLite takes what is before it."""
        template, events = in_log
        copy(template, path)
        frames = wal(path).stat().st_size // FRAME
        overwrite(wal(path), 32 + frames // 2 * FRAME, garbage(FRAME, 1))
        # As claim() does where the machine was switched on since.
        found, done = repair.prepare(path, HERE)
        assert (found, done) == (HERE, None)
        with opened(path) as queue:
            rows = [payload for _, payload in queue.peek(0, max_events=10**6, max_bytes=10**9)]
            assert rows == sorted(rows)
            assert rows[-1] in events[:-1]
            check(queue)

    def test_a_damaged_frame_costs_at_most_what_it_alone_held(
        self, in_log: tuple[Path, list[bytes]], tmp_path: Path
    ) -> None:
        """SQLite alone would end at that frame, without a word, and forget all behind it."""
        template, events = in_log
        frames = wal(template).stat().st_size // FRAME
        for frame in range(0, frames - 20, frames // 25):
            path = copy(template, tmp_path / str(frame) / "queue.db")
            overwrite(wal(path), 32 + frame * FRAME, garbage(FRAME, frame))
            with Life(path) as life:
                assert len(life.repairs) == 1
                assert "of its log is wrong" in str(life.repairs[0].error)
                sent = life.drain()
                check(life.queue)
                lost = life.queue.snapshot()[0].evicted_corrupt
            assert len(events) - len(sent) == lost <= 1, frame
            assert [event for event in events if event in set(sent)] == sent

    def test_a_damaged_header_costs_nothing(
        self, in_log: tuple[Path, list[bytes]], path: Path
    ) -> None:
        template, events = in_log
        copy(template, path)
        overwrite(wal(path), 0, bytes(32))
        with Life(path) as life:
            assert life.drain() == events
            check(life.queue)

    def test_a_log_whose_database_is_gone_is_salvaged(
        self, in_log: tuple[Path, list[bytes]], path: Path
    ) -> None:
        template, events = in_log
        copy(template, path)
        path.unlink()
        with Life(path) as life:
            assert life.drain() == events
            check(life.queue)

    def test_a_frame_that_a_crash_cut_short_is_no_damage(
        self, in_log: tuple[Path, list[bytes]], path: Path
    ) -> None:
        template, events = in_log
        copy(template, path)
        os.truncate(wal(path), wal(path).stat().st_size - 1000)
        with Life(path) as life:
            assert life.repairs == []
            assert life.drain()[-len(events) :] == events

    def test_frames_of_an_older_generation_are_no_damage(self, path: Path) -> None:
        """They lie behind the newer ones, done with, until they are overwritten."""
        path.parent.mkdir()
        leave_behind(path, events=300, checkpoint=250)
        with Life(path) as life:
            assert life.repairs == []
            assert len(life.drain()) == 294

    @pytest.mark.parametrize("content", [b"", bytes(32768), b"\xff" * 32768, b"x" * 100])
    def test_the_index_is_rebuilt_whatever_is_in_it(
        self, in_log: tuple[Path, list[bytes]], path: Path, content: bytes
    ) -> None:
        template, events = in_log
        copy(template, path)
        quarantine.beside(path, "-shm").write_bytes(content)
        with Life(path) as life:
            assert life.repairs == []
            assert life.drain() == events


class TestTheQuarantine:
    def test_two_are_kept_and_each_is_bounded(self, path: Path) -> None:
        path.parent.mkdir()
        leave_behind(path, events=300, size=30_000, checkpoint=300)
        for _ in range(4):
            overwrite(path, 20, bytes(80))
            with Life(path) as life:
                assert len(life.repairs) == 1
                assert life.queue.pending == 294
                life.queue.checkpoint()
        kept = quarantine.kept_files(path)
        assert len(kept) == quarantine.KEPT
        names = {file.name for file in path.parent.iterdir()}
        allowed = {path.name, path.name + ".lock"}
        allowed |= {file.name + suffix for file in kept for suffix in ("", "-wal", "-shm")}
        assert names <= allowed
        for file in kept:
            parts = [quarantine.beside(file, suffix) for suffix in ("", "-wal", "-shm")]
            size = sum(part.stat().st_size for part in parts if part.exists())
            assert PAGE < size <= quarantine.KEPT_BYTES

    def test_a_small_one_is_kept_whole_with_its_log(
        self, in_log: tuple[Path, list[bytes]], path: Path
    ) -> None:
        copy(in_log[0], path)
        overwrite(path, 18, bytes(2))
        log = wal(path).read_bytes()
        with Life(path):
            (kept,) = quarantine.kept_files(path)
            assert wal(kept).read_bytes() == log
        if os.name != "nt":
            assert kept.stat().st_mode & 0o777 == 0o600

    def test_a_gap_in_the_log_alone_is_reported_and_not_kept(
        self, in_log: tuple[Path, list[bytes]], path: Path
    ) -> None:
        """A power cut leaves one, too."""
        copy(in_log[0], path)
        overwrite(wal(path), 32 + 5 * FRAME, bytes(FRAME))
        with Life(path) as life:
            assert len(life.repairs) == 1
            assert not quarantine.damaged_path(path).exists()
            assert quarantine.kept_files(path) == []


KILLED_REPAIR = """
import os, signal, sys
from pathlib import Path
from disk import HERE
from causality_sdk import repair, salvage
import sqlite_utils
salvage.INSERT_ROWS = 10_000
path, left = Path(sys.argv[1]), int(sys.argv[2])
calls = {"open", "os.rename", "os.remove", "os.truncate", "sqlite3.connect", "os.listdir"}
calls |= {"os.scandir"}
def count(event, arguments):
    global left
    if event in calls and str(path.parent) in str(arguments):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
repair.prepare(path, HERE, is_same_boot=True)
print("done")
"""


class TestACrashInTheMiddle:
    @posix_only
    @pytest.mark.parametrize("damage", ["first page", "log"])
    def test_killed_at_any_call_on_a_file_nothing_is_lost(
        self, tmp_path: Path, damage: str
    ) -> None:
        """Once more by the one who comes next, which is killed a few calls later, too."""
        template = tmp_path / "template" / "queue.db"
        template.parent.mkdir()
        events = leave_behind(template, events=40, checkpoint=20 if damage == "log" else 40)
        if damage == "log":
            overwrite(wal(template), 0, bytes(32))
        else:
            overwrite(template, 20, bytes(80))
        call, ended = 0, False
        while not ended:
            call += 1 if call < 10 else 3
            path = copy(template, tmp_path / str(call) / "queue.db")
            ended = killed_repair(path, call)
            if not ended:
                killed_repair(path, 5)
            with Life(path) as life:
                assert life.drain() == events, call
                check(life.queue)
            left = {file.name for file in path.parent.iterdir()}
            assert not any(name.endswith((".damaged", ".salvage")) for name in left), call
        assert call > 12

    @posix_only
    def test_a_repair_that_has_no_room_is_tried_again_and_loses_nothing(self, path: Path) -> None:
        path.parent.mkdir()
        events = leave_behind(path, events=400, size=1000, checkpoint=400)
        overwrite(path, 100, bytes(1000))
        script = (
            "import resource, signal, sys; from pathlib import Path\n"
            "import sqlite_utils\n"
            "from disk import HERE\n"
            "from causality_sdk import repair\n"
            "from causality_sdk.errors import QueueError\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            "try:\n"
            "    repair.prepare(Path(sys.argv[1]), HERE, is_same_boot=True)\n"
            "except QueueError as error:\n"
            "    print(error)\n"
        )
        for _ in range(2):
            said = run(script, path).stdout
            assert "cannot be salvaged now" in said
            assert "Make room" in said
            assert str(path) in said
            assert not quarantine.beside(path, ".salvage").exists()
        with Life(path) as life:
            assert life.drain() == events
            check(life.queue)


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": search},
    )


def killed_repair(path: Path, call: int) -> bool:
    """A process that repairs and is killed at its `call`-th call; True if it came to its end."""
    result = run(KILLED_REPAIR, path, call)
    assert result.returncode in (0, -signal.SIGKILL), result.stderr
    return result.returncode == 0


class TestTheClient:
    def test_it_starts_reports_once_and_delivers(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        errors: list[Exception] = []
        dropped: list[Any] = []
        with LoopbackCollector() as collector:
            options: dict[str, Any] = {
                "api_key": "test-key",
                "endpoint": collector.endpoint,
                "app_id": "shop",
                "queue_path": path,
                "on_error": errors.append,
                "on_dropped": dropped.append,
                "start": False,
            }
            client = Client(**options)
            keys = [client.track("tick", {"text": "x" * 300}) for _ in range(300)]
            client.close(timeout=0)
            overwrite(path, page_of(path, str(keys[150]).encode()) * PAGE, b"\xff" * PAGE)
            errors.clear()
            caplog.clear()
            with Client(**options) as client:
                assert client.flush(timeout=30).error is None
                stats = client.stats()
            assert stats.evicted is not None
            assert stats.pending == 0
            assert stats.tracked == 300 == stats.acknowledged + stats.evicted["corrupt"]
            assert stats.evicted["corrupt"] < 20
            assert set(collector.keys) < set(keys)
            assert len(collector.keys) == stats.acknowledged
            assert [str(error) for error in errors] == [stats.last_error]
            assert "was damaged" in str(errors[0])
            assert str(path) in str(errors[0])
            assert [(drop.reason, drop.events) for drop in dropped] == [
                ("corrupt", stats.evicted["corrupt"])
            ]
        told = [line for line in caplog.messages if "was damaged" in line]
        assert len(told) == 1

    def test_an_orphan_that_is_damaged_is_repaired_and_delivered(self, path: Path) -> None:
        with LoopbackCollector() as collector:
            options: dict[str, Any] = {
                "api_key": "test-key",
                "endpoint": collector.endpoint,
                "app_id": "shop",
                "queue_path": path,
            }
            with Client(start=False, **options):
                orphan = Client(start=False, **options)
                keys = [orphan.track("tick") for _ in range(50)]
                orphan.close(timeout=0)
            sibling = path.with_name("queue.1.db")
            overwrite(sibling, 100, bytes(1000))
            with Client(**options):
                assert collector.wait_for(50, timeout=30)
            assert collector.keys == keys


def opened_there(path: Path) -> Any:
    path.parent.mkdir(exist_ok=True)
    return opened(path)


def change_state(path: Path, column: str, value: str) -> None:
    """Past the constraints, as flipped bits would."""
    table = ask(path, "SELECT sql FROM sqlite_master WHERE name = 'state'")[0][0]
    loose = table.replace("NOT NULL", "").replace("INTEGER", "").replace("id  ", "id INTEGER ")
    tell(path, loose.replace("CREATE TABLE state", "CREATE TABLE loose"))
    columns = [row[1] for row in ask(path, "PRAGMA table_info(state)")]
    assert columns[6 : 6 + len(COLUMNS)] == list(COLUMNS)
    chosen = ", ".join(value if name == column else name for name in columns)
    tell(path, f"INSERT INTO loose SELECT {chosen} FROM state")  # noqa: S608
    tell(path, "DROP TABLE state")
    tell(path, "ALTER TABLE loose RENAME TO state")
