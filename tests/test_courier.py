"""The finer rules of delivery on a simulated clock: burial, witnesses, sizes, probes, reports."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from model_server import (
    ModelServer,
    Phase,
    answering,
    failing,
    fine,
    fine_by_result,
    rejecting_all,
    results,
    too_large_above,
    too_slow_above,
)
from simulation import Simulation

from causality_sdk.dead_letters import DeadLetter, DeadLetters
from causality_sdk.errors import ResponseError, TransportError
from causality_sdk.testing._batch import WireEvent
from causality_sdk.wire.base import Response

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def server() -> ModelServer:
    return ModelServer()


def letters_of(simulation: Simulation) -> list[DeadLetter]:
    return list(DeadLetters(simulation.queue))


def scouts(server: ModelServer) -> set[str]:
    """Keys that went alone at some time."""
    return {keys[0] for keys in server.requests if len(keys) == 1}


def in_order(server: ModelServer) -> list[str]:
    """Keys of what arrived, in the order of arrival, without those that went alone."""
    return [key for key in server.stored if key not in scouts(server)]


def track_typed(simulation: Simulation, key: str, kind: str) -> str:
    payload = b'{"idempotency_key":"%s","event_type":"%s"}' % (key.encode(), kind.encode())
    simulation.queue.append(payload)
    return key


def check_books(simulation: Simulation, server: ModelServer) -> None:
    """What must hold at any moment of any test here."""
    counters, tracked, pending, _ = simulation.queue.snapshot()
    assert tracked == counters.acknowledged + counters.buried + pending
    assert pending == len(simulation.pending_ids())
    assert server.violations == []


# ---------------------------------------------------------------------- burial


@pytest.mark.parametrize("phase", [fine, fine_by_result])
def test_a_bad_event_is_buried_after_three_refusals_beside_good_ones(
    path: Path, server: ModelServer, phase: object
) -> None:
    server.phase = phase  # type: ignore[assignment]
    server.bad = {"k4"}
    with Simulation(path, transport=server, batch_size=10) as simulation:
        keys = simulation.track(10)
        simulation.run(0.5)
        assert simulation.queue.pending == 1
        for _ in range(60):
            keys += simulation.track(1)
            simulation.run(10)
        (letter,) = letters_of(simulation)
        assert letter.idempotency_key == "k4"
        # A refusal while it was alone in the queue had no witness, and did not count.
        assert letter.attempts == len(server.refusals["k4"].times) >= 3
        assert server.refusals["k4"].counted >= 3
        simulation.run(60)
        assert letter.status == (400 if phase is fine else 200)
        assert "by the schema" in letter.reason
        assert letter.buried_ms > 1_600_000_000_000
        assert set(server.stored) == set(keys) - {"k4"}
        check_books(simulation, server)


def test_the_three_refusals_are_spread_over_the_backoff(path: Path, server: ModelServer) -> None:
    server.phase = fine_by_result
    server.bad = {"k1"}
    with Simulation(path, transport=server, batch_size=1, backoff_initial=8) as simulation:
        simulation.track(2)
        for _ in range(40):
            simulation.run(1)
            simulation.track(1)
        times = [simulation.attempt_times[number - 1] for number in server.refusals["k1"].times]
        gaps = [later - at for at, later in pairwise(times)]
        assert len(times) == 3
        assert gaps[0] >= 8
        assert gaps[1] >= 16
        assert len(letters_of(simulation)) == 1


def test_an_event_that_is_accepted_at_the_third_time_is_not_buried(
    path: Path, server: ModelServer
) -> None:
    server.phase = fine_by_result
    server.bad = {"k1"}
    with Simulation(path, transport=server, batch_size=1) as simulation:
        simulation.track(2)
        while "k1" not in server.refusals or len(server.refusals["k1"].times) < 2:
            simulation.run(1)
            simulation.track(1)
        server.bad.clear()
        simulation.run(60)
        assert letters_of(simulation) == []
        assert "k1" in server.acknowledged
        check_books(simulation, server)


def test_the_words_of_a_server_that_talks_too_much_are_bounded(
    path: Path, server: ModelServer
) -> None:
    def talkative(_server: ModelServer, batch: object) -> object:
        assert isinstance(batch, list)
        words = ["rejected" if key == "k1" else "accepted" for key, _ in batch]
        server.store([event for event in batch if event[0] != "k1"])
        return results(words, reason="\u00e9" * 100_000)

    server.phase = talkative  # type: ignore[assignment]
    with Simulation(path, transport=server, batch_size=1) as simulation:
        for _ in range(20):
            simulation.track(2)
            simulation.run(10)
        (letter,) = letters_of(simulation)
        assert len(letter.reason) == 500


# ---------------------------------------------------------------------- no witness


@pytest.mark.parametrize("what", [answering(400, b"schema"), answering(422), rejecting_all])
def test_without_a_witness_nothing_is_buried_for_days(
    path: Path, server: ModelServer, what: object
) -> None:
    server.phase = what  # type: ignore[assignment]
    with Simulation(path, transport=server, batch_size=10) as simulation:
        keys = simulation.track(30)
        simulation.run(HOUR)
        states = set()
        for _ in range(3 * 24):
            keys += simulation.track(1)
            simulation.run(HOUR)
            states.add(simulation.sender.state)
        assert states == {"blocked"}
        assert letters_of(simulation) == []
        assert simulation.queue.pending == len(keys)
        # After the first few it is asked once in five minutes, and no more.
        late = [at for at in simulation.attempt_times if at > simulation.attempt_times[0] + HOUR]
        assert len(late) <= 72 * 12 * 1.1
        first_minutes = [at for at in simulation.attempt_times if at <= 1000 + 600]
        assert len(first_minutes) <= 40
        check_books(simulation, server)
        server.phase = fine
        simulation.run(2 * HOUR)
        assert set(server.stored) == set(keys)
        assert letters_of(simulation) == []
        assert simulation.queue.pending == 0
        assert simulation.sender.state == "idle"
        check_books(simulation, server)


def test_while_blocked_there_is_one_request_per_backoff(path: Path, server: ModelServer) -> None:
    server.phase = answering(400)
    with Simulation(path, transport=server, batch_size=10, backoff_max=300) as simulation:
        simulation.track(500)
        simulation.run(2 * HOUR)
        assert simulation.sender.state == "blocked"
        late = [at for at in simulation.attempt_times if at > simulation.attempt_times[0] + HOUR]
        assert {later - at for at, later in pairwise(late)} == {300.0}


def test_a_lone_bad_event_waits_for_a_witness_and_is_then_buried(
    path: Path, server: ModelServer
) -> None:
    server.bad = {"k1"}
    with Simulation(path, transport=server, batch_size=1) as simulation:
        simulation.track(1)
        simulation.run(DAY)
        assert simulation.sender.state == "blocked"
        assert simulation.pending_ids() == [1]
        for _ in range(48):
            simulation.track(1)
            simulation.run(600)
        (letter,) = letters_of(simulation)
        assert letter.idempotency_key == "k1"
        assert simulation.queue.pending == 0
        check_books(simulation, server)


def test_a_day_without_a_witness_counts_as_one_refusal(path: Path, server: ModelServer) -> None:
    server.phase = rejecting_all
    with Simulation(path, transport=server, batch_size=1) as simulation:
        simulation.track(2)
        simulation.run(DAY)
        assert len(server.refusals["k1"].times) > 3
        server.phase = fine_by_result
        server.bad = {"k1"}
        simulation.track(1)
        while not server.acknowledged:
            simulation.run(1)
        assert letters_of(simulation) == []
        assert server.refusals["k1"].counted <= 2


def test_a_scout_of_another_type_goes_first_and_is_the_witness(
    path: Path, server: ModelServer
) -> None:
    with Simulation(path, transport=server, batch_size=4, max_batch_events=4) as simulation:
        server.bad = {track_typed(simulation, f"old{n}", "order") for n in range(40)}
        track_typed(simulation, "other", "page_view")
        server.bad |= {track_typed(simulation, f"new{n}", "order") for n in range(4)}
        simulation.run(60)
        assert "other" in server.stored
        refused_before = server.requests.index(["other"])
        assert refused_before < 30
        for _ in range(200):
            track_typed(simulation, f"more{simulation.queue.last_id}", "page_view")
            simulation.run(600)
        assert {letter.idempotency_key for letter in letters_of(simulation)} == server.bad
        check_books(simulation, server)


def test_a_scout_that_is_refused_buries_nobody(path: Path, server: ModelServer) -> None:
    server.phase = answering(400)
    with Simulation(path, transport=server, batch_size=5, max_batch_events=5) as simulation:
        for number in range(20):
            track_typed(simulation, f"a{number}", "order")
        track_typed(simulation, "other", "page_view")
        simulation.run(DAY)
        assert ["other"] in server.requests
        assert letters_of(simulation) == []
        assert simulation.queue.pending == 21


def test_a_scout_out_of_a_batch_under_way_is_not_sent_again(path: Path) -> None:
    """The last of a batch whose every other event is bad is good, and is found by scouting."""
    for size in (2, 3, 10, 33, 64, 100):
        fresh = ModelServer()
        fresh.bad = {f"k{n}" for n in range(1, size)}
        with Simulation(
            path.with_name(f"{size}.db"), transport=fresh, batch_size=size
        ) as simulation:
            simulation.track(size)
            simulation.run(DAY)
            assert set(fresh.stored) == {f"k{size}"}
            check_books(simulation, fresh)


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_a_good_event_behind_bad_ones_is_found_where_all_are_suspects(
    path: Path, server: ModelServer, jitter: float
) -> None:
    """The first was asked for ever: the time to go back to it came with every slow attempt."""
    server.bad = {f"k{n}" for n in range(6, 10)}
    server.phase = answering(413)
    with Simulation(path, transport=server, batch_size=10, jitter=jitter) as simulation:
        simulation.track(10)
        simulation.run(60)
        server.phase = fine
        simulation.run(6 * HOUR)
        assert set(server.stored) == {"k1", "k2", "k3", "k4", "k5", "k10"}
        check_books(simulation, server)


# ---------------------------------------------------------------------- bisection


@pytest.mark.parametrize(
    ("size", "bad"),
    [
        (2, {1}),
        (50, {1}),
        (50, {50}),
        (1000, {777}),
        (1000, {1, 2, 3, 500, 1000}),
        (1000, set(range(1, 1001, 100))),
        (64, {10, 11, 12, 13}),
    ],
)
def test_a_bisection_keeps_its_bound_and_the_order(
    path: Path, server: ModelServer, size: int, bad: set[int]
) -> None:
    server.bad = {f"k{n}" for n in bad}
    with Simulation(path, transport=server, batch_size=size) as simulation:
        keys = simulation.track(size)
        simulation.run(0.5)
        k = len(bad)
        assert len(server.requests) <= min(2 * k * math.log2(size) + k, 2 * size - 1)
        assert list(server.stored) == [key for key in keys if key not in server.bad]
        assert simulation.pending_ids() == sorted(bad)
        check_books(simulation, server)


@pytest.mark.parametrize(
    "trouble",
    [
        answering(503),
        answering(429),
        answering(401),
        answering(200, b"<html>"),
        failing("refused"),
        failing("timeout"),
    ],
)
def test_a_bisection_survives_an_outage_in_its_midst(
    path: Path, server: ModelServer, trouble: object
) -> None:
    server.bad = {"k3", "k40"}
    with Simulation(path, transport=server, batch_size=50) as simulation:
        keys = simulation.track(50)
        for _ in range(4):
            simulation.sender.step()
        assert 0 < len(server.stored) < 48 or len(server.requests) == 4
        server.phase = trouble  # type: ignore[assignment]
        simulation.run(HOUR)
        server.phase = fine
        simulation.run(HOUR)
        assert set(server.stored) == set(keys) - server.bad
        check_books(simulation, server)


@pytest.mark.parametrize(
    "phase", [too_large_above(8, status=503), too_large_above(8, status=429), too_slow_above(8)]
)
def test_a_part_of_a_bisection_that_is_too_large_does_not_stop_the_queue(
    path: Path, server: ModelServer, phase: object
) -> None:
    server.bad = {"k30"}
    with Simulation(path, transport=server, batch_size=50) as simulation:
        keys = simulation.track(50)
        simulation.sender.step()
        assert len(server.requests) == 1
        server.phase = phase  # type: ignore[assignment]
        simulation.run(HOUR)
        assert set(keys) - {"k30"} <= set(server.stored)
        check_books(simulation, server)


# ---------------------------------------------------------------------- size


def test_413_halves_at_once_and_is_remembered(path: Path, server: ModelServer) -> None:
    server.phase = too_large_above(100)
    with Simulation(path, transport=server, batch_size=1000) as simulation:
        keys = simulation.track(3000)
        simulation.run(0.5)
        assert list(server.stored) == keys
        sizes = [events for events, _ in server.sizes]
        assert sizes[:4] == [1000, 500, 250, 125]
        assert sizes[4] == 62
        assert max(sizes[4:]) > 62
        # The four on the way down, and one each time that twice the ceiling was tried.
        assert sum(events > 100 for events in sizes) <= 7
        assert simulation.sender.state == "idle"
        check_books(simulation, server)


def test_413_by_bytes_is_learned_too(path: Path, server: ModelServer) -> None:
    server.phase = too_large_above(10**6, 4000)
    with Simulation(path, transport=server, batch_size=200) as simulation:
        for number in range(400):
            track_typed(simulation, f"e{number}", "x" * (10 if number < 100 else 300))
        simulation.run(0.5)
        assert len(server.stored) == 400
        assert sum(size > 4000 for _, size in server.sizes) <= 8
        check_books(simulation, server)


def test_one_event_that_is_too_large_alone_is_buried_with_a_witness(
    path: Path, server: ModelServer
) -> None:
    server.phase = too_large_above(10**6, 2000)
    with Simulation(path, transport=server, batch_size=10) as simulation:
        keys = simulation.track(9)
        track_typed(simulation, "huge", "x" * 3000)
        for _ in range(40):
            simulation.run(10)
            keys += simulation.track(10)
        simulation.run(60)
        (letter,) = letters_of(simulation)
        assert (letter.idempotency_key, letter.status) == ("huge", 413)
        assert letter.attempts >= 3
        assert set(server.stored) == set(keys)
        check_books(simulation, server)


def test_one_event_that_is_too_large_alone_stays_without_a_witness(
    path: Path, server: ModelServer
) -> None:
    server.phase = too_large_above(10**6, 2000)
    with Simulation(path, transport=server, batch_size=1) as simulation:
        track_typed(simulation, "huge", "x" * 3000)
        simulation.run(3 * DAY)
        assert letters_of(simulation) == []
        assert simulation.pending_ids() == [1]


@pytest.mark.parametrize("phase", [too_large_above(200, status=500), too_slow_above(200)])
def test_a_size_that_fails_only_when_large_is_learned(
    path: Path, server: ModelServer, phase: object
) -> None:
    server.phase = phase  # type: ignore[assignment]
    with Simulation(path, transport=server, batch_size=50) as simulation:
        keys = simulation.track(20_000)
        simulation.run(HOUR)
        assert in_order(server) == [key for key in keys if key not in scouts(server)]
        large = [number for number, (events, _) in enumerate(server.sizes) if events > 200]
        # Without learning, every second or third request would be one of these.
        assert len(large) < len(server.sizes) * 0.15
        check_books(simulation, server)


@pytest.mark.parametrize("reason", ["timeout", "closed", "protocol", "other"])
def test_whatever_way_a_server_fails_at_a_large_batch_a_smaller_one_is_tried(
    path: Path, server: ModelServer, reason: object
) -> None:
    """A server that resets the connection at the sight of a long body never says 413."""
    server.phase = too_slow_above(20, reason)  # type: ignore[arg-type]
    with Simulation(path, transport=server, batch_size=100) as simulation:
        keys = simulation.track(100)
        simulation.run(HOUR)
        assert set(server.stored) == set(keys)
        assert in_order(server) == [key for key in keys if key not in scouts(server)]


# ---------------------------------------------------------------------- offline


def test_an_unanswered_batch_goes_again_unchanged_and_then_single_events_ask_for_it(
    path: Path, server: ModelServer
) -> None:
    server.phase = failing("timeout")
    with Simulation(path, transport=server, batch_size=8) as simulation:
        keys = simulation.track(8)
        simulation.run(20)
        simulation.run(60)
        assert server.requests[:3] == [keys, keys, keys]
        # The head, so that it is first when all is well again; now and then one from elsewhere.
        assert server.requests[3:7] == [keys[:1], keys[-1:], keys[:1], keys[:1]]


class Probing(ModelServer):
    """One that can be probed."""

    def __init__(self) -> None:
        super().__init__()
        self.offline: TransportError | None = None

    def reachable(self, timeout: float) -> None:
        assert 0 < timeout <= 3
        self.reachable_calls += 1
        if self.offline is not None:
            raise self.offline


def test_the_probe_goes_ahead_only_after_an_attempt_without_an_answer(path: Path) -> None:
    server = Probing()
    with Simulation(path, transport=server, batch_size=5) as simulation:
        simulation.track(5)
        simulation.run(1)
        server.phase = answering(503)
        simulation.track(5)
        simulation.run(60)
        assert server.reachable_calls == 0
        server.phase = failing("timeout")
        simulation.run(120)
        asked = len(server.requests)
        server.offline = TransportError("nobody there", reason="refused")
        simulation.run(600)
        assert server.reachable_calls > 10
        assert len(server.requests) == asked
        server.offline = None
        server.phase = fine
        simulation.run(31)
        calls = server.reachable_calls
        assert len(server.stored) == 10
        simulation.track(100)
        simulation.run(60)
        assert server.reachable_calls == calls
        check_books(simulation, server)


@pytest.mark.parametrize("reason", ["refused", "timeout", "unreachable", "dns"])
def test_a_failed_probe_sends_nothing_and_says_nothing_about_the_size(
    path: Path, reason: object
) -> None:
    server = Probing()
    with Simulation(path, transport=server, batch_size=50) as simulation:
        keys = simulation.track(200)
        server.phase = failing("refused")
        simulation.run(1)
        server.offline = TransportError("nobody there", reason=reason)  # type: ignore[arg-type]
        simulation.run(HOUR)
        server.offline = None
        server.phase = fine
        sent = len(server.requests)
        simulation.run(31)
        assert len(server.requests[sent]) == 50
        assert list(server.stored) == keys


def test_a_transport_without_a_probe_is_not_asked_for_one(path: Path, server: ModelServer) -> None:
    server.phase = failing("refused")
    with Simulation(path, transport=server, batch_size=1) as simulation:
        simulation.track(1)
        simulation.run(120)
        server.phase = fine
        simulation.run(31)
        assert len(server.stored) == 1


# ---------------------------------------------------------------------- what is told


@pytest.mark.parametrize(
    ("phase", "kind"),
    [
        (answering(401), ResponseError),
        (answering(301), ResponseError),
        (answering(404), ResponseError),
        (answering(429), ResponseError),
        (answering(500), ResponseError),
        (answering(400), ResponseError),
        (answering(413), ResponseError),
        (answering(200, b"<html>"), ResponseError),
        (rejecting_all, ResponseError),
        (failing("timeout"), TransportError),
        (failing("tls"), TransportError),
    ],
)
def test_on_error_is_called_for_each_attempt_that_fails_and_one_line_is_logged(
    path: Path,
    server: ModelServer,
    phase: object,
    kind: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="test.simulation")
    server.phase = phase  # type: ignore[assignment]
    with Simulation(path, transport=server, batch_size=5) as simulation:
        simulation.track(20)
        simulation.run(2 * HOUR)
        assert len(server.requests) > 3
        assert len(simulation.errors) == len(server.requests)
        assert all(isinstance(error, kind) for error in simulation.errors)
        assert len(caplog.records) == 1
        assert "20 events wait" in caplog.records[0].getMessage()
        server.phase = fine
        simulation.run(2 * HOUR)
        assert simulation.queue.pending == 0
        assert len(caplog.records) == 2
        assert "works again after" in caplog.records[1].getMessage()
        check_books(simulation, server)


def test_a_flush_counts_delivered_rejected_and_buried(path: Path, server: ModelServer) -> None:
    server.phase = fine_by_result
    server.bad = {"k2", "k5"}
    with Simulation(path, transport=server, batch_size=50) as simulation:
        simulation.track(10)
        flush = simulation.sender.flush(timeout=None, retries=0)
        assert (flush.delivered, flush.rejected, flush.buried) == (8, 2, 0)
        assert isinstance(flush.error, ResponseError)
        assert simulation.queue.pending == 2
        flushes = []
        for _ in range(3):  # alone in the queue, the two have no witness
            simulation.track(1)
            flushes.append(simulation.sender.flush(timeout=None, retries=3))
        assert sum(flush.buried for flush in flushes) == 2
        assert sum(flush.delivered for flush in flushes) == 3
        assert flushes[-1].error is None
        assert simulation.queue.pending == 0
        check_books(simulation, server)


def test_a_flush_through_a_bisection_is_not_a_failure_for_each_part(
    path: Path, server: ModelServer
) -> None:
    server.bad = {"k7"}
    with Simulation(path, transport=server, batch_size=50) as simulation:
        simulation.track(20)
        flush = simulation.sender.flush(timeout=None, retries=0)
        assert (flush.delivered, flush.rejected) == (19, 1)
        assert isinstance(flush.error, ResponseError)
        assert flush.error.status == 400
        assert simulation.pending_ids() == [7]


@pytest.mark.parametrize("what", [answering(500, b"cannot read order 7"), failing("closed")])
def test_an_event_that_is_found_by_a_scout_is_named(
    path: Path, server: ModelServer, what: Phase
) -> None:
    def phase(model: ModelServer, batch: Sequence[WireEvent]) -> Response:
        return what(model, batch) if any(key == "k7" for key, _ in batch) else fine(model, batch)

    server.phase = phase
    with Simulation(path, transport=server, batch_size=10) as simulation:
        simulation.track(30)
        simulation.run(120)
        assert simulation.queue.pending <= 1
        told = [str(error) for error in simulation.errors if "k7" in str(error)]
        assert told
        assert "is set aside" in told[0]
        check_books(simulation, server)
