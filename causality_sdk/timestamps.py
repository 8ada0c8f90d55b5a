"""The time of an event as milliseconds since the epoch, from what a caller gives.

Neighbour: `event`. Pure. Invariant: what comes out is the moment that was meant, to the
millisecond; a number that is probably in another unit raises `EventError`.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

from causality_sdk.errors import EventError
from causality_sdk.plain import show

MAX_TIMESTAMP_MS = 253_402_300_799_999  # the end of the year 9999, the last that datetime knows
SECONDS_BELOW = 10**12  # milliseconds until 2001-09-09: a smaller number is one of seconds

_EPOCH = datetime(1970, 1, 1)  # in UTC, but without saying so: offsets are subtracted by hand
_MILLISECOND = timedelta(milliseconds=1)


def to_milliseconds(value: object) -> int:
    """Of an aware datetime, or of whole milliseconds. Raises `EventError`."""
    if isinstance(value, datetime):
        offset = value.utcoffset()
        if offset is None:
            raise EventError(
                f"timestamp {value.isoformat()} has no time zone; use datetime.now(timezone.utc)"
                " or .astimezone()"
            )
        # Whole numbers all the way: as a float, .timestamp() is off by a millisecond now and then.
        milliseconds = (value.replace(tzinfo=None) - _EPOCH - offset) // _MILLISECOND
    elif isinstance(value, int) and not isinstance(value, bool):
        milliseconds = int(value)
        if 0 < milliseconds < SECONDS_BELOW:
            day = (_EPOCH + timedelta(milliseconds=milliseconds)).date()
            raise EventError(
                f"timestamp {milliseconds} would be {day} as milliseconds since the epoch; if it is"
                " seconds, multiply it by 1000; a time before 2001-09-09 must be given as an aware"
                " datetime (in JSON and in a shell as 1999-12-31T00:00:00Z)"
            )
    else:
        hint = "for seconds use int(seconds * 1000)"
        if isinstance(value, (str, date)):
            hint = "use datetime.fromisoformat(...), with a zone"
        raise EventError(
            f"timestamp must be an aware datetime or whole milliseconds, got {show(value)}; {hint}"
        )
    if not 0 < milliseconds <= MAX_TIMESTAMP_MS:
        hint = "; for nanoseconds use // 1_000_000" if milliseconds > MAX_TIMESTAMP_MS else ""
        raise EventError(
            f"timestamp must lie between 1 and {MAX_TIMESTAMP_MS} milliseconds since the epoch"
            f" (1970 to 9999), got {show(milliseconds)}{hint}"
        )
    return milliseconds


def at(milliseconds: int) -> datetime | int:
    """A time that is known to be in milliseconds, however small, for `timestamp`."""
    if not 0 < milliseconds < SECONDS_BELOW:
        return milliseconds
    return _EPOCH.replace(tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)
