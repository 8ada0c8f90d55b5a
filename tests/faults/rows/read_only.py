"""A queue that may not be written: a read-only mount, another user's directory, no home at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from faults.children import Place, produce
from faults.mounts import call, tmpfs
from faults.registry import Fault, Outcome, Run, Unavailable, need_program
from faults.starting import construct, fingerprint

NOBODY = 65534
RANDOM_UID = 54321  # as containers have it: no entry among the users


def _refused(found: dict[str, Any], path: Path) -> list[str]:
    """What is wrong with a refusal."""
    if found["error"] != "QueueError":
        return [f"{found['error'] or 'no error'}: {found['text'] or found['key']}"]
    if str(path) not in found["text"] or ";" not in found["text"]:
        return [f"the message names no path or no fix: {found['text']}"]
    return []


def _check(root: Path, queue: Path, failures: list[str], **spec: Any) -> dict[str, Any]:
    before = fingerprint(root)
    found = construct(options={"queue_path": str(queue)}, **spec)
    failures += _refused(found, queue)
    if fingerprint(root) != before:
        failures.append("something was touched")
    # With a fallback the program goes on.
    memory = construct(options={"queue_path": str(queue), "fallback": "memory"}, **spec)
    if memory["key"] is None:
        failures.append(f"fallback='memory' gives no key: {memory['text']}")
    return found


def run(run: Run) -> Outcome:
    """What the user who runs this can make."""
    failures: list[str] = []
    figures: dict[str, object] = {}
    texts = []
    theirs = run.directory("theirs")
    root = os.geteuid() == 0
    run.scratch.chmod(0o755)
    if not root:
        theirs.chmod(0o555)
    found = _check(theirs, theirs / "queue.db", failures, uid=NOBODY if root else 0)
    figures["unprivileged user"] = found["error"]
    texts.append(found["text"])
    if root:
        homeless = construct(options={}, uid=RANDOM_UID, home=False)
        figures["no home, no user entry"] = homeless["error"] or "a queue"
        if homeless["error"] not in ("", "QueueError", "ConfigError"):
            failures.append(f"no home: {homeless['error']}: {homeless['text'][-200:]}")
        given = run.directory("given")
        os.chown(given, RANDOM_UID, RANDOM_UID)
        options = {"queue_path": str(given / "queue.db")}
        given_one = construct(options=options, uid=RANDOM_UID, home=False)
        if given_one["key"] is None:
            failures.append(f"no home, but a queue_path: {given_one['text'][-200:]}")
    try:
        with tmpfs(run.scratch / "read-only", 8) as mounted:
            place = Place(run.directory("ro"), mounted / "queue" / "queue.db")
            produce(place.spec(events=5))
            call(need_program("mount"), "-o", "remount,ro", mounted)
            found = _check(mounted, place.queue, failures)
            call(need_program("mount"), "-o", "remount,rw", mounted)
            figures["read-only mount"] = found["error"]
            failures += [f"read-only mount: {text}" for text in place.judge().failures]
    except Unavailable as reason:
        figures["not tried"] = str(reason)
    theirs.chmod(0o755)
    figures["message"] = texts[0].replace(str(run.scratch), "…") if texts else ""
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """A directory that may be written: the check for a refusal must notice."""
    ours = run.directory("ours")
    failures: list[str] = []
    _check(ours, ours / "queue.db", failures)
    return Outcome({}, failures)


FAULT = Fault(
    name="read-only, no permission",
    how="mount -o remount,ro; an unprivileged user; a user without home or entry",
    promise="QueueError at construction that names path and fix; nothing touched; with"
    " fallback='memory' a queue in memory",
    run=run,
    control=control,
    broken="the directory can be written",
)
