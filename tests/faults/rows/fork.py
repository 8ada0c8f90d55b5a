"""Forks, from threads in mid-commit. Neighbour: `programs.forker` does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from faults.children import PRODUCER, Place, environment
from faults.registry import Fault, Outcome, Run, Unavailable

FORKER = PRODUCER.with_name("forker.py")
HOWS = ("fork", "double", "prefork", "multiprocessing")


def _one(run: Run, how: str, count: int, **more: Any) -> tuple[dict[str, Any], list[str]]:
    place = Place(run.directory(f"fork-{how}-{len(more)}"))
    spec = place.spec(events=count, how=how, **more)
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(FORKER), json.dumps(spec)],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=90,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"hanging": 1, "lock lost": False, "promised": 0}, [f"{how}: the parent hangs"]
    if done.returncode != 0:
        return {"hanging": 0, "lock lost": False, "promised": 0}, [
            f"{how}: the parent failed: {done.stderr[-300:]}"
        ]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    verdict = place.judge()
    failures = [f"{how}: {failure}" for failure in verdict.failures]
    if found["hanging"]:
        failures.append(f"{how}: {found['hanging']} children hang")
    if found["lock lost"]:
        failures.append(f"{how}: the parent lost its lock")
    return {**found, "promised": verdict.promised}, failures


def run(run: Run) -> Outcome:
    """Every way to fork."""
    if not hasattr(os, "fork"):
        raise Unavailable("needs fork()")
    children = 16 if run.quick else 200
    failures: list[str] = []
    found = {}
    for how in HOWS[: 1 if run.quick else None]:
        found[how], broken = _one(run, how, children)
        failures += broken
    figures = {
        "children": children * len(found),
        "hanging": sum(entry["hanging"] for entry in found.values()),
        "locks lost by the parent": sum(entry["lock lost"] for entry in found.values()),
        "promised": sum(entry["promised"] for entry in found.values()),
    }
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """Children that promise what they do not track."""
    found, failures = _one(run, "prefork", 4, sabotage="no track")
    return Outcome({"promised": found["promised"]}, failures)


FAULT = Fault(
    name="fork",
    how="a parent whose threads are in mid-commit forks children that track, collect garbage and"
    " end in every way; double fork; prefork workers; multiprocessing",
    promise="no child hangs, the parent keeps its lock, nothing is lost",
    run=run,
    control=control,
    broken="children journal what they do not track",
)
