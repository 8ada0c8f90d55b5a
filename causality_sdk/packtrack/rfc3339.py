"""Times as RFC 3339 writes them, section 5.6, and back. Pure.

Invariant: no precision is lost: the fraction stays as it was written, however many digits it has.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from causality_sdk.errors import EventError
from causality_sdk.plain import show

EXAMPLE = "2026-01-31T12:00:00Z or 2026-01-31T13:00:00.25+01:00"
TEXT_CHARS = 64  # longest text that is taken; 38 digits of a second's fraction are enough

# date-time of section 5.6. Its strings are ABNF, where "T" and "t" are the same.
_DATE_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})T(\d{2}):(\d{2}):(\d{2})(\.\d+)?(?:Z|([+-])(\d{2}):(\d{2}))",
    re.ASCII | re.IGNORECASE,
)
_EPOCH = datetime(1970, 1, 1)  # in UTC, as every naive datetime here
_MINUTE = timedelta(minutes=1)
_MILLISECOND = timedelta(milliseconds=1)


def from_datetime(moment: datetime, name: str = "timestamp") -> str:
    """`moment` as RFC 3339, in its own offset. Raises `EventError` for a naive one."""
    offset = moment.utcoffset()
    if offset is None:
        raise EventError(
            f"{name} {moment.isoformat()} has no time zone; use datetime.now(timezone.utc) or"
            " .astimezone()"
        )
    # The standard has no seconds in an offset; local mean times of old have.
    if offset % _MINUTE:
        try:
            moment = moment.astimezone(timezone.utc)
        except OverflowError as error:
            raise EventError(f"{name} {moment.isoformat()} is out of range: {error}") from None
    text = moment.isoformat()
    text = text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
    return checked(text, name)


def checked(text: str, name: str = "timestamp") -> str:
    """`text` with a capital T and Z, if it is a date-time of RFC 3339. Raises `EventError`."""
    _in_utc(text, name)
    return text.upper()


def milliseconds(text: str, name: str = "timestamp") -> int:
    """Milliseconds since the epoch, rounded down. A leap second counts as the one after it."""
    moment, fraction = _in_utc(text, name)
    # By digits, not as a float: .999999999 must not become the next second.
    return (moment - _EPOCH) // _MILLISECOND + int(f"{fraction[1:4]:0<3}")


def _in_utc(text: str, name: str) -> tuple[datetime, str]:
    """The moment without its fraction, and the fraction with its dot, or nothing."""
    match = _DATE_TIME.fullmatch(text) if len(text) <= TEXT_CHARS else None
    if match is None:
        raise EventError(
            f"{name} must be a date and time of RFC 3339 with an offset, such as {EXAMPLE},"
            f" got {show(text)}"
        )
    date, hour, minute, second, fraction, sign, offset_hour, offset_minute = match.groups()
    try:
        # A leap second, 60, is no second of datetime's.
        moment = datetime.fromisoformat(f"{date}T{hour}:{minute}:{min(second, '59')}")
        if int(second) > 60:
            raise ValueError("second must be in 0..60")
        offset = _offset(sign, offset_hour, offset_minute)
        moment -= offset
        if second == "60":
            moment += timedelta(seconds=1)
            # Section 5.7: it is the last second of a month, in UTC.
            if (moment.day, moment.hour, moment.minute) != (1, 0, 0):
                raise ValueError("second 60 is for a leap second, at the end of a month in UTC")
    except (ValueError, OverflowError) as error:
        raise EventError(f"{name} is no time that exists, got {show(text)}: {error}") from None
    return moment, fraction or ""


def _offset(sign: str | None, hours: str, minutes: str) -> timedelta:
    if sign is None:
        return timedelta(0)
    if int(hours) > 23 or int(minutes) > 59:
        raise ValueError("the offset must be between -23:59 and +23:59")
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return -offset if sign == "-" else offset
