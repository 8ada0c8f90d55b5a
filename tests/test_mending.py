"""A queue file that is damaged, deleted or replaced under a running client: it goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disk import ask, check, file_state, opened
from owner import Owner

from causality_sdk import Client, Event, QueueError, quarantine
from causality_sdk.testing import LoopbackCollector

posix_only = pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved on Windows")


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector() as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "queue.db"


class Errors(list[Exception]):
    """An `on_error` that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def __call__(self, error: Exception) -> None:
        self.append(error)
        self.came.set()


def make(collector: LoopbackCollector, path: Path, **options: Any) -> Client:
    defaults: dict[str, Any] = {
        "api_key": "test-key",
        "endpoint": collector.endpoint,
        "app_id": "tests",
        "queue_path": path,
        "start": False,
    }
    return Client(**{**defaults, **options})


def from_outside(script: str, *arguments: object) -> None:
    """In another process: in ours, opening and closing the file would drop SQLite's locks."""
    subprocess.run(
        [sys.executable, "-c", "import os, sys\n" + script, *map(str, arguments)],
        check=True,
        timeout=30,
    )


GARBAGE = """
path, start, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, "r+b") as file:
    size = file.seek(0, 2)
    file.seek(start)
    file.write(bytes((7 * n) % 251 for n in range(min(length, size - start))))
"""


def track(client: Client, count: int) -> list[str]:
    keys = client.track_many([Event("tick", {"n": n, "text": "x" * 300}) for n in range(count)])
    assert keys is not None
    return keys


