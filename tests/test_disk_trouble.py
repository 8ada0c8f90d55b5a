"""A disk that is full or fails, and a clock that jumps: real file systems, real system calls."""

from __future__ import annotations

import email.utils
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from causality_sdk import Client, QueueError, quarantine
from causality_sdk.backoff import retry_after_seconds
from causality_sdk.testing import LoopbackCollector

ROOT = Path(__file__).resolve().parent.parent
MKFS, STRACE = shutil.which("mkfs.ext4"), shutil.which("strace")
KILLED = """
import os, sys
from causality_sdk import Client
client = Client(api_key="test-key", endpoint=sys.argv[2], app_id="tests", queue_path=sys.argv[1],
                start=False)
for _ in range(50):
    assert client.track("tick", {"text": "x" * 500})
os._exit(0)
"""
posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector() as running:
        yield running


def mounted(place: Path, *command: str) -> None:
    """Skips where nothing may be mounted."""
    if os.name == "nt" or os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root and mount(8), for a small file system")
    place.mkdir()
    result = subprocess.run([*command, str(place)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"mount is not possible here: {result.stderr.strip()}")


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of a few MiB."""
    place = tmp_path / "disk"
    if request.param == "tmpfs":
        mounted(place, "mount", "-t", "tmpfs", "-o", "size=8m", "none")
    else:
        if MKFS is None:
            pytest.skip("needs mkfs.ext4")
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(12 * 1024 * 1024)
        subprocess.run([MKFS, "-q", "-m", "0", str(image)], check=True, capture_output=True)
        mounted(place, "mount", "-o", "loop", str(image))
    try:
        yield place
    finally:
        subprocess.run([shutil.which("umount") or "umount", "-l", str(place)], check=True)


def make(collector: LoopbackCollector, path: Path, **options: Any) -> Client:
    defaults: dict[str, Any] = {
        "api_key": "test-key",
        "endpoint": collector.endpoint,
        "app_id": "tests",
        "queue_path": path,
        "start": False,
    }
    return Client(**{**defaults, **options})


class TestAFullDisk:
    @pytest.mark.parametrize("durability", ["process", "power"])
    def test_the_newest_wait_in_memory_and_nothing_that_has_a_key_is_lost(
        self, collector: LoopbackCollector, small_disk: Path, durability: str
    ) -> None:
        errors: list[Exception] = []
        filler = small_disk / "filler"
        fill(filler, leave=1_500_000)
        with make(
            collector, small_disk / "q" / "queue.db", durability=durability, on_error=errors.append
        ) as client:
            keys, refused = [], 0
            while refused < 50:
                key = client.track("tick", {"text": "x" * 20_000})
                refused += key is None
                keys += [key] if key is not None else []
            stats = client.stats()
            assert (stats.tracked, stats.buffered, stats.buffer_dropped) == (len(keys), 50, 0)
            fill(filler)
            # The server is there, and the disk takes no deletion: nothing is sent twice.
            client.flush(timeout=2)
            client.flush(timeout=2)
            assert collector.duplicates == 0
            filler.unlink()
            deadline = time.monotonic() + 60
            while client.stats().pending or client.stats().buffered:
                assert time.monotonic() < deadline
                client.flush(timeout=5)
            assert set(keys) <= set(collector.keys)
            assert collector.received == len(keys) + 50
            assert collector.duplicates == 0
            assert client.stats().acknowledged == len(keys) + 50
            assert any(isinstance(error, QueueError) for error in errors)

    def test_beyond_the_buffer_the_oldest_are_dropped_and_counted(
        self, collector: LoopbackCollector, small_disk: Path
    ) -> None:
        dropped: list[Any] = []
        fill(small_disk / "filler", leave=1_500_000)
        with make(collector, small_disk / "q" / "queue.db", on_dropped=dropped.append) as client:
            while client.track("tick", {"text": "x" * 50_000}) is not None:
                pass
            fill(small_disk / "filler")
            for number in range(1100):
                assert client.track("late", {"number": number}) is None
            stats = client.stats()
            assert stats.buffered <= 1000
            assert stats.buffered + stats.buffer_dropped == 1101
            (small_disk / "filler").unlink()
            deadline = time.monotonic() + 60
            while client.stats().pending or client.stats().buffered:
                assert time.monotonic() < deadline
                client.flush(timeout=5)
            late = [event for event in collector.events if event["event_type"] == "late"]
            numbers = [event["properties"]["number"] for event in late]
            assert numbers == list(range(1100 - len(numbers), 1100))
            assert [drop.reason for drop in dropped] == ["buffer_full"]

    def test_a_client_that_starts_on_it_delivers_what_waits_and_keeps_what_comes(
        self, collector: LoopbackCollector, small_disk: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = small_disk / "q" / "queue.db"
        with make(collector, path, close_timeout=0) as client:
            keys = [client.track("tick", {"text": "x" * 500}) for _ in range(50)]
        filler = small_disk / "filler"
        fill(filler)
        with make(collector, path) as client:
            assert "is full: what is queued there is delivered" in caplog.text
            assert client.stats().pending == 50
            assert client.track("meanwhile") is None
            assert client.stats().buffered == 1
            client.flush(timeout=5)
            assert collector.keys == keys
            client.flush(timeout=5)
            assert collector.duplicates == 0
            filler.unlink()
            assert client._pipeline is not None
            assert client._pipeline._mender is not None
            client._pipeline._mender._hold_until = 0.0
            assert client.flush(timeout=10).remaining == 0
            assert not client._pipeline.queue.is_alone
            assert client.track("afterwards") is not None
            assert client.flush(timeout=10).remaining == 0
            stats = client.stats()
            assert (stats.tracked, stats.acknowledged, stats.buffered) == (52, 52, 0)
        types = [event["event_type"] for event in collector.events]
        assert types == ["tick"] * 50 + ["meanwhile", "afterwards"]
        assert collector.duplicates == 0

    def test_one_that_was_killed_on_it_is_followed_by_one_that_delivers(
        self, collector: LoopbackCollector, small_disk: Path
    ) -> None:
        """A log is there, and no room to move it."""
        path = small_disk / "q" / "queue.db"
        subprocess.run(
            [sys.executable, "-c", KILLED, str(path), collector.endpoint],
            check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        fill(small_disk / "filler")
        assert path.with_name("queue.db-wal").stat().st_size
        with make(collector, path) as client:
            assert client.stats().pending == 50
            client.flush(timeout=5)
        assert collector.count == 50

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks there")
    def test_a_client_that_met_it_leaves_no_file_open_after_its_end(
        self, collector: LoopbackCollector, small_disk: Path
    ) -> None:
        """Else the next one in this process could not have the file."""
        path = small_disk / "q" / "queue.db"
        client = make(collector, path, close_timeout=0)
        fill(small_disk / "filler", leave=500_000)
        while client.track("tick", {"text": "x" * 5000}) is not None:
            pass
        fill(small_disk / "filler")
        client.close()
        opened = {os.path.realpath(number) for number in Path("/proc/self/fd").iterdir()}
        assert not [name for name in opened if name.startswith(str(path))]
        with make(collector, path) as after:
            assert after.stats().pending > 0
            after.flush(timeout=5)
        assert collector.count > 0

    def test_the_very_first_start_on_it_keeps_events_in_memory(
        self, collector: LoopbackCollector, small_disk: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        filler = small_disk / "filler"
        fill(filler)
        path = small_disk / "q" / "queue.db"
        with pytest.raises(QueueError):
            make(collector, path, strict=True)
        with make(collector, path) as client:
            assert "make room on the disk; events wait in memory" in caplog.text
            assert client.track("early") is None
            assert client.stats().buffered == 1
            assert isinstance(client.flush(timeout=1).error, QueueError)
            assert "no queue" in repr(client)
            filler.unlink()
            assert client.flush(timeout=10).remaining == 0
            assert client.track("late") is not None
            assert client.flush(timeout=10).remaining == 0
        assert [event["event_type"] for event in collector.events] == ["early", "late"]

    def test_a_client_that_ends_on_it_says_what_it_loses(
        self, collector: LoopbackCollector, small_disk: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        fill(small_disk / "filler")
        with make(collector, small_disk / "q" / "queue.db") as client:
            assert client.track("early") is None
        assert "1 events are lost" in caplog.text

    def test_a_damaged_file_on_it_waits_for_room(
        self, collector: LoopbackCollector, small_disk: Path
    ) -> None:
        path = small_disk / "q" / "queue.db"
        with make(collector, path) as client:
            keys = [client.track("tick", {"text": "x" * 1000}) for _ in range(800)]
            client.close(timeout=0)
        with path.open("r+b") as file:
            file.seek(18)
            file.write(bytes(2))
        filler = small_disk / "filler"
        fill(filler)
        with pytest.raises(QueueError, match="cannot be salvaged now"):
            make(collector, path, strict=True)
        with make(collector, path, close_timeout=0) as client:
            assert client.track("meanwhile") is None
            assert "cannot be salvaged now" in str(client.flush(timeout=1).error)
        filler.unlink()
        with make(collector, path) as client:
            client.flush(timeout=30)
        assert collector.keys == keys


def fill(filler: Path, *, leave: int = 0) -> None:
    """Takes the disk's free bytes, but for some."""
    with filler.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while free(filler.parent) > leave and file.write(b"x" * size) == size:
                    pass
        os.fsync(file.fileno())


def free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


@posix_only
def test_a_limit_on_file_sizes_is_survived_without_root(
    collector: LoopbackCollector, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE: writes beyond it fail (Python ignores SIGXFSZ), as on a full disk."""
    script = """
import json, resource, sys
from causality_sdk import Client
client = Client(api_key="test-key", endpoint=sys.argv[1], app_id="a", queue_path=sys.argv[2],
                start=False)
client.track("first")
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, most))
keys = [client.track("tick", {"n": n, "text": "x" * 2000}) for n in range(300)]
before = client.stats()
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
report = client.flush(timeout=30)
after = client.stats()
client.close()
print(json.dumps([keys.count(None), before.buffered, before.buffer_dropped, after.buffered,
                  after.acknowledged, after.pending]))
