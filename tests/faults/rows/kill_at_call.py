"""kill -9 at every Nth system call of each part of the work.

A scenario is one small class: what it prepares, and the producer that is killed. To add one, write
it and name it in `SCENARIOS`. Neighbour: `strace` injects the signal.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faults import strace
from faults.children import PATIENCE, PRODUCER, Place, Producer, environment, produce
from faults.oracle import Verdict
from faults.registry import Fault, Outcome, Run, need_strace

CALLS = ("pwrite64", "fdatasync", "ftruncate", "unlink", "rename")
AT_ONCE = 2


def told(**spec: Any) -> Mapping[str, Any]:
    """What a producer is told."""
    return spec


class Scenario:
    """A producer at work; `prepare` makes the place it finds."""

    name = ""
    program: Path = PRODUCER
    work: Mapping[str, Any] = told()
    before: Mapping[str, Any] | None = None
    """What a first producer does, which nobody kills."""
    threads = False
    """Whether the work is done by a thread of the client's."""

    def prepare(self, place: Place) -> None:
        """The state in which the work begins."""
        if self.before is not None:
            code, errors = produce(place.spec(**self.before), program=PRODUCER)
            if code:
                raise RuntimeError(errors)

    def spec(self, place: Place) -> dict[str, Any]:
        """What the producer that is killed is told."""
        return place.spec(**self.work)

    def judge(self, place: Place) -> Verdict:
        """Whether what was promised is there, once the producer is dead."""
        return place.judge()


class Track(Scenario):
    """Appends to a file that is there."""

    name = "track"
    before = told(events=20)
    work = told(first=20, events=25, close=False)


class TrackPower(Track):
    """The same with a sync for each."""

    name = "track, power"
    work = told(**Track.work, durability="power")


class Settle(Scenario):
    """Delivers a backlog in several batches."""

    name = "settle"
    before = told(events=250)
    work = told(
        first=250,
        events=2,
        flush_every=1,
        close=False,
        options={"max_batch_events": 90, "batch_size": 90},
    )


class Checkpoint(Scenario):
    """Moves a log into the database."""

    name = "checkpoint"
    before = told(events=150, close=False)  # leaves a log
    work = told(first=150, events=4, checkpoint_every=1, close=False)


class Evict(Scenario):
    """Makes room at the cap."""

    name = "evict"
    before = told(events=100)
    work = told(first=100, events=30, close=False, options={"max_queue_events": 100})

    def judge(self, place: Place) -> Verdict:
        """What is missing must have been counted."""
        return place.judge(evictions=True)


class Close(Scenario):
    """Closes with a backlog that is delivered then."""

    name = "close"
    before = told(events=100, close=False)
    work = told(first=100, events=3, close=True)


class Create(Scenario):
    """Makes the file, and migrates it from nothing."""

    name = "create"
    work = told(events=3, close=False)


class Migrate(Scenario):
    """Takes a file to a later schema, with events in it."""

    name = "migrate"
    program = PRODUCER.parent / "migrator.py"
    before = told(events=40)
    work = told(first=40, events=3, close=False)

    def judge(self, place: Place) -> Verdict:
        """By the later release, too: this one rightly refuses the file."""
        result = subprocess.run(
            [sys.executable, str(self.program), "--judge", str(place.home.parent)],
            check=True,
            capture_output=True,
            text=True,
            env=environment(),
            timeout=PATIENCE,
        )
        return Verdict(**json.loads(result.stdout))


class Adopt(Scenario):
    """Takes over what a process left that had a file of its own."""

    name = "adopt"
    threads = True
    work = told(
        first=200,
        events=2,
        start=True,
        close=False,
        alone=True,
        options={"batch_size": 1},
    )

    def prepare(self, place: Place) -> None:
        """Two files, both of the dead."""
        # Its own events are few: the second of two files is what is adopted.
        with Producer(place.spec(events=1000, pace=0.05)) as first:
            first.wait_for("ready")
            produce(place.spec(first=5000, events=130, close=False))
            first.process.kill()


