"""A server that misbehaves, byte by byte, in every way of `tests/test_hostile_server.py`.

Neighbours: the parts and the measuring program are that test's. Here they make a row.
"""

from __future__ import annotations

import subprocess

import test_hostile_server as hostile_tests
from hostile import ACCEPTED, PATIENCE, HostileServer, answering

from faults import oracle
from faults.events import HERE, digest
from faults.registry import Fault, Outcome, Run

EVENTS = 30


def run(run: Run) -> Outcome:
    """Each part: 30 events, a flush, a close; then a good server. Quick: three parts."""
    parts = list(hostile_tests.PARTS)[:: 8 if run.quick else 1]
    lost = wrong = 0
    longest = closing = growth = peak = 0.0
    failures = []
    for number, kind in enumerate(parts):
        directory = run.directory(f"hostile-{number}")
        stage = hostile_tests.Stage(hostile_tests.PARTS[kind])
        with HostileServer(stage.play) as server:
            client = hostile_tests.make(server.endpoint, directory)
            keys = hostile_tests.track(client, EVENTS)
            client.flush(timeout=0.4)
            client.close(timeout=0.2)
            assert client._ended is not None
            client._ended.sender.wait_until_ended(PATIENCE)
            held = oracle.look(directory / "queue.db", HERE._replace(endpoint=server.endpoint))
            stored = dict(stage.stored)
            gone = [key for key in keys if key not in held.pending and key not in stored]
            wrong += len(gone)
            if held.trouble or held.residual:
                failures.append(f"{kind}: {held.trouble or held.residual}")
            client = hostile_tests.make(server.endpoint, directory)
            stage.behaving.set()
            stage.wait_for(len(keys))
            client.flush(timeout=PATIENCE)
            client.close()
            arrived = [(key, digest(raw)) for key, raw in stage.stored.items()]
            found = oracle.look(directory / "queue.db", HERE._replace(endpoint=server.endpoint))
            promised = {key: held.pending.get(key) or dict(arrived).get(key, "") for key in keys}
            verdict = oracle.judge(promised, arrived, [found])
            lost += len(verdict.lost)
            failures += [f"{kind}: {failure}" for failure in verdict.failures]
    if wrong:
        failures.append(f"{wrong} were deleted without an acknowledgement")
    figures: dict[str, object] = {"servers": len(parts), "lost": lost, "wrongly deleted": wrong}
    if not run.quick:
        for number, kind in enumerate(parts):
            directory = run.directory(f"hostile-measured-{number}")
            try:
                measured = hostile_tests.measure(kind, directory)
            except subprocess.CalledProcessError as error:
                failures.append(f"{kind}: {error.stderr[-300:]}")
                continue
            longest, closing = max(longest, measured[0]), max(closing, measured[1])
            growth, peak = max(growth, measured[2]), max(peak, measured[3])
        figures |= {
            "longest flush(0.5 s), s": round(longest, 2),
            "longest close(0.3 s), s": round(closing, 2),
            "growth of the peak RSS, MB": round(growth, 1),
            "peak RSS, MB": round(peak),
        }
        if longest > 0.5 + hostile_tests.SLACK or closing > 0.3 + hostile_tests.SLACK:
            failures.append("a call took too long")
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """A server that says 200 and stores nothing."""
    directory = run.directory("hostile-control")
    with HostileServer(answering(ACCEPTED)) as server:
        client = hostile_tests.make(server.endpoint, directory)
        keys = hostile_tests.track(client, 10)
        client.flush(timeout=5)
        client.close()
    verdict = oracle.judge(
        dict.fromkeys(keys, ""),
        [],
        [oracle.look(directory / "queue.db", HERE._replace(endpoint=server.endpoint))],
    )
    return Outcome({}, verdict.failures)


FAULT = Fault(
    name="hostile server",
    how="it hangs, drips, never reads, half-closes, resets in mid-body, closes before and after the"
    " 200, sends 10 GB, a gzip bomb, a redirect, HTML, partial results that name nobody",
    promise="nothing lost, nothing deleted without an acknowledgement, calls in time",
    run=run,
    control=control,
    broken="the server acknowledges what it does not store",
)