class TestADamagedFile:
    def test_what_is_good_in_it_arrives_in_order_and_once(
        self, collector: LoopbackCollector, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        errors = Errors()
        with make(collector, path, on_error=errors) as client:
            keys = track(client, 500)
            settled(client)
            from_outside(GARBAGE, path, 4096 * 20, 3 * 4096)
            keys += track(client, 10)
            report = client.flush(timeout=30)
            stats = client.stats()
            assert (report.remaining, report.error) == (0, None)
            assert stats.evicted is not None
            assert 0 < stats.evicted["corrupt"] < 60
            assert stats.tracked == 510 == stats.acknowledged + stats.evicted["corrupt"]
            assert collector.keys == [key for key in keys if key in set(collector.keys)]
            assert collector.received == stats.acknowledged
            assert [str(error) for error in errors] == [stats.last_error]
            more = track(client, 5)
            client.flush(timeout=30)
            assert collector.keys[-5:] == more
        assert len([line for line in caplog.messages if "was damaged" in line]) == 1
        assert len(quarantine.kept_files(path)) == 1

    @pytest.mark.parametrize("length", [100, 4096, 10**9])
    def test_whatever_is_overwritten_track_does_not_raise_and_all_is_counted(
        self, collector: LoopbackCollector, path: Path, length: int
    ) -> None:
        with make(collector, path) as client:
            keys = track(client, 200)
            settled(client)
            from_outside(GARBAGE, path, 0, length)
            for _ in range(20):
                client.track("after")
            client.flush(timeout=30)
            client.flush(timeout=30)
            stats = client.stats()
            assert (stats.pending, stats.buffered, stats.buffer_dropped) == (0, 0, 0)
            assert stats.evicted is not None
            assert stats.tracked == 220
            assert stats.acknowledged + sum(stats.evicted.values()) == 220
            assert collector.received == stats.acknowledged
            if length <= 4096:
                assert collector.keys[:200] == keys

    def test_damage_that_track_meets_costs_none_of_its_events(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        """They wait in memory meanwhile, and follow."""
        with make(collector, path) as client:
            keys = track(client, 200)
            client._opened().queue.damage = "a flipped bit"  # as an insert reports it
            client._opened().queue.detach().close()
            late = [client.track("late") for _ in range(3)]
            assert late == [None, None, None]
            assert client.stats().buffered == 3
            client.flush(timeout=30)
            stats = client.stats()
            assert (stats.buffered, stats.acknowledged, stats.pending) == (0, 203, 0)
            assert collector.keys[:200] == keys

    def test_a_log_that_is_overwritten_is_survived(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        with make(collector, path) as client:
            for _ in range(100):
                client.track("tick", {"text": "x" * 500})
            from_outside(GARBAGE, quarantine.beside(path, "-wal"), 40_000, 10**9)
            for _ in range(10):
                client.track("after")
            client.flush(timeout=30)
            client.flush(timeout=30)
            stats = client.stats()
            assert (stats.tracked, stats.pending) == (110, 0)
            assert stats.evicted is not None
            assert stats.acknowledged + sum(stats.evicted.values()) == 110
            assert collector.received == stats.acknowledged

    def test_an_index_that_is_overwritten_costs_nothing(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        with make(collector, path) as client:
            keys = [client.track("tick") for _ in range(50)]
            from_outside(GARBAGE, quarantine.beside(path, "-shm"), 0, 96)
            keys += [client.track("tick") for _ in range(50)]
            client.flush(timeout=30)
            assert client.stats().acknowledged == 100
            assert collector.keys == keys

    def test_a_running_sender_repairs_by_itself(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        errors = Errors()
        collector.pause()
        with make(collector, path, start=True, on_error=errors, batch_size=10**6) as client:
            keys = track(client, 300)
            settled(client)
            from_outside(GARBAGE, path, 4096 * 12, 4096)
            collector.resume()
            client.flush(timeout=30)
            assert errors.came.wait(30)
            assert client.stats().pending == 0
            assert "was damaged" in str(errors[0])
            assert set(collector.keys) <= set(keys)
            assert len(collector.keys) > 280
            stats = client.stats()
            assert stats.evicted is not None
            assert stats.acknowledged + stats.evicted["corrupt"] == 300

    def test_under_strict_track_raises_until_it_is_repaired(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        with make(collector, path, strict=True) as client:
            track(client, 10)
            client._opened().queue.damage = "a flipped bit"
            client._opened().queue.detach().close()
            with pytest.raises(QueueError, match="is being repaired"):
                client.track("tick")
            client.flush(timeout=30)
            assert client.track("tick") is not None

    def test_what_was_acknowledged_and_not_deleted_yet_is_not_sent_again(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        with make(collector, path) as client:
            keys = track(client, 300)
            settled(client)
            # The first page of the batch can be read, and its row cannot be deleted.
            from_outside(GARBAGE, path, 4096 * 15, 4096)
            client.flush(timeout=30)
            client.flush(timeout=30)
            assert collector.duplicates == 0
            assert client.stats().pending == 0
            assert set(collector.keys) <= set(keys)

    @posix_only
    def test_a_repair_without_room_is_tried_again_and_nothing_is_lost(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        errors = Errors()
        with make(collector, path, on_error=errors) as client:
            keys = track(client, 100)
            settled(client)
            client._opened().queue.damage = "a flipped bit"
            in_the_way = quarantine.beside(path, ".salvage")
            in_the_way.mkdir()
            assert client.flush(timeout=0.3).error is not None
            assert client.track("tick") is None
            in_the_way.rmdir()
            client.flush(timeout=30)
            assert collector.keys[:100] == keys
            assert client.stats().acknowledged == 101
            assert "cannot be salvaged now" in str(errors[0])


def settled(client: Client) -> None:
    """All of it is in the database, nothing in the log or in SQLite's memory that hides it."""
    queue = client._opened().queue
    assert queue.checkpoint()
    for connection in (queue._writer, queue._reader):
        connection.execute("PRAGMA shrink_memory")


@posix_only
class TestAFileThatIsGone:
    @pytest.mark.parametrize("what", ["database", "all", "log", "directory"])
    def test_its_events_are_written_anew_and_arrive(
        self, collector: LoopbackCollector, path: Path, what: str
    ) -> None:
        errors = Errors()
        with make(collector, path, on_error=errors) as client:
            keys = track(client, 100)
            client.track("tick")
            if what == "directory":
                shutil.rmtree(path.parent)
            for suffix in {"database": ("",), "all": ("", "-wal", "-shm"), "log": ("-wal",)}.get(
                what, ()
            ):
                quarantine.beside(path, suffix).unlink()
            keys += track(client, 50)
            client._opened().sender.step()
            assert "was deleted or replaced" in str(errors[0])
            assert str(path) in str(errors[0])
            assert client.stats().queue_path == str(path)
            check(client._opened().queue)
            client.flush(timeout=30)
            assert [key for key in collector.keys if key in keys] == keys
            assert collector.duplicates == 0
            assert client.stats().acknowledged == 151
            client.track("next")
        with opened(path) as queue:
            assert queue.snapshot()[1] == 152
            check(queue)

    def test_the_counters_and_ids_go_on(self, collector: LoopbackCollector, path: Path) -> None:
        with make(collector, path) as client:
            track(client, 30)
            client.flush(timeout=30)
            path.unlink()
            track(client, 5)
            client._opened().sender.step()
            assert client._opened().queue.last_id == 35
            assert file_state(path)["acknowledged"] == 30
            assert client.stats().tracked == 35

    def test_another_file_in_its_place_is_left_alone(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        """The queue goes on beside it."""
        with make(collector, path) as client:
            keys = track(client, 20)
            path.unlink()
            path.write_text("Dear diary,\n")
            client._opened().sender.step()
            assert client.stats().queue_path == str(path.with_name("queue.1.db"))
            keys += track(client, 20)
            client.flush(timeout=30)
            assert collector.keys == keys
        assert path.read_text() == "Dear diary,\n"
        assert not quarantine.damaged_path(path).exists()

    def test_another_process_can_own_what_lies_there_then(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        with make(collector, path) as client:
            track(client, 3)
            other = path.with_name("other.db")
            with opened(other) as queue:
                queue.append(b"x")
            other.replace(path)
            client._opened().sender.step()
            assert client.stats().queue_path == str(path.with_name("queue.1.db"))
            with opened(path) as queue:
                assert queue.pending == 1
                check(queue)

    def test_while_it_cannot_be_written_anew_the_client_goes_on_without_a_name(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        with make(collector, path) as client:
            keys = track(client, 20)
            path.unlink()
            in_the_way = quarantine.beside(path, ".salvage")
            in_the_way.mkdir()
            client._opened().sender.step()
            assert "cannot be replaced now" in str(client.stats().last_error)
            keys += track(client, 20)
            client.flush(timeout=30)
            assert collector.keys == keys
            in_the_way.rmdir()
            client._opened().sender.mender._hold_until = 0.0  # type: ignore[union-attr]
            client._opened().sender.step()
            assert path.exists()

    def test_a_running_client_notices_by_itself(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        errors = Errors()
        with make(collector, path, start=True, on_error=errors, flush_interval=60) as client:
            client.track("first")
            client.flush(timeout=30)
            path.unlink()
            client.track("second")
            assert errors.came.wait(10)
            assert path.exists()
            client.flush(timeout=30)
            assert client.stats().acknowledged == 2

    def test_nothing_is_done_to_a_file_in_its_place(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        with make(collector, path) as client:
            assert client._opened().queue.in_place() == (True, True)
            mender = client._opened().sender.mender
            assert mender is not None
            assert mender.step() is None


@posix_only
class TestALockFileThatIsDeleted:
    """By what cleans up old files: it is written once, at the start."""

    def test_is_made_again_and_the_file_stays_ours(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        errors = Errors()
        lock = path.with_name("queue.db.lock")
        with make(collector, path, on_error=errors) as client:
            client.track("before")
            lock.unlink()
            assert client.flush(timeout=10).remaining == 0
            assert lock.exists()
            assert client.stats().files[0].state == "owned"
            assert "it is locked again" in str(errors[0])
            with make(collector, path) as other:
                assert Path(other.stats().queue_path).name == "queue.1.db"
            assert client.track("after") is not None
            assert client.flush(timeout=10).remaining == 0
            assert len(errors) == 1
            assert client.stats().acknowledged == 2
        assert [event["event_type"] for event in collector.events] == ["before", "after"]

    def test_after_which_another_process_took_the_file_is_no_longer_ours(
        self, collector: LoopbackCollector, path: Path
    ) -> None:
        errors = Errors()
        with make(collector, path, on_error=errors) as client, Owner() as other:
            client.track("before")
            path.with_name("queue.db.lock").unlink()
            # What the other process adds is of another destination: with it the file is its own.
            assert other.take_over(path) == "queue.db"
            rows = ask(path, "SELECT id FROM queue")
            client.flush(timeout=10)
            assert Path(client.stats().queue_path).name == "queue.1.db"
            assert "another process owns that now" in str(errors[0])
            key = client.track("after")
            assert key is not None
            assert client.flush(timeout=10).remaining == 0
            assert collector.keys == [key]
            assert ask(path, "SELECT id FROM queue") == rows
            stats = client.stats()
            assert (stats.tracked, stats.acknowledged, stats.pending) == (1, 1, 0)
            assert client.track("later") is not None
            assert ask(path.with_name("queue.1.db"), "SELECT min(id) FROM queue") > rows[-1:]
