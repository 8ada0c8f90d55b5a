"""2, 8 and 32 processes of one app, killed at random; the rest adopt what the dead leave."""

from __future__ import annotations

import time
from typing import Any

from causality_sdk.cli._demo_judge import read_queues
from causality_sdk.testing import LoopbackCollector
from faults.children import Place, Producer
from faults.registry import Fault, Outcome, Run

SECONDS = 60.0  # for the last process to adopt all that is left; it looks about every 30 s
OPTIONS = {"flush_interval": 0.2, "backoff_initial": 0.05, "backoff_max": 0.3}


def _crowd(run: Run, count: int, kills: int, **more: Any) -> tuple[dict[str, object], list[str]]:
    place = Place(run.directory(f"crowd-{count}-{len(more)}"))
    with LoopbackCollector(journal=place.arrived) as collector:
        place.endpoint = collector.endpoint
        spec: dict[str, Any] = place.spec(
            arrived=None,
            start=True,
            pace=0.01,
            options=OPTIONS,
            events=100_000,
            adopt_seconds=0.3 if run.quick else 0.0,
        )
        turn = 0

        def start() -> Producer:
            nonlocal turn
            turn += 1
            return Producer({**spec, **more, "first": turn * 900})

        running = [start() for _ in range(count)]
        for producer in running:
            producer.wait_for("ready")
        for number in range(kills):
            time.sleep(run.rng.uniform(0.02, 0.2))  # the instant of the kill is what is random
            with running.pop(run.rng.randrange(len(running))) as victim:
                victim.process.kill()
            if number < kills - count // 2:
                running.append(start())
                running[-1].wait_for("ready")
        for producer in running[1:]:
            with producer:
                producer.process.kill()
        adopted, seconds = _wait_for_adoption(place, collector)
        with running[0] as last:
            last.process.kill()
        duplicates = collector.duplicates
    verdict = place.judge()
    queues = read_queues(place.home, "queue*.db")
    failures = [f"{count} processes: {failure}" for failure in verdict.failures]
    if queues.residual:
        failures.append(f"{count} processes: residual {queues.residual}")
    if not adopted:
        failures.append(f"{count} processes: orphans are left after {SECONDS:.0f} s")
    figures: dict[str, object] = {
        "killed": kills,
        "promised": verdict.promised,
        "lost": len(verdict.lost),
        "residual": queues.residual,
        "sent twice": duplicates,
        "seconds until all orphans were adopted": round(seconds, 1) if adopted else "never",
    }
    return {f"{count} processes: {name}": value for name, value in figures.items()}, failures


def _wait_for_adoption(place: Place, collector: LoopbackCollector) -> tuple[bool, float]:
    """Whether one process that lives delivers what all others have left, and after how long."""
    began = time.monotonic()
    promised = set(place.promised())  # of the dead and, so far, of the one that goes on
    while time.monotonic() - began < SECONDS:
        if promised <= set(collector.keys):
            return True, time.monotonic() - began
        collector.wait_for(collector.count + 1, timeout=0.2)
    return False, SECONDS


def run(run: Run) -> Outcome:
    """Two; the long run 8 and 32, too."""
    figures: dict[str, object] = {}
    failures: list[str] = []
    for count, kills in ((2, 2),) if run.quick else ((2, 20), (8, 40), (32, 60)):
        found, broken = _crowd(run, count, kills)
        figures |= found
        failures += broken
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """A server that acknowledges what it does not journal."""
    place = Place(run.directory("crowd-control"))
    with Producer(place.spec(events=50, flush_every=10, sabotage="server lies")) as producer:
        producer.end()
    return Outcome({}, place.judge().failures)


FAULT = Fault(
    name="many processes of one app",
    how="2, 8 and 32 processes track and deliver, are killed at random and started again; in the"
    " end one is left",
    promise="residual 0, nothing lost; the one that is left delivers the files of all others",
    run=run,
    control=control,
    broken="the server acknowledges without journaling",
)
