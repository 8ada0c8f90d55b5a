"""What an answer means for the batch as a whole. Pure: the sender acts on it.

Neighbours: `wire.base` for what is judged. The wire says what happened to each event; this says
whether to go on, to wait, or to wait long, and in which words it is reported. Invariant: nothing
here can delete an event.
"""

from __future__ import annotations

import enum
import re
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
_EXCERPT_CHARS = 200  # of the server's words in a message; `ResponseError.body` has more


def judge(
    response: Response, verdicts: Sequence[Verdict], *, url: str = ""
) -> tuple[Outcome, ResponseError | None]:
    """The outcome for the batch, and the error to report if it is not a clean acknowledgement.

    `url` is what was asked; it is named where it may be wrong.
    """
    status = response.status
    said = f"the server answered {status}"
    asked = f"{said} to {url}" if url else said
    if 200 <= status <= 299:
        if all(verdict.kind is Kind.ACCEPTED for verdict in verdicts):
            return Outcome.SETTLED, None
        accepted = sum(verdict.kind is Kind.ACCEPTED for verdict in verdicts)
        refused = sum(verdict.kind is Kind.REJECTED for verdict in verdicts)
        if accepted or refused:
            words = next((verdict.words for verdict in verdicts if verdict.words), "")
            error = ResponseError(
                f"the server accepted {accepted} of {len(verdicts)} events and refused {refused}"
                + (f": {words}" if words else ""),
                status=status,
                body=_body(response),
                retryable=True,
            )
            return Outcome.SETTLED, error
        outcome = Outcome.TOO_LARGE if _is_long_answer(response) else Outcome.WAIT
        return outcome, _error(response, _nothing_settled(response, asked), retryable=True)
    if 300 <= status <= 399:
        to = "".join(c for c in response.headers.get("location", "") if c.isprintable())
        where = f": {to[:_EXCERPT_CHARS]}" if to else ""
        return Outcome.HOLD, _error(
            response,
            f"{asked}, a redirect, which is never followed; give endpoint the address it points"
            f" to{where}",
            retryable=False,
        )
    if status in _HOLD_FIX:
        words = f"{asked}: {_HOLD_FIX[status]}"
        return Outcome.HOLD, _error(response, words, retryable=False)
    if status in (400, 422):
        words = f"{said}: it refuses an event, or the batch as a whole"
        return Outcome.REFUSED, _error(response, words, retryable=True)
    if status == 413:
        words = f"{said}: the request is too large for it"
        return Outcome.TOO_LARGE, _error(response, words, retryable=True)
    outcome = Outcome.BUSY if status >= 500 else Outcome.WAIT
    return outcome, _error(response, said, retryable=True)


def why_not_well(response: Response, *, url: str = "") -> ResponseError | None:
    """What speaks against the answer to a question for the server's health; None if nothing does.

    A captive portal answers everything with 200 and a page of its own, and a proxy with its own.
    """
    status = response.status
    asked = f"the server answered {status}" + (f" to {url}" if url else "")
    if not 200 <= status <= 299:
        return _error(response, asked, retryable=status >= 500)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _PAGES or response.body.lstrip()[:1] == b"<":
        return _error(
            response,
            f"{asked} with a page for people; a captive portal or a proxy may have answered in its"
            " place",
            retryable=True,
        )
    return None


def why_no_acknowledgement(
    response: Response, verdicts: Sequence[Verdict], *, url: str = ""
) -> ResponseError | None:
    """What would keep this answer, to a batch of no events, from acknowledging one with events.

    `verdicts` are the wire's, for one event. A JSON object may say that it took none, rightly.
    """
    if response.body.lstrip()[:1] == b"{" and not response.truncated:
        return None
    return judge(response, verdicts, url=url)[1]


_PAGES = frozenset({"text/html", "application/xhtml+xml"})


def _is_long_answer(response: Response) -> bool:
    """Whether it speaks of so many events that it is longer than what is read."""
    return response.truncated and response.body.lstrip()[:1] == b"{"


def _nothing_settled(response: Response, asked: str) -> str:
    said = f"{asked} with a body that acknowledges nothing; "
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        return said + "it is compressed, though an uncompressed one was asked for"
    if response.truncated:
        return said + "it is longer than any acknowledgement"
    if response.body.lstrip()[:1] == b"{":
        return said + "it does not say that all events were accepted, nor which"
    return (
        said + "an acknowledgement is an empty body or a JSON object; a captive portal or a proxy"
        " may have answered in its place"
    )


def excerpt(body: bytes, most: int = _EXCERPT_CHARS) -> str:
    """The server's words on one line, without tags and what cannot be printed; bounded."""
    text = body[: 16 * most].decode("utf-8", "replace")
    if text.lstrip()[:1] == "<":
        text = _TAGS.sub(" ", text)
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


# What is between the tags of a script or a style is for nobody to read. Each alternative ends at
# a fixed text, and nothing in them repeats inside a repetition: linear, whatever a server sends.
_TAGS = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|<[^>]*>?", re.DOTALL | re.IGNORECASE)


def _error(response: Response, message: str, *, retryable: bool) -> ResponseError:
    words = excerpt(response.body)
    return ResponseError(
        f"{message}: {words}" if words else message,
        status=response.status,
        body=_body(response),
        retryable=retryable,
    )


def _body(response: Response) -> str:
    return response.body[: 4 * BODY_EXCERPT_CHARS].decode("utf-8", "replace")
