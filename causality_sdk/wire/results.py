"""Reads the answer of a Causality server, whichever of its formats the request had.

Neighbours: `causality` and `causality_proto`. Pure. Invariant: an event counts as accepted only
where the answer clearly says so, of that very event or of the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from causality_sdk.wire.base import ACCEPTED, RETRY, WORDS_CHARS, Kind, Response, Verdict

_BOM = b"\xef\xbb\xbf"  # some frameworks begin every answer with it, an empty one too
_ACCEPTED_WORDS = frozenset({"accepted", "ok", "success", "duplicate"})
_REJECTED_WORDS = frozenset(
    {"rejected", "error", "errors", "failed", "fail", "failure", "invalid", "refused"}
)

# How a body with status 200 says that it failed, by the names of its members as `_name` has them.
# Members that tell what went wrong, if they hold anything:
_TROUBLE = frozenset(
    {"error", "errors", "errormessage", "errormsg", "errorcode", "errordescription", "errortype"}
    | {"exception", "fault", "failure", "failures", "detail"}
)
# Members that are false, or 0, where it failed:
_SUCCESS = frozenset({"success", "successful", "succeeded", "ok", "acknowledged", "accepted"})
# Members that count, or list, what was not taken:
_NOT_TAKEN = frozenset(
    {"rejected", "failed", "invalid", "dropped", "errorcount", "failedcount", "failurecount"}
    | {"invalidcount", "droppedcount"}
)
# Members that hold a word, or the code of a status:
_STATUS = frozenset({"status", "state", "result", "outcome", "type", "message"})
_CODE = frozenset({"status", "statuscode", "code", "httpstatus", "httpstatuscode", "httpcode"})
_FAILED_WORDS = _REJECTED_WORDS | {
    "denied", "forbidden", "unauthorized", "unavailable", "exception", "timeout", "throttled",
    "ko", "nok", "not ok", "not_ok", "bad request", "internal server error", "access denied",
}  # fmt: skip
_YES = frozenset({"true", "yes", "ok"})
_NOTHING = frozenset({"", "0", "false", "no", "none", "null"})  # of texts that stand for no value


def read_results(response: Response, count: int, *, counted: bool = False) -> Sequence[Verdict]:
    """Per-event results where there are any, else the whole batch by its counts.

    A body that is not JSON is no acknowledgement: captive portals and proxies answer 200 with a
    page of their own. `counted`: this server always counts, so that a body without counts says
    that it accepted nothing.
    """
    nothing = [RETRY] * count
    if not 200 <= response.status <= 299 or response.truncated:
        return nothing
    body = response.body.removeprefix(_BOM).strip()
    if not body:
        return nothing if counted else [ACCEPTED] * count
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return nothing
    if not isinstance(document, Mapping):
        return nothing  # a bare "OK" or a list is JSON, and says nothing about our events
    results = document.get("results")
    if isinstance(results, list) and results:
        return _by_result(results, count)
    return [ACCEPTED] * count if _covered(document, count, counted=counted) else nothing


def _covered(document: Mapping[str, Any], count: int, *, counted: bool) -> bool:
    """Whether a body without results lets the whole batch count as accepted."""
    if _is_refusal(document):
        return False
    accepted = _first(document, "acceptedCount", "accepted_count")
    if accepted is None:
        accepted = _flag_or_count(document.get("accepted"))
    # Events that it has already: after an answer that was lost, all of them may be.
    known = _flag_or_count(_first(document, "duplicates", "duplicateCount", "duplicate_count"))
    rejected = _first(document, "rejectedCount", "rejected_count")
    if accepted is None and rejected is None and not counted:
        # A body that speaks of no events acknowledges by its status. Results that name none, or
        # that cannot be read, do speak of events.
        return document.get("results") is None
    # Protobuf leaves zero values out: {"rejectedCount": 3} accepted nothing.
    taken = _number(accepted), _number(known), _number(rejected)
    return None not in taken and taken[2] == 0 and (taken[0] or 0) + (taken[1] or 0) == count


def _is_refusal(document: Mapping[str, Any]) -> bool:
    """Whether the body says that it failed: some gateways answer 200 to everything."""
    for key, value in document.items():
        name = key.replace("_", "").replace("-", "").lower()
        if name in _TROUBLE and not (_is_nothing(value) and _word(value) != "no"):
            return True
        no_success = name in _SUCCESS and value is not None and _is_nothing(value)
        if no_success and not (name == "accepted" and _is_count(value)):
            return True
        if name in _NOT_TAKEN and not _is_nothing(value):
            return True
        if name in _STATUS and (value is False or _word(value) in _FAILED_WORDS):
            return True
        if name in _CODE and _is_code_of_failure(value):
            return True
    return False


def _is_nothing(value: object) -> bool:
    """Whether a member says no, none or 0, in whatever type."""
    return value.strip().lower() in _NOTHING if isinstance(value, str) else not value


def _is_code_of_failure(value: object) -> bool:
    """Whether it is a status of HTTP for a failure, as a number or as its text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        value = int(value)
    return isinstance(value, (int, float)) and 400 <= value <= 599


def _is_count(value: object) -> bool:
    """Whether "accepted" counts, and does not say yes or no: 0 where all were known already."""
    return isinstance(value, list) or (
        not isinstance(value, bool) and value is not None and _number(value) is not None
    )


def _flag_or_count(value: object) -> object:
    """The number in a member that some servers have as a flag or as a list instead; else None."""
    if isinstance(value, list):
        return len(value)
    if isinstance(value, (bool, Mapping)) or _word(value) in _YES:
        return None
    return value


def _number(value: object) -> int | None:
    """A count: a number, or the decimal string that protobuf's JSON makes of an int64. None in the
    document is 0; the answer is None for what is no count.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value) if value == str(int(value)) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None:
        return 0
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _by_result(results: Sequence[object], count: int) -> Sequence[Verdict]:
    """One verdict per event that exactly one result names; nothing for all the others."""
    found: dict[int, Verdict] = {}
    named_twice: set[int] = set()
    for result in results:
        if not isinstance(result, Mapping):
            continue
        index = result.get("index", 0)  # left out where it is zero
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            continue
        if index in found:
            named_twice.add(index)
            continue
        found[index] = _verdict(result)
    return [
        found[index] if index in found and index not in named_twice else RETRY
        for index in range(count)
    ]


def _verdict(result: Mapping[str, Any]) -> Verdict:
    word = _word(result.get("status"))
    if word in _ACCEPTED_WORDS:
        return ACCEPTED
    if word in _REJECTED_WORDS:
        return Verdict(Kind.REJECTED, _words(_first(result, "error", "message", "reason")))
    return RETRY


def _word(status: object) -> str:
    return status.strip().rstrip(".!").lower() if isinstance(status, str) else ""


def _words(value: object) -> str:
    """The server's words on one line, bounded. They go to logs and into the queue."""
    if value is None:
        return ""
    if not isinstance(value, str):
        try:
            value = orjson.dumps(value).decode()
        except orjson.JSONEncodeError:  # deeper than it writes, though not than it reads
            return "(words that are nested too deeply)"
    # Cut first: what is longer is not worth looking at.
    return "".join(c if c.isprintable() else " " for c in value[:WORDS_CHARS])


def _first(document: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if document.get(name) is not None:
            return document[name]
    return None
