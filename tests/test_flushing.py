"""What a flush waits for, and how it ends."""

from __future__ import annotations

import threading

from causality_sdk.errors import ResponseError, TransportError
from causality_sdk.flushing import SHORTEST_ATTEMPT, Flush, Flushes

REFUSED = TransportError("nothing listens there", reason="refused")
FORBIDDEN = ResponseError("no", status=403, retryable=False)


def added(*flushes: Flush) -> Flushes:
    waiting = Flushes()
    for flush in flushes:
        waiting.add(flush)
    return waiting


def flush(target: int, *, retries: int = 1, deadline: float | None = None) -> Flush:
    return Flush(target=target, retries=retries, deadline=deadline)


def test_each_is_complete_when_the_sender_has_come_as_far() -> None:
    near, far = flush(10), flush(20)
    waiting = added(near, far)
    assert waiting.target == 20
    waiting.reached(15, aside=False)
    assert (near.done.is_set(), far.done.is_set()) == (True, False)
    waiting.reached(20, aside=False)
    assert far.done.is_set()
    assert waiting.target is None


def test_each_has_retries_of_its_own() -> None:
    patient, hasty = flush(10, retries=2), flush(10, retries=0)
    waiting = added(patient, hasty)
    assert waiting.failed(REFUSED) == 1
    assert (patient.done.is_set(), hasty.done.is_set()) == (False, True)
    assert hasty.error is REFUSED
    assert waiting.failed(REFUSED) == 2
    assert waiting.failed(REFUSED) is None
    assert patient.done.is_set()


def test_what_retrying_cannot_mend_ends_all() -> None:
    patient = flush(10, retries=100)
    assert added(patient).failed(FORBIDDEN) is None
    assert patient.error is FORBIDDEN


def test_something_left_behind_is_a_failure_like_another() -> None:
    one = flush(10, retries=1)
    waiting = added(one)
    waiting.count(delivered=3, rejected=1)
    waiting.complained(FORBIDDEN)
    assert waiting.reached(10, aside=True) == 1
    assert not one.done.is_set()
    assert waiting.reached(10, aside=True) is None
    assert one.done.is_set()
    assert (one.delivered, one.rejected, one.error) == (3, 1, FORBIDDEN)


def test_a_failure_that_was_overcome_is_not_reported() -> None:
    one = flush(10)
    waiting = added(one)
    waiting.failed(REFUSED)
    waiting.reached(10, aside=False)
    assert one.error is None


def test_running_out_of_time_does_not_hide_why() -> None:
    one, other = flush(10), flush(10)
    added(one).failed(REFUSED)
    one.complete(TimeoutError("late"))
    other.complete(TimeoutError("late"))
    assert one.error is REFUSED
    assert isinstance(other.error, TimeoutError)


def test_an_attempt_is_bounded_by_the_most_patient_flush() -> None:
    assert added().bounded(10.0, now=100.0, by_all=True) == 10.0
    assert added(flush(1, deadline=102.0)).bounded(10.0, now=100.0, by_all=True) == 2.0
    assert (
        added(flush(1, deadline=102.0), flush(1, deadline=104.0)).bounded(10.0, 100.0, by_all=True)
        == 4.0
    )
    assert added(flush(1, deadline=102.0), flush(1)).bounded(10.0, now=100.0, by_all=True) == 10.0
    assert added(flush(1, deadline=99.0)).bounded(10.0, now=100.0, by_all=True) == SHORTEST_ATTEMPT


def test_the_end_of_the_sender_ends_every_wait() -> None:
    one = flush(10)
    waiting = added(one)
    waiter = threading.Thread(target=one.done.wait)
    waiter.start()
    waiting.end(RuntimeError("closed"))
    waiter.join(timeout=10)
    assert not waiter.is_alive()
    assert isinstance(one.error, RuntimeError)
