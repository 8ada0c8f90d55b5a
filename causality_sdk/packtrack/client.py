"""`PackTrackClient`: the synchronous verbs, and the durable queue beside them.

Neighbours: `attempts` tries one request until it is decided, `connections` lends transports, the
`Client` of this package keeps what is tracked. Invariant: a synchronous verb that returns was
acknowledged by the server; a key that `track()` returned is committed to disk.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never, NoReturn, Unpack
from uuid import UUID

import orjson
from uuid6 import uuid7

from causality_sdk import debugging
from causality_sdk.client import Client
from causality_sdk.errors import ClientClosed, ConfigError, EventError, IngestError
from causality_sdk.event import Event, several
from causality_sdk.forking import register_client
from causality_sdk.opening import http_transport
from causality_sdk.option_checks import SECONDS_MAX, number
from causality_sdk.options import OptionsSignature, no_copies
from causality_sdk.packtrack.attempts import Retrying
from causality_sdk.packtrack.config import PackTrackConfig
from causality_sdk.packtrack.connections import Connections, Shared
from causality_sdk.packtrack.event import PackTrackEvent
from causality_sdk.packtrack.options import PackTrackOptions
from causality_sdk.plain import show
from causality_sdk.stats import FlushReport, Health
from causality_sdk.transport.base import Transport
from causality_sdk.wire.base import Request
from causality_sdk.wire.packtrack import (
    HEADERS,
    IDEMPOTENCY_HEADER,
    INGEST_PATH,
    PackTrackWire,
)

KEY_CHARS = 200  # of an idempotency key that a caller gives; a suffix may follow


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What a synchronous verb had acknowledged."""

    events: int
    requests: int
    attempts: int
    """Requests and retries."""
    status_code: int
    """Of the last answer."""
    idempotency_keys: tuple[str, ...]
    """One for each request, as they were sent."""


