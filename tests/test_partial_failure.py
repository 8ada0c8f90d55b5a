# ruff: noqa: S311 - not for secrets
"""A server that takes some requests and not others gets most of what it could take.

Held against `best()` of the limiters: what a sender with perfect knowledge would get through.
"""

# ruff: noqa: S311 - what is drawn here is no secret

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from limiters import (
    AboveSize,
    AtRandom,
    Bucket,
    EveryNth,
    Fate,
    Limited,
    Outages,
    Window,
    bytes_cost,
    events_cost,
    requests_cost,
)
from simulation import Clock, Simulation

LEARNING = 60.0  # seconds at the start that are not judged
MOST = 50  # events of a request


def payloads(first: int, count: int) -> list[bytes]:
    numbers = range(first, first + count)
    return [b'{"idempotency_key":"k%d","n":%d}' % (number, number) for number in numbers]


def share(
    fate: Fate, path: Path, *, seconds: float, seed: int = 1, learning: float = LEARNING
) -> tuple[float, Simulation, Limited]:
    """What part of the best got through, with a backlog that never ends."""
    clock = Clock()
    server = Limited(fate, clock)
    simulation = Simulation(
        path,
        transport=server,
        clock=clock,
        max_batch_events=MOST,
        jitter=1.0,
        rng_seed=seed,
        max_events=10**7,
        max_bytes=2**40,
    )
    tracked, began = 0, clock.now
    end = began + learning + seconds
    while clock.now < end:
        if simulation.queue.pending < 20 * MOST:
            simulation.queue.append_many(payloads(tracked, 40 * MOST))
            tracked += 40 * MOST
        wait = simulation.sender.step()
        clock.now = min(end, clock.now + max(1.0 if wait is None else wait, 1e-4))
    got = sum(events for at, events in server.taken if at > began + learning)
    return got / fate.best(seconds, MOST, 35), simulation, server


SERVERS: dict[str, tuple[Callable[[], Fate], float]] = {
    "1 of 2 fails": (lambda: EveryNth(2), 20),
    "1 of 2 refuses the key": (lambda: EveryNth(2, 401), 20),
    "1 of 2 refuses everything": (lambda: EveryNth(2, 400), 20),
    "1 of 3 is away": (lambda: EveryNth(3, 503), 20),
    "30 a minute": (lambda: Bucket(0.5, 1, requests_cost), 600),
    "30 a minute, 503": (lambda: Bucket(0.5, 1, requests_cost, 503), 600),
    "1 a second": (lambda: Bucket(1, 1, requests_cost), 300),
    "5 a second": (lambda: Bucket(5, 1, requests_cost, 503), 60),
    "100 events a second": (lambda: Bucket(100, 100, events_cost), 120),
    "3 kB a second": (lambda: Bucket(3000, 6000, bytes_cost), 300),
    "30 in each minute": (lambda: Window(30, 60), 600),
    "10 in each 10 s": (lambda: Window(10, 10), 120),
}


@pytest.mark.parametrize("name", SERVERS)
def test_most_of_what_the_server_could_take_gets_through(name: str, tmp_path: Path) -> None:
    make, seconds = SERVERS[name]
    part, simulation, server = share(make(), tmp_path / "queue.db", seconds=seconds)
    with simulation:
        assert part >= 0.7
        assert simulation.queue.snapshot()[0].buried == 0, "no event was at fault"
        assert len(server.keys) == sum(events for _, events in server.taken), "none went twice"


def test_every_second_request_failing_leaves_a_third_of_the_healthy_rate(tmp_path: Path) -> None:
    rates = []
    for number, fate in enumerate((EveryNth(10**9), EveryNth(2), EveryNth(2, 503))):
        _, simulation, server = share(fate, tmp_path / f"{number}.db", seconds=20)
        with simulation:
            rates.append(sum(events for _, events in server.taken))
    assert min(rates[1:]) >= rates[0] / 3


