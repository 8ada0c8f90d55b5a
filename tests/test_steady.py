"""The log stays short whoever neglects it, and a queue that was killed then opens at once.

The long tests really take their minute; the quick ones push as many events through in one go.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from causality_sdk import Client
from causality_sdk.testing import LoopbackCollector

LIMIT = 16 * 1024 * 1024

PROGRAM = """
import os, sys, time
from pathlib import Path
from causality_sdk import Client

path, endpoint, start, seconds, rate = sys.argv[1:]
seconds, rate = float(seconds), int(rate)
client = Client(api_key="test-key", endpoint=endpoint, app_id="steady", queue_path=Path(path),
                start=start == "start", timeout=600, batch_size=10)
log = Path(path + "-wal")
properties = {"order_id": "A-1", "note": "x" * 150}
largest = tracked = 0
began = time.monotonic()
total = int(seconds * rate)
while tracked < total:
    due = total if seconds <= 1 else min(total, int((time.monotonic() - began) * rate) + 1)
    for _ in range(due - tracked):
        assert client.track("purchase_complete", properties) is not None
        tracked += 1
        if tracked % 50 == 0:
            largest = max(largest, log.stat().st_size)
    if seconds > 1:
        time.sleep(0.002)
print(largest, tracked, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector() as running:
        yield running


def play(
    path: Path, collector: LoopbackCollector, *, start: bool, seconds: float, rate: int
) -> tuple[int, float]:
    """Tracks at `rate` for `seconds` and is killed; the largest log, and the seconds to open."""
    arguments = [str(path), collector.endpoint, "start" if start else "no", str(seconds), str(rate)]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        largest, tracked = map(int, program.stdout.readline().split())
        program.kill()
    assert program.returncode == -signal.SIGKILL
    began = time.perf_counter()
    client = Client(
        api_key="test-key",
        endpoint=collector.endpoint,
        app_id="steady",
        queue_path=path,
        start=False,
    )
    seconds_to_open = time.perf_counter() - began
    stats = client.stats()
    assert stats.tracked == tracked
    assert stats.acknowledged + sum((stats.evicted or {}).values()) + stats.pending == tracked
    client.close(timeout=0)
    return largest, seconds_to_open


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("how", ["stuck sender", "no thread", "server answers"])
def test_the_log_stays_below_its_limit(
    tmp_path: Path, collector: LoopbackCollector, how: str
) -> None:
    if how == "stuck sender":
        collector.pause()
    start = how != "no thread"
    largest, _ = play(tmp_path / "queue.db", collector, start=start, seconds=1, rate=20_000)
    assert 0 < largest < LIMIT


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("how", ["stuck sender", "no thread", "server answers"])
def test_at_2000_events_a_second_for_a_minute(
    tmp_path: Path, collector: LoopbackCollector, how: str
) -> None:
    if how == "stuck sender":
        collector.pause()
    start = how != "no thread"
    largest, seconds = play(tmp_path / "queue.db", collector, start=start, seconds=60, rate=2000)
    print(f"{how}: log at most {largest / 1e6:.1f} MB, opened in {seconds * 1000:.1f} ms")  # noqa: T201
    assert 0 < largest < LIMIT
    assert seconds <= 0.05
