"""Which files and which events a command is about.

Neighbours: every command of the group. Invariant: a filter looks at the event itself, never at
where it lies.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import orjson

from causality_sdk.cli.exits import InputError
from causality_sdk.cli.options import client_options, settings
from causality_sdk.cli.queue_files import files_of
from causality_sdk.cli.queue_reader import QueueReader

_Command = TypeVar("_Command", bound=Callable[..., Any])
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Found(NamedTuple):
    """One event in one file."""

    path: Path
    id: int
    payload: bytes
    event: dict[str, Any]
    """Empty if its bytes are no JSON object."""
    sound: bool

    @property
    def timestamp_ms(self) -> int | None:
        """When it happened."""
        value = self.event.get("timestamp_ms")
        return value if isinstance(value, int) else None

    @property
    def time(self) -> str:
        """The same, for people, in UTC."""
        return iso(self.timestamp_ms)


def iso(timestamp_ms: int | None) -> str:
    """ISO 8601 in UTC with milliseconds; a dash for none."""
    try:
        seconds, rest = divmod(timestamp_ms or 0, 1000)
        moment = datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return "-"
    return "-" if timestamp_ms is None else f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


@dataclass(frozen=True)
class Filter:
    """What an event must be."""

    types: tuple[str, ...] = ()
    keys: frozenset[str] = field(default_factory=frozenset)
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether every event passes, whatever it is."""
        return not (self.types or self.keys) and self.since_ms is None and self.until_ms is None

    def passes(self, event: dict[str, Any]) -> bool:
        """Whether this one does."""
        if self.types and event.get("event_type") not in self.types:
            return False
        if self.keys and event.get("idempotency_key") not in self.keys:
            return False
        if self.since_ms is None and self.until_ms is None:
            return True
        when = event.get("timestamp_ms")
        if not isinstance(when, int):
            return False
        return (self.since_ms is None or when >= self.since_ms) and (
            self.until_ms is None or when < self.until_ms
        )


def file_options(command: _Command) -> _Command:
    """Adds the options of the client and `--single`; `chosen_files` has what they mean."""
    return click.option(
        "--single",
        is_flag=True,
        expose_value=False,
        callback=lambda context, _parameter, value: context.meta.update({_SINGLE: value}),
        help="This file alone, not its siblings (queue.1.db, …).",
    )(client_options(command))


_SINGLE = "causality_sdk.single"


def chosen_files() -> list[Path]:
    """Those that exist. Raises `InputError` if there is none, and `ConfigError`."""
    context = click.get_current_context()
    return files_of(settings().queue_path(), single=bool(context.meta.get(_SINGLE)))


def filter_options(command: _Command) -> _Command:
    """Adds them; the command gets one argument, `wanted`."""

    def wrapped(*args: Any, **options: Any) -> Any:
        wanted = Filter(
            types=options.pop("types"),
            keys=frozenset(options.pop("keys")),
            since_ms=options.pop("since"),
            until_ms=options.pop("until"),
        )
        return command(*args, wanted=wanted, **options)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    result: Any = wrapped
    for decorator in (
        click.option(
            "--until", type=Moment(), metavar="TIME", help="Only what happened before it."
        ),
        click.option(
            "--since",
            type=Moment(),
            metavar="TIME",
            help="Only what happened then or later: ISO 8601, milliseconds, or 90m, 2h, 3d ago.",
        ),
        click.option("--key", "keys", multiple=True, help="Only this idempotency key; repeatable."),
        click.option("--type", "types", multiple=True, help="Only this event type; repeatable."),
    ):
        result = decorator(result)
    return result  # type: ignore[no-any-return]


class Moment(click.ParamType[int]):
    """A time, as milliseconds since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """ISO 8601 (UTC unless it says otherwise), milliseconds, or so long ago."""
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if text.isdigit():
            return int(text)
        if ago := re.fullmatch(r"(\d+)([smhd])", text):
            return int((time.time() - int(ago[1]) * _UNITS[ago[2]]) * 1000)
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            self.fail(f"{text!r} is no time: 2026-11-21T08:30, milliseconds, or 2h", param, ctx)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return int(moment.timestamp() * 1000)


@dataclass
class Losses:
    """What could not be read."""

    events: int = 0
    counted: bool = True
    """False: there may be more; nobody knows how many."""
    damaged: list[Path] = field(default_factory=list)
    """Files."""
    unreadable: list[str] = field(default_factory=list)
    """What is wrong with files that are passed over."""

    def note(self, path: Path, lost: int | None) -> None:
        """Of one damaged file."""
        self.damaged.append(path)
        self.events += lost or 0
        self.counted = self.counted and lost is not None

    @property
    def lines(self) -> list[str]:
        """For people."""
        return [*self.unreadable, *([self._damage] if self.damaged else [])]

    @property
    def _damage(self) -> str:
        names = ", ".join(map(str, self.damaged))
        number = f"{self.events:,}" if self.counted else "nobody knows how many"
        return (
            f"{names} is damaged: what can be read of it is here, {number} of its events cannot be."
            " To salvage it: causality queue replay"
        )


def waiting(path: Path, wanted: Filter, losses: Losses | None = None) -> Iterator[Found]:
    """The events of one file that pass, oldest first. Raises `InputError`.

    Of a damaged file those that can be read; what cannot be is counted in `losses`.
    """
    with QueueReader(path) as reader:
        for row in reader.rows():
            event = document(row.payload)
            if wanted.passes(event):
                yield Found(path, row.id, row.payload, event, row.sound)
        if reader.damage is not None and losses is not None:
            losses.note(path, reader.lost)


def waiting_in(files: Sequence[Path], wanted: Filter, losses: Losses) -> Iterator[Found]:
    """Of several files. One that cannot be read at all is noted, unless it is the only one."""
    return _in(files, losses, lambda path: waiting(path, wanted, losses))


def buried_in(files: Sequence[Path], wanted: Filter, losses: Losses) -> Iterator[Found]:
    """The same, of the dead letters."""
    return _in(files, losses, lambda path: buried(path, wanted))


def _in(
    files: Sequence[Path], losses: Losses, look: Callable[[Path], Iterator[Found]]
) -> Iterator[Found]:
    for path in files:
        try:
            yield from look(path)
        except InputError as error:  # noqa: PERF203 (a file is not a hot loop)
            if len(files) == 1:
                raise
            losses.unreadable.append(error.message)


def buried(path: Path, wanted: Filter) -> Iterator[Found]:
    """The same, of the dead letters."""
    with QueueReader(path) as reader:
        for letter in reader.letters():
            if wanted.passes(letter.event):
                yield Found(path, letter.id, letter.payload, letter.event, sound=True)


def document(payload: bytes) -> dict[str, Any]:
    """The event in these bytes; empty if they are no JSON object."""
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
