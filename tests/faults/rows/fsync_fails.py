"""fsync fails: once, and for good, at every Nth call; the power then goes, at any moment.

Neighbours: `strace` injects EIO into fdatasync, `disk_model` makes the states. One figure is beyond
what SQLite promises, and what it shows is not counted as a failure: a kernel may mark pages clean
that it could not write, and then call the next sync of them a success.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.registry import Fault, Outcome, Run, need_strace
from faults.rows.power_loss import PROCESSES, Tally, record, replay

WORK: dict[str, Any] = {
    "events": 16,
    "flush_every": 7,
    "checkpoint_every": 5,
    "durability": "power",
}


@dataclass
class Failures:
    """What came of all of them."""

    points: int = 0
    states: Tally = field(default_factory=Tally)
    forgetful: Tally = field(default_factory=Tally)
    """On a disk that never writes what a failed sync covered."""
    broken: list[str] = field(default_factory=list)


def _fail(run: Run, numbers: range, suffixes: tuple[str, ...], **more: Any) -> Failures:
    found = Failures()
    directory = run.directory(f"fsync-{len(more)}")
    sample = 3 if run.quick else 2
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        work = {
            f"{number}{suffix}": pool.submit(
                _one,
                str(directory / f"{number}{suffix}"),
                f"fdatasync:error=EIO:when={number}{suffix}",
                {**WORK, **more},
                sample,
            )
            for number in numbers
            for suffix in suffixes
        }
        for where, point in work.items():
            tally, forgetful = point.result()
            found.points += tally.failed_syncs > 0
            found.states.add(tally)
            found.forgetful.add(forgetful)
            if tally.losing or tally.corrupt:
                why = (tally.why_losing + tally.why_corrupt)[0]
                found.broken.append(f"at fdatasync {where}: {why}")
    return found


def _one(directory: str, inject: str, spec: dict[str, Any], sample: int) -> tuple[Tally, Tally]:
    """One failure: its states, and those of a forgetful disk."""
    calls = record(Path(directory), inject=inject, **spec)
    return (
        replay(calls, Path(directory), parts=sample),
        replay(calls, Path(directory), parts=2 * sample, forgetful=True),
    )


def run(run: Run) -> Outcome:
    """Every fdatasync of the work; quick: three of them."""
    need_strace()
    recorded = record(run.directory("fsync-counted"), **WORK)
    syncs = sum(call.name == "fdatasync" for call in recorded)
    numbers = range(9, syncs + 1, 11) if run.quick else range(1, syncs + 1)
    found = _fail(run, numbers, ("",) if run.quick else ("", "+"))
    figures: dict[str, object] = {
        "failures of fsync": found.points,
        "states": found.states.states,
        "states with a silent loss": found.states.losing,
        "corrupt": found.states.corrupt,
    }
    if found.forgetful.states:
        spoilt = found.forgetful.losing + found.forgetful.corrupt
        figures["spoilt states if the kernel forgets what it could not write"] = spoilt
    return Outcome(figures, found.broken)


def control(run: Run) -> Outcome:
    """A producer that does not wait for the outcome of the commit."""
    need_strace()
    found = _fail(run, range(20, 21), ("",), sabotage="journal first")
    return Outcome({"failures of fsync": found.points, "red": len(found.broken)}, found.broken)


FAULT = Fault(
    name="fsync fails",
    how="strace makes the Nth fdatasync fail with EIO, once or from then on; what it should"
    ' have covered stays pending, and the power is cut after every call ("power")',
    promise="no key for a commit that failed",
    run=run,
    control=control,
    broken="the key is journaled before track() returns",
)
