"""One run of the command: reads the events, then checks, sends or queues them.

Neighbours: `inputs` reads, `PackTrackClient` sends, `output` prints. Invariant: without `--async`
nothing is sent before all of the input was read and is valid; with it each event is committed as
it is read.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import BinaryIO

import click

from causality_sdk._version import __version__
from causality_sdk.cli.exits import INVALID, REFUSED, RETRIES_EXHAUSTED, InputError
from causality_sdk.cli.streams import current
from causality_sdk.cli.words import escaped, in_shell
from causality_sdk.errors import (
    ConfigError,
    EventError,
    IngestError,
    QueueError,
    QueueFull,
    ResponseError,
)
from causality_sdk.packtrack import Attempt, PackTrackClient, PackTrackConfig, PackTrackEvent
from causality_sdk.packtrack.attempts import is_passing
from causality_sdk.packtrack.client import request_keys
from causality_sdk.packtrack.config import USER_AGENT
from causality_sdk.packtrack_logger.flags import NAMES, Flags
from causality_sdk.packtrack_logger.inputs import Located, read_file, read_lines
from causality_sdk.packtrack_logger.output import failure, result, say
from causality_sdk.stats import Delivered, FlushReport

LOGGER_AGENT = f"{USER_AGENT} packtrack-logger/{__version__}"
APP_ID = "packtrack-logger"
CLOSE_SECONDS = 0.5  # for the thread to end, after the flush


def run(flags: Flags, stdin: BinaryIO) -> int:
    """Does what the command line asks for; gives the exit code."""
    try:
        return Run(flags, stdin).go()
    except (ConfigError, EventError) as error:
        return _failed(flags, INVALID, str(error))
    except click.ClickException as error:  # of the input: it has its exit code
        return _failed(flags, error.exit_code, error.format_message())
    except IngestError as error:
        code = RETRIES_EXHAUSTED if error.retryable else REFUSED
        words = str(error)
        if error.submitted:
            words += f"; {error.submitted} events before it were submitted"
        return _failed(flags, code, words, submitted=error.submitted, status_code=error.status_code)
    except QueueFull as error:
        return _failed(flags, RETRIES_EXHAUSTED, str(error))
    except QueueError as error:
        return _failed(flags, REFUSED, str(error))


def _failed(flags: Flags, code: int, message: str, **facts: object) -> int:
    message = in_shell(message, NAMES)
    if flags.as_json:
        say(failure(code, message, **facts))
    say(f"Error: {escaped(message)}", err=True)
    return code


class Run:
    """What the parts of one run share."""

    def __init__(self, flags: Flags, stdin: BinaryIO) -> None:
        self._flags = flags
        self._stdin = stdin
        self._submitted = 0  # of the queue; counted where the batches are sent
        self._buried = 0
        self._check_flags()
        options = flags.options
        if flags.dry_run and not flags.health and not os.environ.get("PACKTRACK_API_KEY"):
            options.setdefault("api_key", "none")  # nothing is sent, so nobody asks for it
        config = PackTrackConfig.load(
            **options,
            app_id=APP_ID,
            on_attempt=self._tell_attempt if flags.verbose else None,
            logger=_logger(verbose=flags.verbose) if flags.durable else None,
            on_delivered=self._count,
            strict=True,
            start=flags.stdin and not flags.no_flush,  # a pipe may stay open for days
        )
        if config.user_agent == USER_AGENT:
            config = replace(config, user_agent=LOGGER_AGENT)
        self._config = config

    def go(self) -> int:
        """Does it; gives the exit code."""
        if self._flags.health:
            return self._health()
        request_keys(self._flags.idempotency_key, 1)  # raises for one that cannot be sent
        events, several = self._events()
        if self._flags.dry_run:
            return self._dry_run(events)
        if self._flags.durable:
            return self._queue(events, several=several)
        return self._send([event for _, event in events], several=several)

    def _check_flags(self) -> None:
        flags = self._flags
        if flags.stdin and flags.file is not None:
            raise ConfigError("--stdin and --file are two inputs; give one of them")
        if flags.stdin and not flags.ndjson:
            raise ConfigError("--stdin needs --ndjson: one JSON object a line")
        if flags.ndjson and not flags.stdin and flags.file is None:
            raise ConfigError("--ndjson needs an input: --stdin, or --file PATH")
        if flags.no_flush and not flags.durable:
            raise ConfigError("--no-flush needs --async: without a queue nothing would keep them")

    def _events(self) -> tuple[Iterable[Located], bool]:
        """The events, and whether the input can hold several."""
        flags = self._flags
        if flags.stdin:
            if current().stdin_closed:
                raise InputError("standard input is closed; give it a file, or a pipe")
            return read_lines(self._stdin, "standard input", flags.event), True
        if flags.file is not None:
            return read_file(flags.file, ndjson=flags.ndjson, defaults=flags.event)
        if flags.missing:
            words = ", ".join(flags.missing)
            raise ConfigError(f"missing {words}; or give events with --file or --stdin --ndjson")
        return [("the options", PackTrackEvent.from_dict(flags.event))], False

    # ------------------------------------------------------------------ what it can do

    def _health(self) -> int:
        with PackTrackClient(config=self._config) as client:
            health = client.health_check()
        if not health.ok:
            words = f"the server is not well: {health.error}"
            return _failed(self._flags, INVALID, words, status_code=health.status)
        self._succeeded(f"the server is well, {health.status}", status_code=health.status)
        return 0

    def _dry_run(self, events: Iterable[Located]) -> int:
        objects = [event.to_dict() for _, event in events]
        if self._flags.as_json:
            self._succeeded("", dry_run=True, events=objects)
            return 0
        for found in objects:
            if not say(result(found)):
                break
        self._tell(f"{_events(len(objects))} valid, nothing sent")
        return 0

    def _send(self, events: list[PackTrackEvent], *, several: bool) -> int:
        key = self._flags.idempotency_key
        with PackTrackClient(config=self._config) as client:
            if several:
                sent = client.ingest_batch(events, idempotency_key=key)
            else:
                sent = client.ingest_event(events[0], idempotency_key=key)
        self._succeeded(
            f"{_events(sent.events)} submitted, requests: {sent.requests}",
            submitted=sent.events,
            requests=sent.requests,
            attempts=sent.attempts,
            status_code=sent.status_code,
        )
        return 0

    def _queue(self, events: Iterable[Located], *, several: bool) -> int:
        flags = self._flags
        with PackTrackClient(config=self._config) as client:
            queued, stopped = self._track_all(client, events, several=several)
            # Also after input that ended with an error: what is in the queue by now goes out.
            report = FlushReport() if flags.no_flush else self._flush(client)
            queue = client.queue
            client.close(timeout=CLOSE_SECONDS if self._config.start else 0)
            after = queue.stats()
        path = after.queue_path
        self._tell(f"{_events(queued)} queued in {path}; {_waiting(after.pending)} there")
        if stopped is not None:
            words = f" ({_events(queued)} before it were queued)" if queued else ""
            raise _with_words(stopped, words)
        facts = {
            "queued": queued,
            "submitted": self._submitted,
            "remaining": after.pending,
            "queue_path": path,
        }
        code, words = _judged(report, after.pending, self._buried)
        if code:
            words += f"; {_waiting(after.pending)} in {path}, the next run with --async sends them"
            return _failed(flags, code, words, **facts)
        self._succeeded(f"{_events(self._submitted)} submitted", **facts)
        return 0

    def _flush(self, client: PackTrackClient) -> FlushReport:
        """Goes on as long as something arrives, but does not wait long for what does not.

        A server may ask to be left alone for an hour, and cron starts the next run meanwhile.
        """
        patience = self._config.retry_after_max + self._config.timeout
        while True:
            end = time.monotonic() + patience
            report = client.flush(timeout=patience)
            self._buried += report.buried
            if not report.remaining or not report.delivered or time.monotonic() < end:
                return report

    def _track_all(
        self, client: PackTrackClient, events: Iterable[Located], *, several: bool
    ) -> tuple[int, Exception | None]:
        """Commits the events as they come; the number of them, and what ended it too early."""
        queued = 0
        given = self._flags.idempotency_key
        try:
            for place, event in events:
                key = given if given is None or not several else f"{given}-{queued + 1}"
                self._track(client, event, key, place)
                queued += 1
        except (click.ClickException, EventError, QueueError) as error:
            return queued, error
        return queued, None

    def _track(
        self, client: PackTrackClient, event: PackTrackEvent, key: str | None, place: str
    ) -> None:
        try:
            try:
                client.track(event, idempotency_key=key)
            except QueueFull:
                if self._flags.no_flush:
                    raise
                self._flush(client)  # makes room, if the server takes them
                client.track(event, idempotency_key=key)
        except QueueFull as error:
            raise QueueFull(f"{place}: {error}; it and what follows is not queued") from error
        except EventError as error:
            raise EventError(f"{place}: {error}") from error

    # ------------------------------------------------------------------ what it says

    def _succeeded(self, words: str, **facts: object) -> None:
        if self._flags.as_json:
            say(result({"ok": True, "exit_code": 0, **facts, "error": None}))
        if words:
            self._tell(words)

    def _count(self, delivered: Delivered) -> None:
        self._submitted += delivered.events

    def _tell(self, words: str) -> None:
        if self._flags.verbose:
            say(f"packtrack-logger: {escaped(words)}", err=True)

    def _tell_attempt(self, attempt: Attempt) -> None:
        answer = "no answer" if attempt.status_code is None else str(attempt.status_code)
        words = f"{attempt.path}, attempt {attempt.number}: {answer} in {attempt.seconds:.3f} s"
        if attempt.events:
            words += f", {_events(attempt.events)}, {attempt.bytes} bytes"
        if attempt.retry_in is not None:
            words += f"; again in {attempt.retry_in:.3g} s ({attempt.error})"
        self._tell(words)


def _judged(report: FlushReport, pending: int, buried: int) -> tuple[int, str]:
    """The exit code of a run through the queue, and what to say about it."""
    error = report.error
    if buried:
        return REFUSED, f"the server refused {_events(buried)} for good (dead letters)"
    if error is None or not pending:
        return 0, ""
    refused = isinstance(error, ResponseError) and not is_passing(error.status)
    final = refused or isinstance(error, QueueError)
    return (REFUSED if final else RETRIES_EXHAUSTED), str(error)


def _logger(*, verbose: bool) -> logging.Logger:
    """What the queue has to say goes to standard error: all of it, or what cannot wait."""
    logger = logging.Logger("packtrack-logger", logging.INFO if verbose else logging.ERROR)
    logger.addHandler(logging.StreamHandler())
    return logger


def _with_words(error: Exception, words: str) -> Exception:
    """The same error, which says more."""
    text = error.message if isinstance(error, click.ClickException) else str(error)
    return type(error)(text + words)


def _waiting(count: int) -> str:
    return "1 event waits" if count == 1 else f"{count} events wait"


def _events(count: int) -> str:
    return f"{count} event" + ("" if count == 1 else "s")
