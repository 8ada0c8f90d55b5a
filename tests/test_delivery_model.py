"""Any sequence of server behaviours, against a model of what must be delivered, buried and left.

The server's own account (`model_server`) says what it acknowledged and which refusals count; the
queue file is compared with it after every step of the sender.
"""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_server import (
    ModelServer,
    Phase,
    answering,
    failing,
    fine,
    fine_by_result,
    json_answer,
    rejecting_all,
    too_large_above,
    too_slow_above,
)
from simulation import Simulation

from causality_sdk.errors import TransportError
from causality_sdk.testing._batch import WireEvent
from causality_sdk.wire.base import Response

HOUR = 3600.0
BATCH_EVENTS = 40
BATCH_BYTES = 4000
BUSY_LOOP = 5000  # steps within one passage of time

# The same examples in every run: what fails in CI must fail everywhere.
SUITE = settings(
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


# ---------------------------------------------------------------------- what servers do


def partly(seed: int) -> Phase:
    """Results that are unknown, missing, repeated, out of range, in any order."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets

    def phase(server: ModelServer, batch: Sequence[WireEvent]) -> Response:
        entries: list[dict[str, Any]] = []
        for index, (key, raw) in enumerate(batch):
            fate = rng.randrange(8)
            word = "rejected" if key in server.bad else "accepted"
            named: list[dict[str, Any]] = [{"index": index, "status": word}]
            if fate == 0:
                named = []
            elif fate == 1:
                named = [{"index": index, "status": "perhaps"}]
            elif fate == 2:
                named = [{"index": index, "status": word}, {"index": index, "status": "rejected"}]
            elif fate == 3:
                named.append({"index": len(batch) + index, "status": "accepted"})
            elif fate == 4:
                named.append({"index": -1 - index, "status": "accepted"})
            if len(named) != 1 or named[0]["status"] == "accepted":
                server.store([(key, raw)] if key not in server.bad else [])
            entries += named
        rng.shuffle(entries)
        return json_answer({"results": entries})

    return phase


def counting(short: int) -> Phase:
    """Counts that do not cover the batch acknowledge nothing."""

    def phase(_server: ModelServer, batch: Sequence[WireEvent]) -> Response:
        return json_answer({"acceptedCount": max(0, len(batch) - short), "rejectedCount": short})

    return phase


def flaky(seed: int) -> Phase:
    """Takes half of the batches; of the others it stores half, and answers none."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets

    def phase(server: ModelServer, batch: Sequence[WireEvent]) -> Response:
        if rng.random() < 0.5:
            return fine(server, batch)
        if rng.random() < 0.5:
            server.store(server.good(batch))
        raise TransportError("no answer", reason="closed", stale=rng.random() < 0.3)

    return phase


LOOKS_AT_NO_EVENT: list[Phase] = [
    failing("refused"),
    failing("dns"),
    failing("unreachable"),
    failing("tls"),
    failing("timeout"),
    failing("timeout", stored=True),
    failing("closed", stored=True),
    failing("protocol"),
    answering(503),
    answering(503, headers={"retry-after": "90"}),
    answering(500, b"oops"),
    answering(429),
    answering(429, headers={"retry-after": "0"}),
    answering(408),
    answering(401, b"key"),
    answering(403),
    answering(404),
    answering(302, headers={"location": "http://elsewhere.invalid/"}),
    answering(200, b"<html>sign in</html>"),
    answering(200, b'{"error":"no"}'),
    counting(1),
    counting(1000),
]
JUDGES: list[Phase] = [
    fine,
    fine_by_result,
    answering(400, b"schema"),
    answering(422),
    answering(413),
    rejecting_all,
    too_large_above(7),
    too_large_above(10**6, 700),
    too_large_above(9, status=503),
    too_large_above(9, status=429),
    too_slow_above(6),
    too_slow_above(6, "closed"),
]


def phases(pool: Sequence[Phase]) -> st.SearchStrategy[Phase]:
    return st.sampled_from(pool)


any_phase = st.one_of(
    phases(LOOKS_AT_NO_EVENT),
    phases(JUDGES),
    st.integers(0, 2**16).map(partly),
    st.integers(0, 2**16).map(flaky),
)

# ---------------------------------------------------------------------- what happens


track = st.tuples(
    st.just("track"),
    st.lists(
        st.tuples(st.sampled_from(["good"] * 6 + ["bad", "bad for now"]), st.integers(0, 400)),
        min_size=1,
        max_size=60,
    ),
)
passing = st.tuples(st.just("time"), st.sampled_from([0.0, 0.5, 3.0, 31.0, 400.0, 4000.0]))
flushing = st.tuples(st.just("flush"), st.integers(0, 3))


def events(pool: st.SearchStrategy[Phase]) -> st.SearchStrategy[list[tuple[str, Any]]]:
    changing = st.tuples(st.just("phase"), pool)
    return st.lists(
        st.one_of(track, passing, changing, changing, flushing), min_size=1, max_size=24
    )


class Model:
    """One client and one server, and what must be true of them."""

    def __init__(self, directory: str, *, seed: int = 0, **options: Any) -> None:
        self.server = ModelServer()
        self.tracked: dict[str, bytes] = {}
        self.for_now: set[str] = set()  # refused until the end begins
        self._types = random.Random(seed)  # noqa: S311 - not for secrets
        self.simulation = Simulation(
            Path(directory) / "queue.db",
            transport=self.server,
            batch_size=10,
            max_batch_events=BATCH_EVENTS,
            max_batch_bytes=BATCH_BYTES,
            **options,
        )

    def track(self, fate: str, size: int) -> None:
        key = f"k{len(self.tracked) + 1}"
        kind = self._types.choice(["order", "view"])
        document = {"idempotency_key": key, "event_type": kind, "p": "x" * size}
        payload = json.dumps(document, separators=(",", ":")).encode()
        self.tracked[key] = payload
        if fate != "good":
            self.server.bad.add(key)
        if fate == "bad for now":
            self.for_now.add(key)
        self.simulation.queue.append(payload)

    def play(self, happenings: Sequence[tuple[str, Any]]) -> None:
        for what, how in happenings:
            if what == "track":
                for fate, size in how:
                    self.track(fate, size)
            elif what == "time":
                self.run(how)
            elif what == "phase":
                self.server.phase = how
            else:
                self.simulation.sender.flush(timeout=60.0, retries=how)
            self.check()

    def run(self, seconds: float) -> None:
        simulation = self.simulation
        end = simulation.clock.now + seconds
        for _ in range(BUSY_LOOP):
            wait = simulation.sender.step()
            self.check()
            if wait is None or simulation.clock.now + wait > end:
                simulation.clock.now = end
                return
            simulation.clock.now += wait
        raise AssertionError(f"{BUSY_LOOP} steps in {seconds} s: a busy loop")

    def check(self) -> None:
        queue, server = self.simulation.queue, self.server
        assert server.violations == []
        for number, size in server.sizes:
            assert number <= BATCH_EVENTS
            assert size <= BATCH_BYTES or number == 1
        server.sizes.clear()
        rows = [bytes(row[0]) for row in queue.read("SELECT payload FROM queue ORDER BY id")]
        dead = [bytes(row[0]) for row in queue.read("SELECT payload FROM dead_letters")]
        here = {json.loads(payload)["idempotency_key"] for payload in rows}
        buried = {json.loads(payload)["idempotency_key"] for payload in dead}
        counters, tracked, pending, pending_bytes = queue.snapshot()
        assert (tracked, pending, counters.buried) == (len(self.tracked), len(rows), len(dead))
        assert tracked == counters.acknowledged + counters.buried + pending
        assert pending_bytes == sum(map(len, rows))
        assert {*rows, *dead} <= set(self.tracked.values())
        for key in buried:
            account = server.refusals[key]
            assert account.counted + account.failures >= 3, f"{key} was buried after {account}"
            assert len(account.times) + account.failures >= 3
        gone = set(self.tracked) - here - buried
        # Exactly: what was acknowledged is gone, and nothing else.
        assert gone == set(server.acknowledged)
        assert counters.acknowledged == len(gone)
        for key in gone:
            assert server.stored[key] == server.acknowledged[key] == self.tracked[key]

    def settle_down(self, *, by_result: bool, traffic: bool) -> None:
        """From now on the server is fine; hours pass, with or without other events to compare."""
        self.server.phase = fine_by_result if by_result else fine
        self.server.bad -= self.for_now
        for _ in range(24):
            if traffic:
                self.track("good", 0)
            self.run(HOUR / 2)

    def close(self) -> None:
        self.simulation.sender.stop()
        self.simulation.queue.close()

    def left(self) -> set[str]:
        rows = self.simulation.queue.read("SELECT payload FROM queue")
        return {json.loads(row[0])["idempotency_key"] for row in rows}

    def buried(self) -> set[str]:
        rows = self.simulation.queue.read("SELECT payload FROM dead_letters")
        return {json.loads(row[0])["idempotency_key"] for row in rows}


@given(
    happenings=events(any_phase),
    by_result=st.booleans(),
    traffic=st.booleans(),
    jitter=st.sampled_from([0.0, 1.0]),
)
@settings(SUITE, max_examples=150)
def test_whatever_the_server_does_everything_ends_where_it_belongs(
    happenings: list[tuple[str, Any]], by_result: bool, traffic: bool, jitter: float
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model = Model(directory, jitter=jitter)
        try:
            model.play(happenings)
            model.settle_down(by_result=by_result, traffic=traffic)
            bad = model.server.bad
            buried, left = model.buried(), model.left()
            good = set(model.tracked) - bad
            # One that was refused for a while may have been buried in that time, with witnesses.
            assert good - model.for_now <= set(model.server.acknowledged)
            assert good <= set(model.server.acknowledged) | buried
            assert buried <= bad | model.for_now
            assert left <= bad
            assert bad <= buried | left
            if traffic:
                assert left == set()
        finally:
            model.close()


@given(happenings=events(phases([*LOOKS_AT_NO_EVENT, fine])), jitter=st.sampled_from([0.0, 1.0]))
@settings(SUITE, max_examples=60)
def test_while_no_event_is_refused_the_order_of_arrival_is_that_of_the_queue_scouts_apart(
    happenings: list[tuple[str, Any]], jitter: float
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model = Model(directory, jitter=jitter)
        try:
            for what, how in happenings:
                if what == "track":
                    model.play([(what, [("good", size) for _, size in how])])
                else:
                    model.play([(what, how)])
            model.settle_down(by_result=False, traffic=False)
            alone = {keys[0] for keys in model.server.requests if len(keys) == 1}
            assert [key for key in model.server.stored if key not in alone] == [
                key for key in model.tracked if key not in alone
            ]
            assert model.left() == set()
        finally:
            model.close()


@given(happenings=events(any_phase))
@settings(SUITE, max_examples=60)
def test_an_event_overtakes_another_only_if_that_was_tried_before_or_as_a_scout(
    happenings: list[tuple[str, Any]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model = Model(directory)
        try:
            server = model.server
            model.play(happenings)
            model.settle_down(by_result=True, traffic=True)
            order = {key: number for number, key in enumerate(model.tracked)}
            tried: set[str] = set()
            first_untried = 0
            for request in server.requests:
                fresh = sorted(order[key] for key in request if key not in tried)
                if len(request) > 1 and fresh:
                    # A batch goes on where the queue was tried up to, scouts apart.
                    untried = [
                        number
                        for key, number in order.items()
                        if first_untried <= number < fresh[0] and key not in tried
                    ]
                    assert untried == []
                    first_untried = fresh[0]
                assert [order[key] for key in request] == sorted(order[key] for key in request)
                tried.update(request)
        finally:
            model.close()


@given(
    size=st.integers(2, 300),
    places=st.sets(st.integers(0, 299), min_size=1, max_size=12),
    status=st.sampled_from([400, 422]),
)
@settings(SUITE, max_examples=60)
def test_one_refused_batch_costs_no_more_requests_than_promised(
    size: int, places: set[int], status: int
) -> None:
    bad = {f"k{place % size + 1}" for place in places}
    server = ModelServer()

    def refusing(model: ModelServer, batch: Sequence[WireEvent]) -> Response:
        response = fine(model, batch)
        return response if response.status == 200 else Response(status)

    server.phase = refusing
    server.bad = bad
    with (
        tempfile.TemporaryDirectory() as directory,
        Simulation(Path(directory) / "q.db", transport=server, batch_size=size) as simulation,
    ):
        keys = simulation.track(size)
        # Until every event was accepted, or found to be bad; what follows are the second refusals.
        while set(server.stored) | set(server.refusals_alone()) != set(keys):
            wait = simulation.sender.step()
            assert wait is not None
            simulation.clock.now += wait
        bound = min(2 * len(bad) * math.log2(size) + len(bad), 2 * size - 1)
        scouts = sum(len(keys) == 1 for keys in server.requests) if len(bad) == size else 0
        # Each bad event was refused twice before it was found to be one.
        assert len(server.requests) <= bound + len(bad) + scouts
        assert set(server.stored) == set(keys) - bad
        if len(bad) < 4:  # more in a row can look like a server that refuses everything
            assert list(server.stored) == [key for key in keys if key not in bad]
        assert server.violations == []
