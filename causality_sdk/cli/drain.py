"""Delivers a queue that this command holds, in its own thread: the sender's parts without a client.

Neighbours: `send` with a queue in memory, `queue replay` with a file of whatever destination; for
all else there is `Client`. Invariant: the queue is the caller's, and is still open afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from causality_sdk.batch import BatchLimit
from causality_sdk.cli.observed import ObservedTransport
from causality_sdk.cli.output import Output
from causality_sdk.cli.queue._elsewhere import here
from causality_sdk.config import Config
from causality_sdk.connections import MEMORY
from causality_sdk.courier import Courier
from causality_sdk.errors import ClientClosed, DeliveryError, ResponseError
from causality_sdk.flushing import Flush
from causality_sdk.hooks import Hooks
from causality_sdk.mending import Mender
from causality_sdk.opening import http_transport, make_pace
from causality_sdk.pacer import Pacer
from causality_sdk.queue import Queue
from causality_sdk.sender import Sender
from causality_sdk.stats import Delivered
from causality_sdk.steps import Limits, Parts
from causality_sdk.transport.base import Transport
from causality_sdk.wire import WIRES
from causality_sdk.wire.base import Request, Response, Verdict, Wire


def wire_of(config: Config) -> Wire:
    """The wire that the options name."""
    return WIRES[config.wire]() if isinstance(config.wire, str) else config.wire


def observed(config: Config, out: Output) -> Transport | None:
    """For a client: a transport that tells of each attempt, where somebody wants to know."""
    if not (out.verbose or out.shows_progress) or not config.enabled:
        return None
    inner = http_transport(config, wire_of(config))
    return ObservedTransport(inner, out, attempts=config.max_retries + 1)


class Drain:
    """Sends what is in `queue`."""

    def __init__(
        self,
        queue: Queue,
        config: Config,
        out: Output,
        *,
        rate: float | None = None,
        on_delivered: Callable[[Delivered], object] | None = None,
    ) -> None:
        """`rate`: events a second at most."""
        self._config = config
        meter = _Meter(wire_of(config), rate)
        most = config.max_batch_events
        if rate is not None:
            most = max(1, min(most, int(rate)))  # else a second's worth would go at once, late
        start = min(config.batch_size, most)

        def make_transport() -> Transport:
            inner = http_transport(config, meter.wire)
            return ObservedTransport(inner, out, meter.wait, attempts=config.max_retries + 1)

        hooks = Hooks(logger=config.logger, on_delivered=on_delivered)
        self._sender = Sender(
            Parts(
                queue,
                Courier(
                    queue,
                    meter,
                    make_transport,
                    BatchLimit(start, most, config.max_batch_bytes),
                    hooks.log,
                ),
                limits=Limits(most, config.timeout),
                pacer=Pacer(make_pace(config), backlog=queue.last_id),
                hooks=hooks,
            )
        )
        if queue.path != MEMORY:  # what is found damaged as it is read is salvaged, as in a client
            meant_for = here(config)
            assert meant_for is not None  # noqa: S101 - a config has an endpoint
            self._sender.mender = Mender(queue, None, None, meant_for, time.monotonic)
        self._queue = queue

    def run(self, deadline: float | None = None) -> Flush:
        """Until all is sent, or the retries are used up, or the monotonic clock says `deadline`.

        The retries begin anew as long as something gets through: a long replay outlives a server
        that stumbles now and then.
        """
        total = Flush(target=0, retries=0, deadline=None)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            flush = self._sender.flush(timeout=left, retries=self._config.max_retries)
            total.delivered += flush.delivered
            total.rejected += flush.rejected
            total.buried += flush.buried
            total.error = flush.error
            hopeless = isinstance(flush.error, DeliveryError) and not flush.error.retryable
            if (
                not self._queue.pending
                or not flush.delivered
                or hopeless
                or isinstance(flush.error, ClientClosed)
                or (deadline is not None and time.monotonic() >= deadline)
            ):
                return total

    def close(self, *, shrink_seconds: float = 0.0) -> None:
        """Lets go of the connections; gives the disk back what was delivered."""
        self._sender.stop()
        self._sender.shrink(shrink_seconds)


def are_refused(flush: Flush) -> bool:
    """Whether what is left was refused by name, in an answer that is otherwise well."""
    error = flush.error
    return bool(flush.rejected) and isinstance(error, ResponseError) and error.status < 300


class _Meter:
    """A wire that counts what it frames, so that the transport can wait for its turn."""

    def __init__(self, wire: Wire, rate: float | None) -> None:
        self.wire = wire
        self.name = wire.name
        self.key_header = wire.key_header
        self.health_path = wire.health_path
        self._rate = rate
        self._framed = 0
        self._free_at = 0.0  # when the next request may go

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wire, name)  # what wires may have beyond the protocol

    def frame(self, payloads: Sequence[bytes]) -> Request:
        self._framed = len(payloads)
        return self.wire.frame(payloads)

    def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
        return self.wire.verdicts(response, count)

    def wait(self) -> None:
        """Until the events that were framed last may go."""
        if self._rate is None:
            return
        now = time.monotonic()
        if now < self._free_at:
            time.sleep(self._free_at - now)
        self._free_at = max(now, self._free_at) + self._framed / self._rate
