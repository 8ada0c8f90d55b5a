"""`PackTrackEvent` and its parts: one step of a workflow, as PackTrack takes it.

Neighbours: `plain` for values that JSON does not know, `rfc3339` for times, `wire.packtrack` for
the shape in a request. Invariant: one that was made is valid; what is not raises `EventError` that
names the field, the value and the fix.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any, TypeVar
from uuid import UUID

from causality_sdk.errors import EventError
from causality_sdk.event import Event
from causality_sdk.packtrack import rfc3339
from causality_sdk.plain import plain, show
from causality_sdk.timestamps import at
from causality_sdk.wire.packtrack import EVENT_TYPE


class Severity(str, enum.Enum):
    """How bad it is."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class Status(str, enum.Enum):
    """How the step ended, or that it did not yet."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"
    TIMEOUT = "timeout"
    RETRYING = "retrying"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the event comes from."""

    system: str
    """The program or service. Required."""
    env: str | None = None
    """Such as `prod`."""

    def __post_init__(self) -> None:
        _check_texts(self, "source", required=("system",))


@dataclass(frozen=True, slots=True)
class Workflow:
    """What it is a part of."""

    id: str
    """Of the workflow, the same in every run. Required."""
    name: str | None = None
    """For people."""
    run_id: str | None = None
    """Of this run."""
    step_id: str | None = None
    """Of this step in it."""

    def __post_init__(self) -> None:
        _check_texts(self, "workflow", required=("id",))


@dataclass(frozen=True, slots=True)
class Actor:
    """Who or what did it."""

    type: str
    """Such as `user`, `service` or `cron`. Required."""
    id: str
    """Required."""
    display_name: str | None = None
    """For people."""

    def __post_init__(self) -> None:
        _check_texts(self, "actor", required=("type", "id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PackTrackEvent:
    """One step of a workflow. Checked when it is made; raises `EventError`.

    `client.track(event)` takes it, whatever the client's wire, and `PackTrackClient` sends it.
    `metadata` and `extra` may hold what properties may, see `Event`.
    """

    source: Source
    workflow: Workflow
    actor: Actor
    severity: Severity | str
    """A `Severity` or its word; afterwards always a `Severity`."""
    status: Status | str
    """A `Status` or its word; afterwards always a `Status`."""
    message: str
    """What happened, for people. Not empty."""
    timestamp: datetime | str = field(default_factory=lambda: datetime.now(timezone.utc))
    """An aware datetime or a date-time of RFC 3339, section 5.6; afterwards always its text, with
    the precision it was given in. Default: now."""
    metadata: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, kind in _PARTS.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise EventError(f"{name} must be a {kind.__name__}, got {show(value)}")
        object.__setattr__(self, "severity", _member(Severity, "severity", self.severity))
        object.__setattr__(self, "status", _member(Status, "status", self.status))
        object.__setattr__(self, "message", _checked_text("message", self.message))
        object.__setattr__(self, "timestamp", _timestamp(self.timestamp))
        for name in ("metadata", "extra"):
            value = getattr(self, name)
            if value is not None:
                # A copy: what the caller changes afterwards was not checked.
                object.__setattr__(self, name, _json_object(name, value))

    def to_dict(self) -> dict[str, Any]:
        """The object that PackTrack takes, without the fields that have no value."""
        found: dict[str, Any] = {"timestamp": self.timestamp}
        for name in _PARTS:
            part = getattr(self, name)
            found[name] = {
                spec.name: getattr(part, spec.name)
                for spec in fields(part)
                if getattr(part, spec.name) is not None
            }
        found["severity"] = Severity(self.severity).value
        found["status"] = Status(self.status).value
        found["message"] = self.message
        for name in ("metadata", "extra"):
            if getattr(self, name) is not None:
                found[name] = dict(getattr(self, name))
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> PackTrackEvent:
        """The event of a decoded JSON object. None counts as left out; unknown fields raise."""
        given = _known("an event", found, [spec.name for spec in fields(cls)])
        for name in (*_PARTS, "severity", "status", "message"):
            if name not in given:
                raise EventError(f"{name} is missing")
        for name, kind in _PARTS.items():
            given[name] = _part(kind, name, given[name])
        return cls(**given)

    def event(
        self,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        device_id: str | None = None,
        timestamp: datetime | int | None = None,
        idempotency_key: str | UUID | None = None,
        app_id: str | None = None,
    ) -> Event:
        """The same as a canonical event, for the queue, with what `track()` was given beside it.

        Raises `EventError` for `timestamp`, since the event has one.
        """
        if timestamp is not None:
            raise EventError("timestamp belongs inside the PackTrackEvent, not beside it")
        return Event(
            EVENT_TYPE,
            self.to_dict(),
            user_id=user_id,
            session_id=session_id,
            device_id=device_id,
            timestamp=at(rfc3339.milliseconds(str(self.timestamp))),
            idempotency_key=idempotency_key,
            app_id=app_id,
        )


_PARTS: dict[str, type[Source] | type[Workflow] | type[Actor]] = {
    "source": Source,
    "workflow": Workflow,
    "actor": Actor,
}

_E = TypeVar("_E", Severity, Status)


def _member(kind: type[_E], name: str, value: object) -> _E:
    try:
        return kind(value)
    except ValueError:
        offer = ", ".join(member.value for member in kind)
        raise EventError(f"{name} must be one of {offer}; got {show(value)}") from None


def _timestamp(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339.from_datetime(value)
    if isinstance(value, str):
        return rfc3339.checked(value)
    raise EventError(
        f"timestamp must be an aware datetime or a text of RFC 3339 such as {rfc3339.EXAMPLE},"
        f" got {show(value)}"
    )


def _json_object(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise EventError(f"{name} must be a mapping of names to values, got {show(value)}")
    try:
        found: dict[str, Any] = plain(dict(value), name)
    except RecursionError:
        raise EventError(f"{name} is nested too deep for this place in the program") from None
    return found


def _check_texts(part: Source | Workflow | Actor, path: str, *, required: tuple[str, ...]) -> None:
    for spec in fields(part):
        value = getattr(part, spec.name)
        if value is not None or spec.name in required:
            object.__setattr__(part, spec.name, _checked_text(f"{path}.{spec.name}", value))


def _checked_text(path: str, value: object) -> str:
    if not isinstance(value, str):
        raise EventError(f"{path} must be a string, got {show(value)}; use str(...)")
    if not value.strip():
        raise EventError(f"{path} must not be empty, got {show(value)}")
    text: str = plain(value, path)
    return text


def _part(kind: type[Source] | type[Workflow] | type[Actor], name: str, value: object) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise EventError(f"{name} must be an object, got {show(value)}")
    names = [spec.name for spec in fields(kind)]
    given = _known(name, value, names)
    for spec in fields(kind):
        if spec.name not in given and spec.default is not None:
            raise EventError(f"{name}.{spec.name} is missing")
    return kind(**given)


def _known(owner: str, found: object, names: list[str]) -> dict[str, Any]:
    """The fields that are there, if no other is."""
    if not isinstance(found, Mapping):
        raise EventError(f"{owner} must be an object, got {show(found)}")
    for name in found:
        if name not in names:
            shown = show(name).removeprefix("str ")
            raise EventError(
                f"{shown} is not a field of {owner}; the fields are {', '.join(names)}"
            )
    return {name: value for name, value in found.items() if value is not None}
