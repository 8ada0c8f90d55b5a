"""`Client`: wires the parts together; track, flush, close.

Neighbours: everything. It holds no logic of theirs: an event is encoded by `event`, committed by
`queue`, delivered by `sender`. Invariant: a key that `track()` returned is committed, and `track()`
never waits for the network.
"""

from __future__ import annotations

import atexit
import math
import threading
import time
import weakref
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Never, NoReturn, Unpack
from uuid import UUID

import orjson

from causality_sdk import debugging
from causality_sdk.buffer import Buffer
from causality_sdk.config import Config
from causality_sdk.damage import NoRoom
from causality_sdk.dead_letters import DeadLetters
from causality_sdk.delivery import why_not_well
from causality_sdk.errors import (
    ClientClosed,
    ConfigError,
    DeliveryError,
    QueueError,
    QueueFull,
)
from causality_sdk.event import Encoder, Event, Properties, Trackable, several
from causality_sdk.forking import register_client
from causality_sdk.opening import make_wire
from causality_sdk.options import ClientOptions, OptionsSignature, no_copies
from causality_sdk.pipeline import AtProcessEnd, Pipeline
from causality_sdk.queue import Queue
from causality_sdk.queue_file import Reentered
from causality_sdk.stats import FlushReport, Health, Stats
from causality_sdk.wire.base import Request

ASYNC_HINT = (
    "Client is not for async with: use with, or causality_sdk.AsyncClient, whose verbs are awaited"
)
REOPEN_SECONDS = 1.0  # before a forked child that found no queue file looks for one again


