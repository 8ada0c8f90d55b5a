"""The default wire: the bytes of a request, and what each kind of answer says about each event."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causality_sdk.wire import WIRES
from causality_sdk.wire.base import WORDS_CHARS, Kind, Response, Verdict
from causality_sdk.wire.causality import CausalityWire

WIRE = CausalityWire()
A, R, T = Kind.ACCEPTED, Kind.REJECTED, Kind.RETRY


def verdicts(body: object, count: int = 3, status: int = 200, **more: Any) -> list[Verdict]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(WIRE.verdicts(Response(status, body=raw, **more), count))


def kinds(body: object, count: int = 3, status: int = 200, **more: Any) -> list[Kind]:
    return [verdict.kind for verdict in verdicts(body, count, status, **more)]


class TestFraming:
    def test_the_rows_are_joined_as_they_lie_in_the_queue(self) -> None:
        """Not decoded: even what is no JSON, or is spaced oddly, goes through untouched."""
        request = WIRE.frame([b'{"a": 1.0}', b'{"b":"\xc3\xa9"}', b"not json"])
        assert request.body == b'{"events":[{"a": 1.0},{"b":"\xc3\xa9"},not json]}'

    def test_one_event(self) -> None:
        assert WIRE.frame([b"{}"]).body == b'{"events":[{}]}'

    def test_no_event(self) -> None:
        assert WIRE.frame([]).body == b'{"events":[]}'

    def test_where_and_how_it_is_sent(self) -> None:
        request = WIRE.frame([b"{}"])
        assert (request.method, request.path) == ("POST", "/v1/events/batch")
        assert request.headers["Content-Type"] == "application/json"

    def test_its_names(self) -> None:
        assert (WIRE.name, WIRE.key_header, WIRE.health_path) == (
            "causality", "X-API-Key", "/health",
        )  # fmt: skip
        assert WIRES["causality"] is CausalityWire


class TestTheWholeBatch:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b" \r\n\t",
            b"\xef\xbb\xbf",
            b"{}",
            b"\n{}\n",
            b"\xef\xbb\xbf{}",
            {"status": "ok"},
            {"message": "thank you", "nested": {"rejectedCount": 1}},
            {"success": True, "ok": True},
            {"error": None, "errors": []},
            {"results": None},
            {"acceptedCount": None},
            {"acceptedCount": 3},
            {"accepted_count": 3, "rejected_count": 0},
            {"acceptedCount": 3, "rejectedCount": 0},
            {"acceptedCount": "3"},
            {"acceptedCount": "3", "rejectedCount": "0"},
            {"accepted": 3},
            {"accepted": "3", "rejected": 0},
            {"accepted": True},
            {"accepted": "true"},
            {"accepted": 1, "duplicates": 2},
            {"accepted": 0, "duplicates": 3},
            {"acceptedCount": 0, "duplicateCount": "3"},
            {"accepted": ["a"], "duplicates": ["b", "c"], "rejected": []},
            {"duplicates": 0},
            {"accepted": [], "duplicates": ["a", "b", "c"]},
            {"accepted": ["a", "b", "c"], "failed": []},
            {"accepted": None},
            {"status": 200, "code": 0, "statusCode": "202"},
            {"status": "accepted", "message": "failed over to the second replica"},
            {"status": 0},
            {"failed": 0, "errorCount": "0", "errors": False, "Error": ""},
            {"errorCode": 0, "errorMessage": None, "error": "none"},
            {"success": None, "Success": "true", "ok": 1},
            {"acceptedCount": 3, "results": []},
            {"acceptedCount": 3, "rejectedCount": None, "results": None},
        ],
    )
    def test_these_bodies_acknowledge_it(self, body: object) -> None:
        assert kinds(body) == [A, A, A]

    @pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
    def test_any_2xx_does(self, status: int) -> None:
        assert kinds(b"", status=status) == [A, A, A]

    @pytest.mark.parametrize(
        "status", [0, -200, 100, 199, 300, 301, 304, 400, 401, 413, 429, 500, 503, 599, 999]
    )
    @pytest.mark.parametrize(
        "body", [b"", b"{}", {"acceptedCount": 3}, {"results": [{"status": "accepted"}]}]
    )
    def test_no_other_status_does(self, status: int, body: object) -> None:
        assert kinds(body, status=status) == [T, T, T]

    @pytest.mark.parametrize(
        "body",
        [
            {"accepted": 2},
            {"accepted": 1, "duplicates": 1},
            {"accepted": 0, "duplicates": 4},
            {"accepted": 4, "duplicates": -1},
            {"acceptedCount": 3, "duplicates": 1},
            {"accepted": "2"},
            {"accepted": ["a"]},
            {"acceptedCount": 2},
            {"acceptedCount": 4},
            {"acceptedCount": 2, "rejectedCount": 1},
            {"acceptedCount": 3, "rejectedCount": 1},
            {"rejectedCount": 3},
            {"rejectedCount": 0},
            {"rejected_count": "3"},
            {"acceptedCount": 0},
            {"acceptedCount": 0, "rejectedCount": 0},
            {"acceptedCount": True},
            {"acceptedCount": 3, "rejectedCount": False},
            {"acceptedCount": 3, "rejectedCount": []},
            {"acceptedCount": 3, "rejectedCount": ""},
            {"acceptedCount": " 3"},
            {"acceptedCount": "03"},
            {"acceptedCount": "3.0"},
            {"acceptedCount": "three"},
            {"acceptedCount": []},
            {"acceptedCount": {}},
            {"acceptedCount": -3},
            {"acceptedCount": 3.5},
            {"acceptedCount": 3, "rejectedCount": -1},
        ],
    )
    def test_counts_that_do_not_cover_it_acknowledge_nothing(self, body: object) -> None:
        assert kinds(body) == [T, T, T]

    def test_true_is_not_one(self) -> None:
        assert kinds({"acceptedCount": True}, count=1) == [T]

    @pytest.mark.parametrize(
        "body",
        [
            {"error": "no"},
            {"error": {"code": 5}},
            {"errors": ["no"]},
            {"success": False},
            {"ok": False, "message": "not now"},
            {"status": "error"},
            {"status": "Failed"},
            {"status": "fail"},
            {"status": "failure"},
            {"status": "denied"},
            {"status": False},
            {"status": 500},
            {"status": "500"},
            {"statusCode": 503},
            {"status_code": 400},
            {"code": 401},
            {"httpStatus": 429.0},
            {"result": "error"},
            {"Type": "Error"},
            {"message": "Internal server error"},
            {"message": "Forbidden."},
            {"success": 0},
            {"success": "false"},
            {"Success": "No"},
            {"ok": 0},
            {"ok": ""},
            {"acknowledged": False},
            {"accepted": False},
            {"accepted": 0},
            {"accepted": 0, "rejected": 1},
            {"accepted": 3, "rejected": 1},
            {"accepted": 0, "duplicates": 3, "status": "failed"},
            {"accepted": ""},
            {"accepted": []},
            {"failed": 1},
            {"failed": "1"},
            {"failed": True},
            {"failures": [{"index": 0}]},
            {"invalid": ["k"]},
            {"dropped_count": 3},
            {"Error": "no"},
            {"ERROR": {"code": 1}},
            {"errorMessage": "no"},
            {"error_message": "no"},
            {"error-code": 7},
            {"exception": "ValueError"},
            {"detail": "Not authenticated"},
            {"error": None, "Error": "no"},
            {"acceptedCount": 3, "error": "but not stored"},
        ],
    )
    def test_a_body_that_speaks_of_failure_acknowledges_nothing(self, body: object) -> None:
        """Some gateways answer 200 to everything."""
        assert kinds(body) == [T, T, T]

    @pytest.mark.parametrize("results", [[], {}, {"0": "rejected"}, "rejected", 3, False, ""])
    def test_results_that_name_no_event_acknowledge_nothing(self, results: object) -> None:
        assert kinds({"results": results}) == [T, T, T]

    @pytest.mark.parametrize(
        "body",
        [
            b"<html><body>Please log in</body></html>",
            b"OK",
            b"\x00\xff\xfe garbage",
            b'{"acceptedCount":3',
            b'{"acceptedCount":3}}',
            b'{"acceptedCount":3}{"acceptedCount":3}',
            b"[]",
            b"[{}]",
            b'"OK"',
            b"3",
            b"true",
            b"null",
            b"NaN",
            b"\xef\xbb\xbf\xef\xbb\xbf{}",
            b"\xff\xfe{\x00}\x00",  # UTF-16
            b"\x1f\x8b\x08\x00",  # gzip, though identity was asked for
            b'{"message":"\xff"}',
            b"[" * 100_000,
            b'{"a":' * 100_000,
        ],
    )
    def test_what_is_not_an_object_of_json_acknowledges_nothing(self, body: bytes) -> None:
        assert kinds(body) == [T, T, T]

    @pytest.mark.parametrize("body", [b"", b"{}", {"acceptedCount": 3}])
    def test_a_truncated_answer_acknowledges_nothing(self, body: object) -> None:
        assert kinds(body, truncated=True) == [T, T, T]

    def test_an_empty_batch_gets_no_verdict(self) -> None:
        for body in (b"", b"{}", {"results": [{"status": "accepted"}]}, b"<html>"):
            assert kinds(body, count=0) == []


class TestResults:
    def test_each_event_gets_its_own(self) -> None:
        results = [
            {"index": 2, "status": "accepted"},
            {"index": 0, "status": "accepted", "eventId": "x"},
            {"index": 1, "status": "rejected", "error": "no name"},
        ]
        body = {"acceptedCount": 2, "rejectedCount": 1, "results": results}
        assert verdicts(body) == [Verdict(A), Verdict(R, "no name"), Verdict(A)]

    def test_a_missing_index_is_zero(self) -> None:
        """Protobuf's JSON leaves zero values out."""
        results: list[object] = [{"status": "accepted"}, {"index": 2, "status": "rejected"}]
        assert kinds({"results": results}) == [A, T, R]

    def test_two_results_without_an_index_name_nobody(self) -> None:
        results = [{"status": "accepted"}, {"status": "accepted"}, {"status": "accepted"}]
        assert kinds({"results": results}) == [T, T, T]

    @pytest.mark.parametrize("second", ["accepted", "rejected", "whatever"])
    def test_an_event_named_twice_is_named_by_neither(self, second: str) -> None:
        results = [{"index": 1, "status": "accepted"}, {"index": 1, "status": second}]
        assert kinds({"results": [*results, {"index": 2, "status": "accepted"}]}) == [T, T, A]
        assert kinds({"results": [results[0], *results]}) == [T, T, T]

    @pytest.mark.parametrize(
        "index", [3, 99, -1, -3, True, False, 0.0, 1.0, "0", "1", "x", None, [], {}, 2**63]
    )
    def test_an_index_that_is_none_of_the_batch_settles_nothing(self, index: object) -> None:
        bad = {"index": index, "status": "accepted"}
        assert kinds({"results": [bad]}) == [T, T, T]
        good = {"index": 1, "status": "accepted"}
        assert kinds({"results": [bad, good]}) == [T, A, T]

    @pytest.mark.parametrize(
        "result",
        [
            {"index": 1},
            {"index": 1, "status": None},
            {"index": 1, "status": ""},
            {"index": 1, "status": "pending"},
            {"index": 1, "status": 200},
            {"index": 1, "status": True},
            {"index": 1, "status": ["accepted"]},
            {"index": 1, "accepted": True},
        ],
    )
    def test_without_a_known_status_nothing_is_settled(self, result: object) -> None:
        assert kinds({"results": [result]}) == [T, T, T]

    @pytest.mark.parametrize("word", ["accepted", "ACCEPTED", "ok", "success", "duplicate"])
    def test_these_words_accept(self, word: str) -> None:
        assert kinds({"results": [{"status": word}]}, count=1) == [A]

    @pytest.mark.parametrize(
        "word", ["rejected", "Rejected", "error", "failed", "fail", "failure", "refused", "invalid"]
    )
    def test_these_words_reject(self, word: str) -> None:
        assert kinds({"results": [{"status": word}]}, count=1) == [R]

    def test_fewer_results_than_events_leave_the_others(self) -> None:
        assert kinds({"results": [{"index": 1, "status": "accepted"}]}) == [T, A, T]
        body = {"acceptedCount": 3, "results": [{"index": 1, "status": "rejected"}]}
        assert kinds(body) == [T, R, T]

    def test_more_results_than_events(self) -> None:
        results = [{"index": index, "status": "accepted"} for index in range(10)]
        assert kinds({"results": results}) == [A, A, A]

    def test_results_go_before_counts(self) -> None:
        results = [{"index": index, "status": "rejected"} for index in range(3)]
        assert kinds({"acceptedCount": 3, "results": results}) == [R, R, R]
        results = [{"index": index, "status": "accepted"} for index in range(3)]
        assert kinds({"rejectedCount": 3, "results": results}) == [A, A, A]

    @pytest.mark.parametrize("junk", [1, None, "accepted", [], ["accepted"], True])
    def test_a_result_that_is_no_object_names_nobody(self, junk: object) -> None:
        assert kinds({"results": [junk]}) == [T, T, T]
        assert kinds({"acceptedCount": 3, "results": [junk]}) == [T, T, T]
        assert kinds({"results": [junk, {"index": 1, "status": "accepted"}]}) == [T, A, T]


