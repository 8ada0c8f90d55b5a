"""Idempotency keys: the very values of the uuid6 package, made faster."""

from __future__ import annotations

import secrets
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import uuid6

from causality_sdk import keys


@pytest.fixture(autouse=True)
def no_key_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_last_ms", 0)


def test_a_key_is_what_uuid6_makes_of_the_same_clock_and_the_same_random_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_732_147_200_123_456_789
    draws = [secrets.token_bytes(10) for _ in range(500)]
    # Every value of the four bits where the variant lies is among them.
    draws += [bytes([0x0F, 0xFF, nibble << 4, *[0] * 7]) for nibble in range(16)]
    drawn = iter(draws)
    ours = [keys.new_key(lambda: now, lambda _: next(drawn)) for _ in draws]
    pending = iter(draws)
    monkeypatch.setattr(time, "time_ns", lambda: now)
    monkeypatch.setattr(
        secrets, "randbits", lambda bits: int.from_bytes(next(pending), "big") % 2**bits
    )
    monkeypatch.setattr(uuid6, "_last_v7_timestamp", None)
    assert ours == [str(uuid6.uuid7()) for _ in draws]


def test_a_key_carries_the_clock_and_the_version() -> None:
    before = time.time_ns() // 1_000_000
    key = uuid6.UUID(keys.new_key())
    assert before <= key.time <= time.time_ns() // 1_000_000
    assert (key.version, key.variant) == (7, uuid.RFC_4122)


def test_keys_sort_in_the_order_they_were_made_while_the_clock_stands_or_goes_back() -> None:
    clock = iter([5_000_000_000, 5_000_000_000, 1_000_000_000, 9_000_000_000])
    made = [keys.new_key(lambda: next(clock)) for _ in range(4)]
    assert made == sorted(made)
    assert [uuid6.UUID(key).time for key in made] == [5000, 5001, 5002, 9000]


def test_keys_of_many_threads_differ() -> None:
    with ThreadPoolExecutor(8) as threads:
        batches = list(threads.map(lambda _: [keys.new_key() for _ in range(2000)], range(8)))
    assert len({key for batch in batches for key in batch}) == 16_000
