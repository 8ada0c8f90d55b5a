"""The search for the bad events of a batch: all are found, the good pass, the cost is bounded."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causality_sdk.bisection import Bisection
from causality_sdk.queue import Row


def search(size: int, bad: set[int]) -> tuple[list[int], list[int], int]:
    """Good rows in the order they were taken, bad rows found, requests with the first refusal."""
    rows: list[Row] = [(number, b"") for number in range(size)]
    passed: list[int] = []
    found: list[int] = []
    requests = 1
    if size == 1:
        return [], [0], 1
    bisection = Bisection(rows)
    while part := bisection.next():
        requests += 1
        ids = [row_id for row_id, _ in part]
        if bad.isdisjoint(ids):
            passed.extend(ids)
            bisection.accepted()
        else:
            if len(ids) == 1:
                found.extend(ids)
            bisection.refused()
    return passed, found, requests


def bound(size: int, bad: int) -> float:
    return min(2 * bad * math.log2(size) + bad, 2 * size - 1)


@pytest.mark.parametrize("size", range(2, 11))
def test_every_set_of_bad_events_is_found_within_the_bound(size: int) -> None:
    for count in range(1, size + 1):
        for bad in itertools.combinations(range(size), count):
            passed, found, requests = search(size, set(bad))
            assert found == list(bad)
            assert passed == [number for number in range(size) if number not in bad]
            assert requests <= bound(size, count), bad


@given(size=st.integers(2, 1500), data=st.data())
def test_large_batches_keep_the_bound(size: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=min(size, 40)))
    passed, found, requests = search(size, bad)
    assert found == sorted(bad)
    assert passed == [number for number in range(size) if number not in bad]
    assert requests <= bound(size, len(bad))


def test_one_bad_event_of_a_thousand_costs_at_most_21_requests() -> None:
    assert max(search(1000, {number})[2] for number in range(1000)) <= 20.94
