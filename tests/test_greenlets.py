"""Under gevent and under eventlet, with the standard library patched, all verbs work.

Each test runs a program in a process of its own; patching cannot be undone in this one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from causality_sdk.testing import LoopbackCollector

PROGRAM = Path(__file__).parent / "programs" / "greenlets.py"
STALL = 2.0  # seconds: above what a busy machine adds, below the 4 of a hub that waits for a flush
# eventlet warns of itself when it is imported.
WARNINGS = {"gevent": ["-W", "error"], "eventlet": []}

both = pytest.mark.parametrize("library", ["gevent", "eventlet"])


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key="test-key") as running:
        yield running


def play(library: str, scene: str, collector: LoopbackCollector, directory: Path) -> dict[str, Any]:
    result = subprocess.run(
        [
            sys.executable,
            *WARNINGS[library],
            str(PROGRAM),
            library,
            scene,
            collector.endpoint,
            str(directory / "queue.db"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in result.stderr
    assert result.returncode == 0, result.stderr
    seen: dict[str, Any] = json.loads(result.stdout)
    return seen


@both
@pytest.mark.parametrize("scene", ["deliver", "imported first"])
def test_greenlets_track_and_the_background_delivers(
    library: str, scene: str, collector: LoopbackCollector, tmp_path: Path
) -> None:
    """Also where the package was imported before the patching."""
    seen = play(library, scene, collector, tmp_path)
    assert seen == {
        "background": True,
        "flush": [0, "None"],
        "health": True,
        "threads": [],
        "pending": 0,
    }
    assert collector.count == 200


@both
def test_a_hung_server_holds_up_no_other_greenlet(
    library: str, collector: LoopbackCollector, tmp_path: Path
) -> None:
    collector.pause()
    seen = play(library, "hang", collector, tmp_path)
    assert seen["stall"] < STALL
    assert seen["flush_waits"], "the others waited for the flush"
    assert seen["close"] < 0.5 + STALL


@both
def test_a_program_that_ends_without_a_close_has_delivered(
    library: str, collector: LoopbackCollector, tmp_path: Path
) -> None:
    play(library, "leave", collector, tmp_path)
    assert collector.count == 20


@both
def test_the_end_of_a_program_is_bounded_and_the_next_one_delivers(
    library: str, collector: LoopbackCollector, tmp_path: Path
) -> None:
    collector.pause()
    started = time.monotonic()
    play(library, "leave at once", collector, tmp_path)
    assert time.monotonic() - started < 0.5 + 10  # and what starting the program takes
    collector.resume()
    play(library, "leave", collector, tmp_path)
    assert collector.count == 40


@both
def test_a_flush_in_a_hook_does_not_wait_for_itself(
    library: str, collector: LoopbackCollector, tmp_path: Path
) -> None:
    """By the identity of its greenlet, not of its thread: that is the same for all."""
    seen = play(library, "flush in a hook", collector, tmp_path)
    assert seen["called"]
    assert "would wait for itself" in seen["errors"][0]


@both
def test_without_a_thread_whoever_flushes_delivers(
    library: str, collector: LoopbackCollector, tmp_path: Path
) -> None:
    seen = play(library, "by hand", collector, tmp_path)
    assert seen["pending"] == 0
    assert collector.count == 200