"""
    result = subprocess.run(
        [sys.executable, "-c", script, collector.endpoint, str(tmp_path / "queue.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    without_key, buffered, dropped, left, acknowledged, pending = json.loads(result.stdout)
    assert without_key > 50
    assert (buffered, dropped, left) == (without_key, 0, 0)
    assert (acknowledged, pending) == (301, 0)
    assert collector.duplicates == 0
    numbers = [event["properties"]["n"] for event in collector.events[1:]]
    assert numbers == list(range(300))


@pytest.mark.skipif(STRACE is None, reason="needs strace, to make fsync fail")
def test_no_key_for_a_commit_whose_fsync_failed(
    collector: LoopbackCollector, tmp_path: Path
) -> None:
    """At "power". Every third fsync fails; what has a key, and what has none, arrives once."""
    assert STRACE is not None
    script = """
import json, sys
from causality_sdk import Client
client = Client(api_key="test-key", endpoint=sys.argv[1], app_id="a", queue_path=sys.argv[2],
                start=False, durability="power")
keys = [client.track("tick", {"n": n}) for n in range(60)]
buffered = client.stats().buffered
for _ in range(20):
    client.flush(timeout=5)
    stats = client.stats()
    if not (stats.pending or stats.buffered):
        break
print(json.dumps([keys, buffered, stats.acknowledged, stats.pending, stats.buffer_dropped]))
"""
    result = subprocess.run(
        [STRACE, "-f", "-o", str(tmp_path / "trace"), "-e", "trace=fsync,fdatasync",
         "-e", "inject=fsync,fdatasync:error=EIO:when=8+3",
         sys.executable, "-c", script, collector.endpoint, str(tmp_path / "queue.db")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip
    if "ptrace" in result.stderr or "Operation not permitted" in result.stderr:
        pytest.skip("strace may not trace here")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "trace").read_text().count("INJECTED") > 10
    keys, _, acknowledged, pending, dropped = json.loads(result.stdout.splitlines()[-1])
    assert None in keys
    assert (acknowledged, pending, dropped) == (60, 0, 0)
    assert collector.duplicates == 0
    numbers = [event["properties"]["n"] for event in collector.events]
    assert numbers == list(range(60))
    with_key = [key for key in keys if key is not None]
    assert [key for key in collector.keys if key in set(with_key)] == with_key


class TestAClockThatJumps:
    def test_order_and_delivery_do_not_follow_it(
        self, collector: LoopbackCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ten years back and forth between the events; ids tell the order, not times."""
        ten_years = 10 * 365 * 86400
        now, now_ns = time.time, time.time_ns
        jump = 0
        monkeypatch.setattr(time, "time", lambda: now() + jump)
        monkeypatch.setattr(time, "time_ns", lambda: now_ns() + jump * 10**9)
        with make(collector, tmp_path / "queue.db", start=True, flush_interval=0.2) as client:
            keys = []
            for number in range(30):
                jump = (0, -ten_years, ten_years)[number % 3]
                keys.append(client.track("tick", {"number": number}))
                assert (
                    client.stats().oldest_seconds is None
                    or (client.stats().oldest_seconds or 0.0) >= 0
                )
            assert None not in keys
            assert len(set(keys)) == 30
            assert collector.wait_for(30, timeout=30)
            assert collector.keys == keys
            client.flush(timeout=10)
            assert client.stats().acknowledged == 30

    @pytest.mark.parametrize("years", [-10, 10])
    def test_a_wait_of_the_sender_is_not_prolonged(
        self,
        collector: LoopbackCollector,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        years: int,
    ) -> None:
        failed = threading.Event()
        collector.respond(503, times=1)
        with make(
            collector,
            tmp_path / "queue.db",
            start=True,
            batch_size=1,
            backoff_initial=0.05,
            backoff_max=0.1,
            on_error=lambda _: failed.set(),
        ) as client:
            client.track("tick")
            assert failed.wait(10)
            now = time.time
            monkeypatch.setattr(time, "time", lambda: now() + years * 365 * 86400)
            assert collector.wait_for(1, timeout=10)

    def test_a_repair_after_a_jump_keeps_the_newest_damaged_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "queue.db"
        now = time.time()
        moments = iter([time.gmtime(now + year * 365 * 86400) for year in (0, 10, -10, -9)])
        monkeypatch.setattr(time, "gmtime", lambda: next(moments))
        for year in (0, 10, -10, -9):
            path.with_name("queue.db.damaged").write_text(str(year))
            assert quarantine.conclude(path) is not None
            kept = {file.read_text() for file in quarantine.kept_files(path)}
            assert str(year) in kept
            assert len(kept) <= quarantine.KEPT

    @pytest.mark.parametrize("years", [-10, 10])
    def test_a_date_to_wait_for_is_never_longer_than_an_hour_away(self, years: int) -> None:
        date = email.utils.formatdate(time.time() + 120, usegmt=True)
        jumped = time.time() + years * 365 * 86400
        seconds = retry_after_seconds(date, now=jumped)
        assert seconds is not None
        assert 0 <= seconds <= 3600
