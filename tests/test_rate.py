"""The pace in events a second, after a server said 429."""

from __future__ import annotations

import math

import pytest

from causality_sdk.rate import SLOWEST, Rate


def limited(*, delivered: int = 1000, seconds: float = 1.0) -> Rate:
    rate = Rate()
    rate.delivered(0, 0.0)
    rate.delivered(delivered, seconds)
    rate.refused(seconds)
    return rate


def test_there_is_no_limit_before_the_first_429() -> None:
    rate = Rate()
    for second in range(100):
        rate.delivered(10_000, float(second))
    assert rate.limit == math.inf
    assert rate.bounded(1000) == 1000
    assert rate.ready_at() == -math.inf


def test_a_429_before_anything_was_delivered_sets_none() -> None:
    rate = Rate()
    rate.refused(5.0)
    assert rate.limit == math.inf


def test_the_first_429_sets_half_of_what_passed() -> None:
    assert limited(delivered=1000, seconds=2.0).limit == 250


def test_each_further_one_halves_it_but_never_to_nothing() -> None:
    rate = limited(delivered=1000, seconds=1.0)
    for at in range(2, 30):
        before = rate.limit
        rate.refused(float(at))
        assert rate.limit == max(SLOWEST, before / 2)
    assert rate.limit == SLOWEST
    assert rate.bounded(1000) == 1


def test_no_batch_holds_more_than_a_second_s_worth_and_the_next_waits_for_it() -> None:
    rate = limited(delivered=1000, seconds=1.0)
    assert rate.limit == 500
    assert rate.bounded(1000) == 500
    assert rate.bounded(20) == 20
    rate.delivered(250, 1.0)
    assert rate.ready_at() == pytest.approx(1.5)


def test_success_raises_it_slowly() -> None:
    rate = limited(delivered=1000, seconds=1.0)
    now, before = 1.0, rate.limit
    for _ in range(200):
        now = max(now, rate.ready_at())
        rate.delivered(rate.bounded(1000), now)
        assert before <= rate.limit <= before * 1.051
        before = rate.limit
    assert rate.limit > 1000
