"""Reads events from NDJSON: one JSON object a line, the file plain or compressed with gzip.

Neighbours: commands that take a file of events. Invariant: every event that comes out of here can
be tracked as it is, but for its size; what cannot be is an `InputError` that names the line.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import stat
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import orjson

from causality_sdk.cli.exits import InputError
from causality_sdk.errors import EventError
from causality_sdk.event import Encoder, Event
from causality_sdk.option_names import FIELDS, meant
from causality_sdk.timestamps import at

_GZIP = b"\x1f\x8b"
_UTF8_MARK = codecs.BOM_UTF8
_WIDE_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MARKS = (_UTF8_MARK, *_WIDE_MARKS)
"""What a text may begin with to say in which encoding it is; programs of Windows write them."""
_FIELDS = {
    "event_type", "properties", "timestamp_ms", "app_id", "device_id", "user_id", "session_id",
    "idempotency_key",
}  # fmt: skip
_LONG_NUMBER = re.compile(rb"\d{19}")
_INT64, _UINT64 = -(2**63), 2**64


def read_events(path: Path) -> Iterator[tuple[int, Event]]:
    """Line numbers, from 1, and events; lines of white space are passed over. Raises `InputError`.

    A line has the fields of an event, `event_type` at least: the same that are sent.
    """
    encoder = Encoder("app", max_event_bytes=2**63)
    for number, line in _lines(path):
        try:
            event = parse_event(line)
            encoder.encode_event(event)
        except (ValueError, RecursionError) as error:  # an EventError is a ValueError
            raise InputError(f"{path}, line {number}: {error}") from error
        yield number, event


def parse_event(line: bytes) -> Event:
    """The event of one line. Raises `ValueError`, which says what is wrong but not where.

    A whole number beyond 64 bits becomes a string, as `track()` would make it.
    """
    return event_of(parse_json(line))


def parse_json(text: bytes) -> Any:
    """The document, with whole numbers beyond 64 bits as strings. Raises `ValueError`."""
    if not _LONG_NUMBER.search(text):
        try:
            return orjson.loads(text)  # four times as fast, but 2**64 would become a float
        except orjson.JSONDecodeError:
            pass  # the other one says better what is wrong
    try:
        # Decoded here: the module would guess that other encodings are meant, line by line.
        return json.loads(text.decode(), parse_int=_whole, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError:
        raise ValueError("not JSON that can be read: it is nested too deep") from None


def event_of(found: Any) -> Event:
    """The event of a document. Raises `EventError`."""
    if not isinstance(found, dict):
        raise EventError('not a JSON object; an event is {"event_type": ..., ...}')
    fields = [*sorted(_FIELDS), "timestamp"]
    for name in sorted(found.keys() - set(fields)):
        hint = meant(name, fields, FIELDS).replace("here it is", "use") or "use properties for it"
        raise EventError(f"{name!r} is not a field of an event; {hint}")
    if "event_type" not in found:
        raise EventError("event_type is missing")
    return Event(timestamp=_timestamp(found), **found)


def _timestamp(found: dict[str, Any]) -> datetime | int | None:
    """Taken out of `found`: `timestamp`, as ISO 8601 with a zone or as milliseconds, or
    `timestamp_ms`, as it is sent.
    """
    given, milliseconds = found.pop("timestamp", None), found.pop("timestamp_ms", None)
    if given is not None and milliseconds is not None:
        raise EventError("timestamp and timestamp_ms are both given; give one of them")
    if isinstance(given, str):
        return moment(given)
    if isinstance(milliseconds, str):
        raise EventError(
            f"timestamp_ms must be whole milliseconds, got {milliseconds[:40]!r}; a time in"
            " ISO 8601 goes into timestamp"
        )
    properties = found.get("properties")
    if type(milliseconds) is int and isinstance(properties, dict) and "_server" in properties:
        return at(milliseconds)  # of a tracker, as an export has it: it knows its unit
    return milliseconds if given is None else given  # type: ignore[no-any-return]


def moment(text: str) -> datetime:
    """The time in ISO 8601, with its zone. Raises `EventError`."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise EventError(
            f"timestamp {text!r} is neither milliseconds nor ISO 8601 (2026-11-21T08:30:00Z)"
        ) from None
    if found.utcoffset() is None:
        raise EventError(
            f"timestamp {text!r} has no time zone; append Z for UTC, or one such as +01:00"
            f" ({found.isoformat()}Z)"
        )
    return found


def without_mark(head: bytes, name: str) -> bytes:
    """The text behind a byte order mark, if it has one. Raises `InputError` unless it is UTF-8."""
    if head.startswith(_WIDE_MARKS):
        width = 32 if head.startswith(_WIDE_MARKS[:2]) else 16
        raise InputError(
            f"{name} is UTF-{width} text, and JSON is UTF-8; convert it: iconv -f UTF-{width} -t"
            " UTF-8, or in PowerShell: Set-Content -Encoding utf8"
        )
    return head.removeprefix(_UTF8_MARK)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        # A pipe cannot be read twice, and opening one would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is not a regular file")
        with path.open("rb") as file, _decompressed(file) as lines:
            number = 0
            for number, line in enumerate(lines, 1):
                line = without_mark(line, str(path)) if number == 1 else line
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _decompressed(file: BinaryIO) -> BinaryIO | gzip.GzipFile:
    compressed = file.read(len(_GZIP)) == _GZIP  # a name proves nothing
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if compressed else file


def _whole(digits: str) -> Any:
    if len(digits) > 20:  # Python reads no number of more than 4,300 digits
        return digits
    value = int(digits)
    return value if _INT64 <= value < _UINT64 else digits


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
