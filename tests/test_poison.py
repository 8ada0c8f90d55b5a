"""One event that the server cannot take, whatever it does with it: it holds up no other.

All the others arrive, none is evicted in its stead, and it becomes a dead letter that says why.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from simulation import Clock, Simulation

from causality_sdk import AsyncClient, Client
from causality_sdk.cli import main
from causality_sdk.dead_letters import DeadLetters
from causality_sdk.errors import TransportError
from causality_sdk.testing import LoopbackCollector, ScriptedAnswer
from causality_sdk.testing._batch import ReceivedRequest
from causality_sdk.wire.base import Request, Response

STATUSES = [500, 502, 503, 504, 429, 401, 403, 404, 409, 410, 415, 451, 422, 400, 302]
KINDS = [*map(str, STATUSES), "reset", "hang", "long", "raise"]
TIMEOUT = 10.0  # seconds of one attempt, in simulation
WORDS = {
    "reset": "no answer (closed)",
    "hang": "no answer (timeout)",
    "long": "{",
    "raise": "raised LookupError",
}


class Server:
    """Takes all events but those that are marked, with which it does what `kind` says."""

    def __init__(self, kind: str, clock: Clock) -> None:
        self.kind = kind
        self.clock = clock
        self.arrived: dict[str, float] = {}  # when, by key, in order
        self.doubles: list[str] = []
        self.failed: list[float] = []  # times of requests that were not taken

    def send(self, request: Request, timeout: float) -> Response:
        events = json.loads(request.body)["events"]
        if any(event["poison"] for event in events):
            self.failed.append(self.clock.now)
            return self._fail(timeout)
        for event in events:
            key = event["idempotency_key"]
            if key in self.arrived:
                self.doubles.append(key)
            self.arrived[key] = self.clock.now
        return Response(200, {}, b"{}")

    def _fail(self, timeout: float) -> Response:
        if self.kind == "reset":
            raise TransportError("closed", reason="closed")
        if self.kind == "hang":
            self.clock.now += timeout
            raise TransportError("no answer in time", reason="timeout")
        if self.kind == "raise":
            raise LookupError("no such encoding")
        if self.kind == "long":
            return Response(200, {}, b'{"results":[', truncated=True)
        return Response(int(self.kind), {}, b"it fell over")

    def close(self) -> None:
        """Nothing to close."""


class Play:
    """A queue with marked events in it, and a server that cannot take them."""

    def __init__(self, kind: str, path: Path, **options: Any) -> None:
        self.clock = Clock()
        self.server = Server(kind, self.clock)
        self.simulation = Simulation(path, transport=self.server, clock=self.clock, **options)
        self.born: dict[str, float] = {}  # when, by key; of the good ones

    def track(self, *, poison: bool = False) -> None:
        key = f"k{self.simulation.queue.last_id + 1}"
        event = {"idempotency_key": key, "event_type": "t", "poison": poison}
        self.simulation.queue.append(json.dumps(event).encode())
        if not poison:
            self.born[key] = self.clock.now

    def run(self, seconds: float, *, every: float) -> None:
        """Lets time pass, with a good event now and then."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            due = min(self.clock.now + every, end)
            self._run_until(due)
            self.track()
        self._run_until(self.clock.now + 60)

    def _run_until(self, end: float) -> None:
        while self.clock.now < end:
            wait = self.simulation.sender.step()
            self.clock.now = end if wait is None else min(end, self.clock.now + max(wait, 1e-6))

    def missing(self) -> set[str]:
        return set(self.born) - set(self.server.arrived)

    def longest_wait(self) -> float:
        return max(self.server.arrived[key] - born for key, born in self.born.items())

    def letters(self) -> list[str]:
        return [letter.reason for letter in DeadLetters(self.simulation.queue)]

    def evicted(self) -> int:
        return sum(self.simulation.queue.snapshot()[0].evicted.values())


def says(reason: str, kind: str) -> bool:
    if kind in ("400", "422"):
        return "it fell over" in reason
    words = WORDS.get(kind, f"answered {kind}")
    return words in reason and (kind == "long" or "others passed" in reason)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 20, 39], ids=["head", "middle", "tail"])
def test_the_others_arrive_and_the_one_becomes_a_dead_letter(
    kind: str, at: int, tmp_path: Path
) -> None:
    play = Play(kind, tmp_path / "queue.db")
    with play.simulation:
        for number in range(40):
            play.track(poison=number == at)
        play.run(900, every=10)
        assert play.missing() == set()
        assert play.server.doubles == []
        assert play.evicted() == 0
        assert play.longest_wait() <= (15 * TIMEOUT if kind == "hang" else 90)
        letters = play.letters()
        assert len(letters) == 1
        assert says(letters[0], kind), letters
        assert play.simulation.queue.pending == 0
        assert len(play.server.failed) < 100


