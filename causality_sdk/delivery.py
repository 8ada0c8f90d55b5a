"""What an answer means for the batch as a whole. Pure: the sender acts on it.

Neighbours: `wire.base` for what is judged. The wire says what happened to each event; this says
whether to go on, to wait, or to wait long, and in which words it is reported. Invariant: nothing
here can delete an event.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from causality_sdk.errors import BODY_EXCERPT_CHARS, ResponseError
from causality_sdk.wire.base import Kind, Response, Verdict


class Outcome(enum.Enum):
    """What the sender does about a batch."""

    SETTLED = "settled"  # each event got a verdict: go on with the next
    REFUSED = "refused"  # for some event's sake: bisect
    TOO_LARGE = "too large"  # send less at once
    BUSY = "busy"  # back off; it may be the size
    WAIT = "wait"  # back off
    HOLD = "hold"  # nothing is wrong with the events: keep all, try at a slow pace


_HOLD_FIX = {
    401: "the server refuses the api key; check api_key",
    403: "the server refuses the api key; check api_key and what it may do",
    404: "the server does not know this path; check endpoint",
    405: "the server does not take events here; check endpoint",
    407: "the proxy asks for a user name and a password; put them into the URL in proxies",
}


def judge(response: Response, verdicts: Sequence[Verdict]) -> tuple[Outcome, ResponseError | None]:
    """The outcome for the batch, and the error to report if it is not a clean acknowledgement."""
    status = response.status
    if 200 <= status <= 299:
        if all(verdict.kind is Kind.ACCEPTED for verdict in verdicts):
            return Outcome.SETTLED, None
        accepted = sum(verdict.kind is Kind.ACCEPTED for verdict in verdicts)
        refused = sum(verdict.kind is Kind.REJECTED for verdict in verdicts)
        if accepted or refused:
            words = next((verdict.words for verdict in verdicts if verdict.words), "")
            return Outcome.SETTLED, _error(
                response,
                f"the server accepted {accepted} of {len(verdicts)} events and refused {refused}"
                + (f": {words}" if words else ""),
                retryable=True,
            )
        return Outcome.WAIT, _error(response, _nothing_settled(response), retryable=True)
    if 300 <= status <= 399:
        return Outcome.HOLD, _error(
            response,
            f"the server answered {status}, a redirect, which is never followed; give endpoint"
            " the address it points to",
            retryable=False,
        )
    if status in _HOLD_FIX:
        return Outcome.HOLD, _error(
            response, f"the server answered {status}: {_HOLD_FIX[status]}", retryable=False
        )
    if status in (400, 422):
        words = f"the server answered {status}: it refuses an event, or the batch as a whole"
        return Outcome.REFUSED, _error(response, words, retryable=True)
    if status == 413:
        words = "the server answered 413: the request is too large for it"
        return Outcome.TOO_LARGE, _error(response, words, retryable=True)
    outcome = Outcome.BUSY if status >= 500 else Outcome.WAIT
    return outcome, _error(response, f"the server answered {status}", retryable=True)


def _nothing_settled(response: Response) -> str:
    said = f"the server answered {response.status} with a body that acknowledges nothing; "
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        return said + "it is compressed, though an uncompressed one was asked for"
    if response.truncated:
        return said + "it is longer than any acknowledgement"
    if response.body.lstrip()[:1] == b"{":
        return said + "it does not say that all events were accepted, nor which"
    return said + "a captive portal or a proxy may have answered in its place"


def _error(response: Response, message: str, *, retryable: bool) -> ResponseError:
    excerpt = response.body[: 4 * BODY_EXCERPT_CHARS].decode("utf-8", "replace")
    return ResponseError(message, status=response.status, body=excerpt, retryable=retryable)
