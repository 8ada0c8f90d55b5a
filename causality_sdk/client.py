"""`Client`: wires the parts together; track, flush, close.

Neighbours: everything. It holds no logic of theirs: an event is encoded by `event`, committed by
`queue`, delivered by `sender`. Invariant: a key that `track()` returned is committed, and `track()`
never waits for the network.
"""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from causality_sdk.batch import BatchLimit
from causality_sdk.buffer import Buffer
from causality_sdk.config import Config
from causality_sdk.courier import Courier
from causality_sdk.dead_letters import DeadLetters
from causality_sdk.errors import (
    ClientClosed,
    ConfigError,
    DeliveryError,
    EventError,
    QueueError,
    QueueFull,
)
from causality_sdk.event import Encoder, Event, Properties, Trackable, as_event
from causality_sdk.hooks import Hooks
from causality_sdk.opening import http_transport, open_queue, release
from causality_sdk.ownership import Lease
from causality_sdk.pacer import Pace, Pacer
from causality_sdk.queue import Queue
from causality_sdk.sender import Limits, Sender
from causality_sdk.stats import FlushReport, Health, Stats
from causality_sdk.wire import WIRES
from causality_sdk.wire.base import Request, Wire


class Client:
    """A durable event tracker. Safe to use from many threads.

    Takes the fields of `Config` as keywords, or `config=`. Options that are not given come from
    the environment (`CAUSALITY_<FIELD>`), then from the defaults. Raises `ConfigError` for a wrong
    option and `QueueError` when the queue file cannot be used.

    A context manager: leaving it closes the client. At interpreter exit a client that was not
    closed sends what it can within `close_timeout`; the rest stays on disk for the next start.
    """

    def __init__(self, *, config: Config | None = None, **options: Any) -> None:
        if config is not None and options:
            raise ConfigError(
                f"pass config= or single options, not both (got {', '.join(options)})"
            )
        config = Config.load(**options) if config is None else config
        self.config = config
        self._enabled = config.enabled
        self._closed = False
        if not config.enabled:
            return
        self._logger = config.logger
        self._encoder = Encoder(config.app_id, max_event_bytes=config.max_event_bytes)
        wire: Wire = WIRES[config.wire]() if isinstance(config.wire, str) else config.wire
        self._wire = wire
        self._hooks = Hooks(
            logger=config.logger,
            on_delivered=config.on_delivered,
            on_dropped=config.on_dropped,
            on_error=config.on_error,
        )
        self._queue, self._lease = open_queue(config, wire, self._hooks)
        self._buffer = Buffer(self._queue.append_many)
        self._sender = Sender(
            self._queue,
            Courier(
                self._queue,
                wire,
                lambda: config.transport or http_transport(config, wire),
                BatchLimit(config.batch_size, config.max_batch_events, config.max_batch_bytes),
            ),
            limits=Limits(config.max_batch_events, config.timeout),
            pacer=Pacer(
                Pace(
                    batch_size=config.batch_size,
                    flush_interval=config.flush_interval,
                    backoff_initial=config.backoff_initial,
                    backoff_max=config.backoff_max,
                    jitter=config.jitter,
                ),
                backlog=self._queue.last_id,
            ),
            hooks=self._hooks,
            logger=config.logger,
            buffer=self._buffer,
        )
        # For a client that is forgotten instead of closed. Holds the parts, never the client.
        self._finalizer = weakref.finalize(self, _abandon, self._sender, self._queue, self._lease)
        self._finalizer.atexit = False  # at exit the queue stays open for later atexit hooks
        self._at_exit = _exit_hook(weakref.ref(self))
        atexit.register(self._at_exit)
        if config.start:
            self._sender.start()

    # ------------------------------------------------------------------ the verbs

    def track(
        self,
        event: str | Event | Trackable,
        properties: Properties | None = None,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        device_id: str | None = None,
        timestamp: datetime | int | None = None,
        idempotency_key: str | UUID | None = None,
        app_id: str | None = None,
    ) -> str | None:
        """Commits one event to the queue and gives its idempotency key. Any thread.

        `event` is the event's type, with the rest as arguments, or an `Event`, or a typed event
        with all but `properties` as arguments. `timestamp` is an aware datetime or milliseconds
        since the epoch. None means that the disk did not take it:
        the event waits in memory, see `Stats.buffered`.

        Raises `EventError` for an event that can never be sent, `QueueFull` under
        `overflow="reject"`, `ClientClosed` after `close()`, and `QueueError` under `strict`.
        """
        if not self._enabled:
            return None
        if isinstance(event, str):
            key, payload = self._encoder.encode(
                event,
                properties,
                user_id,
                session_id,
                device_id,
                timestamp,
                idempotency_key,
                app_id,
            )
        else:
            whole = as_event(
                event,
                properties,
                user_id=user_id,
                session_id=session_id,
                device_id=device_id,
                timestamp=timestamp,
                idempotency_key=idempotency_key,
                app_id=app_id,
            )
            key, payload = self._encoder.encode_event(whole)
        if self._closed:
            raise self._closed_error()
        if self._buffer:
            return key if self._buffer.write([payload]) else None
        try:
            row_id = self._queue.append(payload)
        except QueueFull:
            raise
        except QueueError as error:
            return key if self._written_after_all([payload], error) else None
        if row_id >= self._sender.wake_at:
            self._sender.wake()
        return key

    def track_many(self, events: Iterable[Event | Trackable]) -> list[str] | None:
        """Commits events in order, in one transaction, and gives their keys. Any thread.

        All are encoded first: a bad one raises `EventError` that names its index, and none is
        queued. More than about 4 MiB of events may take more than one transaction. None, and the
        errors, as for `track()`.
        """
        if not self._enabled:
            return None
        keys, payloads = self._encode_all(events)
        if self._closed:
            raise self._closed_error()
        if not payloads:
            return keys
        if self._buffer:
            return keys if self._buffer.write(payloads) else None
        try:
            row_id = self._queue.append_many(payloads)
        except QueueFull:
            raise
        except QueueError as error:
            return keys if self._written_after_all(payloads, error) else None
        if row_id >= self._sender.wake_at:
            self._sender.wake()
        return keys

    def flush(self, timeout: float | None = None) -> FlushReport:
        """Tries to deliver all that is queued at this moment, and reports. Any thread.

        Interrupts a wait or a backoff. Gives up after `max_retries` further attempts or after
        `timeout` seconds (None: however long the attempts take). Never raises for the network; see
        `FlushReport.raise_for_error`. Raises `ClientClosed`.
        """
        if not self._enabled:
            return FlushReport()
        if self._closed:
            raise self._closed_error()
        return self._flush(timeout, self.config.max_retries)

    def close(self, timeout: float | None = None) -> None:
        """Sends what it can, ends the sender, closes the file. Idempotent; any thread.

        Returns within `timeout` seconds (default: `close_timeout`). What was not delivered stays
        on disk and is sent by the next client of this app.
        """
        if not self._enabled or self._closed:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        self._shut_down(self.config.close_timeout if timeout is None else timeout)
        self._finalizer.detach()
        # On this thread if the sender is done, else on its own once the attempt under way is over:
        # until then the file must stay ours.
        self._sender.when_ended(lambda: release(self._queue, self._lease))

    def stats(self) -> Stats:
        """Counters and state of this moment. Any thread; also after `close()`."""
        if not self._enabled:
            return Stats(evicted={})
        counters, tracked, pending, pending_bytes = self._queue.snapshot()
        sender = self._sender
        return Stats(
            tracked=tracked,
            acknowledged=counters.acknowledged,
            evicted=counters.evicted,
            buried=counters.buried,
            pending=pending,
            pending_bytes=pending_bytes,
            oldest_seconds=None if self._closed else self._oldest_seconds(),
            buffered=len(self._buffer),
            buffer_dropped=self._buffer.dropped,
            retries=sender.retries,
            last_success_ms=sender.last_success_ms,
            last_error=None if sender.last_error is None else str(sender.last_error),
            state=sender.state,
            queue_path=str(self._queue.path),
        )

    @property
    def dead_letters(self) -> DeadLetters:
        """Events that were buried: to look at, to put back, to delete. Any thread, queue in use.

        Raises `ClientClosed`.
        """
        if not self._enabled:
            return DeadLetters(None)
        if self._closed:
            raise self._closed_error()
        return DeadLetters(self._queue, self._sender.wake)

    def health(self, timeout: float | None = None) -> Health:
        """Asks the server whether it is well, within `timeout` seconds (default: the option).

        Does not raise for the network. Raises `ClientClosed`.
        """
        if not self._enabled:
            return Health(ok=True)
        if self._closed:
            raise self._closed_error()
        started = time.monotonic()
        try:
            response = self._sender.probe(
                Request(path=self._wire.health_path, method="GET", body=b""),
                self.config.timeout if timeout is None else timeout,
            )
        except DeliveryError as error:
            return Health(ok=False, seconds=time.monotonic() - started, error=error)
        return Health(
            ok=200 <= response.status <= 299,
            status=response.status,
            seconds=time.monotonic() - started,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if not self._enabled:
            return "<Client disabled>"
        state = "closed" if self._closed else self._sender.state
        return f"<Client app_id={self.config.app_id!r} endpoint={self.config.endpoint!r} {state}>"

    # ------------------------------------------------------------------ inside

    def _encode_all(self, events: Iterable[Event | Trackable]) -> tuple[list[str], list[bytes]]:
        keys, payloads = [], []
        for index, event in enumerate(events):
            if isinstance(event, str):
                raise EventError(f"track_many takes Event objects; item {index} is a str")
            try:
                key, payload = self._encoder.encode_event(as_event(event))
            except ValueError as error:  # an EventError is one
                error.args = (f"event {index}: {error}",)
                raise
            keys.append(key)
            payloads.append(payload)
        return keys, payloads

    def _written_after_all(self, payloads: list[bytes], error: QueueError) -> bool:
        """Tries once more, then keeps the events in memory; True if they are committed."""
        if self.config.strict:
            raise error
        # What the first of several transactions took must not be written twice.
        written = self._buffer.write(payloads[error.written :])
        self._queue.log_trouble = error  # the sender reports it: hooks never run in track()
        self._sender.wake()
        return written

    def _flush(self, timeout: float | None, retries: int) -> FlushReport:
        if self._buffer:
            self._buffer.write()
        flush = self._sender.flush(timeout=timeout, retries=retries)
        return FlushReport(
            delivered=flush.delivered,
            rejected=flush.rejected,
            buried=flush.buried,
            remaining=self._queue.pending,
            error=flush.error,
        )

    def _shut_down(self, timeout: float) -> None:
        """One last attempt, then the end of the sender, within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        if self._buffer and not self._buffer.write():
            self._logger.error(
                "causality: %d events are lost: the disk took them neither before nor at the end",
                self._buffer.give_up(),
            )
        if self._queue.pending:
            self._flush(timeout, retries=0)
        self._sender.stop()
        if self._sender.wait_until_ended(max(0.0, deadline - time.monotonic())):
            self._sender.shrink(deadline - time.monotonic())

    def _oldest_seconds(self) -> float | None:
        try:
            oldest = self._queue.read("SELECT payload FROM queue ORDER BY id LIMIT 1")
            tracked_ms = int(orjson.loads(oldest[0][0])["timestamp_ms"])
        except (LookupError, TypeError, ValueError, QueueError):  # empty, or damaged
            return None
        return max(0.0, time.time() - tracked_ms / 1000)

    def _closed_error(self) -> ClientClosed:
        return ClientClosed("this client was closed; make a new Client, or close it later")


def _abandon(sender: Sender, queue: Queue, lease: Lease | None) -> None:
    """For a client that was garbage collected: nothing waits, what was not sent is on disk."""
    sender.stop()
    sender.when_ended(lambda: release(queue, lease))


def _exit_hook(reference: weakref.ref[Client]) -> Any:
    """The atexit hook. It must not keep a client alive that its program has forgotten."""

    def at_exit() -> None:
        client = reference()
        if client is not None and not client._closed:
            # The queue stays open: a track() from a later atexit hook still commits.
            client._shut_down(client.config.close_timeout)

    return at_exit