@pytest.mark.parametrize("kind", KINDS)
def test_also_with_batches_of_one(kind: str, tmp_path: Path) -> None:
    play = Play(kind, tmp_path / "queue.db", max_batch_events=1, batch_size=1)
    with play.simulation:
        for number in range(10):
            play.track(poison=number == 4)
        play.run(900, every=10)
        assert play.missing() == set()
        assert len(play.letters()) == 1
        assert play.evicted() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_at_a_small_cap_no_good_event_is_evicted_in_its_stead(kind: str, tmp_path: Path) -> None:
    # A hang costs its whole timeout, in which events come: that much the cap must hold.
    cap = 100 if kind == "hang" else 30
    play = Play(kind, tmp_path / "queue.db", max_events=cap, batch_size=5)
    with play.simulation:
        play.track(poison=True)
        play.run(400, every=1)
        assert play.missing() == set()
        assert play.evicted() == 0
        assert len(play.letters()) == 1


@pytest.mark.parametrize("kind", ["500", "403", "reset", "422", "raise"])
@pytest.mark.parametrize(
    ("first", "last"), [(0, 100), (200, 300), (100, 160)], ids=["oldest", "newest", "middle"]
)
def test_a_hundred_of_them_hold_up_the_others_no_longer_than_it_takes_to_find_them(
    kind: str, first: int, last: int, tmp_path: Path
) -> None:
    play = Play(kind, tmp_path / "queue.db")
    with play.simulation:
        for number in range(300):
            play.track(poison=first <= number < last)
        play.run(7200, every=30)
        assert play.missing() == set()
        assert play.server.doubles == []
        assert len(play.letters()) == last - first
        assert play.longest_wait() < 1200
        assert len(play.server.failed) < 15 * (last - first)


@pytest.mark.parametrize("kind", ["500", "403", "reset", "422"])
def test_events_that_are_all_bad_are_buried_as_good_ones_pass_now_and_then(
    kind: str, tmp_path: Path
) -> None:
    play = Play(kind, tmp_path / "queue.db")
    with play.simulation:
        for _ in range(150):
            play.track(poison=True)
        play.run(4 * 3600, every=30)
        assert play.missing() == set()
        assert len(play.letters()) == 150
        assert play.longest_wait() < 1200


@pytest.mark.parametrize("kind", KINDS)
def test_while_nothing_passes_beside_it_nothing_is_buried(kind: str, tmp_path: Path) -> None:
    """The server may refuse everything: then it is no event's fault."""
    play = Play(kind, tmp_path / "queue.db")
    with play.simulation:
        for _ in range(5):
            play.track(poison=True)
        play._run_until(play.clock.now + 24 * 3600)
        assert play.letters() == []
        assert play.simulation.queue.pending == 5
        least = 30 if kind in ("reset", "hang") else 150  # seconds between two requests, at the end
        assert len([at for at in play.server.failed if at > play.clock.now - 3600]) <= 3600 / least


def test_a_set_aside_event_that_the_server_takes_after_all_is_delivered(tmp_path: Path) -> None:
    play = Play("500", tmp_path / "queue.db")
    with play.simulation:
        for number in range(10):
            play.track(poison=number == 3)
        play.run(10, every=5)
        assert play.simulation.queue.pending >= 1
        play.server.send = (  # type: ignore[method-assign]
            lambda request, timeout: Response(200, {}, b"{}")  # noqa: ARG005
        )
        play._run_until(play.clock.now + 600)
        assert play.simulation.queue.pending == 0
        assert play.letters() == []


def test_the_search_ends_an_outage_in_its_midst_buries_nobody_good(tmp_path: Path) -> None:
    play = Play("500", tmp_path / "queue.db")
    with play.simulation:
        for number in range(40):
            play.track(poison=number == 20)
        take = play.server.send
        count = 0

        def flapping(request: Request, timeout: float) -> Response:
            nonlocal count
            count += 1
            if 6 <= count <= 12 or 20 <= count <= 24:
                raise TransportError("away", reason="timeout")
            return take(request, timeout)

        play.server.send = flapping  # type: ignore[method-assign]
        play.run(3600, every=20)
        assert play.missing() == set()
        assert len(play.letters()) == 1


# ---------------------------------------------------------------------- with a real server


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector() as collector:
        yield collector


def poisoned(collector: LoopbackCollector, answer: ScriptedAnswer) -> None:
    def answerer(request: ReceivedRequest) -> ScriptedAnswer | None:
        return answer if b'"poison"' in request.body else None

    collector.answer_with(answerer)


