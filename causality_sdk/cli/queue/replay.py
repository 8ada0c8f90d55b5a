"""`causality queue replay`: delivers what waits in files that nobody owns, now.

Neighbours: `surgery` takes a file, `drain` delivers it. Invariant: a file goes to the destination
it was written for, unless this very call names another.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from causality_sdk.cli.drain import Drain, are_refused
from causality_sdk.cli.exits import (
    INTERRUPTED,
    INVALID,
    REFUSED,
    RETRIES_EXHAUSTED,
    UNREADABLE,
    CommandError,
    InputError,
    delivery_code,
)
from causality_sdk.cli.option_words import DELIVERY, FILES, SERVER
from causality_sdk.cli.options import CommandWithClient, settings
from causality_sdk.cli.output import Output, count, output, output_options, printable
from causality_sdk.cli.progress import Progress
from causality_sdk.cli.queue._elsewhere import here, sentence, waits_elsewhere
from causality_sdk.cli.queue.selection import chosen_files, file_options
from causality_sdk.cli.queue_reader import DamagedInput, QueueReader
from causality_sdk.cli.surgery import left_to_owners, refuse_live, taken
from causality_sdk.cli.track import warn_of_visible_key
from causality_sdk.config import Config
from causality_sdk.destination import Destination, Elsewhere
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

    A file that a running process owns is left to that, which delivers it. A file belongs to the
    server that it was written for (and to the api key, with --key-is-destination); to send it to
    another, name that with --endpoint in this very call, or say --take-over. An event is removed
    when the server has acknowledged it, so that a replay which was interrupted goes on where it
    was.

    Exits with 0 if there is nothing to do, with 1 if the owner of a file was stopped, with 2 or 3
    if events are left, as causality send does; with 2 also if what is left waits for another
    destination, and with 4 if a file cannot be read. What can be read of a damaged file is
    salvaged, and what is lost is said. With --quiet it says nothing about what the next run may
    mend (3), as cron wants it.
    """
    out = output()
    options = settings()
    warn_of_visible_key(options, out)
    config = options.config(
        logger=out.logger(), app_id=options["app_id"] or "replay", enabled=True, start=False
    )
    files = left_to_owners(chosen_files(), out)
    to = here(config)
    assert to is not None  # noqa: S101 - a config has an endpoint
    pending, stranded, unreadable = _candidates(
        files, to, out, named=options.is_flag("endpoint") or config.take_over
    )
    if dry_run:
        document = {
            "dry_run": True,
            "endpoint": config.endpoint,
            "files": [{"path": str(path), "pending": number} for path, number in pending.items()],
            "elsewhere": sum(each.pending for each in stranded),
        }
        lines = [f"{path}: {count(number)}" for path, number in pending.items()]
        out.result(document, "\n".join([*lines, f"to {config.endpoint}; nothing was sent"]))
        return
    if not (pending or stranded or unreadable or out.as_json):
        return  # why was said
    deadline = None if timeout is None else time.monotonic() + timeout
    Replay(config, out, rate=rate, deadline=deadline).run(pending, stranded, unreadable)


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

    def run(
        self, pending: dict[Path, int], stranded: Sequence[Elsewhere] = (), unreadable: int = 0
    ) -> None:
        """All files; `stranded` wait for another destination and are left, `unreadable` too.

        Raises `ClickException` with the exit code.
        """
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
        elsewhere = sum(each.pending for each in stranded)
        left = self._left(pending)
        self._summary(left, elsewhere, time.monotonic() - started, error, stopped=stopped)
        if stopped:
            raise click.exceptions.Exit(INTERRUPTED)
        if error is not None:
            code = REFUSED if self._refused else delivery_code(error)
            if self._out.quiet and code == RETRIES_EXHAUSTED:
                raise click.exceptions.Exit(code)
            raise CommandError(
                f"{count(left)} left: {printable(str(error))}",
                code,
            )
        if elsewhere:
            raise CommandError(
                f"{count(elsewhere)} left for another destination, see above", REFUSED
            )
        if unreadable:
            raise CommandError(f"{count(unreadable, 'file')} left, see above", UNREADABLE)

    def _left(self, pending: dict[Path, int]) -> int:
        done = {each["path"]: each for each in self._files}
        return sum(
            done[str(path)]["pending"] if str(path) in done else number
            for path, number in pending.items()
        )

    def _one(self, path: Path, on_delivered: Any) -> Exception | None:
        """What stopped it, if something is left."""
        flush = None
        with taken(path, "replayed") as queue:
            repaired, queue.repair = queue.repair, None  # it was told
            drain = Drain(
                queue, self._config, self._out, rate=self._rate, on_delivered=on_delivered
            )
            before, corrupt = self._delivered, queue.evicted["corrupt"]
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
                        "lost": queue.evicted["corrupt"]
                        - corrupt
                        + (0 if repaired is None else repaired.lost),
                    }
                )
            if not queue.pending:
                return None
            self._refused = are_refused(flush)
            return flush.error or TimeoutError("the time was over")

    def _summary(
        self, left: int, elsewhere: int, seconds: float, error: Exception | None, *, stopped: bool
    ) -> None:
        buried = sum(each["buried"] for each in self._files)
        lost = sum(each["lost"] for each in self._files)
        document = {
            "kind": "summary",
            "delivered": self._delivered,
            "buried": buried,
            "pending": left + elsewhere,
            "elsewhere": elsewhere,
            "lost": lost,
            "seconds": round(seconds, 3),
            "endpoint": self._config.endpoint,
            "files": self._files,
            "interrupted": stopped,
            "delivery_error": None if error is None else str(error),
        }
        rate = f" ({self._delivered / seconds:,.0f} a second)" if seconds > 0 else ""
        dead = f", {buried:,} buried (see causality dead-letters list)" if buried else ""
        if lost:
            dead += f", {lost:,} lost to damage of the file"
        if elsewhere:
            dead = f" ({elsewhere:,} for another destination){dead}"
        self._out.summary(
            document,
            f"{count(self._delivered)} delivered in {seconds:.1f} s{rate},"
            f" {left + elsewhere:,} left{dead}",
        )