class TestTheServersWords:
    def words(self, **result: object) -> str:
        [verdict] = verdicts({"results": [{"status": "rejected", **result}]}, count=1)
        assert verdict.kind is R
        assert len(verdict.words) <= WORDS_CHARS
        return verdict.words

    def test_they_are_taken_from_the_first_of_three_places(self) -> None:
        assert self.words(error="a", message="b", reason="c") == "a"
        assert self.words(message="b", reason="c") == "b"
        assert self.words(reason="c") == "c"
        assert self.words() == self.words(error=None) == ""

    def test_they_are_bounded(self) -> None:
        assert self.words(error="é" * 100_000) == "é" * WORDS_CHARS
        assert self.words(error=["x" * 100_000])[:3] == '["x'

    def test_they_stay_on_one_line(self) -> None:
        """Else a server could write lines of its own into a log."""
        assert self.words(error="no\r\nERROR forged\x1b[2J\u2028") == "no  ERROR forged [2J "

    def test_what_is_not_a_string_becomes_json(self) -> None:
        assert self.words(error={"code": 7, "text": "no"}) == '{"code":7,"text":"no"}'
        assert self.words(error=0) == "0"
        assert self.words(error=False) == "false"

    @pytest.mark.parametrize("depth", [100, 253, 255, 500, 900, 990, 1000, 1010])
    def test_deep_nesting_breaks_nothing(self, depth: int) -> None:
        """Python's own `str` raises RecursionError for what orjson still reads."""
        deep = b"[" * depth + b"]" * depth
        body = b'{"results":[{"status":"rejected","error":' + deep + b"}]}"
        assert kinds(body, count=1) == [R]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
