"""kill -9 at random instants, again and again, in front of a server that comes and goes.

Neighbours: `LoopbackCollector` is the server, the oracle judges at the end.
"""

from __future__ import annotations

import time
from typing import Any

from causality_sdk.testing import LoopbackCollector
from faults import oracle
from faults.children import Place, Producer, produce
from faults.registry import Fault, Outcome, Run

OPTIONS = {"flush_interval": 0.05, "backoff_initial": 0.02, "backoff_max": 0.2}


def _rounds(run: Run, kills: int, **more: Any) -> Outcome:
    place = Place(run.directory(f"kill-{len(more)}"))
    first = 0
    killed = 0
    with LoopbackCollector(journal=place.arrived) as collector:
        place.endpoint = collector.endpoint
        for turn in range(kills):
            collector.up() if turn % 3 else collector.down()
            spec = place.spec(
                arrived=None,
                first=first,
                events=100_000 - first,
                start=turn % 4 != 0,
                flush_every=150,
                checkpoint_every=200,
                options=OPTIONS,
                durability="process" if turn % 2 else "power",
            )
            with Producer({**spec, **more}) as producer:
                if not producer.wait_for("ready"):
                    return Outcome({}, [f"it did not start: {producer.end()[1][-200:]}"])
                # Not a wait for anything: the instant of the kill is what is random.
                time.sleep(run.rng.uniform(0.0, 0.25))
                producer.process.kill()
                killed += 1
            # The one in mid-air may be there without a promise; its line is not tracked again.
            first = len(oracle.read_journal(place.journal)) + turn + 1
        collector.up()
        spec = place.spec(arrived=None, first=99_000, events=10)
        code, errors = produce({**spec, "flush_every": 10, "options": OPTIONS})
        duplicates = collector.duplicates
    verdict = place.judge()
    failures = verdict.failures + ([f"the last one failed: {errors[-200:]}"] if code else [])
    if verdict.pending:
        failures.append(f"{verdict.pending} were never delivered")
    figures = {
        "kills": killed,
        "promised": verdict.promised,
        "lost": len(verdict.lost),
        "residual": verdict.residual,
        "sent twice": duplicates,
    }
    return Outcome(figures, failures)


def run(run: Run) -> Outcome:
    """The product."""
    return _rounds(run, 8 if run.quick else 200)


def control(run: Run) -> Outcome:
    """A producer that promises too early. Killed while it does so, it has promised too much."""
    # Not every kill comes in between; of sixteen one does.
    return _rounds(run, 16 if run.quick else 40, sabotage="journal first", pace=0.01)


FAULT = Fault(
    name="kill -9 at random",
    how="a producer is killed at a random instant of tracking, settling and checkpointing, and"
    " started again on what it left, at both levels of durability; the server comes and goes",
    promise="nothing lost",
    run=run,
    control=control,
    broken="the key is journaled before track() returns",
)
