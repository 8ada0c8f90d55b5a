"""SIGSTOP of one process: the others go on. Measured is what their `track()` takes."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys

from faults.children import PRODUCER, Place, Producer, environment
from faults.registry import Fault, Outcome, Run

TIMER = PRODUCER.with_name("timer.py")
MARGIN_MS = 0.5  # a p99 that differs by less is what it was
STALL = 2.0  # seconds; SQLite's busy timeout, and what a process with a shared file would wait


def _times(place: Place, events: int, *, shared: bool = False) -> list[float]:
    """Seconds of each `track()` of one process."""
    spec = place.spec(events=events, shared=shared, journal=str(place.journal) + "-2")
    done = subprocess.run(
        [sys.executable, str(TIMER), json.dumps(spec)],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
    )
    times: list[float] = json.loads(done.stdout)
    return times


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98] * 1000


def run(run: Run) -> Outcome:
    """One is stopped in the middle of its work; another tracks, before and meanwhile."""
    place = Place(run.directory("stopped"))
    events = 2000 if run.quick else 10_000
    alone: list[float] = []
    beside: list[float] = []
    longest = 0.0
    with Producer(place.spec(events=100_000, start=True)) as producer:
        producer.wait_for("ready")
        for number in range(3):  # in turn: a machine that is busy for a moment is not what is meant
            alone.append(_p99(_times(Place(run.directory(f"stopped-alone-{number}")), events)))
            producer.process.send_signal(signal.SIGSTOP)
            times = _times(place, events)
            producer.process.send_signal(signal.SIGCONT)
            beside.append(_p99(times))
            longest = max(longest, *times)
    figures = {
        "p99 of track(), nobody stopped, ms": round(statistics.median(alone), 3),
        "p99 beside one that is stopped, ms": round(statistics.median(beside), 3),
        "longest, ms": round(longest * 1000, 1),
    }
    failures = place.judge().failures
    if longest > STALL / 2:
        failures.append(f"track() took {longest:.2f} s")
    if all(stopped > 2 * free + MARGIN_MS for free, stopped in zip(alone, beside, strict=True)):
        failures.append(f"p99 of track() rose from {alone} to {beside} ms")
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """Two processes on one file, the one stopped inside a transaction."""
    times = _times(Place(run.directory("stopped-shared")), 1, shared=True)
    failures = [f"track() took {max(times):.2f} s"] if max(times) > STALL / 2 else []
    return Outcome({"longest, ms": round(max(times) * 1000)}, failures)


FAULT = Fault(
    name="SIGSTOP of one process",
    how="one process of an app is stopped in mid-work; another tracks",
    promise="the others are not held up",
    run=run,
    control=control,
    broken="both write to one file",
)
