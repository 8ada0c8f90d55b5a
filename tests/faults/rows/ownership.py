"""Processes that want the same file: created, taken over, let go, all at once, and killed in it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from causality_sdk.schema import Destination
from faults import oracle
from faults.children import PRODUCER, environment
from faults.events import NOWHERE
from faults.registry import Fault, Outcome, Run

CLAIMER = PRODUCER.with_name("claimer.py")
ELSEWHERE = "http://127.0.0.1:10"


def _start(base: Path, seconds: float, seed: int, endpoint: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CLAIMER), str(base), str(seconds), str(seed), endpoint],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def _race(
    run: Run, name: str, *, seconds: float, processes: int, kills: int, seeded: bool
) -> Outcome:
    base = run.directory(name) / "queue.db"
    claims = doubles = killed = 0
    failures = []
    # One in four is a client of another destination.
    running = [
        _start(
            base, seconds, number + 1 if seeded else 0, ELSEWHERE if number % 4 == 3 else NOWHERE
        )
        for number in range(processes)
    ]
    for number in range(kills):
        time.sleep(run.rng.uniform(0.3, 0.6))  # the instant of the kill is what is random
        victim = running.pop(0)
        victim.kill()
        victim.communicate()
        killed += 1
        running.append(_start(base, seconds, 100 + number, NOWHERE))
    for process in running:
        output, _ = process.communicate(timeout=60)
        if process.returncode:
            failures.append("a process failed")
        for line in output.splitlines():
            found = json.loads(line)
            if "error" in found:
                failures.append(found["error"])
            claims += found.get("claims", 0)
            doubles += found.get("doubles", 0)
    if doubles:
        failures.append(f"{doubles} times a file had two owners")
    if seeded:
        residual = 0
        for path in sorted(base.parent.glob("queue*.db")):
            found_there = oracle.look(path, _destination(path))
            residual += abs(found_there.residual)
            if found_there.trouble:
                failures.append(f"{path.name}: {found_there.trouble}")
        if residual:
            failures.append(f"residual {residual}")
    figures = {"claims": claims, "killed": killed, "double owners": doubles}
    return Outcome(figures, failures)


def _destination(path: Path) -> Destination:
    with closing(sqlite3.connect(path)) as database:
        return Destination(
            *database.execute("SELECT endpoint, wire, key_fingerprint FROM state").fetchone()
        )


def run(run: Run) -> Outcome:
    """Three processes; the long run eight, killed in mid-creation and elsewhere."""
    if run.quick:
        return _race(run, "owners", seconds=1.2, processes=3, kills=1, seeded=True)
    return _race(run, "owners", seconds=15, processes=8, kills=20, seeded=True)


def control(run: Run) -> Outcome:
    """Processes that take without asking."""
    return _race(run, "no-owners", seconds=0.8, processes=3, kills=0, seeded=False)


FAULT = Fault(
    name="ownership",
    how="processes claim, use and let go the files of one app all at once, some for another"
    " destination; some are killed, in mid-creation too",
    promise="a file never has two owners",
    run=run,
    control=control,
    broken="no lock is taken",
)