class Client:
    """A durable event tracker. Safe to use from many threads.

    Takes the fields of `Config` as keywords, or `config=`. Options that are not given come from
    the environment (`CAUSALITY_<FIELD>`), then from the defaults. Raises `ConfigError` for a wrong
    option and `QueueError` when the queue file cannot be used.

    A context manager: leaving it closes the client. At interpreter exit a client that was not
    closed sends what it can within `close_timeout`; the rest stays on disk for the next start.
    """

    __signature__ = OptionsSignature(ClientOptions, "causality_sdk.config", "Config")

    def __init__(
        self,
        *misplaced: Never,
        config: Config | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        if misplaced:
            raise ConfigError(
                "Client takes keywords only, such as Client(api_key=…, endpoint=…, app_id=…)"
            )
        if config is not None and options:
            raise ConfigError(
                f"pass config= or single options, not both (got {', '.join(options)})"
            )
        config = Config.load(**options) if config is None else config
        if not isinstance(config, Config):
            raise ConfigError(f"config must be a Config, got {type(config).__name__}")
        self.config = config
        self._enabled = config.enabled
        self._closed = False
        self._forked = False  # set in the child of a fork
        if not config.enabled:
            return
        self._logger = config.logger
        # Off again at close(), or once a client that is forgotten goes.
        self._tells_no_more = debugging.switch_on(self, config.logger) if config.debug else None
        self._encoder = Encoder(config.app_id, max_event_bytes=config.max_event_bytes)
        self._wire = make_wire(config)
        self._opening = threading.RLock()  # guards the next four
        self._pipeline: Pipeline | None = None  # None before the first event of a forked child
        self._ended: Pipeline | None = None  # after close(), for stats()
        self._early = Buffer()  # events that came while a forked child could not open a queue
        self._retry_at = -math.inf  # of the monotonic clock: when that is tried again
        try:
            self._open_locked()
        except NoRoom as error:  # on a full disk; the first event that comes tries again
            self._logger.error("causality: %s; events wait in memory until there is room", error)
        self._at_exit = _exit_hook(weakref.ref(self))
        atexit.register(self._at_exit)
        register_client(self)

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
        since the epoch. None means that the disk did not take it: the event waits in memory, see
        `Stats.buffered`, and must not be tracked again. (With `enabled=False` it is always None.)

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
            key, payload = self._encoder.encode_event(
                event,
                properties,
                user_id,
                session_id,
                device_id,
                timestamp,
                idempotency_key,
                app_id,
            )
        pipeline = self._pipeline or self._reopened([payload])
        if pipeline is None:
            return None
        if pipeline.buffer.waiting:
            return key if pipeline.buffer.write([payload]) else None
        try:
            row_id = pipeline.queue.append(payload)
        except QueueFull:
            raise
        except QueueError as error:
            return key if self._written_after_all(pipeline, [payload], error) else None
        if row_id >= pipeline.sender.wake_at:
            pipeline.sender.wake()
        return key

    def track_many(self, events: Iterable[Event | Trackable]) -> list[str] | None:
        """Commits events in order, in one transaction, and gives their keys. Any thread.

        All are encoded first: a bad one raises `EventError` that names its index, and none is
        queued. More than about 4 MiB of events may take more than one transaction. None, and the
        errors, as for `track()`.
        """
        if not self._enabled:
            return None
        encode = self._encoder.encode_item
        encoded = [encode(index, event) for index, event in enumerate(several(events))]
        committed = self._commit([payload for _, payload in encoded])
        return [key for key, _ in encoded] if committed else None

    def flush(self, timeout: float | None = None) -> FlushReport:
        """Tries to deliver all that is queued at this moment, and reports. Any thread.

        Interrupts a wait or a backoff. Gives up after `max_retries` further attempts or after
        `timeout` seconds (None: however long the attempts take). Never raises for the network; see
        `FlushReport.raise_for_error`. Raises `ClientClosed`.
        """
        if not self._enabled:
            return FlushReport()
        try:
            pipeline = self._opened()
        except QueueError as error:  # in a forked child that finds no queue
            if self.config.strict:
                raise
            return FlushReport(remaining=len(self._early), error=error)
        if pipeline.buffer.waiting:
            pipeline.buffer.write()
        flush = pipeline.sender.flush(timeout=timeout, retries=self.config.max_retries)
        return FlushReport(
            delivered=flush.delivered,
            rejected=flush.rejected,
            buried=flush.buried,
            remaining=pipeline.queue.pending,
            error=flush.error,
        )

    def close(self, timeout: float | None = None) -> None:
        """Sends what it can, ends the sender, closes the file. Idempotent; any thread.

        Returns within `timeout` seconds (default: `close_timeout`). What was not delivered stays
        on disk and is sent by the next client of this app. In a signal handler that interrupted
        the client in the middle of a write it returns at once, and the exit of the interpreter
        does the rest.
        """
        if not self._enabled:
            return
        with self._opening:
            if self._closed:
                return
            self._rescue_early_locked()
            self._closed = True
            pipeline, self._pipeline = self._pipeline, None
            self._ended = pipeline
        if pipeline is not None and pipeline.is_entered_here:
            return  # the exit hook finds it in _ended
        atexit.unregister(self._at_exit)
        if pipeline is not None:  # else a forked child that never tracked
            pipeline.shut_down(self.config.close_timeout if timeout is None else timeout)
            self._finalizer.detach()
            pipeline.give_up()
        if self._tells_no_more is not None:
            self._tells_no_more()

    def stats(self) -> Stats:
        """Counters and state of this moment. Any thread; also after `close()`."""
        if not self._enabled:
            return Stats()
        pipeline = self._pipeline or self._ended
        if pipeline is None:
            return Stats(buffered=len(self._early), buffer_dropped=self._early.dropped)
        counters, tracked, pending, pending_bytes = pipeline.queue.snapshot()
        sender = pipeline.sender
        files = pipeline.files()
        return Stats(
            tracked=tracked,
            acknowledged=counters.acknowledged,
            evicted=counters.evicted,
            buried=counters.buried,
            pending=pending,
            pending_bytes=pending_bytes,
            oldest_seconds=None if self._closed else _oldest_seconds(pipeline.queue),
            buffered=len(pipeline.buffer),
            buffer_dropped=pipeline.buffer.dropped,
            retries=sender.retries,
            last_success_ms=sender.last_success_ms,
            last_error=None if sender.last_error is None else str(sender.last_error),
            state=sender.state,
            queue_path=str(pipeline.queue.path),
            files=files,
            elsewhere=sum(each.elsewhere for each in files),
        )

    @property
    def dead_letters(self) -> DeadLetters:
        """Events that were buried: to look at, to put back, to delete. Any thread, queue in use.

        Raises `ClientClosed`.
        """
        if not self._enabled:
            return DeadLetters(None)
        pipeline = self._opened()
        return DeadLetters(pipeline.queue, pipeline.sender.wake)

    def health(self, timeout: float | None = None) -> Health:
        """Asks the server whether it is well, within `timeout` seconds (default: the option).

        Does not raise for the network. Raises `ClientClosed`.
        """
        if not self._enabled:
            return Health(ok=True)
        sender = self._opened().sender
        started = time.monotonic()
        try:
            response = sender.probe(
                Request(path=self._wire.health_path, method="GET", body=b""),
                self.config.timeout if timeout is None else timeout,
            )
        except DeliveryError as error:
            return Health(ok=False, seconds=time.monotonic() - started, error=error)
        trouble = why_not_well(response, url=self.config.endpoint + self._wire.health_path)
        return Health(
            ok=trouble is None,
            status=response.status,
            seconds=time.monotonic() - started,
            error=trouble,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    if not TYPE_CHECKING:  # to a type checker these are what they are: mistakes

        async def __aenter__(self) -> NoReturn:
            raise TypeError(ASYNC_HINT)

        async def __aexit__(self, *_exception: object) -> NoReturn:
            raise TypeError(ASYNC_HINT)

    def __reduce__(self) -> NoReturn:
        raise TypeError(no_copies("Client"))

    def __repr__(self) -> str:
        if not self._enabled:
            return "<Client disabled>"
        pipeline = self._pipeline
        if self._closed:
            state = "closed"
        elif pipeline is None:
            state = "forked" if self._forked else "no queue"
        else:
            state = pipeline.sender.state
        return f"<Client app_id={self.config.app_id!r} endpoint={self.config.endpoint!r} {state}>"

    # ------------------------------------------------------------------ inside

    def _commit(self, payloads: list[bytes]) -> bool:
        """Commits encoded events in order; False if they wait in memory. Raises as `track_many`."""
        pipeline = self._pipeline or self._reopened(payloads)
        if not payloads:
            return True
        if pipeline is None:
            return False
        if pipeline.buffer.waiting:
            return pipeline.buffer.write(payloads)
        try:
            row_id = pipeline.queue.append_many(payloads)
        except QueueFull:
            raise
        except QueueError as error:
            return self._written_after_all(pipeline, payloads, error)
        if row_id >= pipeline.sender.wake_at:
            pipeline.sender.wake()
        return True

    def _opened(self) -> Pipeline:
        """The pipeline of this process. Raises `ClientClosed`, and `QueueError` in a child."""
        pipeline = self._pipeline
        if pipeline is None:
            with self._opening:
                pipeline = self._pipeline or self._open_locked()
        return pipeline

    def _open_locked(self) -> Pipeline:
        if self._closed:
            raise self._closed_error()
        pipeline = Pipeline(self.config, self._wire, self._early, forked=self._forked)
        # For a client that is forgotten instead of closed. Holds the pipeline, never the client.
        self._finalizer = weakref.finalize(self, pipeline.give_up)
        self._finalizer.atexit = False  # at exit the queue stays open for later atexit hooks
        self._at_process_end = AtProcessEnd(_exit_hook(weakref.ref(self)))
        self._pipeline = pipeline
        return pipeline

    def _reopened(self, payloads: list[bytes]) -> Pipeline | None:
        """For the first events after a fork: a queue of this process's own.

        None if there is none to be had; the events are kept in memory then. Raises `ClientClosed`.
        """
        with self._opening:
            if self._closed:
                raise self._closed_error()
            if self._pipeline is None and time.monotonic() < self._retry_at:
                self._early.keep(payloads)
                return None
            try:
                return self._opened()
            except QueueError as error:
                if self.config.strict:
                    raise
                self._early.keep(payloads)
                self._retry_at = time.monotonic() + REOPEN_SECONDS
                who = (
                    "this forked process has no queue" if self._forked else "there is no queue yet"
                )
                self._logger.error("causality: %s: %s", who, error)
                return None

    def _rescue_early_locked(self) -> None:
        """At the end of a forked child that had no queue: one more try, then the loss counts."""
        if self._pipeline is not None or not self._early.waiting:
            return
        try:
            self._open_locked()
        except QueueError as error:
            self._logger.error("causality: %d events are lost: %s", self._early.give_up(), error)

    def _begin_anew_after_fork(self) -> None:
        """For `os.register_at_fork`, in the child: everything open belongs to the parent."""
        if self._pipeline is not None:
            self._pipeline.leave_to_parent()
            self._finalizer.detach()
            self._pipeline = None
        self._forked = True
        self._opening = threading.RLock()  # another thread of the parent may hold the old one
        self._early = Buffer()
        self._retry_at = -math.inf

    def _written_after_all(
        self, pipeline: Pipeline, payloads: list[bytes], error: QueueError
    ) -> bool:
        """Tries once more, then keeps the events in memory; True if they are committed."""
        if self._closed:  # meanwhile, by another thread
            raise self._closed_error() from error
        if self.config.strict:
            raise error
        # What the first of several transactions took must not be written twice.
        written = pipeline.buffer.write(payloads[error.written :])
        if not isinstance(error, Reentered):  # that one is no trouble of the disk
            pipeline.queue.log_trouble = error  # the sender reports it: no hook runs in track()
        pipeline.sender.wake()
        return written

    def _mend(self) -> bool:
        """For a program without a thread: salvages a damaged file at once; False if it is not that.

        Raises `QueueError` where that fails.
        """
        pipeline = self._opened()
        return pipeline.queue.damage is not None and pipeline.mend()

    def _closed_error(self) -> ClientClosed:
        return ClientClosed("this client was closed; make a new Client, or close it later")


def _oldest_seconds(queue: Queue) -> float | None:
    try:
        oldest = queue.read("SELECT payload FROM queue ORDER BY id LIMIT 1")
        tracked_ms = int(orjson.loads(oldest[0][0])["timestamp_ms"])
    except (LookupError, TypeError, ValueError, QueueError):  # empty, or damaged
        return None
    return max(0.0, time.time() - tracked_ms / 1000)


def _exit_hook(reference: weakref.ref[Client]) -> Any:
    """The atexit hook. It must not keep a client alive that its program has forgotten."""

    def at_exit() -> None:
        client = reference()
        if client is None:
            return
        with client._opening:
            if not client._closed:
                client._rescue_early_locked()
        if client._pipeline is not None:
            # The queue stays open: a track() from a later atexit hook still commits.
            client._pipeline.shut_down_at_exit(client.config.close_timeout)
        elif client._ended is not None:  # a close() that came in the middle of a write
            client._ended.shut_down_at_exit(client.config.close_timeout)
            client._ended.give_up()

    return at_exit