class Salvage(Scenario):
    """Sets a damaged file aside, and takes over what can be read of it."""

    name = "salvage"
    before = told(events=300)
    work = told(first=300, events=3, close=False)

    def prepare(self, place: Place) -> None:
        """One page in the middle is nothing but zeros."""
        super().prepare(place)
        with place.queue.open("r+b") as file:
            file.seek(20 * 4096)
            file.write(bytes(4096))

    def judge(self, place: Place) -> Verdict:
        """What was on the page is counted as corrupt; what it was set aside as is not trouble."""
        verdict = place.judge(evictions=True)
        expected = "something was set aside"
        troubles = tuple(text for text in verdict.troubles if not text.startswith(expected))
        return replace(verdict, troubles=troubles)


SCENARIOS: Sequence[type[Scenario]] = (
    Track, TrackPower, Settle, Checkpoint, Evict, Close, Create, Migrate, Adopt,
)  # fmt: skip


@dataclass
class Point:
    """One kill."""

    scenario: str
    call: str
    when: int
    killed: bool
    failures: list[str]
    overlaps: int


def _count(scenario: Scenario, directory: Path) -> dict[str, int]:
    place = Place(directory)
    scenario.prepare(place)
    output = directory / "trace"
    subprocess.run(
        [
            *strace.recording(output, calls=",".join(CALLS)),
            sys.executable,
            str(scenario.program),
            json.dumps(scenario.spec(place)),
        ],
        check=True,
        capture_output=True,
        env=environment(),
        timeout=PATIENCE,
    )
    return strace.count_calls(output, CALLS)


def _kill(scenario: Scenario, call: str, when: int, directory: Path, **more: Any) -> Point:
    model = directory.parent / "prepared"
    shutil.copytree(model, directory)
    place = Place(directory)
    inject = f"{call}:signal=KILL:when={when}"
    words = strace.injecting(inject, threads=scenario.threads)
    code, _ = produce({**scenario.spec(place), **more}, before=words, program=scenario.program)
    verdict = scenario.judge(place)
    shutil.rmtree(directory)
    return Point(scenario.name, call, when, code != 0, verdict.failures, verdict.overlaps)


def _points(run: Run, scenario: Scenario, name: str, most: int, **more: Any) -> list[Point]:
    directory = run.directory(name)
    counts = _count(scenario, directory / "counted")
    prepared = directory / "prepared"
    scenario.prepare(Place(prepared))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        work = []
        for call, count in counts.items():
            step = max(1, -(-count // most))
            for when in range(1 + run.rng.randrange(step), count + 1, step):
                where = directory / f"{call}-{when}"
                work.append(pool.submit(_kill, scenario, call, when, where, **more))
        return [point.result() for point in work]


def run(run: Run) -> Outcome:
    """Every scenario. Quick: a few points of three of them."""
    need_strace()
    figures: dict[str, object] = {}
    failures = []
    points: list[Point] = []
    for scenario in SCENARIOS:
        if run.quick and scenario not in (Track, Settle, Create, Adopt):
            continue
        found = _points(run, scenario(), f"calls-{scenario.__name__}", 2 if run.quick else 10**6)
        figures[f"{scenario.name}: points"] = sum(point.killed for point in found)
        points += found
    for point in points:
        if point.failures:
            where = f"{point.scenario}, {point.call} {point.when}"
            failures.append(f"{where}: {'; '.join(point.failures)}")
    figures["points"] = sum(point.killed for point in points)
    figures["lost or corrupt"] = len(failures)
    figures["events that would be sent again"] = sum(point.overlaps for point in points)
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """Tracking with a promise before the commit; killed in its middle."""
    need_strace()
    points = _points(run, Track(), "calls-control", 2, sabotage="journal first")
    failures = [
        f"{point.call} {point.when}: {point.failures[0]}" for point in points if point.failures
    ]
    return Outcome({"points": len(points), "red": len(failures)}, failures)


FAULT = Fault(
    name="kill -9 at every Nth system call",
    how="strace kills the producer at the first, the second, … the last pwrite64, fdatasync,"
    " ftruncate, unlink and rename of each part of the work",
    promise="nothing lost, no corrupt file",
    run=run,
    control=control,
    broken="the key is journaled before track() returns",
)
