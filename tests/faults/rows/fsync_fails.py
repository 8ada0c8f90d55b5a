"""fsync fails: once, and for good, at every Nth call; the disk then loses what was not synced.

Neighbours: `strace` injects EIO into fdatasync, `disk_model` forgets what it covered, for ever: a
kernel may mark pages clean although they were not written, and the next sync then says all is well.
"""

from __future__ import annotations

from typing import Any

from faults.registry import Fault, Outcome, Run, need_strace
from faults.rows.power_loss import Tally, judge_all, record

WORK = {"events": 16, "flush_every": 7, "checkpoint_every": 5, "durability": "power"}


def _fail(run: Run, inject: str, **more: Any) -> Tally:
    directory = run.directory(f"fsync-{inject.rpartition(':')[2].rstrip('+')}-{inject[-1]}")
    calls = record(directory, inject=inject, **{**WORK, **more})
    return judge_all(calls, directory, sample=2 if run.quick else 1)


def _all(run: Run, numbers: range, *, forever: bool, **more: Any) -> tuple[Tally, int, list[str]]:
    total, points, failures = Tally(), 0, []
    for number in numbers:
        for suffix in ("", "+") if forever else ("",):
            tally = _fail(run, f"fdatasync:error=EIO:when={number}{suffix}", **more)
            points += tally.failed_syncs > 0
            total.add(tally)
            if tally.losing or tally.corrupt:
                why = (tally.why_losing + tally.why_corrupt)[0]
                failures.append(f"at fdatasync {number}{suffix}: {why}")
    return total, points, failures


def run(run: Run) -> Outcome:
    """Every fdatasync of the work; quick: three of them."""
    need_strace()
    recorded = record(run.directory("fsync-counted"), **WORK)
    syncs = sum(call.name == "fdatasync" for call in recorded)
    numbers = range(9, syncs + 1, 11) if run.quick else range(1, syncs + 1)
    total, points, failures = _all(run, numbers, forever=not run.quick)
    figures = {
        "failures of fsync": points,
        "states": total.states,
        "states with a silent loss": total.losing,
        "corrupt": total.corrupt,
    }
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """A producer that does not wait for the outcome of the commit."""
    need_strace()
    _, points, failures = _all(run, range(20, 21), forever=False, sabotage="journal first")
    return Outcome({"failures of fsync": points, "red": len(failures)}, failures)


FAULT = Fault(
    name="fsync fails",
    how="strace makes the Nth fdatasync fail with EIO, once or from then on; what it covered never"
    ' reaches the disk, and the power is cut after every call ("power")',
    promise="no key for a commit that failed",
    run=run,
    control=control,
    broken="the key is journaled before track() returns",
)
