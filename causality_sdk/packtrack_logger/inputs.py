"""Reads events: JSON, an object or an array, and NDJSON, from a file or a pipe.

Neighbour: `run`. Invariant: what comes out is a valid event, and what cannot be one is an error
that names the line: `InputError` where it is not JSON objects, `InvalidEvent` where it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from causality_sdk.cli.exits import INVALID, InputError
from causality_sdk.errors import EventError
from causality_sdk.packtrack.event import PackTrackEvent

_SPACE = re.compile(r"[ \t\n\r]*")
_SHAPE = 'an event is a JSON object, {"source": ...}'

Located = tuple[str, PackTrackEvent]
"""Where it was found, for messages, and the event."""


class InvalidEvent(click.ClickException):
    """An event of the input that PackTrack would not take. Names the line."""

    exit_code = INVALID


def json_object(text: str) -> dict[str, Any]:
    """One JSON object. Raises `ValueError`, which says what is wrong."""
    try:
        found = _decoder().decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError('must be a JSON object, such as {"attempt": 2}')
    return found


def read_file(path: str, *, ndjson: bool, defaults: dict[str, Any]) -> tuple[list[Located], bool]:
    """All events of a file, and whether it can hold several. Raises `click.ClickException`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a null byte
        raise InputError(f"{path!r} cannot be read: {error}") from error
    if ndjson:
        return list(read_lines(data.splitlines(keepends=True), path, defaults)), True
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error
    return _read_document(text, path, defaults)


def read_lines(lines: Iterable[bytes], name: str, defaults: dict[str, Any]) -> Iterator[Located]:
    """The event of each line, as it comes; lines of white space are passed over."""
    number = 0
    found = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = True
        place = f"{name}, line {number}"
        try:
            value = _decoder().decode(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{place}: not UTF-8 ({error.reason})") from error
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: not JSON ({error.msg} at column {error.colno})") from error
        except (ValueError, RecursionError) as error:  # a number, or a depth, beyond Python's
            raise InputError(f"{place}: not JSON that can be read ({error})") from error
        yield place, _event(value, place, defaults)
    if not found:
        raise InputError(f"{name}, line {max(number, 1)}: the input is empty; {_SHAPE}, one a line")


def _read_document(text: str, name: str, defaults: dict[str, Any]) -> tuple[list[Located], bool]:
    at = _after_space(text, 0)
    if at == len(text):
        raise InputError(f"{name}, line {_line(text, at)}: the input is empty; {_SHAPE}")
    if text[at] != "[":
        value, end = _value(text, at, name)
        _check_end(text, end, name)
        return [_located(value, text, at, name, defaults)], False
    events: list[Located] = []
    start, at = at, _after_space(text, at + 1)
    while text[at : at + 1] != "]":
        value, end = _value(text, at, name)
        events.append(_located(value, text, at, name, defaults))
        at = _after_space(text, end)
        if text[at : at + 1] == ",":
            at = _after_space(text, at + 1)
            if text[at : at + 1] != "]":
                continue
        elif text[at : at + 1] == "]":
            break
        raise InputError(f"{name}, line {_line(text, at)}: not JSON (the array goes wrong here)")
    _check_end(text, at + 1, name)
    if not events:
        raise InputError(f"{name}, line {_line(text, start)}: the array is empty; {_SHAPE}")
    return events, True


def _located(value: object, text: str, at: int, name: str, defaults: dict[str, Any]) -> Located:
    place = f"{name}, line {_line(text, at)}"
    return place, _event(value, place, defaults)


def _event(value: object, place: str, defaults: dict[str, Any]) -> PackTrackEvent:
    if not isinstance(value, dict):
        raise InputError(f"{place}: not a JSON object but {_kind(value)}; {_SHAPE}")
    try:
        return PackTrackEvent.from_dict(_filled(value, defaults))
    except EventError as error:
        raise InvalidEvent(f"{place}: {error}") from error


def _filled(found: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What the event says, and for what it leaves out, the options of the command line."""
    filled = {**defaults, **{name: value for name, value in found.items() if value is not None}}
    for part in ("source", "workflow", "actor"):
        ours, theirs = defaults.get(part), found.get(part)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            filled[part] = {**ours, **{name: v for name, v in theirs.items() if v is not None}}
    return filled


def _value(text: str, at: int, name: str) -> tuple[Any, int]:
    try:
        return _decoder().raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{name}, line {error.lineno}: not JSON ({error.msg} at column {error.colno})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{name}, line {_line(text, at)}: not JSON that can be read ({error})"
        ) from error


def _check_end(text: str, end: int, name: str) -> None:
    at = _after_space(text, end)
    if at != len(text):
        raise InputError(
            f"{name}, line {_line(text, at)}: something follows the end of the JSON;"
            " for one object a line, add --ndjson"
        )


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return "a string"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "a number"
