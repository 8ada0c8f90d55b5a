"""`causality demo`: an outage and a kill -9 in front of your eyes, and a judge at the end.

Neighbours: `_demo_process` holds the child that tracks, `_demo_judge` gives the verdict,
`_demo_screen` shows it; the server is the `LoopbackCollector` of `causality_sdk.testing`.
Invariant: it touches nothing of the user's: a queue in a directory of its own, a server on
loopback, none of the `CAUSALITY_*` variables.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import click

from causality_sdk.cli import _demo_child
from causality_sdk.cli import _demo_plan as plan
from causality_sdk.cli._demo_judge import Evidence, Verdict, judge, read_queues
from causality_sdk.cli._demo_process import IS_CHILD, PATIENCE, Child
from causality_sdk.cli._demo_screen import Screen, sentence, table
from causality_sdk.cli.exits import INVALID, InputError
from causality_sdk.cli.formatter import OurCommand
from causality_sdk.event import Event
from causality_sdk.testing import LoopbackCollector

LEAST_EVENTS = 20  # below it a phase would have nothing to do


@click.command(
    cls=OurCommand,
    epilog="""\b
Examples:
  causality demo
  causality demo --file events.ndjson.gz --directory ./demo
  causality demo --json
""",
)
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    default=plan.SAMPLE,
    help="Events to play, one JSON object a line, plain or gzip.  [default: 5,000 departures from"
    " New York]",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Keep the queue, the journals and the log here; new or empty.  [default: a temporary one]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object only.")
def command(file: Path, directory: Path | None, as_json: bool) -> None:
    """Show that a crash and an outage lose no event.

    A process of its own tracks real departures against a server on loopback. The server goes
    away, the process is killed with SIGKILL in mid-track, a new one goes on with the same queue
    file, the server comes back. Then every event is looked for.

    Exits with 0 if nothing was lost, and with 1 otherwise.
    """
    if os.environ.get(IS_CHILD):  # of a frozen program, see _demo_process
        _demo_child.main()
        return
    source = dict(plan.departures(file))
    if len(source) < LEAST_EVENTS:
        raise InputError(f"{file} holds {len(source)} events; the demo needs {LEAST_EVENTS}")
    screen = Screen(quiet=as_json)
    started = time.monotonic()
    with _directory(directory) as place:
        show = Show(file.absolute(), list(source), place, screen)
        verdict = judge(show.run({plan.key_of(line): event for line, event in source.items()}))
    seconds = time.monotonic() - started
    if as_json:
        facts = {
            "events": len(source),
            "killed_after_line": show.killed_after,
            "seconds": round(seconds, 3),
            "directory": None if directory is None else str(directory.absolute()),
        }
        click.echo(json.dumps({"ok": verdict.ok, **asdict(verdict), **facts}))
    else:
        screen.result(f"{table(verdict)}\n\n{sentence(verdict, len(source), seconds)}")
        if directory is not None:
            screen.line(f"The queue file is kept: {directory / plan.QUEUE}")
    conclude(verdict)


def conclude(verdict: Verdict) -> None:
    """Ends the command with 1 unless the verdict is good."""
    if not verdict.ok:
        raise click.exceptions.Exit(INVALID)


@contextmanager
def _directory(wanted: Path | None) -> Iterator[Path]:
    """A directory for the queue: the user's, or one that is removed at the end."""
    if wanted is None:
        with tempfile.TemporaryDirectory(
            prefix="causality-demo-", ignore_cleanup_errors=True
        ) as name:
            yield Path(name)
        return
    try:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(wanted.iterdir()):
            # The journal of an earlier run would be taken for ours.
            raise click.BadParameter(f"{wanted} is not empty", param_hint="--directory")
    except OSError as error:
        raise click.BadParameter(
            f"{wanted} cannot be used: {error.strerror or error}", param_hint="--directory"
        ) from error
    yield wanted.absolute()


