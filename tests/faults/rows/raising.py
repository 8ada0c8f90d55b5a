"""What hooks, transports and log handlers raise, whatever its class, on the sender's thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from causality_sdk import Client
from causality_sdk.logs import Log
from causality_sdk.sender import Sender
from causality_sdk.testing import RecordingTransport
from causality_sdk.wire.base import Request, Response
from faults.registry import Fault, Outcome, Run

KINDS: tuple[type[BaseException], ...] = (
    RuntimeError,
    SystemExit,
    KeyboardInterrupt,
    asyncio.CancelledError,
    GeneratorExit,
)
PLACES = ("on_delivered", "on_error", "transport", "handler")
EVENTS = 20
SECONDS = 30.0


class _Transport(RecordingTransport):
    def __init__(self, first: Callable[[], None]) -> None:
        super().__init__()
        self._first = first

    def send(self, request: Request, timeout: float) -> Response:
        self._first()
        return super().send(request, timeout)


class _Handler(logging.Handler):
    def __init__(self, first: Callable[[], None]) -> None:
        super().__init__()
        self._first = first

    def emit(self, _record: logging.LogRecord) -> None:
        self._first()


def run(run: Run) -> Outcome:
    """Each class from each place, once."""
    return _each(run, KINDS, "raising", SECONDS)


def control(run: Run) -> Outcome:
    """Only what is an `Exception` is caught, and nobody starts a thread that ended again."""
    swallows, again = Log.swallows, Sender._start_again

    def only_exceptions(self: Log, error: BaseException) -> bool:  # noqa: ARG001 - of a method
        return isinstance(error, Exception)

    def never(self: Sender) -> bool:
        return self._thread is not None and self._thread.is_alive()

    Log.swallows = only_exceptions  # type: ignore[method-assign]
    Sender._start_again = never  # type: ignore[method-assign]
    try:
        return _each(run, (SystemExit,), "uncaught", 1.0)
    finally:
        Log.swallows, Sender._start_again = swallows, again  # type: ignore[method-assign]


def _each(run: Run, kinds: tuple[type[BaseException], ...], name: str, seconds: float) -> Outcome:
    failures = []
    arrived = 0
    for place in PLACES:
        for kind in kinds:
            found = _one(run.directory(f"{name}-{place}-{kind.__name__}"), place, kind, seconds)
            arrived += found
            if found < EVENTS:
                failures.append(f"{kind.__name__} from {place}: {found} of {EVENTS} arrived")
    return Outcome({"places": len(PLACES), "classes": len(kinds), "arrived": arrived}, failures)


def _one(directory: Path, place: str, kind: type[BaseException], seconds: float) -> int:
    raised: list[type[BaseException]] = []

    def once(*_details: object) -> None:
        if not raised:
            raised.append(kind)
            raise kind("on purpose")

    transport = _Transport(once if place == "transport" else lambda: None)
    if place in ("on_error", "handler"):
        transport.respond(503, times=1)  # for something to be told
    logger = logging.Logger("faults.raising")
    logger.addHandler(_Handler(once) if place == "handler" else logging.NullHandler())
    client = Client(
        api_key="test-key",
        endpoint="http://127.0.0.1:9",
        app_id="faults",
        queue_path=directory / "queue.db",
        batch_size=1,
        backoff_initial=0.01,
        backoff_max=0.02,
        logger=logger,
        transport=transport,
        on_delivered=once if place == "on_delivered" else None,
        on_error=once if place == "on_error" else None,
    )
    for _ in range(EVENTS // 2):
        client.track("before")
    client.flush(timeout=seconds)
    for _ in range(EVENTS - EVENTS // 2):
        client.track("after")
    client.flush(timeout=seconds)
    client.close(timeout=0)
    assert raised, f"nothing was raised from {place}"
    return len({event["idempotency_key"] for event in transport.events})


FAULT = Fault(
    name="hooks, transports and log handlers that raise",
    how="Exception, SystemExit, KeyboardInterrupt, CancelledError and GeneratorExit, from"
    " on_delivered, on_error, the transport and a log handler",
    promise="the thread goes on; every event arrives",
    run=run,
    control=control,
    broken="only an Exception is caught, and a thread that ended stays ended",
)
