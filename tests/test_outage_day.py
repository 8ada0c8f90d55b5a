"""A simulated day of a flapping network: nothing lost, and hardly a request more than needed.

The ideal client beside it knows all outages beforehand. It has the same triggers and limits, sends
only while the network is up, and catches up with full batches.
"""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path

import pytest
from simulation import Simulation

from causality_sdk.errors import TransportError
from causality_sdk.wire.base import Request, Response

DAY = 24 * 3600.0
EVENTS = 100_000
BATCH_SIZE = 50
MOST = 1000
INTERVAL = 30.0
START = 1000.0  # where the simulated clock begins

REASONS = ("refused", "dns", "unreachable", "timeout")


class Network:
    """Up, down, up, down, from seconds to hours each; known for the whole day."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - not for secrets
        self.changes = [START]  # up from here, down from the next, up from the one after
        while self.changes[-1] < START + DAY:
            spell = rng.choice([3.0, 20.0, 120.0, 900.0, 3600.0, 10_000.0])
            self.changes.append(self.changes[-1] + rng.uniform(0.3, 1.0) * spell)
        self.changes = [at for at in self.changes if at < START + DAY]
        if len(self.changes) % 2 == 0:
            self.changes.append(START + DAY)  # up in the end
        self.reasons = [rng.choice(REASONS) for _ in self.changes]

    def spell(self, at: float) -> int:
        return bisect_right(self.changes, at) - 1

    def is_up(self, at: float) -> bool:
        return self.spell(at) % 2 == 0

    @property
    def outages(self) -> list[tuple[float, float]]:
        return list(zip(self.changes[1::2], self.changes[2::2], strict=True))


def ideal_requests(network: Network) -> int:
    """Requests of a client that knew the outages beforehand."""
    gap = DAY / EVENTS
    requests = sent = 0
    # An event that comes while it is down, or would be due then, goes as soon as it is up.
    ups = list(zip(network.changes[0::2], [*network.changes[1::2], START + 2 * DAY], strict=True))
    for begin, end in ups:
        here = min(EVENTS, max(0, int((begin - START) / gap)))  # tracked before it came up
        while sent < here:
            sent = min(here, sent + MOST)
            requests += 1
        while sent < EVENTS:
            first = START + (sent + 1) * gap
            full = START + min(EVENTS, sent + BATCH_SIZE) * gap
            due = max(begin, min(full, first + INTERVAL))
            if due >= end:
                break
            sent = min(EVENTS, max(sent + 1, int((due - START) / gap + 1e-6)))
            requests += 1
    assert sent == EVENTS
    return requests


class Flapping:
    """The transport over that network. An answer takes no time; a timeout takes ten seconds."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.probes = 0
        self.simulation: Simulation | None = None  # given after it was made
        self.seen: set[str] = set()
        self.order: list[str] = []
        self.alone: set[int] = set()
        self.requests = 0
        self.failed: list[tuple[int, float]] = []  # spell and time of each failed attempt

    def send(self, request: Request, timeout: float) -> Response:
        assert self.simulation is not None
        clock = self.simulation.clock
        began = clock.now
        spell = self.network.spell(began)
        self.requests += 1
        if self.network.is_up(began):
            events = json.loads(request.body)["events"]
            if len(events) == 1:
                self.alone.add(int(events[0]["idempotency_key"][1:]))
            for event in events:
                key = event["idempotency_key"]
                assert key not in self.seen
                self.seen.add(key)
                self.order.append(key)
            return Response(200, {}, b"{}")
        self.failed.append((spell, began))
        reason = self.network.reasons[spell]
        if reason == "timeout":
            clock.now += timeout
        raise TransportError("the network is down", reason=reason)  # type: ignore[arg-type]

    def close(self) -> None:
        """Nothing to close."""


class Probing(Flapping):
    """One that can be probed, as HTTP without a proxy can. A probe is no request."""

    def reachable(self, timeout: float) -> None:
        assert self.simulation is not None
        clock = self.simulation.clock
        spell = self.network.spell(clock.now)
        self.probes += 1
        if self.network.is_up(clock.now):
            return
        self.failed.append((spell, clock.now))
        reason = self.network.reasons[spell]
        if reason == "timeout":
            clock.now += timeout
        raise TransportError("the network is down", reason=reason)  # type: ignore[arg-type]


def live_through(seed: int, path: Path, make: type[Flapping]) -> None:
    network = Network(seed)
    transport = make(network)
    with Simulation(
        path,
        transport=transport,
        batch_size=BATCH_SIZE,
        max_batch_events=MOST,
        flush_interval=INTERVAL,
        jitter=1.0,
        max_events=EVENTS,
        rng_seed=seed,
    ) as simulation:
        transport.simulation = simulation
        clock, queue, sender = simulation.clock, simulation.queue, simulation.sender
        gap = DAY / EVENTS
        tracked = 0
        due: float | None = None
        late = 0.0
        while tracked < EVENTS or queue.pending:
            # Events come while a request is under way too. The sender is woken where it asked.
            while tracked < EVENTS and START + (tracked + 1) * gap <= clock.now + 1e-9:
                tracked += 1
                row_id = queue.append(b'{"idempotency_key":"k%d","n":%d}' % (tracked, tracked))
                if row_id >= sender.wake_at:
                    due = clock.now
            if due is not None and due <= clock.now:
                wait = sender.step()
                clock.now += 1e-6  # a real clock would not stand still meanwhile
                due = None if wait is None else clock.now + wait
            coming = START + (tracked + 1) * gap if tracked < EVENTS else None
            following = [at for at in (coming, due) if at is not None]
            assert following, "nothing would ever happen again"
            clock.now = max(clock.now, min(following))
            late = max(late, clock.now - START)
            assert late < 2 * DAY
        counters, total, pending, _ = queue.snapshot()
        assert (total, counters.acknowledged, pending) == (EVENTS, EVENTS, 0)
        # In order, but for the scouts that asked whether the server was back.
        numbers = [int(key[1:]) for key in transport.order]
        in_order = [number for number in numbers if number not in transport.alone]
        assert in_order == sorted(in_order)
        early = sum(later < number for number, later in pairwise(numbers))
        assert early <= len(network.outages)
        # At most one attempt a second while it is down, however short the backoff is by chance.
        for (spell, at), (next_spell, later) in pairwise(transport.failed):
            assert later - at >= 1
            if spell == next_spell:
                assert later - at <= 10 + 30 + 1e-6
        for begin, end in network.outages:
            attempts = [at for _, at in transport.failed if begin <= at < end]
            assert len(attempts) <= (end - begin) + 1
        ideal = ideal_requests(network)
        down = sum(end - begin for begin, end in network.outages)
        allowed = sum(1 + (end - begin) / 30 for begin, end in network.outages)
        print(  # noqa: T201
            f"seed {seed}: {len(network.outages)} outages, {down / 3600:.1f} h down;"
            f" {transport.requests} requests, {transport.probes} probes,"
            f" {len(transport.failed)} attempts while down; ideal {ideal},"
            f" limit {1.2 * ideal + allowed:.0f}; {transport.requests / ideal:.2f} times"
        )
        assert transport.requests <= 1.2 * ideal + allowed


def test_a_day_of_a_flapping_network(tmp_path: Path) -> None:
    live_through(1, tmp_path / "queue.db", Flapping)


@pytest.mark.long
@pytest.mark.parametrize("make", [Flapping, Probing])
@pytest.mark.parametrize("seed", range(1, 11))
def test_more_such_days(seed: int, make: type[Flapping], tmp_path: Path) -> None:
    live_through(seed, tmp_path / "queue.db", make)