class Marks(NamedTuple):
    """How many events each phase goes up to."""

    online: int
    offline: int
    kill: int
    """The kill comes once this many are tracked; the child has orders up to `ahead`."""
    ahead: int
    again: int
    end: int

    @classmethod
    def of(cls, total: int) -> Marks:
        """For a file of so many events."""
        return cls(*(total * part // 16 for part in (4, 8, 9, 14, 15, 16)))


class Show:
    """The five phases. The parent paces the child: it tracks no further than it was told."""

    def __init__(self, file: Path, lines: list[int], directory: Path, screen: Screen) -> None:
        self._file = file
        self._lines = lines
        self._count = {line: count for count, line in enumerate(lines, 1)}
        self._directory = directory
        self._screen = screen
        self.killed_after = 0
        """The last line that the killed process had journaled."""

    def run(self, source: dict[str, Event]) -> Evidence:
        """Plays all phases and gathers the evidence. Raises `ClickException`."""
        marks = Marks.of(len(self._lines))
        arrivals = self._directory / plan.ARRIVALS
        self._screen.line(f"causality demo: {len(self._lines):,} events from {self._file.name}")
        with LoopbackCollector(api_key=plan.API_KEY, journal=arrivals) as server:
            with self._screen.tracking(len(self._lines)):
                with self._child(server) as child:
                    self._online(child, server, marks)
                    self._outage(child, server, marks)
                    self._crash(child, marks)
                with self._child(server) as child:
                    self._restart(child, marks)
                    self._recovery(child, server, marks)
            journaled = plan.read_journal(self._directory / plan.JOURNAL)
            return Evidence(
                source=source,
                journaled=[key for _, key in journaled],
                arrived=[entry.split()[0] for entry in arrivals.read_text("ascii").splitlines()],
                payloads=server.payloads,
                received=server.received,
                queue=read_queues(self._directory, "queue*.db"),
            )

    def _child(self, server: LoopbackCollector) -> Child:
        return Child(
            self._directory,
            {
                "file": str(self._file),
                "directory": str(self._directory),
                "endpoint": server.endpoint,
                "report_every": max(1, len(self._lines) // 100),
            },
        )

    def _online(self, child: Child, server: LoopbackCollector, marks: Marks) -> None:
        child.wait_for("ready")
        self._track(child, marks.online)
        if not server.wait_for(marks.online, PATIENCE):
            raise click.ClickException("the server did not get what was tracked online")
        self._phase(1, "online", f"{marks.online:,} events tracked, {server.count:,} delivered")

    def _outage(self, child: Child, server: LoopbackCollector, marks: Marks) -> None:
        server.down()
        waiting = self._track(child, marks.offline)
        self._phase(2, "server away", f"{marks.offline:,} tracked, {waiting:,} wait in the queue")

    def _crash(self, child: Child, marks: Marks) -> None:
        # It has orders to go on far beyond the line at which the kill comes.
        child.tell(f"track {self._line(marks.ahead)}")
        heard = child.wait_for("progress", self._progress, line=self._line(marks.kill))["line"]
        journal = self._directory / plan.JOURNAL
        # Not at that message, or it would always die while it reports: a few events later.
        target = self._line(min(self._count[heard] + 3, marks.ahead))
        deadline = time.monotonic() + PATIENCE
        while plan.last_tracked(journal) < target and time.monotonic() < deadline:
            pass
        child.kill()
        self.killed_after = plan.last_tracked(journal)
        # On a very busy machine it may have come to the end of its orders first.
        early = self.killed_after < self._line(marks.ahead)
        when = "in mid-track" if early else "at rest"
        self._phase(3, "kill -9", f"the program dies {when}, after line {self.killed_after:,}")

    def _restart(self, child: Child, marks: Marks) -> None:
        found = child.wait_for("ready")["pending"]
        waiting = self._track(child, marks.again)
        self._phase(
            4,
            "restart",
            f"{found:,} found in the queue, goes on at line {self.killed_after + 1:,};"
            f" {waiting:,} wait",
        )

    def _recovery(self, child: Child, server: LoopbackCollector, marks: Marks) -> None:
        # Stored, but the answer is lost: the batch has to come again, and counts once.
        server.drop_next(store=True)
        server.up()
        self._track(child, marks.end)
        child.tell(f"drain {PATIENCE / 2}")
        left = child.wait_for("drained")["pending"]
        child.end()
        self._phase(
            5,
            "server back",
            f"{marks.end:,} tracked, {server.count:,} delivered, {left:,} wait"
            " (one answer got lost)",
        )

    def _track(self, child: Child, count: int) -> int:
        """Lets the child track up to the `count`-th event; gives how many are pending then."""
        line = self._line(count)
        child.tell(f"track {line}")
        return child.wait_for("tracked", self._progress, line)["pending"]

    def _line(self, count: int) -> int:
        return self._lines[count - 1]

    def _progress(self, line: int) -> None:
        self._screen.tracked(self._count.get(line, 0))

    def _phase(self, number: int, name: str, text: str) -> None:
        self._screen.line(f"{number}. {name:<12} {text}")