class PackTrackClient:
    """Sends events to PackTrack: at once with `ingest_…`, or durably with `track()`.

    Takes the fields of `PackTrackConfig` as keywords, or `config=`. Options that are not given
    come from the environment (`PACKTRACK_API_KEY`, …), then from the defaults. Raises
    `ConfigError` for a wrong one. Safe to use from many threads. A context manager.

    The queue is opened by the first `track()`; a program that only ingests has none.
    """

    __signature__ = OptionsSignature(
        PackTrackOptions, "causality_sdk.packtrack.config", "PackTrackConfig"
    )

    def __init__(
        self,
        *misplaced: Never,
        config: PackTrackConfig | None = None,
        sleep: Callable[[float], object] = time.sleep,
        rng: random.Random | None = None,
        **options: Unpack[PackTrackOptions],
    ) -> None:
        if misplaced:
            raise ConfigError(
                "PackTrackClient takes keywords only, such as PackTrackClient(api_key=…)"
            )
        if config is not None and options:
            raise ConfigError(
                f"pass config= or single options, not both (got {', '.join(options)})"
            )
        config = PackTrackConfig.load(**options) if config is None else config
        if not isinstance(config, PackTrackConfig):
            raise ConfigError(f"config must be a PackTrackConfig, got {type(config).__name__}")
        self.config = config
        self._tells_no_more = (
            debugging.switch_on(self, config.logger) if config.debug and config.logger else None
        )
        self._retrying = Retrying(self.config, sleep=sleep, rng=rng)
        self._connections = Connections(self._new_transport)
        self._shared: Shared | None = None  # set once, guarded by _lock
        self._well = not self.config.health_enabled  # the server was asked, or need not be
        self._lock = threading.Lock()
        self._client: Client | None = None  # set once, guarded by _lock
        register_client(self)
        self._closed = False

    # ------------------------------------------------------------------ synchronous

    def ingest_event(
        self,
        event: PackTrackEvent,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> IngestResult:
        """Sends one event, and returns when the server has acknowledged it.

        `idempotency_key` goes out as the header of that name, with every attempt; by default it
        is a new UUIDv7. `timeout` is the deadline of one attempt in seconds (default: the
        option). Raises `IngestRefused`, `RetriesExhausted`, `EventError`, `ClientClosed`.
        """
        self._check(timeout)
        return self._ingest([_object(event, "the event")], False, idempotency_key, timeout)

    def ingest_batch(
        self,
        events: Iterable[PackTrackEvent],
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> IngestResult:
        """Sends events in order, `batch_size` of them in a request at most.

        All are encoded before the first is sent. The key of a batch that takes several requests
        gets the suffixes `-1`, `-2`, … where the server would drop the second under the same
        one. Errors and the rest as for `ingest_event`; `IngestError.submitted` tells how many
        were acknowledged before.
        """
        self._check(timeout)
        given = several(events, "ingest_batch", "ingest_event()")
        objects = [
            _object(event, f"item {index} of the batch") for index, event in enumerate(given)
        ]
        return self._ingest(objects, True, idempotency_key, timeout)

    def health_check(self, *, timeout: float | None = None) -> Health:
        """Asks the server whether it is well, with retries. Does not raise for the network.

        `timeout` as in `ingest_event`. Raises `ClientClosed`.
        """
        self._check(timeout)
        started = time.monotonic()
        try:
            status = self._ask_for_health(timeout)
        except IngestError as error:
            seconds = time.monotonic() - started
            return Health(ok=False, status=error.status_code, seconds=seconds, error=error)
        return Health(ok=True, status=status, seconds=time.monotonic() - started)

    # ------------------------------------------------------------------ durable

    def track(
        self, event: PackTrackEvent, *, idempotency_key: str | UUID | None = None
    ) -> str | None:
        """Commits one event to the queue and gives its key; a thread delivers it. Any thread.

        As `Client.track()`. Raises `EventError`, `ClientClosed`, `QueueError`, and `QueueFull` at
        `queue_capacity`.
        """
        return self._queue().track(_canonical(event, idempotency_key))

    def track_many(self, events: Iterable[PackTrackEvent]) -> list[str] | None:
        """Commits events in order, in one transaction, and gives their keys. As `track()`."""
        return self._queue().track_many([_canonical(event, None) for event in several(events)])

    def flush(self, timeout: float | None = None) -> FlushReport:
        """Tries to deliver all that is queued, that of earlier runs included, and reports.

        As `Client.flush()`; gives up after `retries` further attempts. Raises `ClientClosed` and,
        if the queue cannot be opened, `QueueError`.
        """
        return self._queue().flush(timeout)

    @property
    def queue(self) -> Client:
        """The `Client` behind `track()`, for `stats()`, `dead_letters` and the rest.

        Opens the queue, and may raise `QueueError`; raises `ClientClosed`.
        """
        return self._queue()

    def close(self, timeout: float | None = None) -> None:
        """Closes connections, and the queue as `Client.close()` does. Idempotent; any thread."""
        self._closed = True
        with self._lock:
            client = self._client
        if client is not None:
            client.close(timeout)
        self._connections.close()
        if self._tells_no_more is not None:
            self._tells_no_more()

    def __enter__(self) -> PackTrackClient:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    if not TYPE_CHECKING:  # to a type checker these are what they are: mistakes

        async def __aenter__(self) -> NoReturn:
            raise TypeError("PackTrackClient is not for async with; use with")

        async def __aexit__(self, *_exception: object) -> NoReturn:
            raise TypeError("PackTrackClient is not for async with; use with")

    def __reduce__(self) -> NoReturn:
        raise TypeError(no_copies("PackTrackClient"))

    def __repr__(self) -> str:
        return f"<PackTrackClient base_url={self.config.base_url!r}>"

    # ------------------------------------------------------------------ inside

    def _ingest(
        self, objects: Sequence[bytes], as_array: bool, key: str | None, timeout: float | None
    ) -> IngestResult:
        size = self.config.batch_size
        batches = [objects[start : start + size] for start in range(0, len(objects), size)]
        keys = request_keys(key, len(batches))
        submitted = attempts = status = 0
        try:
            if not self._well and batches:
                self._ask_for_health(timeout)
                self._well = True
            for batch, batch_key in zip(batches, keys, strict=True):
                body = b"[" + b",".join(batch) + b"]" if as_array else batch[0]
                headers = {**HEADERS, IDEMPOTENCY_HEADER: batch_key}
                request = Request(path=INGEST_PATH, headers=headers, body=body)
                with self._connections.borrow() as transport:
                    response, tries = self._retrying.send(
                        transport, request, events=len(batch), timeout=timeout
                    )
                submitted += len(batch)
                attempts += tries
                status = response.status
        except IngestError as error:
            error.submitted = submitted
            raise
        return IngestResult(submitted, len(batches), attempts, status, keys)

    def _ask_for_health(self, timeout: float | None) -> int:
        request = Request(path=self.config.health_path, method="GET", body=b"")
        with self._connections.borrow() as transport:
            response, _ = self._retrying.send(transport, request, events=0, timeout=timeout)
        return response.status

    def _check(self, timeout: float | None) -> None:
        if self._closed:
            raise _closed_error()
        if timeout is not None:
            number("timeout", timeout, above=0, most=SECONDS_MAX)

    def _new_transport(self) -> Transport:
        if self.config.session is None:
            return http_transport(self.config.for_queue(), PackTrackWire())
        with self._lock:
            return self._shared_locked()

    def _shared_locked(self) -> Transport:
        if self._shared is None:
            self._shared = Shared(http_transport(self.config.for_queue(), PackTrackWire()))
        return self._shared

    def _begin_anew_after_fork(self) -> None:
        """For `os.register_at_fork`, in the child: locks and connections belong to the parent."""
        self._lock = threading.Lock()  # another thread of the parent may hold the old one
        if self._shared is not None:
            queue = self.config.for_queue()
            self._shared.begin_anew(http_transport(queue, PackTrackWire(), forked=True))

    def _queue(self) -> Client:
        if self._closed:
            raise _closed_error()
        with self._lock:
            if self._client is None:
                shared = None if self.config.session is None else self._shared_locked()
                self._client = Client(config=self.config.for_queue(shared))
            return self._client


def request_keys(key: str | None, requests: int) -> tuple[str, ...]:
    """The idempotency keys of so many requests of one call. Raises `EventError`."""
    if key is None:
        return tuple(str(uuid7()) for _ in range(requests))
    if not isinstance(key, str) or not key.strip() or not key.isascii() or not key.isprintable():
        raise EventError(
            f"idempotency_key must be printable ASCII, got {show(key)}; it goes into a header"
        )
    if key != key.strip() or len(key) > KEY_CHARS:
        raise EventError(
            f"idempotency_key must be at most {KEY_CHARS} characters without spaces around it,"
            f" got {len(key)}; hash it"
        )
    if requests == 1:
        return (key,)
    return tuple(f"{key}-{number}" for number in range(1, requests + 1))


def _object(event: object, what: str) -> bytes:
    if not isinstance(event, PackTrackEvent):
        raise EventError(f"{what} must be a PackTrackEvent, got {show(event)}")
    return orjson.dumps(event.to_dict())


def _canonical(event: object, key: str | UUID | None) -> Event:
    if not isinstance(event, PackTrackEvent):
        raise EventError(f"track takes a PackTrackEvent, got {show(event)}")
    return event.event(idempotency_key=key)


def _closed_error() -> ClientClosed:
    return ClientClosed("this client was closed; make a new PackTrackClient, or close it later")