@pytest.mark.parametrize("status", [429, 503])
def test_a_limit_in_requests_is_used_up_with_full_batches(status: int, tmp_path: Path) -> None:
    fate = Bucket(0.5, 1, requests_cost, status)
    _, simulation, server = share(fate, tmp_path / "queue.db", seconds=600)
    with simulation:
        late = [events for at, events in server.taken if at > 1000 + LEARNING]
        assert sum(late) >= 0.9 * 300 * MOST


def test_a_replica_that_refuses_everything_buries_no_good_event(tmp_path: Path) -> None:
    _, simulation, server = share(EveryNth(2, 400), tmp_path / "queue.db", seconds=60)
    with simulation:
        assert simulation.queue.snapshot()[0].buried == 0
        assert len(server.refused) <= 1.2 * len(server.taken)


# What a sender that only backs off asks in the first hour of an outage: after each failure twice
# the pause, from 1 s to 300 s.
BACKOFF_AT = [0.0, 1, 3, 7, 15, 31, 63, 127, 255, 511]
BACKOFF_AT += [811.0 + 300 * number for number in range(10)]


@pytest.mark.parametrize("status", [503, 500, 429, 401, 403, 404, 409, 302])
def test_an_outage_sees_no_more_requests_than_the_backoff_makes_and_fewer_events(
    status: int, tmp_path: Path
) -> None:
    clock = Clock()
    server = Limited(EveryNth(1, status), clock)
    with Simulation(tmp_path / "queue.db", transport=server, clock=clock) as simulation:
        simulation.queue.append_many(payloads(0, 5000))
        simulation.run(3600)
        assert server.taken == []
        # Whoever refuses everything is asked with a scout at once, the first time.
        extra = 1 if status in (401, 403, 404, 302) else 0
        assert len(server.refused) <= len(BACKOFF_AT) + extra
        assert sum(events for _, events in server.refused) <= 50 * 3 + len(BACKOFF_AT)


def draw(rng: random.Random) -> tuple[str, Fate]:
    """A server as there are."""
    answer = rng.choice([429, 503])
    broken = rng.choice([500, 502, 503])
    rate = rng.choice([0.5, 1.0, 2.0, 5.0])
    burst = rng.choice([1, 1, 5, 20])
    fates: list[tuple[str, Fate]] = [
        (f"{rate}/s, burst {burst}", Bucket(rate, burst, requests_cost, answer)),
        (f"{60 * rate} events/s", Bucket(60 * rate, 60 * rate, events_cost, answer)),
        (f"{2000 * rate} B/s", Bucket(2000 * rate, 4000 * rate + 2500, bytes_cost, answer)),
        ("replicas", EveryNth(rng.randint(2, 6), broken)),
        ("by chance", AtRandom(rng.uniform(0.05, 0.33), random.Random(rng.random()), broken)),
        ("window", Window(rng.randint(5, 30), rng.choice([10.0, 60.0]), answer)),
        ("size", AboveSize(rng.randint(20, 40), broken)),
        ("outages", Outages(random.Random(rng.random()), 120.0, 10.0, 503)),
    ]
    return rng.choice(fates)


def judge(seed: int, path: Path, *, seconds: float, learning: float, least: float) -> None:
    name, fate = draw(random.Random(seed))
    part, simulation, _ = share(fate, path, seconds=seconds, seed=seed, learning=learning)
    with simulation:
        assert simulation.queue.snapshot()[0].buried == 0, name
        if name != "size":  # half of it is all that can be known of a limit on the size
            assert part >= least, name
        else:
            assert part >= 0.4, name


@pytest.mark.parametrize("seed", range(4))
def test_a_server_drawn_at_random(seed: int, tmp_path: Path) -> None:
    judge(seed, tmp_path / "queue.db", seconds=60, learning=120, least=0.7)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 200))
def test_many_servers_drawn_at_random(seed: int, tmp_path: Path) -> None:
    judge(seed, tmp_path / "queue.db", seconds=600, learning=300, least=0.7)
