"""How much work an event is: statements, syncs, pages, bytes, calls, memory. Counted, never timed.

Where one of these grows, `python -m benchmarks` tells by how much events became slower.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from disk import opened

from causality_sdk import Client, Event, wal
from causality_sdk.queue import SLICE_ROWS, Queue

ROOT = Path(__file__).resolve().parent.parent
ITEMS = [
    {"sku": "mug", "quantity": 2, "price_cents": 1299},
    {"sku": "tee", "quantity": 1, "price_cents": 3299},
]
PURCHASE = {"order_id": "A-1", "total_cents": 5897, "currency": "EUR", "items": ITEMS}
PAYLOAD = b"x" * 413


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with Client(
        api_key="test-key",
        endpoint="http://127.0.0.1:9",
        app_id="shop",
        queue_path=tmp_path / "queue.db",
        start=False,
        close_timeout=0,
    ) as client:
        client.track("purchase_complete", PURCHASE)  # whatever is loaded once is loaded
        yield client


def statements(queue: Queue, work: Callable[[], object]) -> list[str]:
    """The first words of what both connections of `queue` are asked meanwhile."""
    seen: list[str] = []
    connections = (queue._writer, queue._reader)
    for connection in connections:
        connection.set_trace_callback(lambda sql: seen.append(sql.split()[0]))
    work()
    for connection in connections:
        connection.set_trace_callback(None)
    return seen


def queue_of(client: Client) -> Queue:
    assert client._pipeline is not None
    return client._pipeline.queue


class TestStatements:
    def test_one_event_is_one_insert_that_commits_itself(self, client: Client) -> None:
        work = statements(queue_of(client), lambda: client.track("purchase_complete", PURCHASE))
        assert work == ["INSERT"]

    def test_a_thousand_at_once_are_one_transaction(self, client: Client) -> None:
        events = [Event("purchase_complete", PURCHASE)] * 1000
        work = statements(queue_of(client), lambda: client.track_many(events))
        assert work == ["BEGIN", *["INSERT"] * 1000, "COMMIT"]

    def test_at_the_cap_a_hundred_events_share_an_eviction(self, tmp_path: Path) -> None:
        with opened(tmp_path / "queue.db", max_events=10_000) as queue:
            queue.append_many([PAYLOAD] * 10_000)

            def track_a_hundred() -> None:
                for _ in range(100):
                    queue.append(PAYLOAD)

            work = statements(queue, track_a_hundred)
        assert work.count("INSERT") == 100
        assert work.count("DELETE") == work.count("UPDATE") == 1

    def test_a_batch_leaves_with_one_delete_and_one_count_for_a_hundred_rows(
        self, tmp_path: Path
    ) -> None:
        with opened(tmp_path / "queue.db") as queue:
            queue.append_many([PAYLOAD] * 1000)
            rows = queue.take(0, max_events=1000, max_bytes=2**30)
            work = statements(queue, lambda: queue.settle(rows))
        assert work == ["BEGIN", "DELETE", "UPDATE", "COMMIT"] * (1000 // SLICE_ROWS)


class TestDepth:
    @pytest.mark.parametrize(
        "work",
        [
            pytest.param(lambda queue: queue.append(PAYLOAD), id="track"),
            pytest.param(lambda queue: queue.take(0, max_events=100, max_bytes=2**20), id="take"),
            pytest.param(lambda queue: queue.settle(queue.newest(50)), id="settle"),
            pytest.param(lambda queue: queue._reload_locked(), id="open"),
        ],
    )
    def test_sqlite_does_the_same_work_whatever_is_queued(
        self, tmp_path: Path, work: Callable[[Queue], object]
    ) -> None:
        steps = []
        for queued in (200, 20_000):
            with opened(tmp_path / f"{queued}.db") as queue:
                queue.append_many([PAYLOAD] * queued)
                steps.append(_steps(queue, work))
        assert steps[0] == steps[1]


def _steps(queue: Queue, work: Callable[[Queue], object]) -> int:
    """Instructions of SQLite's virtual machine."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    for connection in (queue._writer, queue._reader):
        connection.set_progress_handler(step, 1)
    work(queue)
    for connection in (queue._writer, queue._reader):
        connection.set_progress_handler(None, 0)
    return count


