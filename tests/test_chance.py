"""How many failures in a row are more than chance."""

from __future__ import annotations

import pytest

from causality_sdk.chance import MOST, Chance


def flaky(share: int, requests: int = 200) -> Chance:
    """One request of `share` fails, and passes at the next attempt."""
    chance = Chance()
    for number in range(requests):
        chance.failed(1) if number % share == 0 else chance.passed()
    return chance


def test_where_all_is_well_a_failure_is_taken_for_what_it_looks_like() -> None:
    chance = Chance()
    assert chance.rate == 0.0
    assert chance.failures_that_tell(3) == 3
    assert chance.failures_that_tell(1) == 1
    assert not chance.explains(1)


@pytest.mark.parametrize(("share", "least", "most"), [(2, 8, MOST), (3, 6, 8), (10, 3, 4)])
def test_the_more_fails_by_chance_the_more_it_takes(share: int, least: int, most: int) -> None:
    chance = flaky(share)
    assert chance.rate == pytest.approx(1 / share, abs=0.08)
    assert least <= chance.failures_that_tell(3) <= most


def test_what_chance_explains_buries_nobody() -> None:
    assert flaky(2).explains(6)
    assert not flaky(2).explains(30)
    assert not flaky(10).explains(6)


def test_a_server_that_was_mended_is_trusted_again() -> None:
    chance = flaky(2)
    for _ in range(200):
        chance.passed()
    assert chance.failures_that_tell(3) == 3
