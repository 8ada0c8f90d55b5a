"""The disk is full, and has room again: a small tmpfs, a small ext4, a limit on the file's size.

Neighbours: `mounts`; `programs.cramped` tracks. What the judge looks for beside losses: an event
that `track()` gave no key for was either written later, or counted as dropped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import oracle
from faults.children import PATIENCE, PRODUCER, Place, environment
from faults.mounts import Ext4, fill, tmpfs
from faults.registry import Fault, Outcome, Run, Unavailable

CRAMPED = PRODUCER.with_name("cramped.py")
SECONDS = 10.0  # to recover, at most


class Cramped:
    """The program, and one order after the other."""

    def __init__(self, place: Place) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CRAMPED), json.dumps(place.spec())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )
        self._answer()

    def do(self, order: str) -> Any:
        """Its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the program ended")
        return json.loads(line)

    def close(self) -> None:
        """Closes its client and waits for its end."""
        try:
            self.process.communicate("close\n", timeout=PATIENCE)
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends it as it is."""
        self.process.kill()
        self.process.communicate()


@dataclass
class Course:
    """What happened on one disk."""

    dropped: int
    dropped_found: int
    seconds: float | None
    resent: int
    failures: list[str]


def _one(
    place: Place, begin: Callable[[Cramped], object], end: Callable[[Cramped], object], events: int
) -> Course:
    program = Cramped(place)
    try:
        program.do("track 200")
        begin(program)
        program.do(f"track {events}")
        program.do("flush")
        full = program.do("stats")
        program.do("flush")
        end(program)
        seconds = program.do("recover")
        program.do("track 50")
        dropped = program.do("stats")["dropped"]
        program.do("flush")
    finally:
        program.close()
    arrived = oracle.read_journal(place.arrived)
    verdict = place.judge()
    found = {key for key, _ in arrived} | _pending(place)
    refused = {key for key, _ in oracle.read_journal(place.refused)}
    dropped_found = len(refused - found)
    failures = list(verdict.failures)
    if not refused:
        failures.append("the disk never was full")
    if dropped_found != dropped:
        failures.append(f"{dropped} counted as dropped, {dropped_found} are missing")
    if full["buffered"] == 0:
        failures.append("nothing was buffered")
    if seconds is None or seconds > SECONDS:
        failures.append(f"it did not recover in {SECONDS:.0f} s")
    if verdict.duplicates:
        failures.append(f"{verdict.duplicates} acknowledged events were sent again")
    return Course(dropped, dropped_found, seconds, verdict.duplicates, failures)


def _pending(place: Place) -> set[str]:
    return {key for found in oracle.look_at_all(place.home) for key in found.pending}


def _limit(program: Cramped, place: Place) -> None:
    log = place.queue.with_name(place.queue.name + "-wal")
    # Both may be rewritten up to here, and none may grow.
    program.do(f"limit {max(log.stat().st_size, place.queue.stat().st_size)}")


def _limited(run: Run, events: int) -> Course:
    place = Place(run.directory("limited"))
    return _one(
        place,
        lambda program: _limit(program, place),
        lambda program: program.do("limit 0"),
        events,
    )


def _filled(root: Path, directory: Path, events: int) -> Course:
    place = Place(directory, root / "queue" / "queue.db")
    fillers: list[Path] = []
    return _one(
        place,
        lambda _program: fillers.append(fill(root)),
        lambda _program: fillers[0].unlink(),
        events,
    )


def run(run: Run) -> Outcome:
    """Without root, the limit alone."""
    events = 1100 if run.quick else 1600
    courses = {"RLIMIT_FSIZE": _limited(run, events)}
    figures: dict[str, object] = {}
    with ExitStack() as stack:
        try:
            root = stack.enter_context(tmpfs(run.scratch / "full-tmpfs", 8))
            courses["tmpfs"] = _filled(root, run.directory("full-1"), events)
            if not run.quick:
                disk = stack.enter_context(Ext4(run.directory("full-ext4"), 24))
                courses["ext4"] = _filled(disk.root, run.directory("full-2"), events)
        except Unavailable as reason:
            figures["not tried"] = str(reason)
    failures = []
    for name, course in courses.items():
        figures[f"{name}: dropped, counted and found"] = f"{course.dropped}, {course.dropped_found}"
        figures[f"{name}: seconds to recover"] = (
            "never" if course.seconds is None else round(course.seconds, 1)
        )
        failures += [f"{name}: {failure}" for failure in course.failures]
    figures["acknowledged and sent again"] = sum(course.resent for course in courses.values())
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """The same, and the promises of a producer that took None for a key."""
    place = Place(run.directory("full-control"))
    program = Cramped(place)
    try:
        program.do("track 200")
        _limit(program, place)
        program.do("track 1050")
    finally:
        program.kill()
    with place.journal.open("ab") as journal:
        journal.write(place.refused.read_bytes())
    return Outcome({}, place.judge().failures)


FAULT = Fault(
    name="disk full",
    how="another writer fills a small tmpfs and a small ext4; without root, RLIMIT_FSIZE",
    promise="no key for what is not written; drops are counted; it recovers alone; nothing that"
    " was acknowledged goes again",
    run=run,
    control=control,
    broken="None is taken for a key",
)
