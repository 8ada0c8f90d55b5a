"""`Event`, and how one becomes canonical JSON bytes: validation, enrichment, encoding.

Neighbours: `context` for the `_server` part, `plain` for values that JSON does not know. Runs on
the thread that calls `track()`. Invariant: bytes that leave here can be sent as they are; what
cannot be encoded without loss raises `EventError` and names the path to the value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import orjson

from causality_sdk.context import server_context
from causality_sdk.errors import EventError
from causality_sdk.keys import new_key
from causality_sdk.plain import ORJSON_OPTIONS, convert, plain, show

KEY_CHARS = 256  # of an idempotency key that a caller brings along
MAX_TIMESTAMP_MS = 253_402_300_799_999  # the end of the year 9999, the last that datetime knows

_EPOCH = datetime(1970, 1, 1)  # in UTC, but without saying so: offsets are subtracted by hand
_MILLISECOND = timedelta(milliseconds=1)

Properties = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. Validated when it is tracked, not when it is made.

    `event_type` names it. `properties` may hold everything JSON knows, and datetime (aware), date,
    UUID, Decimal, Enum, dataclass, bytes, set, Path and numpy scalars. `timestamp` is an aware
    datetime or milliseconds since the epoch; None is the moment of tracking. `idempotency_key` is
    for replays: the server drops a key it has seen. `app_id` overrides the client's.
    """

    event_type: str
    properties: Properties = field(default_factory=dict)
    _: KW_ONLY
    user_id: str | None = None
    session_id: str | None = None
    device_id: str | None = None
    timestamp: datetime | int | None = None
    idempotency_key: str | UUID | None = None
    app_id: str | None = None


class Trackable(Protocol):
    """What knows how to be an `Event`: the typed events of `causality_sdk.events`, or your own."""

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
        """The event, with what is known beside it."""
        ...


