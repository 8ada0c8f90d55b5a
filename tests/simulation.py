"""A sender without a thread, on a clock that only the test moves: hours pass in milliseconds."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

from causality_sdk import schema
from causality_sdk.batch import BatchLimit
from causality_sdk.courier import Courier
from causality_sdk.hooks import Hooks
from causality_sdk.pacer import Pace, Pacer
from causality_sdk.queue import Queue
from causality_sdk.schema import Destination
from causality_sdk.sender import Sender
from causality_sdk.steps import Limits, Parts
from causality_sdk.testing import RecordingTransport
from causality_sdk.transport.base import Transport
from causality_sdk.wakeup import Wakeup
from causality_sdk.wire.causality import CausalityWire

HERE = Destination("http://127.0.0.1", "causality", "key")


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def open_queue(path: Path, clock: Clock, **options: Any) -> Queue:
    """A queue file, made if it is not there. The test is its only user."""
    schema.prepare(path, HERE)
    limits = {"max_events": 100_000, "max_bytes": 128 * 1024 * 1024, **options}
    return Queue(path, clock=clock, **limits)


class Wake(Wakeup):
    """A wait on it lets the clock run instead."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            assert timeout is not None, "nothing would ever end this wait"
            self._clock.now += timeout
        was_set = self.is_set()
        self.clear()
        return was_set


class Simulation:
    """One queue, one sender, one transport in memory."""

    def __init__(
        self,
        path: Path,
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
        batch_size: int = 50,
        max_batch_events: int = 1000,
        max_batch_bytes: int = 1024 * 1024,
        flush_interval: float = 30.0,
        backoff_initial: float = 1.0,
        backoff_max: float = 300.0,
        jitter: float = 0.0,
        wall_clock: float = 1_700_000_000.0,
        rng_seed: int = 7,
        **queue_options: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.queue = open_queue(path, self.clock, **queue_options)
        self.recording = RecordingTransport()
        self.delivered: list[Any] = []
        self.dropped: list[Any] = []
        self.errors: list[Exception] = []
        self.attempt_times: list[float] = []
        self.logger = logging.getLogger("test.simulation")
        inner = transport or self.recording
        simulation = self

        class Timed:
            def send(self, request: Any, timeout: float) -> Any:
                simulation.attempt_times.append(simulation.clock.now)
                return inner.send(request, timeout)

            def close(self) -> None:
                inner.close()

        reachable = getattr(inner, "reachable", None)
        if reachable is not None:  # most transports have none
            setattr(Timed, "reachable", staticmethod(reachable))  # noqa: B010

        self._transport = Timed
        self._limits = (batch_size, max_batch_events, max_batch_bytes)
        self._pace = Pace(
            batch_size=batch_size,
            max_batch_events=max_batch_events,
            flush_interval=flush_interval,
            backoff_initial=backoff_initial,
            backoff_max=backoff_max,
            jitter=jitter,
            rng=random.Random(rng_seed),  # noqa: S311 - not for secrets
            wall_clock=lambda: wall_clock + self.clock.now,
        )
        self.sender = self.sender_for(self.queue)

    def sender_for(self, queue: Queue, *, tells: bool = True) -> Sender:
        """A sender of this simulation: its clock, its transport, its hooks."""
        hooks = Hooks(
            logger=self.logger,
            on_delivered=self.delivered.append,
            on_dropped=self.dropped.append,
            on_error=self.errors.append,
        )
        limit = BatchLimit(*self._limits)
        return Sender(
            Parts(
                queue,
                Courier(queue, CausalityWire(), self._transport, limit, hooks.log),
                limits=Limits(self._limits[1], timeout=10.0),
                pacer=Pacer(self._pace, backlog=queue.last_id),
                hooks=hooks,
                clock=self.clock,
                wake=Wake(self.clock),
                tells_outages=tells,
            )
        )

    def __enter__(self) -> Simulation:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.sender.stop()
        self.queue.close()

    def track(self, count: int = 1) -> list[str]:
        """Commits `count` numbered events and gives their keys."""
        keys = []
        for _ in range(count):
            number = self.queue.last_id + 1
            keys.append(f"k{number}")
            self.queue.append(b'{"idempotency_key":"k%d","n":%d}' % (number, number))
        return keys

    def run(self, seconds: float) -> None:
        """Lets time pass; the sender does all that falls due within it."""
        end = self.clock.now + seconds
        while True:
            wait = self.sender.step()
            if wait is None or self.clock.now + wait > end:
                break
            self.clock.now += wait
        self.clock.now = end

    @property
    def arrived(self) -> list[str]:
        """Keys that the transport was given and answered 2xx, in order."""
        return [event["idempotency_key"] for event in self.recording.events]

    def pending_ids(self) -> list[int]:
        """Ids that are in the queue file."""
        rows = self.queue.peek(0, max_events=10**6, max_bytes=2**40)
        return [row_id for row_id, _ in rows]
