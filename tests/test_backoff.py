"""Delays: their bounds, their spread, and every `Retry-After` a server may come up with."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from causality_sdk.backoff import RETRY_AFTER_MAX, backoff_delay, retry_after_seconds

NOW = 1_732_147_200.0  # 2024-11-21 00:00:00 UTC

attempts = st.integers(1, 10_000)
seconds = st.floats(0.001, 4_000_000)
jitters = st.floats(0, 1)


class Always(random.Random):
    """A generator that always gives the same number, below 1 as `random()` promises."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


LOWEST = Always(0.0)
HIGHEST = Always(1.0 - 2.0**-53)


def delay(
    attempt: int,
    rng: random.Random,
    *,
    initial: float = 1.0,
    maximum: float = 300.0,
    jitter: float = 1.0,
) -> float:
    return backoff_delay(attempt, initial=initial, maximum=maximum, jitter=jitter, rng=rng)


class TestDelay:
    def test_without_jitter_it_doubles_up_to_the_maximum(self) -> None:
        delays = [delay(attempt, HIGHEST, jitter=0.0) for attempt in range(1, 12)]
        assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]

    @given(attempts, seconds, seconds, jitters, st.integers())
    def test_it_lies_between_zero_and_the_maximum(
        self, attempt: int, initial: float, maximum: float, jitter: float, seed: int
    ) -> None:
        rng = random.Random(seed)  # noqa: S311
        value = delay(attempt, rng, initial=initial, maximum=maximum, jitter=jitter)
        assert 0.0 <= value <= maximum

    @given(attempts, seconds, seconds, jitters)
    def test_its_ceiling_never_falls_with_further_attempts(
        self, attempt: int, initial: float, maximum: float, jitter: float
    ) -> None:
        earlier, later = (
            delay(n, HIGHEST, initial=initial, maximum=maximum, jitter=jitter)
            for n in (attempt, attempt + 1)
        )
        assert earlier <= later

    @given(attempts, seconds, seconds)
    def test_full_jitter_reaches_from_zero_to_the_ceiling(
        self, attempt: int, initial: float, maximum: float
    ) -> None:
        ceiling = delay(attempt, LOWEST, initial=initial, maximum=maximum, jitter=0.0)
        assert delay(attempt, LOWEST, initial=initial, maximum=maximum) == 0.0
        assert delay(attempt, HIGHEST, initial=initial, maximum=maximum) == pytest.approx(ceiling)

    def test_full_jitter_is_spread_evenly(self) -> None:
        rng = random.Random(7)  # noqa: S311
        tenths = [0] * 10
        for _ in range(10_000):
            tenths[int(delay(4, rng) / 0.8)] += 1
        assert min(tenths) > 850
        assert max(tenths) < 1150

    @given(attempts, st.floats(0.01, 0.99))
    def test_partial_jitter_keeps_the_other_part_fixed(self, attempt: int, jitter: float) -> None:
        ceiling = delay(attempt, LOWEST, jitter=0.0)
        assert delay(attempt, LOWEST, jitter=jitter) == pytest.approx(ceiling * (1 - jitter))

    @pytest.mark.parametrize("attempt", [0, 63, 1024, 1025, 10**9])
    def test_an_outage_of_any_length_gives_a_delay(self, attempt: int) -> None:
        assert 0.0 <= delay(attempt, HIGHEST) <= 300.0

    def test_the_same_seed_gives_the_same_delays(self) -> None:
        one, two = (random.Random(3) for _ in range(2))  # noqa: S311
        assert [delay(n, one) for n in range(9)] == [delay(n, two) for n in range(9)]


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("0", 0.0),
            ("120", 120.0),
            (" 120\t", 120.0),
            ("007", 7.0),
            ("3600", 3600.0),
            ("3601", RETRY_AFTER_MAX),
            ("9" * 300, RETRY_AFTER_MAX),
            ("9" * 301, RETRY_AFTER_MAX),
            ("9" * 5_000, RETRY_AFTER_MAX),
            ("9" * 1_000_000, RETRY_AFTER_MAX),
            ("0" * 400 + "5", RETRY_AFTER_MAX),
        ],
    )
    def test_seconds(self, value: str, expected: float) -> None:
        assert retry_after_seconds(value, now=NOW) == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("Thu, 21 Nov 2024 00:02:00 GMT", 120.0),
            ("Thu, 21 Nov 2024 00:02:00 -0000", 120.0),
            ("Thu, 21 Nov 2024 01:02:00 +0100", 120.0),
            ("Thursday, 21-Nov-24 00:02:00 GMT", 120.0),  # RFC 850, obsolete but to be accepted
            ("Thu Nov 21 00:02:00 2024", 120.0),  # asctime, the same
            ("Wed, 20 Nov 2024 23:59:00 GMT", 0.0),  # in the past
            ("Fri, 22 Nov 2024 00:00:00 GMT", RETRY_AFTER_MAX),
            ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX),
            ("Fri, 31 Dec 9999 23:59:59 -2359", RETRY_AFTER_MAX),
        ],
    )
    def test_dates(self, value: str, expected: float) -> None:
        assert retry_after_seconds(value, now=NOW) == expected

    @given(st.integers(-10_000, 10_000))
    def test_a_date_is_compared_with_now(self, distance: int) -> None:
        moment = datetime.fromtimestamp(NOW, timezone.utc) + timedelta(seconds=distance)
        value = format_datetime(moment, usegmt=True)
        assert retry_after_seconds(value, now=NOW) == min(max(distance, 0), RETRY_AFTER_MAX)

    @pytest.mark.parametrize(
        "value",
        [
            None,
            "",
            " ",
            "-5",
            "+5",
            "1.5",
            "1e3",
            "0x10",
            "inf",
            "nan",
            "soon",
            ",",
            "120, 240",
            "٣",  # digits to str.isdigit() and int(), to no server
            "１２０",  # noqa: RUF001
            "²",
            "\ud800",
            "12\ud8000",
            "12\x00",
            "Thu, 99 Nov 2024 00:00:00 GMT",
            "Thu, 21 Nov 2024 25:00:00 GMT",
            "Thu, 21 Nov 2024 00:00:00 +9999",
            "Thu, 21 Nov 2024 00:00:00 +99999999999999999999",
            "Thu, 21 Nov 99999 00:00:00 GMT",
            "Thu, 21 Nov " + "9" * 5_000 + " 00:00:00 GMT",
        ],
    )
    def test_what_cannot_be_read_is_none(self, value: str | None) -> None:
        assert retry_after_seconds(value, now=NOW) is None

    @given(
        st.one_of(
            st.text(),
            st.text(st.characters(categories=["Cs", "Nd", "Nl", "No"])),
            st.text("0123456789+-:,. GMTJanThuUTC\t"),
            st.from_regex(r"\A(Thu, )?\d{1,6} (Jan|Nov|x) \d{1,8} \d+:\d+:\d+ (GMT|[+-]\d{1,9})?"),
        )
    )
    @example("0001 Jan 1 0:0:0 +2359")
    @example("1 Jan 0001 0:0:0 -2359")
    def test_no_text_raises_and_every_result_is_in_bounds(self, value: str) -> None:
        result = retry_after_seconds(value, now=NOW)
        assert result is None or 0.0 <= result <= RETRY_AFTER_MAX

    @given(st.floats(0, 4e9))
    def test_the_clock_does_not_matter_for_seconds(self, now: float) -> None:
        assert retry_after_seconds("30", now=now) == 30.0