indices = st.integers(-1, 5) | json_values
statuses = st.sampled_from(["accepted", "rejected", "ok", "error", "x"]) | json_values
result_objects = st.fixed_dictionaries(
    {}, optional={"index": indices, "status": statuses, "error": json_values}
)
counts = st.integers(-1, 6) | st.integers(0, 6).map(str) | json_values
documents = st.fixed_dictionaries(
    {},
    optional={
        "acceptedCount": counts,
        "accepted_count": counts,
        "rejectedCount": counts,
        "rejected_count": counts,
        "results": st.lists(result_objects | json_values, max_size=6) | json_values,
        "error": json_values,
        "status": statuses,
        "success": json_values,
    },
)
bodies = st.binary() | st.one_of(documents, json_values).map(
    lambda value: json.dumps(value).encode()
)


@given(
    status=st.integers(-1000, 1000) | st.integers(200, 299),
    body=bodies,
    count=st.integers(0, 5),
    truncated=st.booleans(),
)
def test_any_answer_gives_one_verdict_for_each_event(
    status: int, body: bytes, count: int, truncated: bool
) -> None:
    given_verdicts = WIRE.verdicts(Response(status, body=body, truncated=truncated), count)
    assert len(given_verdicts) == count
    assert all(isinstance(verdict, Verdict) for verdict in given_verdicts)
    assert all(len(verdict.words) <= WORDS_CHARS for verdict in given_verdicts)
    if truncated or not 200 <= status <= 299:
        assert all(verdict.kind is T for verdict in given_verdicts)


