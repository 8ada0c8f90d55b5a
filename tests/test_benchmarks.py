"""The benchmark runs: one row, as little of it as there is. What it measures is not looked at."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_a_row_is_measured_and_printed_beside_its_target(tmp_path: Path) -> None:
    options = ["--quick", "--no-peers", "--only", "cap", "--directory", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"cap .*evicting.*times.*\[at most 1\.3 times\]", done.stdout)
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


def test_a_row_that_cannot_be_measured_is_said_and_the_exit_status_tells() -> None:
    from benchmarks.__main__ import ROWS, measure
    from benchmarks.process import Broken
    from benchmarks.result import Result

    def breaks(_: object) -> object:
        raise Broken("segment: 5 of 10 events arrived")

    results: list[Result] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ROWS, "cap", breaks)
        assert not measure("cap", None, results)  # type: ignore[arg-type]
    assert results == []


def test_the_ratio_is_the_median_of_pairs_not_the_ratio_of_medians() -> None:
    from benchmarks.result import ratio

    # The machine was busy in the second round, for both alike.
    assert ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.1]) == pytest.approx(2.0)


def test_the_page_says_what_was_missed_and_which_peer_was_missing() -> None:
    from benchmarks import page
    from benchmarks.result import Result

    missed = Result("cap", "at the cap", "1.50 times", "at most 1.3 times", met=False)
    text = page.measured([missed], {"huey==3": "no such version"}, 60.0)
    assert "| at the cap | 1.50 times | at most 1.3 times | **missed** |" in text
    assert "Not installed, so not measured: huey==3 (no such version)." in text
    assert page.line(missed).startswith("MISS cap")


def test_the_page_tells_what_the_floor_misses_too() -> None:
    from benchmarks import page
    from benchmarks.result import Result

    missed = Result("written", "bytes", "2.27 times", "at most 1.5 times", met=False, at_floor=True)
    text = page.measured([missed], {}, 60.0)
    assert "| bytes | 2.27 times | at most 1.5 times | missed, by the floor too |" in text
    assert page.line(missed).startswith("FLOOR written")
