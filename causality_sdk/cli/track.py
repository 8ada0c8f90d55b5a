"""`causality track`: events into the durable queue, and as many as possible out of it again.

Neighbours: `event_input` and `feed` for what comes in, `Client` for all the rest. Invariant: what
is reported as queued is committed, whatever ends the command afterwards.
"""

from __future__ import annotations

from typing import Any

import click

from causality_sdk.cli.drain import observed
from causality_sdk.cli.event_input import EventArguments, event_options
from causality_sdk.cli.event_source import Source
from causality_sdk.cli.exits import FAILED, INTERRUPTED, CommandError, delivery_code
from causality_sdk.cli.feed import Check, Feed
from causality_sdk.cli.option_words import DELIVERY, FILES, FILLING, SERVER
from causality_sdk.cli.options import CommandWithClient, client_options, settings
from causality_sdk.cli.output import Output, count, output, output_options, printable
from causality_sdk.cli.settings import Settings
from causality_sdk.client import Client
from causality_sdk.config import Config
from causality_sdk.errors import QueueError, QueueFull
from causality_sdk.event import Encoder, Event
from causality_sdk.stats import FlushReport, Stats

GOODBYE = 1.0  # seconds to give the disk back what a delivered backlog took


@click.command(
    cls=CommandWithClient,
    uses=FILES | SERVER | DELIVERY | FILLING,
    epilog="""\b
Examples:
  causality track purchase_complete order_id=A-1 total_cents:=1299 --user-id u-42
  causality track backup_done --properties '{"bytes": 1024}' --no-flush
  cat events.ndjson | causality track -
  causality track --file events.json.gz --on-error skip --json
""",
)
@event_options
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do with a line that is not an event. What is before it is queued either way.",
)
@click.option("--no-flush", is_flag=True, help="Only queue; the next run delivers, or a service.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to try to deliver. (--attempt-timeout is for each attempt.)",
)
@click.option("--dry-run", is_flag=True, help="Validate, and print what would be queued.")
@output_options
@client_options
def command(
    events: EventArguments, on_error: str, no_flush: bool, timeout: float, dry_run: bool
) -> None:
    """Put events into the durable queue, and deliver what can be delivered.

    An event is on disk before this returns. What could not be delivered within --timeout stays
    there, for the next run or for a service with the same --app-id, and that is success: exit 0,
    and a note on stderr.

    A queue at its cap is never made to forget: the events that are in it are delivered to make
    room, and if that fails the command stops and says how far it came. --overflow drop_oldest
    evicts instead, and counts.

    - in place of EVENT_TYPE is standard input: events as in a --file.

    Prints the idempotency key of a single event, and a summary of many. With --json, many events
    give a line of progress after each transaction.
    """
    out = output()
    options = settings()
    source = events.source()
    streaming = source.is_stream and not no_flush
    try:
        config = configured(options, out, streaming=streaming, dry_run=dry_run)
        if dry_run:
            preview(config, out, source, skip=on_error == "skip")
        else:
            run = Run(config, out, seconds=0.0 if no_flush else timeout, deliver=not no_flush)
            run.feed(source, skip=on_error == "skip", single=not source.is_stream)
    finally:
        source.close()


def configured(
    options: Settings, out: Output, *, streaming: bool = False, dry_run: bool = False
) -> Config:
    """The options as a command wants them that fills a queue. Raises `ConfigError`.

    With a stream the sender's thread delivers meanwhile: nobody knows when a stream ends. A dry run
    needs neither a server nor a key, which a check of a pull request does not have.
    """
    overrides: dict[str, Any] = {
        "logger": out.logger(),
        "start": streaming and options["start"],
        "strict": True,  # a disk that refuses must end the command, not fill a buffer
        "fallback": None,  # the same: what is in memory is gone when the command ends
    }
    if options.is_default("overflow"):
        overrides["overflow"] = "reject"
    warn_of_visible_key(options, out)
    if dry_run:
        return options.without_server(**overrides)
    config = options.config(**overrides)
    transport = observed(config, out)
    return config if transport is None else options.config(**overrides, transport=transport)


def warn_of_visible_key(options: Settings, out: Output) -> None:
    """Says so, once a call, where the key stands on the command line."""
    setting = options.values["api_key"]
    if setting.source == "flag" and setting.detail == "--api-key":
        out.note(
            "others see --api-key in the list of processes; use --api-key-file or CAUSALITY_API_KEY"
        )


def preview(
    config: Config, out: Output, source: Source, *, skip: bool, check: Check | None = None
) -> None:
    """Validates, and prints the events as they would go out; touches neither queue nor server."""
    encoder = Encoder(config.app_id or "app", max_event_bytes=config.max_event_bytes)

    def show(found: list[Event]) -> None:
        for payload in [encoder.encode_event(event)[1] for event in found]:
            click.echo(payload)

    # Quiet about its progress: what is printed are the events.
    silent = Output(quiet=True)
    feed = Feed(show, encoder, silent, skip=skip, verb="valid", check=check)
    feed.run(source)
    out.note(f"dry run: {count(feed.taken)} valid, {feed.skipped:,} skipped; nothing was sent")