@given(document=documents, count=st.integers(1, 5))
def test_accepted_is_only_what_was_clearly_named(document: dict[str, Any], count: int) -> None:
    """Said a second time, in other words: the reasons there can be to delete an event."""
    accepted = [index for index, kind in enumerate(kinds(document, count)) if kind is A]
    results = document.get("results")
    if isinstance(results, list) and results:
        named = [result.get("index", 0) for result in results if isinstance(result, dict)]
        whole = [index for index in named if type(index) is int]
        for index in accepted:
            assert whole.count(index) == 1
            [result] = [
                r for r in results if isinstance(r, dict) and _same(r.get("index", 0), index)
            ]
            assert result["status"].lower() in {"accepted", "ok", "success", "duplicate"}
    elif accepted:
        assert accepted == list(range(count))
        assert not document.get("error")
        ways = ("acceptedCount", "accepted_count", "rejectedCount", "rejected_count")
        said = {way: document[way] for way in ways if document.get(way) is not None}
        if said:
            taken = said.get("acceptedCount", said.get("accepted_count"))
            assert taken in (count, str(count))
            assert said.get("rejectedCount", said.get("rejected_count", 0)) in (0, "0")
        else:
            assert results is None


def _same(index: object, other: int) -> bool:
    return type(index) is int and index == other
