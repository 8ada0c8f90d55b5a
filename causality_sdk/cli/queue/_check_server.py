"""What `queue doctor` asks of the server: reachable, right key, right path, right time.

Neighbours: `doctor` shows the findings, `health` makes the requests. Invariant: no event is sent;
the key is tried with a batch of none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

from causality_sdk.cli.drain import wire_of
from causality_sdk.cli.health import Answer, ask
from causality_sdk.cli.output import Output, age
from causality_sdk.cli.queue._finding import Finding
from causality_sdk.config import Config
from causality_sdk.delivery import excerpt, why_no_acknowledgement
from causality_sdk.wire.base import Request, Wire

CLOCK_SECONDS = 120.0
"""How wrong the clock may be. The Date header has no fractions, and answers take their time."""

_FIXES = {
    "dns": "check the host in endpoint, and the name server of this machine",
    "refused": "check the port in endpoint, and whether the server runs",
    "unreachable": "check the network of this machine, its routes and its firewall",
    "tls": "check the clock, the server's certificate, and verify (the CA bundle)",
    "timeout": "check the network and the server; a larger timeout helps a slow one",
    "proxy": "check proxies, and HTTP_PROXY and HTTPS_PROXY in the environment",
}


def check_server(config: Config, out: Output) -> Iterator[Finding]:
    """Findings about it. Asks twice at most."""
    subject = f"server {config.endpoint}"
    wire = wire_of(config)
    health: Answer | None = None
    if wire.health_path:
        health = ask(config, out, Request(path=wire.health_path, method="GET", body=b""))
        if health.error is not None:
            yield _unreachable(subject, health)
            return
    try:
        nothing = wire.frame([])
    except ValueError:
        nothing = None  # a wire that has no batch of no events
    batch = None if nothing is None else ask(config, out, nothing)
    if batch is not None and batch.error is not None:
        yield _unreachable(subject, batch)
        return
    if health is not None and not health.ok:
        yield Finding(
            "problem" if health.trouble is not None and health.trouble.retryable else "note",
            subject,
            f"says that it is not well: {health.trouble}",
            "ask whoever runs it",
        )
    elif health is not None:
        yield Finding("ok", subject, f"answers after {health.seconds * 1000:.0f} ms")
    if batch is not None:
        yield _acknowledgement(subject, wire, batch) or key_finding(
            subject, batch.status or 0, _words(batch)
        )
    yield from _clock(batch or health)


def _acknowledgement(subject: str, wire: Wire, batch: Answer) -> Finding | None:
    """A 2xx that would not acknowledge a batch: events would be sent for ever."""
    response = batch.response
    if response is None or not 200 <= response.status <= 299:
        return None
    trouble = why_no_acknowledgement(response, wire.verdicts(response, 1))
    if trouble is None:
        return None
    return Finding(
        "problem",
        subject,
        str(trouble),
        "look at what answers there: an acknowledgement is an empty body or a JSON object",
    )


def _words(answer: Answer) -> str:
    return "" if answer.response is None else excerpt(answer.response.body)


def key_finding(subject: str, status: int, words: str = "") -> Finding:
    """What the answer to a batch of no events says about the key and the path.

    `words` are the server's own.
    """
    said = f"{status}: {words}" if words else str(status)
    if status in (401, 403):
        return Finding(
            "problem", subject, f"refuses the api key ({said})", "check api_key; causality config"
        )
    if status in (404, 405) or 300 <= status <= 399:
        return Finding(
            "problem",
            subject,
            f"does not take events at this address ({said})",
            "check endpoint: it is the base URL, without a path of its own to events",
        )
    if status >= 500:
        return Finding("problem", subject, f"fails ({said})", "ask whoever runs it")
    if status >= 400:
        # A batch of none may well be a 400; that it got so far says that the key is good.
        return Finding(
            "note",
            subject,
            f"takes the api key, and refuses a batch of no events ({said})",
            "send one event to be sure: causality send test",
        )
    return Finding("ok", subject, f"takes the api key ({status})")


def clock_finding(date: str, now: float) -> Finding | None:
    """What the server's Date header (RFC 9110, section 6.6.1) says about the clock of this machine.

    `now` in seconds since the epoch. None if the header says nothing.
    """
    try:
        server = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None
    difference = now - server
    if abs(difference) <= CLOCK_SECONDS:
        return Finding("ok", "clock", f"within {CLOCK_SECONDS:.0f} s of the server's")
    direction = "fast" if difference > 0 else "slow"
    return Finding(
        "problem",
        "clock",
        f"{age(abs(difference))} {direction}, by the server's Date header",
        "set it (timedatectl set-ntp true); events carry the time of this machine",
    )


def _clock(answer: Answer | None) -> Iterator[Finding]:
    if answer is None or answer.response is None:
        return
    finding = clock_finding(answer.response.headers.get("date", ""), time.time())
    if finding is not None:
        yield finding


def _unreachable(subject: str, answer: Answer) -> Finding:
    reason = "other" if answer.error is None else answer.error.reason
    return Finding(
        "problem",
        subject,
        f"cannot be reached: {answer.error}",
        _FIXES.get(reason, "check endpoint and the network"),
    )
