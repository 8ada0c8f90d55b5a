"""Every way a program can end, on every Python that is at hand, the server stuck meanwhile.

Neighbour: `programs.leaver` ends. With `close_timeout` of 1 s, an exit may take a second longer.
"""

from __future__ import annotations

import json
import subprocess
import time

from causality_sdk.testing import LoopbackCollector
from faults.children import PATIENCE, PRODUCER, Place, environment
from faults.registry import Fault, Outcome, Run

LEAVER = PRODUCER.with_name("leaver.py")
HOWS = (
    "the last line", "sys.exit", "an exception", "os._exit", "SIGTERM", "SIGTERM, no handler",
    "SIGINT", "abort",
)  # fmt: skip
CLOSE = 1.0
SLACK = 1.5  # seconds that a busy machine may add


def _leave(run: Run, python: str, how: str, **more: object) -> tuple[float, int, list[str]]:
    """Seconds from the last `track()` to the end, promises kept, and what is wrong."""
    place = Place(run.directory(f"exit-{abs(hash((python, how, len(more))))}"))
    with LoopbackCollector(journal=place.arrived) as collector:
        place.endpoint = collector.endpoint
        collector.pause()
        spec = place.spec(events=20, how=how, **more)
        with subprocess.Popen(
            [python, str(LEAVER), json.dumps(spec)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as program:
            assert program.stdout is not None
            word = program.stdout.readline()
            began = time.monotonic()
            try:
                _, errors = program.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                program.kill()
                return PATIENCE, 0, ["it does not end"]
            seconds = time.monotonic() - began
        collector.resume()
    if word != "tracked\n":
        return 0.0, 0, [f"it failed: {errors[-300:]}"]
    verdict = place.judge()
    failures = list(verdict.failures)
    if seconds > CLOSE + SLACK:
        failures.append(f"the exit took {seconds:.1f} s")
    expected = {"an exception": 1, "SIGINT": 1}.get(how, 0)
    if errors.count("Traceback") != expected:
        failures.append(f"{errors.count('Traceback')} tracebacks: {errors[-300:]}")
    return seconds, verdict.promised - len(verdict.lost), failures


def run(run: Run) -> Outcome:
    """Quick: three ways, on this Python."""
    failures = []
    kept = 0
    longest: dict[str, float] = {}
    for python in run.pythons:
        version = subprocess.run(
            [python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for how in HOWS[:6:2] if run.quick else HOWS:
            seconds, found, broken = _leave(run, python, how)
            kept += found
            longest[version] = max(longest.get(version, 0.0), seconds)
            failures += [f"Python {version}, {how}: {failure}" for failure in broken]
    figures: dict[str, object] = {
        f"Python {version}: longest exit, s": round(seconds, 2)
        for version, seconds in longest.items()
    }
    return Outcome({**figures, "promises kept": kept}, failures)


def control(run: Run) -> Outcome:
    """A program that journals what it does not track."""
    _, kept, failures = _leave(run, run.pythons[0], "os._exit", sabotage="no track")
    return Outcome({"promises kept": kept}, failures)


FAULT = Fault(
    name="exit",
    how="the last line, sys.exit, an exception, os._exit, SIGTERM with and without a handler,"
    " SIGINT, abort, while the server is stuck (close_timeout 1 s)",
    promise="exit in time, what was not sent stays on disk",
    run=run,
    control=control,
    broken="the program journals what it does not track",
)
