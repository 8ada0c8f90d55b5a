"""Nothing that is raised ends the sender, whatever its class; one that ended is started again."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from causality_sdk import Client, Event
from causality_sdk.errors import QueueError
from causality_sdk.sender import Sender
from causality_sdk.testing import RecordingTransport
from causality_sdk.wire.base import Request, Response, Verdict
from causality_sdk.wire.causality import CausalityWire


class OwnError(BaseException):
    """Of a framework, which means the thread it is raised in."""


RAISED: list[type[BaseException]] = [
    SystemExit,
    KeyboardInterrupt,
    asyncio.CancelledError,
    GeneratorExit,
    OwnError,
    RuntimeError,
    MemoryError,
]


class Once:
    """Raises the first few times it is called."""

    def __init__(self, kind: type[BaseException], times: int = 2) -> None:
        self.kind = kind
        self.left = times
        self.raised = threading.Event()

    def __call__(self, *_details: object) -> None:
        if self.left:
            self.left -= 1
            self.raised.set()
            raise self.kind


class Wire(CausalityWire):
    """The usual one, but for what is raised."""

    def __init__(self, frame: Callable[[], None], verdicts: Callable[[], None]) -> None:
        super().__init__()
        self._frame = frame
        self._verdicts = verdicts

    def frame(self, payloads: Sequence[bytes]) -> Request:
        self._frame()
        return super().frame(payloads)

    def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
        self._verdicts()
        return super().verdicts(response, count)


class Transport(RecordingTransport):
    """The same of a transport."""

    def __init__(self, sending: Callable[[], None]) -> None:
        super().__init__()
        self._sending = sending

    def send(self, request: Request, timeout: float) -> Response:
        self._sending()
        return super().send(request, timeout)


class Handler(logging.Handler):
    """The same of a handler of the program's logging."""

    def __init__(self, emitting: Callable[[], None]) -> None:
        super().__init__()
        self._emitting = emitting

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        self._emitting()


class Filter(logging.Filter):
    """The same of a filter."""

    def __init__(self, filtering: Callable[[], None]) -> None:
        super().__init__()
        self._filtering = filtering

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        self._filtering()
        return True


PLACES = ["on_delivered", "on_error", "frame", "verdicts", "send", "handler", "filter"]


def nothing(*_details: object) -> None:
    """Raises nothing."""


@pytest.fixture
def logger() -> logging.Logger:
    logger = logging.Logger("test.never.ended")
    logger.addHandler(logging.NullHandler())
    return logger


def make(place: str, once: Once, path: Path, logger: logging.Logger, **options: Any) -> Client:
    hooks: dict[str, Any] = {place: once} if place.startswith("on_") else {}
    transport = Transport(once if place == "send" else nothing)
    wire = Wire(*(once if place == part else nothing for part in ("frame", "verdicts")))
    if place == "handler":
        logger.addHandler(Handler(once))
    if place == "filter":
        logger.addFilter(Filter(once))
    if place in ("on_error", "handler", "filter"):
        transport.respond(503, times=1)  # for something to be told
    return Client(
        api_key="test-key",
        endpoint="http://127.0.0.1:9",
        app_id="a",
        queue_path=path / "queue.db",
        batch_size=1,
        backoff_initial=0.01,
        backoff_max=0.02,
        logger=logger,
        transport=transport,
        wire=wire,
        **hooks,
        **options,
    )


def sender_of(client: Client) -> Sender:
    assert client._pipeline is not None
    return client._opened().sender


def thread_of(client: Client) -> threading.Thread:
    thread = sender_of(client)._thread
    assert thread is not None
    return thread


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("place", PLACES)
def test_the_thread_goes_on(
    place: str, kind: type[BaseException], tmp_path: Path, logger: logging.Logger
) -> None:
    once = Once(kind)
    with make(place, once, tmp_path, logger) as client:
        thread = thread_of(client)
        client.track("first")
        assert once.raised.wait(30)
        client.track("second")
        report = client.flush(timeout=30)
        assert report.error is None
        assert thread.is_alive()
        assert thread is thread_of(client)
        stats = client.stats()
        assert (stats.pending, stats.acknowledged) == (0, 2)


@pytest.mark.parametrize("kind", RAISED)
def test_on_dropped_may_raise(
    kind: type[BaseException], tmp_path: Path, logger: logging.Logger
) -> None:
    once = Once(kind)
    with make("on_dropped", once, tmp_path, logger, max_queue_events=5) as client:
        client.track_many([Event("t")] * 20)
        assert once.raised.wait(30)
        assert client.flush(timeout=30).error is None
        assert thread_of(client).is_alive()


@pytest.mark.parametrize("place", PLACES)
def test_without_a_thread_it_comes_out_of_the_flush_and_the_next_one_works(
    place: str, tmp_path: Path, logger: logging.Logger
) -> None:
    """It is the caller's thread, and the caller it means."""
    once = Once(KeyboardInterrupt, times=1)
    with make(place, once, tmp_path, logger, start=False) as client:
        client.track("first")
        with pytest.raises(KeyboardInterrupt):
            client.flush(timeout=30)
        client.track("second")
        report = client.flush(timeout=30)
        assert report.error is None
        assert client.stats().pending == 0
        assert client.stats().acknowledged == 2


@pytest.mark.parametrize("place", PLACES)
def test_without_a_thread_an_exception_stays_inside(
    place: str, tmp_path: Path, logger: logging.Logger
) -> None:
    once = Once(RuntimeError, times=1)
    with make(place, once, tmp_path, logger, start=False) as client:
        client.track("first")
        client.flush(timeout=30)
        assert client.flush(timeout=30).error is None
        assert client.stats().acknowledged == 1


def end_thread(client: Client) -> threading.Thread:
    """As if something had got through all nets."""
    sender = sender_of(client)
    thread = thread_of(client)
    step = sender.step

    def fatal() -> float | None:
        sender.step = step  # type: ignore[method-assign]
        raise SystemExit

    sender.step = fatal  # type: ignore[method-assign]
    sender._wake.set()
    thread.join(30)
    assert not thread.is_alive()
    return thread


def test_a_thread_that_ended_is_started_again_by_the_next_event(
    tmp_path: Path, logger: logging.Logger
) -> None:
    with make("none", Once(OwnError), tmp_path, logger) as client:
        ended = end_thread(client)
        assert "SystemExit" in str(client.stats().last_error)
        client.track("after")
        transport = client.config.transport
        assert isinstance(transport, RecordingTransport)
        assert transport.wait_for(1, timeout=30)
        assert thread_of(client) is not ended


def test_a_thread_that_ended_is_started_again_by_a_flush(
    tmp_path: Path, logger: logging.Logger
) -> None:
    with make("none", Once(OwnError), tmp_path, logger, flush_interval=3600) as client:
        ended = end_thread(client)
        report = client.flush(timeout=30)
        assert report.error is None
        assert thread_of(client) is not ended
        client.track("after")
        assert client.flush(timeout=30).delivered == 1


def test_a_flush_says_at_once_that_no_thread_can_be_started(
    tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make("none", Once(OwnError), tmp_path, logger) as client:
        end_thread(client)

        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            report = client.flush(timeout=600)
        assert isinstance(report.error, QueueError)
        assert "cannot be started" in str(report.error)
        client.track("after")
        assert client.flush(timeout=30).error is None
