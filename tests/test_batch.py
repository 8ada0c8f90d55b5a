"""How large the next batch may be."""

from __future__ import annotations

from causality_sdk.batch import BatchLimit


def test_it_doubles_with_each_success_up_to_the_limit() -> None:
    limit = BatchLimit(50, 300)
    sizes = []
    for _ in range(5):
        sizes.append(limit.events)
        limit.succeeded()
    assert sizes == [50, 100, 200, 300, 300]


def test_it_begins_again_after_a_failure() -> None:
    limit = BatchLimit(50, 1000)
    for _ in range(5):
        limit.succeeded()
    limit.failed()
    assert limit.events == 50


def test_it_never_begins_above_the_limit() -> None:
    assert BatchLimit(50, 20).events == 20