class TestBytes:
    def test_an_event_writes_at_most_two_pages_to_the_log(self, tmp_path: Path) -> None:
        path = tmp_path / "queue.db"
        with opened(path) as queue:
            queue.checkpoint()
            for _ in range(1000):
                queue.append(PAYLOAD)
            written = Path(f"{path}-wal").stat().st_size
        assert written <= 1000 * 2 * wal.PAGE

    def test_a_thousand_at_once_write_at_most_one_and_a_half_times_their_bytes(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "queue.db"
        with opened(path) as queue:
            queue.append_many([PAYLOAD] * 5000)
            written = Path(f"{path}-wal").stat().st_size
        assert written <= 1.5 * 5000 * len(PAYLOAD)

    def test_the_file_is_at_most_a_quarter_larger_than_what_is_queued(self, tmp_path: Path) -> None:
        path = tmp_path / "queue.db"
        with opened(path) as queue:
            queue.append_many([PAYLOAD] * 10_000)
            queue.checkpoint()
            assert path.stat().st_size <= 1.25 * 10_000 * len(PAYLOAD)


class TestCalls:
    def test_an_event_takes_few_calls_of_functions(self, client: Client) -> None:
        called: list[str] = []

        def note(frame: FrameType, event: str, argument: Any) -> None:
            if event == "call":
                called.append(frame.f_code.co_name)
            elif event == "c_call":
                called.append(argument.__name__)

        sys.setprofile(note)
        try:
            client.track("purchase_complete", PURCHASE)
        finally:
            sys.setprofile(None)
        python = {"track", "encode", "new_key", "_now_ms", "_dumps", "append", "insert_cost"}
        python |= {"_append_locked", "wrote_locked"}
        assert python <= set(called)
        assert len(called) <= 32, called


class TestMemory:
    def test_what_is_queued_takes_no_memory(self, client: Client) -> None:
        for _ in range(200):
            client.track("purchase_complete", PURCHASE)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(2000):
                client.track("purchase_complete", PURCHASE)
            after, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 16 * 1024, "eight bytes an event"
        assert peak - before < 64 * 1024


STRACE = shutil.which("strace")
PROGRAM = """
import os, sys
from pathlib import Path
from causality_sdk import Client, Event
path, durability = sys.argv[1:]
client = Client(api_key="test-key", endpoint="http://127.0.0.1:9", app_id="shop",
                queue_path=Path(path), durability=durability, start=False, close_timeout=0)
event = Event("tick", {"n": 1})
def mark(name):
    try:
        os.stat("/mark-" + name)
    except OSError:
        pass
client.track("tick", {"n": 0})
mark("single")
for _ in range(50):
    client.track("tick", {"n": 1})
mark("many")
client.track_many([event] * 1000)
mark("end")
os._exit(0)
"""


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("durability", "singles", "together"), [("process", 0, 0), ("power", 50, 1)]
)
def test_an_event_is_synced_by_power_durability_only_and_takes_two_calls_for_its_lock(
    tmp_path: Path, durability: str, singles: int, together: int
) -> None:
    trace = tmp_path / "trace"
    assert STRACE is not None
    calls = "trace=fsync,fdatasync,fcntl,stat,newfstatat,statx"
    command = [STRACE, "-f", "-o", str(trace), "-e", calls]
    done = subprocess.run(
        [*command, sys.executable, "-c", PROGRAM, str(tmp_path / "queue.db"), durability],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "ptrace" in done.stderr:
        pytest.skip("this machine does not let strace trace")
    assert done.returncode == 0, done.stderr
    before, after = trace.read_text().split("/mark-single", 1)
    single, rest = after.split("/mark-many", 1)
    many = rest.split("/mark-end", 1)[0]
    del before
    assert len(re.findall(r"\bf(?:data)?sync\(", single)) == singles
    assert len(re.findall(r"\bf(?:data)?sync\(", many)) == together
    if durability == "process":
        # Each takes the lock of a writer and lets go of it; the one of a reader stays.
        locks = len(re.findall(r"\bfcntl\(\d+, F_(?:OFD_)?SETLK", single))
        assert locks <= 50 * 2 + 10
