"""What an answer means for a batch as a whole, and in which words it is reported."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causality_sdk.delivery import Outcome, judge
from causality_sdk.errors import BODY_EXCERPT_CHARS, ResponseError
from causality_sdk.wire.base import ACCEPTED, RETRY, WORDS_CHARS, Kind, Response, Verdict
from causality_sdk.wire.causality import CausalityWire

REJECTED = Verdict(Kind.REJECTED, "no name")


def complaint(response: Response, *verdicts: Verdict) -> tuple[Outcome, ResponseError]:
    outcome, error = judge(response, verdicts or [RETRY, RETRY])
    assert error is not None
    assert error.status == response.status
    return outcome, error


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_a_batch_that_was_accepted_is_settled_without_a_word(status: int) -> None:
    assert judge(Response(status), [ACCEPTED, ACCEPTED]) == (Outcome.SETTLED, None)


def test_some_events_refused_settle_the_batch_and_are_reported() -> None:
    response = Response(200, body=b'{"results":[]}')
    outcome, error = complaint(response, ACCEPTED, REJECTED, ACCEPTED, RETRY)
    assert outcome is Outcome.SETTLED
    assert str(error) == "the server accepted 2 of 4 events and refused 1: no name"
    assert error.retryable
    assert error.body == '{"results":[]}'


def test_events_of_which_nothing_was_said_do_not_count_as_accepted() -> None:
    outcome, error = complaint(Response(200), ACCEPTED, RETRY, RETRY)
    assert outcome is Outcome.SETTLED
    assert str(error) == "the server accepted 1 of 3 events and refused 0"


def test_all_refused_by_name_is_settled_too() -> None:
    """Each has its verdict; whether to go on in front of them is the sender's business."""
    outcome, error = complaint(Response(200), REJECTED, Verdict(Kind.REJECTED, "other"))
    assert outcome is Outcome.SETTLED
    assert str(error) == "the server accepted 0 of 2 events and refused 2: no name"


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (Response(200, body=b"<html>log in</html>"), "captive portal"),
        (Response(200, body=b"OK"), "captive portal"),
        (Response(200, body=b' {"acceptedCount":1}'), "does not say that all events"),
        (Response(200, {"content-encoding": "gzip"}, b"\x1f\x8b"), "compressed"),
        (Response(200, {"content-encoding": "identity"}, b"OK"), "captive portal"),
        (Response(200, body=b"<", truncated=True), "longer"),
    ],
)
def test_a_2xx_that_settles_nothing_says_why_and_waits(response: Response, words: str) -> None:
    outcome, error = complaint(response)
    assert outcome is Outcome.WAIT
    assert words in str(error)
    assert "200" in str(error)
    assert error.retryable


def test_an_answer_that_is_too_long_means_that_it_speaks_of_too_many_events() -> None:
    outcome, error = complaint(Response(200, body=b' {"results":[', truncated=True))
    assert outcome is Outcome.TOO_LARGE
    assert "longer than any acknowledgement" in str(error)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "check api_key"),
        (403, "check api_key"),
        (404, "check endpoint"),
        (405, "check endpoint"),
        (407, "proxies"),
        (300, "never followed"),
        (301, "never followed"),
        (302, "never followed"),
        (304, "never followed"),
        (307, "never followed"),
        (308, "never followed"),
    ],
)
def test_what_only_a_person_can_mend_is_held_with_the_fix(status: int, words: str) -> None:
    outcome, error = complaint(Response(status, {"location": "http://elsewhere"}))
    assert outcome is Outcome.HOLD
    assert words in str(error)
    assert str(status) in str(error)
    assert not error.retryable


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, Outcome.REFUSED) for status in (400, 422)),
        (413, Outcome.TOO_LARGE),
        *((status, Outcome.BUSY) for status in (500, 502, 503, 599)),
        *((status, Outcome.WAIT) for status in (100, 103, 408, 415, 425, 429)),
    ],
)
def test_every_other_status_keeps_the_events_and_is_tried_again(
    status: int, expected: Outcome
) -> None:
    outcome, error = complaint(Response(status))
    assert outcome is expected
    assert str(status) in str(error)
    assert error.retryable


def test_a_status_other_than_2xx_wins_over_verdicts() -> None:
    """A wire that is wrong about a 500 must not settle anything."""
    for status in (100, 302, 401, 500):
        outcome, _ = complaint(Response(status), ACCEPTED, ACCEPTED)
        assert outcome is not Outcome.SETTLED


def test_the_excerpt_of_the_body_is_bounded_and_text() -> None:
    _, error = complaint(Response(500, body="é".encode() * 1_000_000))
    assert error.body == "é" * BODY_EXCERPT_CHARS
    _, error = complaint(Response(500, body=b"\xff\x00"))
    assert error.body == "\ufffd\x00"


@given(status=st.integers(100, 999), body=st.binary(), count=st.integers(1, 4))
def test_no_answer_breaks_it_and_no_message_grows(status: int, body: bytes, count: int) -> None:
    response = Response(status, body=body)
    outcome, error = judge(response, CausalityWire().verdicts(response, count))
    assert (outcome is Outcome.SETTLED) <= (200 <= status <= 299)
    if error is not None:
        assert len(str(error)) < WORDS_CHARS + 200
        assert len(error.body) <= BODY_EXCERPT_CHARS
