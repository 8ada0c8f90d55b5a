"""The wall clock jumps by ten years, forth and back, while a server is away that names dates.

Neighbour: `programs.timewarp`, whose clock it is. The server asks for patience by a date
(`Retry-After`), which the client compares with its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from causality_sdk.testing import LoopbackCollector
from faults.children import PRODUCER, Place, environment
from faults.registry import Fault, Outcome, Run

TIMEWARP = PRODUCER.with_name("timewarp.py")
YEARS = 10
SECONDS = 5.0  # to deliver everything, once the server is back


def _jump(run: Run, events: int, **more: Any) -> tuple[dict[str, object], list[str]]:
    place = Place(run.directory(f"clock-{len(more)}"))
    with LoopbackCollector(journal=place.arrived) as collector:
        place.endpoint = collector.endpoint
        collector.down()
        spec = place.spec(events=events, years=YEARS, **more)
        with subprocess.Popen(
            [sys.executable, str(TIMEWARP), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdout.readline()
            # A date that has long passed on one clock, and is far away on another.
            dated = {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}
            collector.respond(503, {"error": "soon"}, dated, times=2)
            collector.up()
            program.stdin.write("it is back\n")
            program.stdin.flush()
            found = json.loads(program.stdout.readline())
        order = [key for key in collector.keys if key in place.promised()]
    verdict = place.judge()
    failures = list(verdict.failures)
    expired = found["pending"] + found["buried"]
    if expired:
        failures.append(f"{expired} were not delivered")
    if found["seconds"] > SECONDS:
        failures.append(f"delivery took {found['seconds']:.1f} s")
    if order != list(place.promised()):
        failures.append("the order of arrival is not that of tracking")
    figures = {
        "jumps": 4,
        "promised": verdict.promised,
        "lost or expired": len(verdict.lost) + expired,
        "seconds until delivered": round(found["seconds"], 1),
    }
    return figures, failures


def run(run: Run) -> Outcome:
    """Ten years, to and fro."""
    return Outcome(*_jump(run, 200 if run.quick else 5000))


def control(run: Run) -> Outcome:
    """A server that asks for a minute, which no clock shortens: the check of the time must see."""
    place = Place(run.directory("clock-control"))
    with LoopbackCollector(journal=place.arrived) as collector:
        place.endpoint = collector.endpoint
        collector.down()
        spec = place.spec(events=20, years=YEARS)
        with subprocess.Popen(
            [sys.executable, str(TIMEWARP), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdout.readline()
            collector.respond(503, {"error": "later"}, {"Retry-After": "60"}, times=1)
            collector.up()
            program.stdin.write("it is back\n")
            program.stdin.flush()
            late = not collector.wait_for(20, timeout=SECONDS / 2)
            program.kill()
    return Outcome({}, ["delivery took too long"] if late else [])


FAULT = Fault(
    name="clock jumps",
    how="the program's wall clock jumps by ten years, forth and back, while it tracks offline; the"
    " server then names a date to come back at",
    promise="order and waits unaffected, nothing expires",
    run=run,
    control=control,
    broken="the server asks for a minute of patience",
)
