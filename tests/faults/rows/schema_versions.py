"""A file of a newer release, and one of an older: the later release is `programs.migrator`.

The kills at every step of a migration are a scenario of `kill_at_call`.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

from faults.children import PATIENCE, PRODUCER, Place, environment, produce
from faults.oracle import Verdict
from faults.registry import Fault, Outcome, Run
from faults.starting import construct, fingerprint

MIGRATOR = PRODUCER.with_name("migrator.py")


def _judged_by_later(place: Place) -> Verdict:
    done = subprocess.run(
        [sys.executable, str(MIGRATOR), "--judge", str(place.home.parent)],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
    )
    return Verdict(**json.loads(done.stdout))


def run(run: Run) -> Outcome:
    """Forth with the later release, and back with this one, which must refuse."""
    place = Place(run.directory("versions"))
    failures = []
    produce(place.spec(events=300, close=False))
    code, errors = produce(place.spec(first=300, events=20, close=False), program=MIGRATOR)
    if code:
        failures.append(f"the later release does not take the older file: {errors[-300:]}")
    verdict = _judged_by_later(place)
    failures += verdict.failures
    before = fingerprint(place.home)
    found = construct(options={"queue_path": str(place.queue)})
    if found["error"] != "QueueError" or "newer" not in found["text"]:
        failures.append(f"a newer file: {found['error'] or 'taken'} {found['text']}")
    changed = fingerprint(place.home) != before
    if changed:
        failures.append("the newer file was changed")
    figures = {
        "events kept by a migration": f"{verdict.pending} of {verdict.promised}",
        "newer files changed": int(changed),
        "message": found["text"].replace(str(run.scratch), "…"),
    }
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """A migration that loses a row."""
    place = Place(run.directory("versions-control"))
    produce(place.spec(events=20, close=False))
    produce(place.spec(first=20, events=1, close=False), program=MIGRATOR)
    with closing(sqlite3.connect(place.queue)) as database:
        database.execute("DELETE FROM queue WHERE id = 7")
        database.commit()
    return Outcome({}, _judged_by_later(place).failures)


FAULT = Fault(
    name="schema newer, older",
    how="a later release, made by one more migration, takes a file over; then this one comes back",
    promise="older: migrated, all kept; newer: QueueError, nothing changed",
    run=run,
    control=control,
    broken="a migration loses a row",
)
