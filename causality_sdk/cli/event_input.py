"""The arguments that say which events: on the command line itself, in a file, on standard input.

Neighbours: `track` and `send` wear `event_options`; `event_source` reads files. Invariant: one
source and no more, and nobody has to guess which.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from causality_sdk.cli.completions import files
from causality_sdk.cli.event_source import STDIN, Entry, EventSource, Source
from causality_sdk.cli.ndjson import parse_json
from causality_sdk.cli.output import output
from causality_sdk.errors import EventError
from causality_sdk.event import Event

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class EventArguments:
    """What was given."""

    event_type: str | None
    properties: tuple[str, ...]
    properties_json: str | None
    file: str | None
    ndjson: str | None
    user_id: str | None
    session_id: str | None
    device_id: str | None
    timestamp: str | None
    idempotency_key: str | None

    def source(self) -> Source:
        """Opens it. Raises `UsageError`, `InputError` and, for the one event, `EventError`."""
        given = [self.event_type, self.file, self.ndjson]
        if sum(each is not None for each in given) != 1:
            raise click.UsageError(
                "give EVENT_TYPE and its properties, or --file, or --ndjson: one of the three"
                " (for standard input: -)"
            )
        if self.event_type is not None and self.event_type != STDIN:
            event = self._event(self.event_type)
            self._note_a_file(self.event_type)
            return SingleEvent(event)
        if any((self.properties, self.properties_json, *self._fields().values())):
            raise click.UsageError(
                "properties, --user-id and the like belong to EVENT_TYPE; a file has its own, and"
                " so has standard input (-)"
            )
        path = self.ndjson or self.file or STDIN
        source = EventSource(path, lines_only=self.ndjson is not None)
        if path == STDIN and sys.stdin.isatty():
            output().note("one event a line, as JSON; Ctrl-D ends it")
        return source

    @staticmethod
    def _note_a_file(event_type: str) -> None:
        try:
            is_file = Path(event_type).is_file()
        except (OSError, ValueError):
            return  # no name that a file can have
        if is_file:
            output().note(
                f"there is a file {event_type}, and this is one event of that type; for the events"
                f" in it: --file {event_type}"
            )

    def _fields(self) -> dict[str, str | None]:
        return {
            "user_id": self.user_id,
            "session_id": self.session_id,
            "device_id": self.device_id,
            "timestamp": self.timestamp,
            "idempotency_key": self.idempotency_key,
        }

    def _event(self, event_type: str) -> Event:
        fields: dict[str, Any] = self._fields()
        if self.timestamp is not None:
            fields["timestamp"] = _timestamp(self.timestamp)
        return Event(event_type, parse_properties(self.properties, self.properties_json), **fields)


class SingleEvent:
    """The event of the command line, as a source."""

    is_stream = False

    def __init__(self, event: Event) -> None:
        self.name = ""
        self.unit = "event"
        self.length: int | None = None
        self.bytes_read = 0
        self._event = event

    def chunks(self) -> Iterator[list[Entry]]:
        """One chunk of one."""
        yield [Entry(1, self._event)]

    def close(self) -> None:
        """Nothing is open."""


def event_options(command: _Command) -> _Command:
    """Adds them; the command gets one argument, `events`."""
    decorators = (
        click.argument("event_type", required=False, metavar="[EVENT_TYPE | -]"),
        click.argument("properties", nargs=-1, metavar="[KEY=VALUE | KEY:=JSON]..."),
        click.option(
            "--properties", "properties_json", metavar="JSON", help="Properties, as one object."
        ),
        click.option("--user-id", help="Who did it."),
        click.option("--session-id", help="In which session."),
        click.option("--device-id", help="On which device."),
        click.option(
            "--timestamp",
            metavar="TIME",
            help="When: milliseconds since the epoch, or ISO 8601 with a zone.  [default: now]",
        ),
        click.option(
            "--idempotency-key",
            metavar="KEY",
            help="For a replay: the server drops a key that it has seen.  [default: a new one]",
        ),
        click.option(
            "--file",
            shell_complete=files,
            metavar="FILE",
            help="Events from a file: one, an array, or one a line; plain or gzip. - is standard"
            " input.",
        ),
        click.option(
            "--ndjson",
            shell_complete=files,
            metavar="FILE",
            help="The same, always read as one event a line, however long it is.",
        ),
    )
    names = tuple(EventArguments.__dataclass_fields__)

    def wrapped(*args: Any, **options: Any) -> Any:
        given = {name: options.pop(name) for name in names}
        return command(*args, events=EventArguments(**given), **options)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    # What decorators below this one have added so far.
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    result: Any = wrapped
    for decorator in reversed(decorators):
        result = decorator(result)
    return result  # type: ignore[no-any-return]


def parse_properties(pairs: tuple[str, ...], whole: str | None = None) -> dict[str, Any]:
    """`key=text` and `key:=json`, on top of one JSON object. Raises `EventError`."""
    found: dict[str, Any] = {}
    if whole is not None:
        try:
            found = parse_json(_utf8(whole))
        except ValueError as error:
            raise EventError(f"--properties is {error}") from error
        if not isinstance(found, dict):
            raise EventError("--properties must be a JSON object")
    seen = set()
    for pair in pairs:
        name, equals, text = pair.partition("=")
        is_json = name.endswith(":")
        name = name.removesuffix(":")
        if not equals or not name:
            raise EventError(f"property {pair!r} is neither key=value nor key:=json")
        if name in seen:
            raise EventError(f"property {name!r} is given twice")
        seen.add(name)
        found[name] = _json_value(name, text) if is_json else text
    return found


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("not UTF-8") from None


def _json_value(name: str, text: str) -> Any:
    try:
        return parse_json(_utf8(text))
    except ValueError as error:
        raise EventError(f"property {name!r} is {error}; for text use {name}=…") from error


def _timestamp(text: str) -> datetime | int:
    """Milliseconds, or a time with its zone. Raises `EventError`, in the words of a shell."""
    if text.isdecimal() and text.isascii():
        number = int(text)
        if number < _MILLISECONDS_OF_2001:
            raise EventError(
                f"timestamp {text} is in milliseconds, and so a time in"
                f" {1970 + number // 31_556_952_000}; for seconds write {text}000"
                " (date +%s000)"
            )
        return number
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise EventError(
            f"timestamp {text!r} is neither milliseconds nor ISO 8601 (2026-11-21T08:30:00Z)"
        ) from None
    if found.tzinfo is None:
        whole = found.isoformat()
        raise EventError(
            f"timestamp {text!r} has no time zone; write {whole}Z for UTC, or {whole}+02:00"
        )
    return found


_MILLISECONDS_OF_2001 = 10**12  # what is less were seconds
