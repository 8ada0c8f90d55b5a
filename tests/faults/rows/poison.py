"""One event that the server cannot take, whatever it does at the sight of it."""

from __future__ import annotations

import time
from pathlib import Path

import causality_sdk.diagnosis
from causality_sdk import Client
from causality_sdk.testing import LoopbackCollector, ReceivedRequest, ScriptedAnswer
from faults.registry import Fault, Outcome, Run

STATUSES = (500, 502, 503, 504, 429, 401, 403, 404, 409, 410, 415, 422, 451, 308)
RESET = 0
CAP = 50
GOOD = 80
SECONDS = 30.0
NEVER = 10**9


def run(run: Run) -> Outcome:
    """Each way to fail, at the head of a queue that is smaller than what comes behind it."""
    ways = (500, 503, 403, RESET) if run.quick else (*STATUSES, RESET)
    return _each(run, ways, "poison", SECONDS)


def control(run: Run) -> Outcome:
    """Nobody asks whose fault it is."""
    rule = causality_sdk.diagnosis.ASK_AFTER, causality_sdk.diagnosis.ASK_SOON
    causality_sdk.diagnosis.ASK_AFTER = causality_sdk.diagnosis.ASK_SOON = NEVER
    try:
        return _each(run, (500,), "unasked", 3.0)
    finally:
        causality_sdk.diagnosis.ASK_AFTER, causality_sdk.diagnosis.ASK_SOON = rule


def _each(run: Run, ways: tuple[int, ...], name: str, seconds: float) -> Outcome:
    failures: list[str] = []
    arrived = buried = 0
    for way in ways:
        found, graves, trouble = _one(run.directory(f"{name}-{way}"), way, seconds)
        arrived += found
        buried += graves
        failures += [f"{way or 'reset'}: {each}" for each in trouble]
    return Outcome(
        {"ways": len(ways), "good events": GOOD * len(ways), "arrived": arrived, "buried": buried},
        failures,
    )


def _one(directory: Path, way: int, seconds: float) -> tuple[int, int, list[str]]:
    bad = ScriptedAnswer(drop=True) if way == RESET else ScriptedAnswer(status=way)

    def answer(request: ReceivedRequest) -> ScriptedAnswer | None:
        return bad if b'"poison"' in request.body else None

    with LoopbackCollector() as collector:
        collector.answer_with(answer)
        client = Client(
            api_key="test-key",
            endpoint=collector.endpoint,
            app_id="faults",
            queue_path=directory / "queue.db",
            batch_size=5,
            flush_interval=0.1,
            backoff_initial=0.01,
            backoff_max=0.02,
            max_queue_events=CAP,
        )
        end = time.monotonic() + seconds
        client.track("poison")
        for number in range(GOOD):
            client.track("good", {"number": number})
            # As fast as a server that is well takes them: what is evicted is the fault's.
            while client.stats().pending > CAP // 2 and time.monotonic() < end:
                client.flush(timeout=0.05)
        while client.stats().pending and time.monotonic() < end:
            client.track("good", {"number": "a witness"})
            client.flush(timeout=0.05)
        stats = client.stats()
        client.close(timeout=0)
        good = {
            event["properties"]["number"]
            for event in collector.events
            if event["event_type"] == "good"
        } - {"a witness"}
    lost = sum(stats.evicted.values())
    trouble = []
    if len(good) < GOOD:
        trouble.append(f"{GOOD - len(good)} good events did not arrive")
    if lost:
        trouble.append(f"{lost} events were evicted")
    if stats.buried != 1 or stats.pending:
        trouble.append(f"buried {stats.buried}, pending {stats.pending}")
    return len(good), stats.buried, trouble


FAULT = Fault(
    name="one event that the server cannot take",
    how="a 5xx, another 4xx, a redirect or a reset at the sight of one event, at the head of a"
    " queue whose cap is below what comes behind it",
    promise="all others arrive, none is evicted, that one is buried",
    run=run,
    control=control,
    broken="no scout asks whose fault it is",
)
