"""`causality send`: the synchronous way, past the durable queue. The exit code tells.

Neighbours: `feed` for what comes in, `drain` with a queue in memory for what goes out. Invariant:
exit 0 means that the server acknowledged every event, or that `--spool` put it into the queue.
"""

from __future__ import annotations

import time
from typing import Any

import click

from causality_sdk import connections
from causality_sdk.cli.drain import Drain, are_refused
from causality_sdk.cli.event_input import EventArguments, event_options
from causality_sdk.cli.event_source import Source
from causality_sdk.cli.exits import FAILED, INTERRUPTED, REFUSED, CommandError, delivery_code
from causality_sdk.cli.feed import Feed
from causality_sdk.cli.ndjson import event_of, parse_json
from causality_sdk.cli.option_words import DELIVERY, FILES, SERVER
from causality_sdk.cli.options import CommandWithClient, client_options, settings
from causality_sdk.cli.output import Output, count, output, output_options, printable
from causality_sdk.cli.track import configured, preview
from causality_sdk.client import Client
from causality_sdk.config import Config
from causality_sdk.dead_letters import DeadLetters
from causality_sdk.errors import QueueError, ResponseError
from causality_sdk.event import Encoder, Event
from causality_sdk.flushing import Flush
from causality_sdk.queue import Queue

_REFUSALS_SHOWN = 10
_REFUSALS_KEPT = 1000  # for the summary


@click.command(
    cls=CommandWithClient,
    uses=FILES | SERVER | DELIVERY | {"max_event_bytes"},
    epilog="""\b
Examples:
  causality send deploy_finished version=1.4.2 seconds:=93
  causality send --file events.json --gzip
  causality send --ndjson - --spool < events.ndjson
  causality send heartbeat --timeout 5 || echo "not sent"
""",
)
@event_options
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do with a line that is not an event. What is before it is sent either way.",
)
@click.option("--spool", is_flag=True, help="Put what could not be sent into the queue: exit 0.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="When to give up, however many retries are left.  [default: after --max-retries]",
)
@click.option("--dry-run", is_flag=True, help="Validate, and print what would be sent.")
@output_options
@client_options
def command(
    events: EventArguments, on_error: str, spool: bool, timeout: float | None, dry_run: bool
) -> None:
    """Send events now, without the queue, and wait for the server's word.

    Tries --max-retries times more, with a growing pause. Exits with 2 if the server refuses and a
    retry won't mend it, with 3 if it may work later. With --spool what could not be sent goes into
    the durable queue, and the exit code is 0.

    Many events go in chunks, in order; after a chunk that did not arrive nothing else is sent.
    """
    out = output()
    source = events.source()
    try:
        config = configured(settings(), out, dry_run=dry_run)
        if dry_run:
            preview(config, out, source, skip=on_error == "skip")
        elif not config.enabled:
            out.note("tracking is switched off (enabled is false): nothing was sent")
        else:
            Sending(config, out, spool=spool, seconds=timeout).run(source, skip=on_error == "skip")
    finally:
        source.close()


