"""The pacer by itself: pure questions and answers about time."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from causality_sdk.errors import ResponseError, TransportError
from causality_sdk.pacer import FOREVER, LINGER, Pace, Pacer

REFUSED = TransportError("nothing listens there", reason="refused")
BUSY = ResponseError("busy", status=503, retryable=True)


def pacer(*, backlog: int = 0, jitter: float = 0.0, batch_size: int = 10) -> Pacer:
    return Pacer(
        Pace(
            batch_size=batch_size,
            max_batch_events=100,
            flush_interval=30.0,
            backoff_initial=1.0,
            backoff_max=300.0,
            jitter=jitter,
            rng=random.Random(1),  # noqa: S311 - not for secrets
            wall_clock=lambda: 1_000_000.0,
        ),
        backlog=backlog,
    )


def test_an_empty_queue_is_never_due() -> None:
    idle = pacer()
    assert not idle.may_send(0.0, 0, 0, None)
    assert idle.due_at(0, 0, None) is None


def test_the_interval_begins_when_the_event_is_first_seen() -> None:
    waiting = pacer()
    assert not waiting.may_send(100.0, 1, 1, None)
    assert waiting.due_at(1, 1, None) == 130.0
    assert not waiting.may_send(129.9, 2, 2, None)
    assert waiting.may_send(130.0, 3, 3, None)


def test_an_event_that_came_after_the_look_is_looked_at_at_once() -> None:
    waiting = pacer()
    waiting.may_send(100.0, 0, 0, None)
    due = waiting.due_at(1, 1, None)
    assert due is not None
    assert due < 100.0


def test_in_a_backoff_no_event_wakes_the_sender() -> None:
    failing = pacer()
    failing.failed(100.0, REFUSED)
    assert failing.wake_at(100.5, 0, 0) == FOREVER
    assert failing.wake_at(101.0, 0, 0) == 10


def test_batches_that_follow_each_other_fast_wait_until_they_are_full_or_for_a_moment() -> None:
    busy = pacer()
    assert busy.may_send(100.0, 10, 10, None)
    busy.went_through(100.01, after=0, last=10, left=False)
    assert busy.wake_at(100.01, 10, 0) == 10 + 100
    assert not busy.may_send(100.01, 25, 15, None)
    assert busy.due_at(25, 15, None) == 100.0 + LINGER
    assert busy.due_at(110, 100, None) == -math.inf
    assert busy.may_send(100.02, 110, 100, None), "a full batch goes at once"


def test_after_a_moment_batch_size_events_are_enough_again() -> None:
    busy = pacer()
    busy.may_send(100.0, 10, 10, None)
    busy.went_through(100.01, after=0, last=10, left=False)
    later = 100.0 + LINGER
    assert not busy.may_send(later, 15, 5, None)
    assert busy.wake_at(later, 15, 5) == 10 + 10
    assert busy.may_send(later, 20, 10, None)


def test_an_id_that_wakes_is_one_that_is_still_to_come() -> None:
    """Ids behind the cursor may be those of evicted events: they make nothing due."""
    capped = pacer()
    assert capped.wake_at(100.0, 500, 3) == 500 + 7
    assert capped.wake_at(100.0, 500, 30) == 501
    assert capped.wake_at(100.0, 500, 3, paced=True) == FOREVER


def test_a_queue_that_holds_less_than_a_batch_is_sent_before_it_is_full() -> None:
    small = pacer()
    assert not small.may_send(100.0, 3, 3, None, cap=8)
    assert small.wake_at(100.0, 3, 3, cap=8) == 4
    assert small.may_send(100.0, 4, 4, None, cap=8)


def test_a_flush_does_not_wait_for_a_fuller_batch() -> None:
    busy = pacer()
    busy.may_send(100.0, 10, 10, None)
    busy.went_through(100.01, after=0, last=10, left=False)
    assert busy.may_send(100.02, 11, 1, 11)


def test_a_flush_is_due_at_once_in_the_middle_of_a_backoff() -> None:
    failing = pacer()
    for _ in range(10):
        failing.failed(100.0, BUSY)
    assert not failing.may_send(110.0, 5, 5, None)
    failing.flush_began()
    assert failing.may_send(110.0, 5, 5, 5)


def test_a_retry_of_a_flush_obeys_what_the_server_asked_for() -> None:
    flushing = pacer()
    flushing.failed(100.0, BUSY, asked=20.0)
    flushing.flush_failed(100.0, 1)
    assert not flushing.may_send(119.0, 5, 5, 5)
    assert flushing.may_send(120.0, 5, 5, 5)


def test_a_request_to_wait_is_forgotten_with_the_next_failure() -> None:
    flushing = pacer()
    flushing.failed(100.0, BUSY, asked=3000.0)
    flushing.failed(100.0, REFUSED)
    flushing.flush_failed(100.0, 1)
    assert flushing.may_send(101.0, 5, 5, 5)


def test_a_request_to_wait_is_over_with_the_next_success() -> None:
    flushing = pacer()
    flushing.failed(100.0, BUSY, asked=3000.0)
    flushing.succeeded()
    flushing.flush_failed(101.0, 1)
    assert flushing.may_send(102.0, 5, 5, 5)


def test_a_server_that_refuses_everything_is_asked_slowly_from_the_third_time_on() -> None:
    holding = pacer()
    delays = []
    for _ in range(4):
        holding.failed(100.0, BUSY, hold=True)
        delays.append(holding.retry_at - 100.0)
    assert delays == [1.0, 2.0, 300.0, 300.0]


def test_what_is_known_of_the_pace_goes_before_the_backoff() -> None:
    paced = pacer()
    paced.failed(100.0, BUSY, wait=0.25)
    assert paced.retry_at == 100.25
    paced.failed(101.0, BUSY, asked=20.0, wait=0.25)
    assert paced.retry_at == 121.0


def test_rows_set_aside_pause_longer_each_time_and_anew_after_all_went() -> None:
    aside = pacer(backlog=3)
    pauses = []
    now = 0.0
    for _ in range(4):
        assert aside.may_send(now, 3, 1, None)
        aside.went_through(now, after=aside.cursor, last=3, left=True)
        due = aside.due_at(3, 1, None)
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert aside.may_send(now, 3, 1, None)
    aside.went_through(now, after=0, last=3, left=False)
    assert aside.due_at(3, 0, None) is None
    assert aside.may_send(now, 14, 11, None)
    aside.went_through(now, after=3, last=14, left=True)
    assert aside.due_at(14, 1, None) == now + 1.0


@given(
    failures=st.integers(1, 200),
    jitter=st.floats(0, 1),
    hold=st.booleans(),
    retry_after=st.one_of(st.none(), st.integers(0, 10**6).map(str), st.text(max_size=20)),
    offline=st.booleans(),
)
def test_a_delay_is_never_negative_and_never_beyond_its_ceiling(
    failures: int, jitter: float, hold: bool, retry_after: str | None, offline: bool
) -> None:
    failing = pacer(jitter=jitter)
    for _ in range(failures):
        failing.failed(
            50.0,
            REFUSED if offline else BUSY,
            hold=hold,
            asked=None if offline else failing.seconds_asked(retry_after),
        )
    delay = failing.retry_at - 50.0
    assert 0.0 <= delay <= 3600.0
    if offline:
        assert delay <= 30.0
    elif retry_after is None:
        assert delay <= 300.0
        assert not hold or failures < 3 or delay >= 150.0