def as_event(value: object, properties: object = None, **beside: Any) -> Event:
    """The `Event` that `value` is or makes. `beside` is what was given with it.

    Raises `EventError`.
    """
    given = {name: argument for name, argument in beside.items() if argument is not None}
    if isinstance(value, Event):
        if given or properties is not None:
            raise EventError(
                "properties, user_id and the like belong inside the Event, not beside it"
            )
        return value
    make = getattr(value, "event", None)
    if not callable(make) or isinstance(value, type):
        raise EventError(
            f"event_type must be a string, got {show(value)}; use str(...), an Event, or a typed"
            " event"
        )
    if properties is not None:
        raise EventError(f"properties belong inside the {type(value).__name__}, not beside it")
    made = make(**given)
    if not isinstance(made, Event):
        raise EventError(f"{type(value).__name__}.event() must give an Event, got {show(made)}")
    return made


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Encoder:
    """Makes canonical JSON of events. Stateless after construction; any thread may call it.

    `now_ms` gives milliseconds since the epoch, `new_key` a fresh idempotency key.
    """

    def __init__(
        self,
        app_id: str,
        *,
        max_event_bytes: int,
        now_ms: Callable[[], int] = _now_ms,
        new_key: Callable[[], str] = new_key,
    ) -> None:
        self._app_id = app_id
        self._max_event_bytes = max_event_bytes
        self._now_ms = now_ms
        self._new_key = new_key
        # Encoded once: the same five values are in every event this process makes.
        self._server = orjson.Fragment(orjson.dumps(server_context()))

    def encode_event(
        self,
        event: Event | Trackable,
        properties: Properties | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        device_id: str | None = None,
        timestamp: datetime | int | None = None,
        idempotency_key: str | UUID | None = None,
        app_id: str | None = None,
    ) -> tuple[str, bytes]:
        """`encode` for an `Event`, with nothing beside it, or for what makes one of the rest."""
        return self._encode_event(
            as_event(
                event,
                properties,
                user_id=user_id,
                session_id=session_id,
                device_id=device_id,
                timestamp=timestamp,
                idempotency_key=idempotency_key,
                app_id=app_id,
            )
        )

    def encode_item(self, index: int, event: Event | Trackable) -> tuple[str, bytes]:
        """`encode_event` for one of many: its errors name the index."""
        if isinstance(event, str):
            raise EventError(f"track_many takes Event objects; item {index} is a str")
        try:
            return self._encode_event(event if type(event) is Event else as_event(event))
        except ValueError as error:  # an EventError is one
            error.args = (f"event {index}: {error}",)
            raise

    def _encode_event(self, event: Event) -> tuple[str, bytes]:
        return self.encode(
            event.event_type,
            event.properties,
            event.user_id,
            event.session_id,
            event.device_id,
            event.timestamp,
            event.idempotency_key,
            event.app_id,
        )

    def encode(
        self,
        event_type: str,
        properties: Properties | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        device_id: str | None = None,
        timestamp: datetime | int | None = None,
        idempotency_key: str | UUID | None = None,
        app_id: str | None = None,
    ) -> tuple[str, bytes]:
        """The idempotency key and the canonical JSON of one event. Raises `EventError`.

        A `_server` that the caller gives in `properties` is kept: a replayed event keeps the
        context it was made in.
        """
        if type(event_type) is not str or not event_type:
            event_type = _text("event_type", event_type)
        key = self._new_key() if idempotency_key is None else _key(idempotency_key)
        document: dict[str, Any] = {
            "app_id": self._app_id if app_id is None else _text("app_id", app_id),
            "event_type": event_type,
            "idempotency_key": key,
            "timestamp_ms": self._now_ms() if timestamp is None else _timestamp_ms(timestamp),
        }
        if device_id is not None:
            document["device_id"] = _text("device_id", device_id)
        if user_id is not None:
            document["user_id"] = _text("user_id", user_id)
        if session_id is not None:
            document["session_id"] = _text("session_id", session_id)
        # Not `if not properties`: a table or an array passed by mistake has no truth value.
        if properties is None:
            document["properties"] = {"_server": self._server}
        else:
            # A copy: the first level is changed here.
            own = properties.copy() if type(properties) is dict else _own(properties)
            document["properties"] = own
            if "_server" not in own:
                own["_server"] = self._server
        payload = self._dumps(document)
        if len(payload) > self._max_event_bytes:
            raise EventError(
                f"event {show(event_type)} is {len(payload)} bytes, above max_event_bytes"
                f" ({self._max_event_bytes}); send less, or raise max_event_bytes"
            )
        return key, payload

    def _dumps(self, document: dict[str, Any]) -> bytes:
        try:
            payload = orjson.dumps(document, convert, ORJSON_OPTIONS)
        except TypeError:  # orjson.JSONEncodeError
            pass
        else:
            # orjson writes NaN and infinity as null. Walking every event to look for them would
            # cost more than encoding it; an event without a null has none.
            if b"null" not in payload:
                return payload
        properties = document["properties"]
        server = properties.pop("_server") if properties.get("_server") is self._server else None
        try:
            checked = {name: plain(value, name) for name, value in document.items()}
        except RecursionError:
            raise EventError(
                "properties are nested too deep for this place in the program, or hold themselves"
            ) from None
        if server is not None:
            checked["properties"]["_server"] = server
        return orjson.dumps(checked)


def _text(name: str, value: object) -> str:
    if type(value) is str and value:
        return value
    if not isinstance(value, str):
        raise EventError(f"{name} must be a string, got {show(value)}; use str(...)")
    text = str.__str__(value)  # of an Enum that is a str, str() would give the name of the member
    if not text:
        raise EventError(f"{name} must not be empty")
    return text


def _key(value: object) -> str:
    if isinstance(value, UUID):
        return str(value)
    text = _text("idempotency_key", value)
    if len(text) > KEY_CHARS:
        raise EventError(
            f"idempotency_key must be at most {KEY_CHARS} characters, got {len(text)}; hash it"
        )
    return text


def _timestamp_ms(value: object) -> int:
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
    else:
        raise EventError(
            f"timestamp must be an aware datetime or whole milliseconds, got {show(value)};"
            " for seconds use int(seconds * 1000)"
        )
    if not 0 < milliseconds <= MAX_TIMESTAMP_MS:
        raise EventError(
            f"timestamp must lie between 1 and {MAX_TIMESTAMP_MS} milliseconds since the epoch"
            f" (1970 to 9999), got {show(milliseconds)}"
        )
    return milliseconds


def _own(properties: object) -> dict[str, Any]:
    """A copy of properties that are no plain dict, as one."""
    if not isinstance(properties, Mapping):
        raise EventError(f"properties must be a mapping of names to values, got {show(properties)}")
    try:
        return dict(properties)
    except Exception as error:
        raise EventError(f"properties ({show(properties)}) cannot be read: {error!r}") from error
