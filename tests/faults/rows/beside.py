"""Something lies beside the first file of an app that cannot be used. It is passed over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from causality_sdk import header, ownership, schema
from causality_sdk.connections import connect
from faults.events import HERE
from faults.registry import Fault, Outcome, Run
from faults.rows.wrong_file import KINDS
from faults.starting import construct, fingerprint

NOBODY = 65534


def _newer(path: Path) -> None:
    schema.prepare(path, HERE)
    connection = connect(path)
    connection.execute(f"PRAGMA user_version={header.VERSION + 1}")
    connection.close()


def _root_s(path: Path) -> None:
    schema.prepare(path, HERE)
    path.chmod(0o600)


def _root_s_lock(path: Path) -> None:
    ownership.lock_path(path).touch(mode=0o600)


def run(run: Run) -> Outcome:
    """Each kind, at the second name, while the first is owned."""
    return _each(run, "queue.1.db", "queue.2.db")


def control(run: Run) -> Outcome:
    """At the first name they must stop a program: then they are what the row says."""
    return _each(run, "queue.db", "queue.1.db", owned=False)


def _each(run: Run, name: str, expected: str, *, owned: bool = True) -> Outcome:
    kinds: dict[str, Callable[[Path], None]] = {**KINDS, "a newer release's": _newer}
    users: dict[str, int | None] = dict.fromkeys(kinds)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        kinds |= {"a file of root": _root_s, "a lock of root": _root_s_lock}
        users |= {"a file of root": NOBODY, "a lock of root": NOBODY}
    failures = []
    passed = changed = 0
    for number, (kind, make) in enumerate(kinds.items()):
        directory = run.directory(f"{'beside' if owned else 'first'}-{number}")
        make(directory / name)
        if users[kind] is not None:
            os.chown(directory, NOBODY, NOBODY)
            for parent in (directory, *directory.parents[:2]):
                parent.chmod(0o755)
        before = fingerprint(directory)
        lease = ownership.acquire(directory / "queue.db") if owned else None
        found = construct(options={"queue_path": str(directory / "queue.db")}, uid=users[kind])
        if lease is not None:
            lease.release()
        if found["key"] and Path(found["queue"]).name == expected:
            passed += 1
        else:
            failures.append(f"{kind}: {found['error'] or found.get('queue')} {found['text']}")
        after = fingerprint(directory)
        if {each: after.get(each) for each in before} != before:
            changed += 1
            failures.append(f"{kind}: it was changed")
    return Outcome({"kinds": len(kinds), "passed over": passed, "changed": changed}, failures)


FAULT = Fault(
    name="something unusable beside the queue",
    how="what the row before has, a newer release's file, a file and a lock of root, at queue.1.db"
    " while queue.db is owned",
    promise="passed over, the next name is taken; not one byte changed",
    run=run,
    control=control,
    broken="it lies at queue.db itself",
)