def _candidates(
    files: list[Path], to: Destination, out: Output, *, named: bool
) -> tuple[dict[Path, int], list[Elsewhere], int]:
    """The files that may be delivered, with what waits in each; and those of other destinations.

    And the number of those that cannot be read.
    Raises `CommandError` if nothing may be delivered. `named`: the server was named in this very
    call, or it is to take all over.
    """
    found: dict[Path, int] = {}
    stranded: list[Elsewhere] = []
    refused: list[str] = []
    unreadable: list[InputError] = []
    for path in files:
        try:
            refuse_live([path], "replayed")
        except CommandError as error:
            refused.append(error.message)
            continue
        try:
            destination, pending = _content(path)
        except InputError as error:
            unreadable.append(error)
            continue
        waits = waits_elsewhere(path, destination, pending, to)
        if waits is not None and not named:
            stranded.append(waits)
            continue
        if waits is not None:
            out.note(f"{path} was written for {printable(waits.whom)}; it goes to {to.endpoint}")
        found[path] = pending
    if unreadable and not (refused or stranded or any(found.values())):
        raise unreadable[0]
    refused += [error.message for error in unreadable]
    told = [*refused, *(f"{sentence(each, to)}; to send here: --take-over" for each in stranded)]
    if told and not any(found.values()):
        raise CommandError("\n".join(told), INVALID if refused else REFUSED)
    for each in told:
        out.note(each)
    return found, stranded, len(unreadable)


def _content(path: Path) -> tuple[Destination | None, int]:
    """Whom a file is for, and how many events wait in it. Raises `InputError`."""
    with QueueReader(path) as reader:
        try:
            snapshot = reader.snapshot()
        except DamagedInput:
            return reader.destination(), sum(row.sound for row in reader.rows())
        return snapshot.destination, snapshot.pending
