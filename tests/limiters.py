"""Servers that take some requests and not others, and what could be had from them at best.

Each answers a batch at a time of its own clock: 0 for taken, else a status. `best()` is how many
events a sender that knows the server would get through. Not a test.
"""

from __future__ import annotations

import json
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from causality_sdk.errors import TransportError
from causality_sdk.wire.base import Request, Response

if TYPE_CHECKING:
    from simulation import Clock

SECONDS = 0.03  # that a request takes


class Fate(ABC):
    """What becomes of a request."""

    @abstractmethod
    def status(self, now: float, events: int, size: int) -> int:
        """0 if it is taken."""

    @abstractmethod
    def best(self, seconds: float, most: int, size: int) -> float:
        """Events that could pass in that time, `most` and so many bytes of each in a request."""


def unlimited(seconds: float, most: int) -> float:
    return seconds / SECONDS * most


@dataclass
class EveryNth(Fate):
    """Round robin over `n` replicas, one of which is broken."""

    n: int
    answer: int = 500
    _count: int = 0

    def status(self, now: float, events: int, size: int) -> int:  # noqa: ARG002
        self._count += 1
        return self.answer if self._count % self.n == 0 else 0

    def best(self, seconds: float, most: int, size: int) -> float:  # noqa: ARG002
        return unlimited(seconds, most) * (self.n - 1) / self.n


@dataclass
class AtRandom(Fate):
    """A load balancer that chooses by chance."""

    share: float
    rng: random.Random
    answer: int = 503

    def status(self, now: float, events: int, size: int) -> int:  # noqa: ARG002
        return self.answer if self.rng.random() < self.share else 0

    def best(self, seconds: float, most: int, size: int) -> float:  # noqa: ARG002
        return unlimited(seconds, most) * (1 - self.share)


@dataclass
class Bucket(Fate):
    """A limit by token bucket: in requests, events or bytes a second, with a burst."""

    rate: float
    burst: float
    cost: Callable[[int, int], float]
    answer: int = 429
    _tokens: float = field(init=False)
    _at: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        self._tokens = self.burst

    def status(self, now: float, events: int, size: int) -> int:
        if self._at > -math.inf:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        cost = self.cost(events, size)
        if cost > self._tokens + 1e-9:
            return self.answer
        self._tokens -= cost
        return 0

    def best(self, seconds: float, most: int, size: int) -> float:
        each = self.cost(1, size)
        whole = self.cost(most, most * size)
        fitting = most if whole <= self.burst else max(1, int(self.burst / each))
        allowed = (self.burst + self.rate * seconds) / self.cost(fitting, fitting * size) * fitting
        return min(allowed, unlimited(seconds, fitting))


@dataclass
class Window(Fate):
    """So many requests in each window of time."""

    requests: int
    seconds: float
    answer: int = 429
    _window: int = -1
    _count: int = 0

    def status(self, now: float, events: int, size: int) -> int:  # noqa: ARG002
        window = int(now // self.seconds)
        if window != self._window:
            self._window, self._count = window, 0
        self._count += 1
        return 0 if self._count <= self.requests else self.answer

    def best(self, seconds: float, most: int, size: int) -> float:  # noqa: ARG002
        allowed = self.requests * math.ceil(seconds / self.seconds) * most
        return min(allowed, unlimited(seconds, most))


@dataclass
class AboveSize(Fate):
    """Fails at what is larger, without a word about the size."""

    events: int
    answer: int = 500

    def status(self, now: float, events: int, size: int) -> int:  # noqa: ARG002
        return self.answer if events > self.events else 0

    def best(self, seconds: float, most: int, size: int) -> float:  # noqa: ARG002
        return unlimited(seconds, min(most, self.events))


@dataclass
class Outages(Fate):
    """Away now and then, for a while."""

    rng: random.Random
    up: float
    down: float
    answer: int = 503
    _edge: float = 0.0
    _is_up: bool = False
    down_seconds: float = 0.0

    def status(self, now: float, events: int, size: int) -> int:  # noqa: ARG002
        while now >= self._edge:
            self._is_up = not self._is_up
            length = self.rng.expovariate(1 / (self.up if self._is_up else self.down))
            if not self._is_up:
                self.down_seconds += length
            self._edge = (
                max(self._edge, now - 1e-9) + length if self._edge == 0 else (self._edge + length)
            )
        return 0 if self._is_up else self.answer

    def best(self, seconds: float, most: int, size: int) -> float:  # noqa: ARG002
        return unlimited(seconds, most) * self.up / (self.up + self.down)


def requests_cost(_events: int, _size: int) -> float:
    return 1.0


def events_cost(events: int, _size: int) -> float:
    return float(events)


def bytes_cost(_events: int, size: int) -> float:
    return float(size)


class Limited:
    """A transport to such a server; a request takes its time on the clock of the simulation."""

    def __init__(self, fate: Fate, clock: Clock, *, retry_after: str | None = None) -> None:
        self.fate = fate
        self.clock = clock
        self.retry_after = retry_after
        self.taken: list[tuple[float, int]] = []  # time and events of each request that passed
        self.refused: list[tuple[float, int]] = []
        self.keys: set[str] = set()
        self.answers: list[int] = []

    def send(self, request: Request, timeout: float) -> Response:  # noqa: ARG002
        events = json.loads(request.body)["events"]
        status = self.fate.status(self.clock.now, len(events), len(request.body))
        self.clock.now += SECONDS
        self.answers.append(status)
        if status == 0:
            self.taken.append((self.clock.now, len(events)))
            self.keys.update(event["idempotency_key"] for event in events)
            return Response(200, {}, b"{}")
        self.refused.append((self.clock.now, len(events)))
        if status < 0:
            raise TransportError("no answer", reason="closed")
        headers = {} if self.retry_after is None else {"retry-after": self.retry_after}
        return Response(status, headers, b"no")

    def close(self) -> None:
        """Nothing to close."""
