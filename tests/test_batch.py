"""How large the next batch may be."""

from __future__ import annotations

from causality_sdk.batch import PATIENCE, BatchLimit, Size

MIB = 1024 * 1024


def grown(events: int = 1000) -> BatchLimit:
    """A limit that has grown to the full size."""
    limit = BatchLimit(50, events, MIB)
    for _ in range(10):
        limit.succeeded(Size(limit.events, limit.events * 400))
    assert limit.events == events
    return limit


def test_it_doubles_with_each_success_up_to_the_limit() -> None:
    limit = BatchLimit(50, 300, MIB)
    sizes = []
    for _ in range(5):
        sizes.append(limit.events)
        limit.succeeded(Size(limit.events, limit.events * 400))
    assert sizes == [50, 100, 200, 300, 300]


def test_it_begins_again_after_the_server_was_away() -> None:
    limit = grown()
    limit.away()
    assert limit.events == 50


def test_it_never_begins_above_the_limit() -> None:
    assert BatchLimit(50, 20, MIB).events == 20


def test_too_large_halves_at_once_in_events_and_bytes() -> None:
    limit = grown()
    limit.too_large(Size(1000, 400_000))
    assert (limit.events, limit.bytes) == (500, 200_000)
    limit.too_large(Size(500, 200_000))
    assert (limit.events, limit.bytes) == (250, 100_000)


def test_one_event_that_is_too_large_teaches_nothing_about_batches() -> None:
    limit = grown()
    limit.too_large(Size(1, 900_000))
    assert (limit.events, limit.bytes) == (1000, MIB)


def test_a_larger_one_is_tried_after_a_while_and_then_again_to_the_full_size() -> None:
    limit = grown()
    for events in (1000, 500, 250):
        limit.too_large(Size(events, events * 400))
    for _ in range(PATIENCE - 1):
        limit.succeeded(Size(limit.events, limit.events * 400))
    assert limit.events == 125
    limit.succeeded(Size(limit.events, limit.events * 400))
    assert limit.events == 188
    for _ in range(10 * PATIENCE):
        limit.succeeded(Size(limit.events, limit.events * 400))
    assert (limit.events, limit.bytes) == (1000, MIB)


def test_a_ceiling_that_stands_is_tried_less_and_less() -> None:
    """What is too large costs a request, or even a timeout, each time it is tried."""
    limit = grown()
    large = 0
    for _ in range(2000):
        if limit.events > 100:
            large += 1
            limit.too_large(Size(limit.events, limit.events * 400))
        else:
            limit.succeeded(Size(limit.events, limit.events * 400))
    assert limit.events <= 100
    assert large <= 14
    for _ in range(2000):  # the server was mended
        limit.succeeded(Size(limit.events, limit.events * 400))
    assert limit.events == 1000
