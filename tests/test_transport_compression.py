"""What is learned about a server that may not read compressed bodies."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causality_sdk.transport.compression import Compression


def coding(compression: Compression, *statuses: int) -> str:
    """`g` or `p` (plain) for each of the requests that are answered with these statuses."""
    used = ""
    for status in statuses:
        body, headers = compression.encode(b"body")
        used += "g" if headers else "p"
        assert (body == b"body") != bool(headers)
        compression.answered(status, body=True)
    return used


def test_without_the_option_nothing_is_compressed() -> None:
    assert coding(Compression(None), 200, 400, 415, 200) == "pppp"


def test_the_body_is_gzip_and_the_same_whenever_it_is_made() -> None:
    compression = Compression("gzip")
    body, headers = compression.encode(b"body" * 1000)
    assert gzip.decompress(body) == b"body" * 1000
    assert headers == {"Content-Encoding": "gzip"}
    assert compression.encode(b"body" * 1000) == (body, headers)


def test_no_body_is_left_as_it_is() -> None:
    compression = Compression("gzip")
    assert compression.encode(b"") == (b"", {})
    compression.answered(400, body=False)
    assert coding(compression, 200) == "g"


@pytest.mark.parametrize(
    ("statuses", "used"),
    [
        ([200, 200, 500, 200], "gggg"),
        # It cannot read them: plain for good, whatever comes later.
        ([415, 200, 200, 400, 500, 200], "gppppp"),
        ([400, 202, 400, 200], "gppp"),
        # It refuses the content either way: back to compressing.
        ([400, 400, 200, 200], "gpgg"),
        ([400, 400, 400, 400], "gpgp"),
        # It has read one before: a 400 is about the content.
        ([200, 400, 400, 200], "gggg"),
        # Other answers say nothing about it.
        ([400, 502, 503, 429, 200, 200], "gppppp"),
        ([401, 404, 413, 503, 200], "ggggg"),
        # A view that parses what it cannot read raises: plain, and once more after a while.
        ([500, 200, 200], "gpp"),
        ([501, 200, 200], "gpp"),
        ([422, 200, 200], "gpp"),
        ([406, 200, 200], "gpp"),
        ([500, *[200] * 50, 500, *[200] * 60], "g" + "p" * 50 + "g" + "p" * 60),
        ([500, *[200] * 50, 200, 500], "g" + "p" * 50 + "gg"),
    ],
)
def test_what_is_learned(statuses: list[int], used: str) -> None:
    assert coding(Compression("gzip"), *statuses) == used


@given(st.lists(st.sampled_from([200, 204, 400, 415, 401, 413, 500])))
def test_it_is_never_given_up_once_a_compressed_body_was_accepted(statuses: list[int]) -> None:
    used = coding(Compression("gzip"), *statuses)
    proven = [
        index
        for index, (status, way) in enumerate(zip(statuses, used, strict=True))
        if way == "g" and status in (200, 204)
    ]
    if proven:
        assert set(used[proven[0] :]) == {"g"}


@given(st.lists(st.sampled_from([200, 400, 401, 413, 500])))
def test_a_server_that_cannot_read_them_refuses_no_batch_twice_for_that(
    statuses: list[int],
) -> None:
    """Its answer to a compressed body is always 400; to a plain one, what the list says."""
    compression = Compression("gzip")
    in_a_row = 0
    for status in statuses:
        _, headers = compression.encode(b"body")
        in_a_row = in_a_row + 1 if headers else 0
        assert in_a_row <= 1
        compression.answered(400 if headers else status, body=True)
