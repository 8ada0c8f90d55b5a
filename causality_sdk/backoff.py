"""How long to wait before the next attempt. Pure: no clock is read and nothing sleeps here."""

from __future__ import annotations

import random
from datetime import datetime, timezone

RETRY_AFTER_MAX = 3600.0  # seconds; a server that asks for more is asked again after an hour


def backoff_delay(
    attempt: int, *, initial: float, maximum: float, jitter: float, rng: random.Random
) -> float:
    """Seconds to wait after the `attempt`-th failure in a row (1 is the first).

    Exponential, doubled each time up to `maximum`. `jitter` is the part of the delay that is
    random: 1.0 is full jitter, anything between 0 and the exponential delay, which spreads the
    clients of a server that comes back best ("Exponential Backoff And Jitter", M. Brooker, AWS
    Architecture Blog, 2015); 0.0 is none.
    """
    # The exponent is bounded since 2.0 ** 1024 overflows, and an outage can last that long.
    ceiling = min(maximum, initial * 2.0 ** min(attempt - 1, 62))
    return ceiling * (1.0 - jitter) + ceiling * jitter * rng.random()


def retry_after_seconds(value: str | None, *, now: float) -> float | None:
    """Seconds a `Retry-After` header asks for, or None if there is none or it cannot be read.

    Takes both forms of RFC 9110, section 10.2.3: delay in seconds, or an HTTP date, which is
    compared with `now` (seconds since the epoch). The result lies in 0 to `RETRY_AFTER_MAX`.
    """
    if value is None:
        return None
    text = value.strip()
    # isascii: str.isdigit() is true for digits that int() reads and no server means
    if text.isascii() and text.isdigit():
        # Long digit strings make int() quadratic and, from 4,300 digits, an error.
        seconds = float(text) if len(text) <= 300 else RETRY_AFTER_MAX
    else:
        try:
            date = _parsed(text)
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
        if date.tzinfo is None:  # "-0000" parses as naive; HTTP dates are always GMT
            date = date.replace(tzinfo=timezone.utc)
        seconds = (date - datetime.fromtimestamp(now, timezone.utc)).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_MAX)


def _parsed(text: str) -> datetime:
    # Loaded when a server sends a date: it is a tenth of what `import causality_sdk` takes.
    from email.utils import parsedate_to_datetime

    return parsedate_to_datetime(text)
