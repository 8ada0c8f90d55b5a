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
    WAIT = "wait"  # back off, then the same batch again
    HOLD = "hold"  # nothing is wrong with the events: keep all, try at a slow pace


_HOLD_FIX = {
    401: "the server refuses the api key; check api_key",
    403: "the server refuses the api key; check api_key and what it may do",
    404: "the server does not know this path; check endpoint",
    405: "the server does not take events here; check endpoint",
}


def judge(response: Response, verdicts: Sequence[Verdict]) -> tuple[Outcome, ResponseError | None]:
    """The outcome for the batch, and the error to report if it is not a clean acknowledgement."""
    status = response.status
    if 200 <= status <= 299:
        if all(verdict.kind is Kind.ACCEPTED for verdict in verdicts):
            return Outcome.SETTLED, None
        refused = sum(verdict.kind is Kind.REJECTED for verdict in verdicts)
        if refused or any(verdict.kind is Kind.ACCEPTED for verdict in verdicts):
            words = next((verdict.words for verdict in verdicts if verdict.words), "")
            return Outcome.SETTLED, _error(
                response,
                f"the server accepted {len(verdicts) - refused} of {len(verdicts)} events"
                if not words
                else f"the server refused {refused} of {len(verdicts)} events: {words}",
                retryable=True,
            )
        return Outcome.WAIT, _error(
            response,
            f"the server answered {status} with a body that acknowledges nothing; a captive"
            " portal or a proxy may have answered in its place",
            retryable=True,
        )
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
    return Outcome.WAIT, _error(response, f"the server answered {status}", retryable=True)


def _error(response: Response, message: str, *, retryable: bool) -> ResponseError:
    excerpt = response.body[: 4 * BODY_EXCERPT_CHARS].decode("utf-8", "replace")
    return ResponseError(message, status=response.status, body=excerpt, retryable=retryable)
