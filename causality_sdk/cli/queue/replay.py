"""`causality queue replay`: delivers what waits in files that nobody owns, now.

Neighbours: `surgery` takes a file, `drain` delivers it. Invariant: a file goes to the destination
it was written for, unless this very call names another.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from causality_sdk.claim import fingerprint
from causality_sdk.cli.drain import Drain, are_refused, wire_of
from causality_sdk.cli.exits import (
    INTERRUPTED,
    REFUSED,
    RETRIES_EXHAUSTED,
    CommandError,
    delivery_code,
)
from causality_sdk.cli.option_words import DELIVERY, FILES, SERVER
from causality_sdk.cli.options import CommandWithClient, settings
from causality_sdk.cli.output import Output, count, output, output_options, printable
from causality_sdk.cli.progress import Progress
from causality_sdk.cli.queue.selection import chosen_files, file_options
from causality_sdk.cli.queue_reader import QueueReader
from causality_sdk.cli.surgery import left_to_owners, refuse_live, taken
from causality_sdk.cli.track import warn_of_visible_key
from causality_sdk.config import Config
from causality_sdk.schema import Destination
from causality_sdk.stats import Delivered

SHRINK_SECONDS = 5.0


@click.command(
    cls=CommandWithClient,
    uses=FILES | SERVER | DELIVERY,
    epilog="""\b
Examples:
  causality queue replay
  causality queue replay --rate 200 --timeout 600
  causality queue replay --queue-path /mnt/kiosk/queue.db --endpoint https://b.example.com