class Run:
    """One call that fills the queue: opens it, feeds it, delivers, says what happened."""

    def __init__(
        self, config: Config, out: Output, *, seconds: float, deliver: bool, verb: str = "queued"
    ) -> None:
        """`seconds`: how long to try to deliver, if `deliver`."""
        self._config = config
        self._out = out
        self._seconds = seconds
        self._deliver = deliver
        self._verb = verb
        self._keys: list[str] = []

    def feed(
        self, source: Source, *, skip: bool, single: bool = False, check: Check | None = None
    ) -> None:
        """All of it. Raises `ClickException` with the exit code."""
        if not self._config.enabled:
            self._out.note("tracking is switched off (enabled is false): nothing was queued")
            return
        self._client = Client(config=self._config)
        self._delivered_before = self._client.stats().acknowledged
        self._evicted_before = self._evicted()
        self._feed = Feed(
            self._put,
            Encoder(self._config.app_id, max_event_bytes=self._config.max_event_bytes),
            self._out,
            skip=skip,
            verb=self._verb,
            make_room=self._make_room,
            check=check,
        )
        try:
            self._run(source, single=single)
        except KeyboardInterrupt:
            self._client.close(timeout=0)
            self._summary(None, self._client.stats(), single=single, error="interrupted")
            self._out.note(f"interrupted: {self._feed.so_far()}")
            raise click.exceptions.Exit(INTERRUPTED) from None
        finally:
            self._client.close(timeout=0)

    def _run(self, source: Source, *, single: bool) -> None:
        failure: click.ClickException | None = None
        try:
            self._feed.run(source)
        except click.ClickException as error:
            failure = error
        except QueueError as error:
            failure = CommandError(str(error), FAILED)
        report = self._flush()
        stats = self._client.stats()
        if not stats.pending:
            self._client.close(timeout=GOODBYE)
        said = None if failure is None else failure.message
        self._summary(report, stats, single=single, error=said)
        if failure is not None:
            far = "" if single else f"\n{self._feed.so_far()}"
            raise CommandError(f"{failure.message}{far}", failure.exit_code)

    def _put(self, events: list[Event]) -> None:
        try:
            keys = self._client.track_many(events)
        except QueueFull:
            raise
        except QueueError as error:
            # No thread of the client's is there that would mend a damaged file.
            if not self._client._mend():
                raise
            keys = self._client.track_many(events[error.written :])
        if len(events) == 1:
            self._keys = keys or []

    def _make_room(self, full: QueueFull) -> None:
        """Delivers what is in the queue, or ends the command."""
        if not self._deliver:
            raise CommandError(f"{full}, or let it deliver (without --no-flush)")
        report = self._client.flush(timeout=self._seconds)
        if not (report.delivered or report.buried):
            reason = "" if report.error is None else f"; nothing could be sent: {report.error}"
            raise CommandError(f"{full}{reason}", delivery_code(report.error))

    def _flush(self) -> FlushReport | None:
        if not self._deliver or self._seconds == 0:
            return None
        return self._client.flush(timeout=self._seconds)

    def _evicted(self) -> int:
        return sum((self._client.stats().evicted or {}).values())

    def _summary(
        self, report: FlushReport | None, stats: Stats, *, single: bool, error: str | None
    ) -> None:
        out = self._out
        evicted = sum((stats.evicted or {}).values()) - self._evicted_before
        document = {
            "kind": "summary",
            **self._feed.facts(),
            "keys": self._keys if single else None,
            "delivered": stats.acknowledged - self._delivered_before,
            "buried": 0 if report is None else report.buried,
            "pending": stats.pending,
            "evicted": evicted,
            "queue_path": stats.queue_path,
            "delivery_error": None if report is None or not report.error else str(report.error),
            "error": error,
        }
        if single:
            out.result(document, self._keys[0] if self._keys else None)
        elif out.as_json or error is None:
            skipped = f", {self._feed.skipped:,} skipped" if self._feed.skipped else ""
            # "0 delivered" would sound like a failure of a command that never delivers.
            sent = f" {document['delivered']:,} delivered," if self._verb == "queued" else ""
            out.summary(
                document,
                f"{count(self._feed.taken)} {self._verb}{skipped};{sent} {stats.pending:,} waiting",
            )
        if evicted:
            out.note(f"the queue was at its cap: {count(evicted)} evicted (--overflow drop_oldest)")
        if report is not None and report.buried:
            out.note(f"{count(report.buried)} buried; see causality dead-letters list")
        if stats.pending and self._deliver:
            reason = "" if report is None or not report.error else f" ({_reason(report.error)})"
            out.note(
                f"{count(stats.pending)} in {stats.queue_path} for the next run or a"
                f" running service{reason}"
            )


def _reason(error: Exception) -> str:
    return printable(str(error))
