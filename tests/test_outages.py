"""What the log is told: each outage once, its end once, and many short ones in one line."""

from __future__ import annotations

import logging

import pytest

from causality_sdk.errors import TransportError
from causality_sdk.logs import Log
from causality_sdk.outages import LONG_SECONDS, QUIET_SECONDS, Outages

ERROR = TransportError("nobody there", reason="refused")


@pytest.fixture
def outages(caplog: pytest.LogCaptureFixture) -> Outages:
    caplog.set_level(logging.INFO, logger="test.outages")
    return Outages(Log(logging.getLogger("test.outages")))


def test_an_outage_is_two_lines_however_often_it_fails(
    outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(100):
        outages.failed(float(second), ERROR, pending=1)
    outages.ended(100.0, pending=7)
    first, last = (record.getMessage() for record in caplog.records)
    assert "1 event waits: nobody there" in first
    assert "works again after 100 s; 7 events wait" in last


def test_hundreds_of_flaps_are_one_more_line(
    outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    for flap in range(294):
        outages.failed(flap * 2.0, ERROR, pending=3)
        outages.ended(flap * 2.0 + 1, pending=3)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert "now and then" in lines[2]


def test_a_long_one_among_them_is_told(outages: Outages, caplog: pytest.LogCaptureFixture) -> None:
    for flap in range(5):
        outages.failed(flap * 2.0, ERROR, pending=3)
        outages.ended(flap * 2.0 + 1, pending=3)
    told = len(caplog.records)
    outages.failed(20.0, ERROR, pending=3)
    outages.failed(20.0 + LONG_SECONDS, ERROR, pending=3)
    outages.ended(80.0, pending=3)
    assert len(caplog.records) == told + 2


def test_after_a_quiet_time_it_is_news_again(
    outages: Outages, caplog: pytest.LogCaptureFixture
) -> None:
    outages.failed(0.0, ERROR, pending=3)
    outages.ended(1.0, pending=3)
    outages.failed(2.0 + QUIET_SECONDS, ERROR, pending=3)
    assert len(caplog.records) == 3
    assert "delivery failed" in caplog.records[2].getMessage()


def test_a_sender_of_somebody_elses_file_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="test.outages")
    silent = Outages(Log(logging.getLogger("test.outages")), tells=False)
    silent.failed(0.0, ERROR, pending=1)
    silent.ended(9.0, pending=1)
    assert caplog.records == []
