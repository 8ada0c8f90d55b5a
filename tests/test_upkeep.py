"""Upkeep that fails stops no delivery, and no state of the sender spins, whatever it waits for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulation import HERE, Simulation
from test_adoption import leave, simulate

from causality_sdk.adoption import LOOK_SECONDS
from causality_sdk.buffer import Buffer
from causality_sdk.errors import QueueError, QueueFull, TransportError
from causality_sdk.flushing import Flush
from causality_sdk.ownership import acquire
from causality_sdk.wire.base import Request, Response

HOUR = 3600.0
SPAN = HOUR / 6  # a while in which an event comes every 2 s
MOST_STEPS = 3000  # of 300 events: each is a step or two, as is what falls due for each


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


def refuse(*_arguments: object, **_options: object) -> bool:
    raise QueueError("the disk is full; make room")


# ---------------------------------------------------------------------- upkeep that fails


@pytest.mark.parametrize("part", ["checkpoint", "vacuum_step"])
@pytest.mark.parametrize("error", [QueueError("the disk is full"), OSError(24, "too many files")])
def test_what_keeps_the_file_fit_may_fail_for_ever(
    part: str, error: Exception, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> bool:
        raise error

    with Simulation(path) as simulation:
        monkeypatch.setattr(simulation.queue, part, fail)
        for _ in range(20):
            simulation.track(60)
            simulation.run(40)
        assert len(simulation.arrived) == 1200
        assert simulation.queue.pending == 0


def test_a_sync_that_is_due_and_fails_delays_no_event_beyond_the_interval(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Simulation(path, flush_interval=2.0) as simulation:
        monkeypatch.setattr(simulation.queue, "checkpoint", refuse)
        for number in range(1, 50):
            simulation.track()
            simulation.run(2.1)
            assert len(simulation.arrived) == number


def test_a_buffer_that_the_disk_does_not_take_holds_up_nothing(path: Path) -> None:
    with Simulation(path) as simulation:
        sender = simulation.sender
        sender._buffer = Buffer(refuse)
        sender._buffer.keep([b'{"idempotency_key":"b"}'])
        simulation.track(100)
        simulation.run(60)
        assert len(simulation.arrived) == 100


def test_a_full_queue_is_no_trouble_of_the_disk_and_the_buffer_goes_once_there_is_room(
    path: Path,
) -> None:
    with Simulation(path, max_events=100, reject=True) as simulation:
        simulation.recording.respond(503, times=3)
        simulation.track(100)
        simulation.run(1)
        sender = simulation.sender
        sender._buffer = Buffer(simulation.queue.append_many)
        sender._buffer.keep([b'{"idempotency_key":"b"}'])
        with pytest.raises(QueueFull):
            simulation.track()
        simulation.run(120)
        assert len(simulation.arrived) == 101
        assert not sender._buffer.waiting
        assert simulation.queue.pending == 0


# ---------------------------------------------------------------------- Retry-After


class Answering:
    """What each request is answered with, in turn; the last one for ever."""

    def __init__(self, simulation: Simulation, *answers: Callable[[list[str]], Response]) -> None:
        self.simulation = simulation
        self.answers = list(answers)
        self.keys: list[str] = []
        self.times: list[float] = []

    def send(self, request: Request, timeout: float) -> Response:  # noqa: ARG002
        keys = [event["idempotency_key"] for event in json.loads(request.body)["events"]]
        self.times.append(self.simulation.clock.now)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        response = answer(keys)
        if response.status == 200:
            self.keys += keys
        return response

    def close(self) -> None:
        """Nothing to close."""


def well(_keys: list[str]) -> Response:
    return Response(200, {}, b"{}")


def asking(seconds: int, status: int = 503) -> Callable[[list[str]], Response]:
    return lambda _keys: Response(status, {"retry-after": str(seconds)}, b"")


def naming_k1(keys: list[str]) -> Response:
    results = [
        {"index": index, "status": "rejected" if key == "k1" else "accepted"}
        for index, key in enumerate(keys)
    ]
    return Response(200, {}, json.dumps({"results": results}).encode())


def answering(
    path: Path, *answers: Callable[[list[str]], Response]
) -> tuple[Simulation, Answering]:
    simulation = Simulation(path)
    server = Answering(simulation, *answers)
    simulation.sender._courier._make_transport = lambda: server
    return simulation, server


def test_an_answer_ends_what_an_earlier_retry_after_asked_for(path: Path) -> None:
    simulation, server = answering(path, asking(3600), naming_k1)
    with simulation:
        simulation.track(50)
        simulation.run(1)
        assert len(server.times) == 1
        simulation.clock.now += 3600
        simulation.run(1)
        assert len(set(server.keys) - {"k1"}) == 49
        began = simulation.clock.now
        flush = simulation.sender.flush(timeout=600, retries=3)
        assert flush.error is not None, "one event is refused by name"
        assert simulation.clock.now - began < 30


def test_a_flush_that_waits_holds_up_no_event_that_the_background_would_send(path: Path) -> None:
    simulation, server = answering(path, asking(3600), naming_k1)
    with simulation:
        simulation.track(50)
        simulation.run(3700)
        flush = Flush(target=simulation.queue.last_id, retries=10**6, deadline=None)
        simulation.sender.flushes.add(flush)
        for _ in range(20):
            simulation.track(50)
            simulation.run(300)
        assert simulation.queue.pending <= 51
        assert len(server.keys) >= 49 + 19 * 50


@pytest.mark.parametrize("status", [400, 413, 422, 429, 503, 401, 500])
def test_retry_after_is_obeyed_with_whatever_status_it_comes(status: int, path: Path) -> None:
    simulation, server = answering(path, asking(600, status))
    with simulation:
        simulation.track(1)
        simulation.run(3 * HOUR)
        gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
        assert gaps
        assert min(gaps) >= 600


# ---------------------------------------------------------------------- no state spins


def offline(simulation: Simulation) -> None:
    simulation.recording.fail(TransportError("no", reason="refused"))


def refusing(status: int, headers: dict[str, str] | None = None) -> Callable[[Simulation], None]:
    return lambda simulation: simulation.recording.respond(status, headers=headers)


def paced(simulation: Simulation) -> None:
    for _ in range(20):
        simulation.recording.respond(429, times=1)
        simulation.recording.respond(200, b"{}", times=1)


def disk_away(simulation: Simulation) -> None:
    queue = simulation.queue
    queue.checkpoint = refuse  # type: ignore[method-assign]
    queue.settle = refuse  # type: ignore[method-assign]


def unreadable(simulation: Simulation) -> None:
    simulation.queue.peek = refuse  # type: ignore[method-assign, assignment]


def buffering(simulation: Simulation) -> None:
    simulation.sender._buffer = Buffer(refuse)
    simulation.sender._buffer.keep([b"{}"])


def refusing_by_name(simulation: Simulation) -> None:
    body = {"results": [{"index": 0, "status": "rejected"}]}
    simulation.recording.respond(200, body)


STATES: dict[str, Callable[[Simulation], None]] = {
    "idle": lambda _simulation: None,
    "offline": offline,
    "failing": refusing(500),
    "blocked": refusing(401),
    "refused": refusing(422),
    "refused by name": refusing_by_name,
    "paced": paced,
    "asked to wait": refusing(503, {"retry-after": "3600"}),
    "silent": refusing(200),
    "disk away": disk_away,
    "unreadable": unreadable,
    "buffering": buffering,
}


def steps_in_a_while(simulation: Simulation, *, every: float) -> int:
    """Steps that the thread takes while an event comes now and then."""
    sender, clock = simulation.sender, simulation.clock
    end, due, steps = clock.now + SPAN, clock.now, 0
    while clock.now < end and steps < 2 * MOST_STEPS:
        wait = sender.step()
        steps += 1
        while due <= clock.now:
            simulation.track()
            due += every
        # As the loop of the thread does: no wait if what it is woken for has come meanwhile.
        if (wait is None or wait > 0) and simulation.queue.last_id < sender.wake_at:
            until = end if wait is None else clock.now + wait
            while due <= until and simulation.queue.last_id < sender.wake_at:
                clock.now = max(clock.now, due)
                simulation.track()
                due += every
            if simulation.queue.last_id < sender.wake_at:
                clock.now = until
        else:
            clock.now += 20e-6  # what a step takes
    return steps


@pytest.mark.parametrize("flushing", [False, True], ids=["", "with a flush waiting"])
@pytest.mark.parametrize("capped", [False, True], ids=["", "at the cap"])
@pytest.mark.parametrize("state", STATES)
def test_a_state_takes_few_steps(state: str, capped: bool, flushing: bool, path: Path) -> None:
    options: dict[str, Any] = {"max_events": 20} if capped else {}
    with Simulation(path, **options) as simulation:
        simulation.track(30 if capped else 3)
        STATES[state](simulation)
        if flushing:
            flush = Flush(target=simulation.queue.last_id, retries=10**9, deadline=None)
            simulation.sender.flushes.add(flush)
        steps = steps_in_a_while(simulation, every=2.0)
        assert steps < MOST_STEPS


@pytest.mark.parametrize("hole", [False, True], ids=["", "with a row gone"])
@pytest.mark.parametrize("state", ["idle", "offline", "blocked", "failing", "refused by name"])
def test_an_adoption_takes_few_steps_too(state: str, hole: bool, path: Path) -> None:
    orphan = path.with_name("queue.1.db")
    leave(orphan, [b'{"idempotency_key":"o%d"}' % number for number in range(300)])
    if hole:
        import sqlite3

        connection = sqlite3.connect(orphan)
        connection.execute("DELETE FROM queue WHERE id = 150")
        connection.commit()
        connection.close()
    with simulate(path) as simulation:
        simulation.track(3)
        STATES[state](simulation)
        assert steps_in_a_while(simulation, every=2.0) < MOST_STEPS
        if state == "idle":
            assert not orphan.exists()
            assert len([key for key in simulation.arrived if key.startswith("o")]) == 300 - hole


# ---------------------------------------------------------------------- the linger


@pytest.mark.parametrize("milliseconds", [5, 10, 20, 30, 40])
@pytest.mark.parametrize("count", [50, 100, 300])
def test_what_comes_shortly_after_a_batch_goes_as_the_linger_ends(
    count: int, milliseconds: int, path: Path
) -> None:
    with Simulation(path) as simulation:
        clock, sender = simulation.clock, simulation.sender
        simulation.track(1)
        sender.step()  # the timers of a quiet time are set
        simulation.track(60)
        began = clock.now
        while simulation.queue.pending:
            sender.step()
        clock.now = began + milliseconds / 1000
        wait = sender.step()  # the thread looks, and waits
        simulation.track(count)
        end = clock.now + (HOUR if wait is None else wait)
        if simulation.queue.last_id >= sender.wake_at:
            end = clock.now
        clock.now = end
        simulation.run(0.1)
        assert simulation.queue.pending == 0
        assert clock.now - began < 0.3


# ---------------------------------------------------------------------- a close() that raises


def test_a_transport_whose_close_raises_ends_like_another(path: Path) -> None:
    with Simulation(path) as simulation:
        simulation.track(1)
        simulation.sender.flush(timeout=5, retries=0)

        def fail() -> None:
            raise RuntimeError("it is closed already")

        simulation.recording.close = fail  # type: ignore[method-assign]
        ended: list[bool] = []
        simulation.sender.when_ended(lambda: ended.append(True))
        simulation.sender.stop()
        assert ended == [True]
        assert simulation.sender.is_over


def test_an_orphan_goes_although_the_transport_cannot_be_closed(path: Path) -> None:
    orphan = path.with_name("queue.1.db")
    leave(orphan, [b'{"idempotency_key":"o"}'], HERE)
    with simulate(path) as simulation:

        def fail() -> None:
            raise RuntimeError("it is closed already")

        simulation.recording.close = fail  # type: ignore[method-assign]
        simulation.run(2 * LOOK_SECONDS)
        assert not orphan.exists()
        lease = acquire(orphan)
        assert lease is not None, "nobody holds it any more"
        lease.release()