class Sending:
    """One call."""

    def __init__(self, config: Config, out: Output, *, spool: bool, seconds: float | None) -> None:
        self._config = config
        self._out = out
        self._encoder = Encoder(config.app_id, max_event_bytes=config.max_event_bytes)
        # No cap: what is in it is one chunk.
        self._queue = Queue(connections.MEMORY, max_events=2**31, max_bytes=2**40)
        self._drain = Drain(self._queue, config, out)
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._spool = spool
        self._client: Client | None = None  # of the durable queue, once it is needed
        self._sent = 0
        self._spooled = 0
        self._refused: list[dict[str, Any]] = []
        self._keys: list[str] = []
        self._error: Exception | None = None

    def run(self, source: Source, *, skip: bool) -> None:
        """All of it. Raises `ClickException` with the exit code."""
        feed = Feed(self._put, self._encoder, self._out, skip=skip, verb="taken")
        failure: click.ClickException | None = None
        try:
            feed.run(source)
        except click.ClickException as error:
            failure = error
        except QueueError as error:
            failure = CommandError(str(error), FAILED)
        except KeyboardInterrupt:
            if self._spool:
                self._put_aside()
            self._summary(feed, source, "interrupted")
            raise click.exceptions.Exit(INTERRUPTED) from None
        finally:
            self._drain.close()
            if self._client is not None:
                self._client.close(timeout=0)
        self._summary(feed, source, None if failure is None else failure.message)
        if failure is not None:
            raise failure

    def _put(self, events: list[Event]) -> None:
        encoded = [self._encoder.encode_event(event) for event in events]
        self._keys = [key for key, _ in encoded] if len(encoded) == 1 else []
        self._queue.append_many([payload for _, payload in encoded])
        if self._client is not None:  # the server has failed once, and order is kept
            self._put_aside()
            return
        flush = self._drain.run(self._deadline)
        self._sent += flush.delivered
        if not (self._queue.pending or flush.buried):
            return
        self._error = flush.error
        self._note_refused(flush)
        if self._spool:
            self._put_aside()
        else:
            raise self._failure(flush)

    def _failure(self, flush: Flush) -> CommandError:
        waiting = self._queue.pending
        if not waiting or flush.error is None:
            return CommandError(f"the server refused {count(flush.buried)} for good", REFUSED)
        return CommandError(
            f"{count(waiting + flush.buried)} not sent: {printable(str(flush.error))}",
            REFUSED if are_refused(flush) else delivery_code(flush.error),
        )

    def _note_refused(self, flush: Flush) -> None:
        for letter in DeadLetters(self._queue):
            self._note(letter.payload, letter.status, letter.reason)
        if are_refused(flush) and isinstance(flush.error, ResponseError):
            for _, payload in self._queue.peek(0, max_events=_REFUSALS_KEPT, max_bytes=2**40):
                self._note(payload, flush.error.status, str(flush.error))

    def _note(self, payload: bytes, status: int | None, reason: str) -> None:
        key = parse_json(payload).get("idempotency_key")
        reason = printable(reason)
        if len(self._refused) < _REFUSALS_KEPT:
            self._refused.append({"key": key, "status": status, "reason": reason})
        if len(self._refused) <= _REFUSALS_SHOWN:
            self._out.problem(f"{key} was refused ({status}): {reason}", "DeliveryError")

    def _put_aside(self) -> None:
        """Moves all that is left, and what was refused, into the durable queue."""
        letters = DeadLetters(self._queue)
        letters.requeue()
        if self._client is None:
            self._client = Client(config=self._config)
        while rows := self._queue.peek(0, max_events=1000, max_bytes=2**40):
            self._client.track_many([event_of(parse_json(payload)) for _, payload in rows])
            self._spooled += len(rows)
            self._queue.settle(rows)

    def _summary(self, feed: Feed, source: Source, error: str | None) -> None:
        out = self._out
        document = {
            "kind": "summary",
            "sent": self._sent,
            "spooled": self._spooled,
            "refused": self._refused,
            "skipped": feed.skipped,
            "line": feed.line,
            "keys": None if source.is_stream else self._keys,
            "queue_path": None if self._client is None else self._client.stats().queue_path,
            "delivery_error": None if self._error is None else str(self._error),
            "error": error,
        }
        skipped = f", {feed.skipped:,} skipped" if feed.skipped else ""
        spooled = f", {self._spooled:,} put into the queue" if self._spooled else ""
        where = f" up to {source.unit} {feed.line}" if error and source.is_stream else ""
        if out.as_json or error is None or source.is_stream:
            out.summary(document, f"{count(self._sent)} sent{spooled}{skipped}{where}")
        if self._spooled and self._error is not None:
            out.note(
                f"{count(self._spooled)} in {document['queue_path']} for the next run or a running"
                f" service ({printable(str(self._error))})"
            )