def options(collector: LoopbackCollector, path: Path, **more: Any) -> dict[str, Any]:
    return {
        "api_key": "test-key",
        "endpoint": collector.endpoint,
        "app_id": "a",
        "queue_path": path / "queue.db",
        "batch_size": 5,
        "flush_interval": 0.05,
        "backoff_initial": 0.01,
        "backoff_max": 0.03,
        **more,
    }


ANSWERS = {
    "500": ScriptedAnswer(status=500),
    "403": ScriptedAnswer(status=403),
    "reset": ScriptedAnswer(drop=True),
}


def deliver(client: Client, letters: int) -> None:
    """Flushes as often as it takes; good events come in between."""
    for _ in range(60):
        client.track("good")
        client.flush(timeout=10)
        stats = client.stats()
        if stats.buried == letters and stats.pending == 0:
            return
    raise AssertionError(f"not done: {client.stats()}")


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("kind", ANSWERS)
def test_through_a_client(
    kind: str, start: bool, collector: LoopbackCollector, tmp_path: Path
) -> None:
    poisoned(collector, ANSWERS[kind])
    with Client(**options(collector, tmp_path, start=start, max_queue_events=50)) as client:
        client.track("poison")
        for _ in range(20):
            client.track("good")
        deliver(client, 1)
        stats = client.stats()
        assert stats.acknowledged == stats.tracked - 1
        assert stats.evicted is not None
        assert sum(stats.evicted.values()) == 0
        reason = next(iter(client.dead_letters)).reason
        assert "others passed" in reason
        assert kind in reason or "closed" in reason


def test_through_an_async_client(collector: LoopbackCollector, tmp_path: Path) -> None:
    poisoned(collector, ANSWERS["500"])

    async def program() -> None:
        async with AsyncClient(**options(collector, tmp_path)) as client:
            await client.track("poison")
            for _ in range(60):
                await client.track("good")
                await client.flush(timeout=10)
                stats = await client.stats()
                if stats.buried == 1 and stats.pending == 0:
                    return
            raise AssertionError("not done")

    asyncio.run(program())


def test_in_a_file_that_is_adopted(collector: LoopbackCollector, tmp_path: Path) -> None:
    poisoned(collector, ANSWERS["500"])
    orphan = options(collector, tmp_path, start=False)
    first = Client(**options(collector, tmp_path, start=False))
    with Client(**orphan) as left:
        left.track("poison")
        for _ in range(20):
            left.track("orphaned")
        left.close(timeout=0)
    first.close(timeout=0)
    assert (tmp_path / "queue.1.db").exists()
    with Client(**options(collector, tmp_path)) as client:
        assert collector.wait_for(20, timeout=60)
        deliver(client, 1)
    assert not (tmp_path / "queue.1.db").exists()


def environment(collector: LoopbackCollector, path: Path) -> dict[str, str]:
    return {
        "CAUSALITY_API_KEY": "test-key",
        "CAUSALITY_ENDPOINT": collector.endpoint,
        "CAUSALITY_APP_ID": "a",
        "CAUSALITY_QUEUE_PATH": str(path / "queue.db"),
        "CAUSALITY_BACKOFF_INITIAL": "0.01",
        "CAUSALITY_BACKOFF_MAX": "0.03",
    }


@pytest.mark.parametrize("kind", ANSWERS)
def test_by_queue_replay(kind: str, collector: LoopbackCollector, tmp_path: Path) -> None:
    with Client(**options(collector, tmp_path, start=False)) as client:
        client.track("poison")
        for _ in range(20):
            client.track("good")
        client.close(timeout=0)
    poisoned(collector, ANSWERS[kind])
    shell = CliRunner(env=environment(collector, tmp_path))
    result = shell.invoke(main, ["queue", "replay"])
    assert len(set(collector.keys)) == 20, result.output
    assert result.exit_code in (2, 3), "one event is left, or refused for good"
    assert "500" in result.output or kind != "500"


@pytest.mark.parametrize("kind", ANSWERS)
def test_by_send(kind: str, collector: LoopbackCollector, tmp_path: Path) -> None:
    poisoned(collector, ANSWERS[kind])
    lines = [{"event_type": "poison"}, *[{"event_type": "good"}] * 20]
    shell = CliRunner(env=environment(collector, tmp_path))
    result = shell.invoke(
        main, ["send", "--ndjson", "-"], input="".join(json.dumps(line) + "\n" for line in lines)
    )
    assert len(set(collector.keys)) == 20, result.output
    assert result.exit_code in (2, 3)
    assert "1 event" in result.output
