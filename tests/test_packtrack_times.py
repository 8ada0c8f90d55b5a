"""RFC 3339 times and durations as people write them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causality_sdk.errors import EventError
from causality_sdk.packtrack import rfc3339
from causality_sdk.packtrack.durations import seconds


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "ms"),
        [
            ("1970-01-01T00:00:00Z", 0),
            ("1985-04-12T23:20:50.52Z", 482196050520),  # the examples of section 5.8
            ("1996-12-19T16:39:57-08:00", 851042397000),
            ("1990-12-31T23:59:60Z", 662688000000),
            ("1990-12-31T15:59:60-08:00", 662688000000),
            ("1937-01-01T12:00:27.87+00:20", -1041337172130),
            ("2024-02-29T00:00:00.999999999Z", 1709164800999),
            ("2026-01-31T12:00:00-00:00", 1769860800000),
        ],
    )
    def test_what_the_standard_allows_is_taken_as_it_is(self, text: str, ms: int) -> None:
        assert rfc3339.checked(text) == text
        assert rfc3339.milliseconds(text) == ms

    def test_small_letters_become_capitals_that_every_server_reads(self) -> None:
        assert rfc3339.checked("2026-01-31t12:00:00z") == "2026-01-31T12:00:00Z"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "now",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31 12:00:00Z",
            "2026-01-31T12:00Z",
            "2026-01-31T12:00:00,5Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00+0100",
            "2026-01-31T12:00:00+01",
            "2026-1-31T12:00:00Z",
            "\uff12026-01-31T12:00:00Z",
            " 2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00Z\n",
            "2026-01-31T12:00:00." + "1" * 60 + "Z",
        ],
    )
    def test_another_grammar_is_an_error_with_an_example(self, text: str) -> None:
        with pytest.raises(EventError, match="timestamp must be a date and time of RFC 3339"):
            rfc3339.checked(text)

    @pytest.mark.parametrize(
        "text",
        [
            "2026-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:61Z",
            "2026-01-31T12:00:60Z",  # no leap second falls in the middle of a day
            "2026-12-30T23:59:60Z",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+01:60",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
        ],
    )
    def test_a_time_that_does_not_exist_is_an_error(self, text: str) -> None:
        with pytest.raises(EventError, match=re.escape(text)):
            rfc3339.checked(text)

    @given(st.datetimes(timezones=st.timezones()))
    def test_every_aware_datetime_becomes_one(self, moment: datetime) -> None:
        try:
            text = rfc3339.from_datetime(moment)
        except EventError as error:
            assert "out of range" in str(error)  # noqa: PT017 (at the ends of the calendar)
            return
        epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
        expected = (moment - epoch) // timedelta(milliseconds=1)
        assert rfc3339.checked(text) == text
        assert rfc3339.milliseconds(text) == expected

    def test_a_datetime_keeps_its_offset_and_its_microseconds(self) -> None:
        zone = timezone(timedelta(hours=5, minutes=30))
        moment = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=zone)
        assert rfc3339.from_datetime(moment) == "2026-01-31T12:00:00.123456+05:30"

    def test_an_offset_with_seconds_becomes_utc(self) -> None:
        zone = timezone(timedelta(minutes=53, seconds=28))
        moment = datetime(1890, 1, 1, 12, 0, 0, tzinfo=zone)
        assert rfc3339.from_datetime(moment) == "1890-01-01T11:06:32Z"

    def test_a_naive_datetime_is_an_error(self) -> None:
        with pytest.raises(EventError, match="has no time zone"):
            rfc3339.from_datetime(datetime(2026, 1, 31))


class TestDurations:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("15s", 15.0),
            ("100ms", 0.1),
            ("1m30s", 90.0),
            ("1.5h", 5400.0),
            ("250us", 0.00025),
            ("10ns", 1e-8),
            ("2", 2.0),
            (" 0.5 ", 0.5),
            (".5s", 0.5),
        ],
    )
    def test_they_are_seconds(self, text: str, expected: float) -> None:
        assert seconds(text) == pytest.approx(expected)

    @pytest.mark.parametrize(
        "text", ["", "s", "15 s", "15sec", "-1s", "1s30", "1e3s", "nan", "inf", "٣s", "9" * 400]
    )
    def test_anything_else_is_an_error_with_an_example(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"15s, 100ms or 1m30s|longer than any wait"):
            seconds(text)
