"""Which files and which events a command is about.

Neighbours: every command of the group. Invariant: a filter looks at the event itself, never at
where it lies.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import orjson

from causality_sdk.cli.exits import CommandError, InputError
from causality_sdk.cli.options import client_options, settings
from causality_sdk.cli.output import output
from causality_sdk.cli.queue_files import files_of
from causality_sdk.cli.queue_reader import QueueReader

_Command = TypeVar("_Command", bound=Callable[..., Any])
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MILLISECONDS_OF_2001 = 10**12  # what is less were seconds


class Found(NamedTuple):
    """One event in one file."""

    path: Path
    id: int
    payload: bytes
    event: dict[str, Any]
    """Empty if its bytes are no JSON object."""
    sound: bool

    @property
    def key(self) -> str:
        """Its idempotency key; empty if it has none that is text."""
        value = self.event.get("idempotency_key")
        return value if isinstance(value, str) else ""

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


def chosen_files(*, must_exist: bool = False) -> list[Path]:
    """Those that exist; none is no error, but said, unless `must_exist`.

    A job of cron may look before the first event was tracked, and has nothing to do then. Raises
    `InputError` for a directory in place of a file, and `ConfigError`.
    """
    context = click.get_current_context()
    base = settings().queue_path()
    found = files_of(base, single=bool(context.meta.get(_SINGLE)))
    if found:
        return found
    if must_exist:
        raise InputError(f"there is no queue file {base}")
    output().note(f"there is no queue file {base}: nothing was tracked here yet")
    return []


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
            help="Only what happened then or later. TIME is 2026-11-21, 2026-11-21T08:30 (in UTC"
            " unless it ends in a zone, such as +02:00), milliseconds since the epoch, today,"
            " yesterday (from midnight UTC), or an age: 90m, 2h, 3d, 1w.",
        ),
        click.option(
            "--key", "keys", multiple=True, help="Only this idempotency key, whole; repeatable."
        ),
        click.option("--type", "types", multiple=True, help="Only this event type; repeatable."),
    ):
        result = decorator(result)
    return result  # type: ignore[no-any-return]


class Moment(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in newer releases
    """A time, as milliseconds since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """What `milliseconds` makes of it."""
        if isinstance(value, int):
            return value
        try:
            return milliseconds(str(value), time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)


def milliseconds(text: str, now: float) -> int:
    """The moment that a person means. `now` in seconds since the epoch. Raises `ValueError`."""
    text = text.strip()
    word = text.lower()
    if text.isdecimal() and text.isascii():
        if int(text) < _MILLISECONDS_OF_2001:
            raise ValueError(
                f"{text} is in milliseconds, and long ago; for seconds write {text}000"
            )
        return int(text)
    if ago := re.fullmatch(r"([0-9]{1,9})([smhdw])( ago)?", word):
        return int((now - int(ago[1]) * _UNITS[ago[2]]) * 1000)
    if word in ("now", "today", "yesterday"):
        midnight = now - now % 86400
        return int({"now": now, "today": midnight, "yesterday": midnight - 86400}[word] * 1000)
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(
            f"{text!r} is no time; write 2026-11-21, 2026-11-21T08:30, milliseconds, yesterday,"
            " or an age: 2h, 3d, 1w"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return int(moment.timestamp() * 1000)


def one_key(prefix: str, keys: Iterable[str]) -> str | None:
    """The only one of `keys` that begins so, or is that; None for none.

    Raises `CommandError` for several, which it names.
    What a table has cut short may be copied with its ellipsis.
    """
    prefix = prefix.rstrip("\u2026")
    found = dict.fromkeys(key for key in keys if key.startswith(prefix)) if prefix else {}
    if prefix in found or len(found) < 2:
        return prefix if prefix in found else next(iter(found), None)
    shown = list(found)[:_SHOWN]
    more = f"\n  and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    raise CommandError(
        f"{prefix} is the beginning of {len(found):,} keys; give more of it:\n  "
        + "\n  ".join(shown)
        + more
    )


_SHOWN = 10  # keys in a message


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
        except InputError as error:
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