""",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NUMBER",
    help="Events a second at most.  [default: as fast as the server takes them]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="When to stop; what is left stays queued.  [default: at the end]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent where.")
@output_options
@file_options
def command(rate: float | None, timeout: float | None, dry_run: bool) -> None:
    """Deliver what waits in the queue files of an app, one file after the other, oldest first.

    A file that a running process owns is left to that, which delivers it. A file belongs to
    the server and the key that it was written for; to send it to another, name that with --endpoint
    in this very call. An event is removed when the server has acknowledged it, so that a replay
    which was interrupted goes on where it was.

    Exits with 0 if there is nothing to do, with 1 if there is no file that it may deliver, with 2
    or 3 if events are left, as causality send does. With --quiet it says nothing about what the
    next run may mend (3), as cron wants it.
    """
    out = output()
    options = settings()
    warn_of_visible_key(options, out)
    config = options.config(
        logger=out.logger(), app_id=options["app_id"] or "replay", enabled=True, start=False
    )
    files = left_to_owners(chosen_files(), out)
    pending = _candidates(files, config, out, named=options.is_flag("endpoint"))
    if dry_run:
        document = {
            "dry_run": True,
            "endpoint": config.endpoint,
            "files": [{"path": str(path), "pending": number} for path, number in pending.items()],
        }
        lines = [f"{path}: {count(number)}" for path, number in pending.items()]
        out.result(document, "\n".join([*lines, f"to {config.endpoint}; nothing was sent"]))
        return
    if not (pending or out.as_json):
        return  # why was said
    deadline = None if timeout is None else time.monotonic() + timeout
    Replay(config, out, rate=rate, deadline=deadline).run(pending)


class Replay:
    """One call."""

    def __init__(
        self, config: Config, out: Output, *, rate: float | None, deadline: float | None
    ) -> None:
        self._config = config
        self._out = out
        self._rate = rate
        self._deadline = deadline
        self._delivered = 0
        self._refused = False  # what is left was refused by name
        self._files: list[dict[str, Any]] = []

    def run(self, pending: dict[Path, int]) -> None:
        """All files. Raises `ClickException` with the exit code."""
        started = time.monotonic()
        error: Exception | None = None
        stopped = False
        total = sum(pending.values())
        with Progress("replayed", total, shown=self._out.shows_progress and total > 0) as bar:

            def on_delivered(details: Delivered) -> None:
                self._delivered += details.events
                bar.at(self._delivered, self._delivered)
                if self._out.as_json:
                    self._out.json_line({"kind": "progress", "delivered": self._delivered})

            for path in pending:
                try:
                    error = self._one(path, on_delivered)
                except KeyboardInterrupt:
                    stopped = True
                if stopped or error is not None:
                    break  # order, and a server that is away for one is away for all
        self._summary(pending, time.monotonic() - started, error, stopped=stopped)
        if stopped:
            raise click.exceptions.Exit(INTERRUPTED)
        if error is not None:
            code = REFUSED if self._refused else delivery_code(error)
            if self._out.quiet and code == RETRIES_EXHAUSTED:
                raise click.exceptions.Exit(code)
            raise CommandError(
                f"{count(sum(each['pending'] for each in self._files))} left:"
                f" {printable(str(error))}",
                code,
            )

    def _one(self, path: Path, on_delivered: Any) -> Exception | None:
        """What stopped it, if something is left."""
        flush = None
        with taken(path, "replayed") as queue:
            drain = Drain(
                queue, self._config, self._out, rate=self._rate, on_delivered=on_delivered
            )
            before = self._delivered
            try:
                flush = drain.run(self._deadline)
            finally:
                drain.close(shrink_seconds=SHRINK_SECONDS)
                self._files.append(
                    {
                        "path": str(path),
                        "delivered": self._delivered - before,
                        "buried": 0 if flush is None else flush.buried,
                        "pending": queue.pending,
                    }
                )
            if not queue.pending:
                return None
            self._refused = are_refused(flush)
            return flush.error or TimeoutError("the time was over")

    def _summary(
        self, pending: dict[Path, int], seconds: float, error: Exception | None, *, stopped: bool
    ) -> None:
        done = {each["path"]: each for each in self._files}
        left = sum(
            done[str(path)]["pending"] if str(path) in done else number
            for path, number in pending.items()
        )
        buried = sum(each["buried"] for each in self._files)
        document = {
            "kind": "summary",
            "delivered": self._delivered,
            "buried": buried,
            "pending": left,
            "seconds": round(seconds, 3),
            "endpoint": self._config.endpoint,
            "files": self._files,
            "interrupted": stopped,
            "delivery_error": None if error is None else str(error),
        }
        rate = f" ({self._delivered / seconds:,.0f} a second)" if seconds > 0 else ""
        dead = f", {buried:,} buried (see causality dead-letters list)" if buried else ""
        self._out.summary(
            document,
            f"{count(self._delivered)} delivered in {seconds:.1f} s{rate}, {left:,} left{dead}",
        )


def _candidates(files: list[Path], config: Config, out: Output, *, named: bool) -> dict[Path, int]:
    """The files that may be delivered, with what waits in each. Raises `CommandError` for none.

    `named`: the server was named in this very call.
    """
    here = Destination(config.endpoint, wire_of(config).name, fingerprint(config.api_key))
    found: dict[Path, int] = {}
    refused: list[CommandError] = []
    for path in files:
        try:
            refuse_live([path], "replayed")
            found[path] = _checked(path, here, out, named=named)
        except CommandError as error:  # noqa: PERF203 (a file is not a hot loop)
            refused.append(error)
    if refused and not any(found.values()):
        raise CommandError("\n".join(error.message for error in refused))
    for each in refused:
        out.note(each.message)
    return found


def _checked(path: Path, here: Destination, out: Output, *, named: bool) -> int:
    """How many events wait in a file, if it may go where we send. Raises `CommandError`."""
    with QueueReader(path) as reader:
        snapshot = reader.snapshot()
    found = snapshot.destination
    if found == here or not snapshot.pending:
        return snapshot.pending
    differs = found.endpoint if found.endpoint != here.endpoint else "another api key or wire"
    if not named:
        raise CommandError(
            f"{path} was written for {printable(differs)}, and this call would send it to"
            f" {here.endpoint}; if that is meant, name the server with --endpoint"
        )
    out.note(f"{path} was written for {printable(differs)}; it goes to {here.endpoint}")
    return snapshot.pending
