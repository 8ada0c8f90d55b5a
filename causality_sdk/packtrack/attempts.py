"""One request of a synchronous call, tried until it is acknowledged, refused or given up.

Neighbours: `client` says what to send, a transport carries it, `backoff` says how long to wait.
Runs on the thread of the caller. Invariant: a retry is the same request, byte for byte, under the
same idempotency key.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from causality_sdk.backoff import backoff_delay, retry_after_seconds
from causality_sdk.errors import (
    BODY_EXCERPT_CHARS,
    DeliveryError,
    IngestRefused,
    ResponseError,
    RetriesExhausted,
    TransportError,
)
from causality_sdk.packtrack.config import PackTrackConfig
from causality_sdk.transport.base import Transport
from causality_sdk.wire.base import Request, Response
from causality_sdk.wire.packtrack import acknowledges

_PASSING = frozenset({408, 425, 429})  # besides every 5xx: they may be over the next time
_CODING_REFUSED = frozenset({400, 415})  # what a server says that cannot read gzip

_FIX = {
    401: "the api key is wrong; check api_key",
    403: "the api key may not do this; check api_key and its rights",
    404: "it does not know this path; check base_url",
    405: "it does not take events here; check base_url",
    407: "the proxy asks for a user name and a password; put them into the URL in proxies",
    413: "the request is too large for it; send fewer events at once (batch_size)",
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """For `on_attempt`: one attempt of a synchronous call is over."""

    path: str
    number: int
    """Of the attempts with this request; 1 is the first."""
    events: int
    bytes: int
    """Of the body, before compression."""
    seconds: float
    """That it took."""
    status_code: int | None
    """None where no answer came."""
    error: DeliveryError | None
    """None for an acknowledgement."""
    retry_in: float | None
    """Seconds until the next attempt; None if there is none."""


def is_passing(status: int) -> bool:
    """Whether the same request may succeed later, by the status of its answer."""
    # A 2xx that acknowledges nothing is a proxy or a captive portal, which goes away.
    return status in _PASSING or status >= 500 or 200 <= status <= 299


class Retrying:
    """The policy of one client. Stateless after construction; any thread may call it.

    `sleep` takes seconds, `now` gives seconds since the epoch, `rng` the jitter.
    """

    def __init__(
        self,
        config: PackTrackConfig,
        *,
        sleep: Callable[[float], object] = time.sleep,
        now: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._sleep = sleep
        self._now = now
        self._rng = random.Random() if rng is None else rng  # noqa: S311 (jitter is no secret)

    def send(
        self, transport: Transport, request: Request, *, events: int, timeout: float | None
    ) -> tuple[Response, int]:
        """The acknowledgement, and the attempts it took.

        Raises `IngestRefused`, or `RetriesExhausted`.
        """
        config = self._config
        timeout = config.timeout if timeout is None else timeout
        again = 1  # attempts that are owed at once: after a stale connection, or a refused coding
        number = 0
        failures = 0
        while True:
            number += 1
            started = time.monotonic()
            response, error = _attempt(transport, request, timeout)
            seconds = time.monotonic() - started
            status = None if response is None else response.status
            delay: float | None = None
            if error is not None and again and self._is_owed(request, error):
                again -= 1
                delay = 0.0
            elif error is not None and error.retryable:
                failures += 1
                delay = self._delay(failures, response)
            self._observe(
                Attempt(
                    path=request.path,
                    number=number,
                    events=events,
                    bytes=len(request.body),
                    seconds=seconds,
                    status_code=status,
                    error=error,
                    retry_in=delay,
                )
            )
            if error is None:
                assert response is not None  # noqa: S101 (for the type checker)
                return response, number
            if delay is None:
                raise self._given_up(error, response, number) from error
            if delay > 0:
                self._sleep(delay)

    def _is_owed(self, request: Request, error: DeliveryError) -> bool:
        """Whether there is to be another attempt at once, which is no retry."""
        if isinstance(error, TransportError):
            return error.stale  # the server closed an idle connection, as servers do
        refused = isinstance(error, ResponseError) and error.status in _CODING_REFUSED
        # The transport sends it plain this time, unless gzip was accepted before.
        return refused and self._config.gzip and bool(request.body)

    def _delay(self, failures: int, response: Response | None) -> float | None:
        """Seconds to wait after so many failures, or None if this was the last attempt."""
        config = self._config
        if failures > config.retries:
            return None
        asked = None
        if response is not None:
            asked = retry_after_seconds(response.headers.get("retry-after"), now=self._now())
        if asked is not None and asked > config.retry_after_max:
            return None
        delay = backoff_delay(
            failures,
            initial=config.backoff_initial,
            maximum=config.backoff_max,
            jitter=config.jitter,
            rng=self._rng,
        )
        return delay if asked is None else max(asked, delay)

    def _given_up(
        self, error: DeliveryError, response: Response | None, attempts: int
    ) -> IngestRefused | RetriesExhausted:
        status = None if response is None else response.status
        body = error.body if isinstance(error, ResponseError) else ""
        tries = f"{attempts} attempt" + ("s" if attempts > 1 else "")
        if not error.retryable:
            return IngestRefused(str(error), status_code=status, body=body, attempts=attempts)
        words = f"given up after {tries}: {error}"
        wait = None if response is None else response.headers.get("retry-after")
        if wait is not None:
            words += f"; it asks to wait (Retry-After: {wait[:40]})"
        return RetriesExhausted(words, status_code=status, body=body, attempts=attempts)

    def _observe(self, attempt: Attempt) -> None:
        logger = self._config.logger
        if logger is not None and attempt.error is not None:
            what = "no retry" if attempt.retry_in is None else f"retry in {attempt.retry_in:.3g} s"
            logger.warning(
                "packtrack: attempt %d at %s failed, %s: %s",
                attempt.number,
                attempt.path,
                what,
                attempt.error,
            )
        elif logger is not None:
            logger.debug(
                "packtrack: attempt %d at %s: %d events, %d bytes, answered %s after %.3g s",
                attempt.number,
                attempt.path,
                attempt.events,
                attempt.bytes,
                attempt.status_code,
                attempt.seconds,
            )
        if self._config.on_attempt is None:
            return
        try:
            self._config.on_attempt(attempt)
        except Exception:
            if logger is not None:
                logger.exception("packtrack: on_attempt raised; it is called again next time")


def _attempt(
    transport: Transport, request: Request, timeout: float
) -> tuple[Response | None, DeliveryError | None]:
    """What came back, and what is wrong with it."""
    try:
        response = transport.send(request, timeout)
    except TransportError as error:
        return None, error
    return response, None if acknowledges(response) else _complaint(response)


def _complaint(response: Response) -> ResponseError:
    status = response.status
    if 300 <= status <= 399:
        words = "a redirect, which is never followed; give base_url the address it points to"
    elif 200 <= status <= 299:
        words = "a page, no acknowledgement; a captive portal or a proxy may have answered"
    else:
        words = _FIX.get(status, "it may pass" if is_passing(status) else "it refuses the request")
    excerpt = response.body[: 4 * BODY_EXCERPT_CHARS].decode("utf-8", "replace")
    said = " ".join(excerpt[:200].split())
    return ResponseError(
        f"the server answered {status}: {words}" + (f" ({said})" if said else ""),
        status=status,
        body=excerpt,
        retryable=is_passing(status),
    )
