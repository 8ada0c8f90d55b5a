"""How large the next batch may be."""

from __future__ import annotations

from causality_sdk.batch import RISE_AFTER, BatchLimit

MIB = 1024 * 1024


def grown(events: int = 1000) -> BatchLimit:
    """A limit that has grown to the full size."""
    limit = BatchLimit(50, events, MIB)
    for _ in range(10):
        limit.succeeded(limit.events)
    assert limit.events == events
    return limit


def test_it_doubles_with_each_success_up_to_the_limit() -> None:
    limit = BatchLimit(50, 300, MIB)
    sizes = []
    for _ in range(5):
        sizes.append(limit.events)
        limit.succeeded(limit.events)
    assert sizes == [50, 100, 200, 300, 300]


def test_it_begins_again_after_the_server_was_away() -> None:
    limit = grown()
    limit.failed(1000, 400_000, maybe_size=False)
    assert limit.events == 50


def test_it_never_begins_above_the_limit() -> None:
    assert BatchLimit(50, 20, MIB).events == 20


def test_too_large_halves_at_once_in_events_and_bytes() -> None:
    limit = grown()
    limit.too_large(1000, 400_000)
    assert (limit.events, limit.bytes) == (500, 200_000)
    limit.too_large(500, 200_000)
    assert (limit.events, limit.bytes) == (250, 100_000)


def test_one_event_that_is_too_large_teaches_nothing_about_batches() -> None:
    limit = grown()
    limit.too_large(1, 900_000)
    assert (limit.events, limit.bytes) == (1000, MIB)


def test_a_learned_limit_rises_again_slowly_and_to_the_full_size() -> None:
    limit = grown()
    limit.too_large(1000, 400_000)
    for _ in range(RISE_AFTER - 1):
        limit.succeeded(limit.events)
    assert limit.events == 500
    limit.succeeded(limit.events)
    assert limit.events == 562
    for _ in range(100 * RISE_AFTER):
        limit.succeeded(limit.events)
    assert (limit.events, limit.bytes) == (1000, MIB)


def test_a_size_that_fails_twice_where_a_smaller_one_passes_is_learned() -> None:
    limit = grown()
    for _ in range(2):
        limit.failed(1000, 400_000, maybe_size=True)
        assert limit.events == 500
        limit.succeeded(500)
    assert limit.events == 500
    limit.succeeded(500)
    assert limit.events == 500


def test_one_failure_teaches_nothing_since_the_server_may_have_been_away() -> None:
    limit = grown()
    for size in (1000, 500, 250, 125, 62, 31):
        assert limit.events == size
        limit.failed(size, size * 400, maybe_size=True)
    for size in (15, 30, 60, 120, 240, 480, 960, 1000):
        assert limit.events == size
        limit.succeeded(size)


def test_429_halves_the_next_and_teaches_nothing() -> None:
    limit = grown()
    for _ in range(5):
        limit.crowded(1000)
        assert limit.events == 500
        limit.succeeded(500)
        assert limit.events == 1000
    limit.crowded(1)
    assert limit.events == 1


def test_strikes_are_forgotten_once_the_large_batch_passes() -> None:
    limit = grown()
    for _ in range(5):
        limit.failed(1000, 400_000, maybe_size=True)
        limit.succeeded(500)
        limit.succeeded(1000)
    assert limit.events == 1000
