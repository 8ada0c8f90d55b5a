"""What typed events have in common: validation against the schema, and how one becomes an `Event`.

Neighbours: the modules beside it hold the classes; `wire._proto_schema` knows the members.
Invariant: a typed event that exists is valid, and the gateway takes it as the payload of its type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

from causality_sdk.errors import EventError
from causality_sdk.event import Event
from causality_sdk.wire._proto_schema import PAYLOADS, as_float32, misfit


class TypedEvent:
    """Base of the typed events. Made with keywords, checked when made, never changed.

    A member that is None is left out. Raises `EventError` that names the member, the value and what
    it would have to be.
    """

    __slots__ = ()
    event_type: ClassVar[str]

    def __post_init__(self) -> None:
        properties = self.properties
        # A float is rounded by the gateway at worst; there it then goes as a custom_event instead.
        wrong = misfit(PAYLOADS[self.event_type], properties, exact=False)
        if wrong is not None:
            path, wanted = wrong
            raise EventError(
                f"{type(self).__name__}.{path} must be {wanted}, got {_at(properties, path)}"
            )

    @property
    def properties(self) -> dict[str, Any]:
        """The members that are given, as JSON has them."""
        return _plain_members(self)

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
        """The `Event` of it, with what is known beside it; for `Client.track_many()`."""
        return Event(
            self.event_type,
            self.properties,
            user_id=user_id,
            session_id=session_id,
            device_id=device_id,
            timestamp=timestamp,
            idempotency_key=idempotency_key,
            app_id=app_id,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Coordinates:
    """A point on a screen, in pixels or whatever the program measures in.

    The gateway keeps 32-bit floats. Numbers that these do not hold exactly, such as 0.1, are sent
    to it unrounded, in a `custom_event`; `nearest()` rounds them, so that the event stays typed.
    """

    x: float
    y: float

    @classmethod
    def nearest(cls, x: float, y: float) -> Coordinates:
        """The point rounded to 32-bit floats. Raises `EventError` where they are too small."""
        rounded = [as_float32(number) for number in (x, y)]
        if rounded[0] is None or rounded[1] is None:
            raise EventError(f"Coordinates must fit 32-bit floats, got x={x}, y={y}")
        return cls(x=rounded[0], y=rounded[1])


def _plain_members(value: Any) -> dict[str, Any]:
    pairs = ((spec.name, getattr(value, spec.name)) for spec in dataclasses.fields(value))
    return {name: _plain(item) for name, item in pairs if item is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_members(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _at(properties: dict[str, Any], path: str) -> str:
    """The value of the member that `path` begins with, bounded."""
    name = path.partition(".")[0].partition("[")[0]
    if name not in properties:
        return "None"
    text = repr(properties[name])
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return f"{type(properties[name]).__name__} {shown}"
