"""`Event`, and how one becomes canonical JSON bytes: validation, enrichment, encoding.

Neighbours: `context` for the `_server` part, `plain` for values that JSON does not know,
`timestamps` for the time. Runs on
the thread that calls `track()`. Invariant: bytes that leave here can be sent as they are; what
cannot be encoded without loss raises `EventError` and names the path to the value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

import orjson

from causality_sdk.context import server_context
from causality_sdk.errors import EventError
from causality_sdk.keys import new_key
from causality_sdk.option_names import FIELDS, meant
from causality_sdk.plain import ORJSON_OPTIONS, convert, plain, short, show
from causality_sdk.timestamps import to_milliseconds

KEY_CHARS = 256  # of an idempotency key that a caller brings along


Properties = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. Validated when it is tracked, not when it is made.

    `event_type` names it. `properties` may hold everything JSON knows, and datetime (aware), date,
    time, UUID, Decimal, Fraction, Enum, dataclass, bytes, set, deque, range, Path, IP addresses and
    numpy scalars. Keys are text. `timestamp` is an aware datetime or milliseconds since the epoch
    (a number below 10^12 is refused as one of seconds); None is the moment of tracking.
    `idempotency_key` is for replays: the server drops a key it has seen. `app_id` overrides the
    client's.
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
        raise EventError(f"event_type must be a string, got {show(value)}; {_instead_of(value)}")
    if properties is not None:
        raise EventError(f"properties belong inside the {type(value).__name__}, not beside it")
    made = make(**given)
    if not isinstance(made, Event):
        raise EventError(f"{type(value).__name__}.event() must give an Event, got {show(made)}")
    return made


def _instead_of(value: object) -> str:
    """What to give in place of what is neither a type nor an event."""
    if isinstance(value, Mapping):
        fields = tuple(Event.__dataclass_fields__)
        others = [str(name) for name in value if name not in fields]
        hints = [
            f"{show(name).removeprefix('str ')} is no field: {hint}"
            for name in others[:3]
            if (hint := meant(name, fields, FIELDS))
        ]
        return "; ".join(["for an event as a dict use Event(**…)", *hints])
    if isinstance(value, type):
        return f"make one: {value.__name__}(…)"
    if value is None:
        return "give the type of the event, an Event, or a typed event"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "for several events use track_many()"
    return "use str(...), an Event, or a typed event"


def several(events: Iterable[T], verb: str = "track_many", of_one: str = "track()") -> Iterator[T]:
    """The events of a `track_many()`. Raises `EventError` for what is none or one of them."""
    try:
        if not isinstance(events, (str, bytes, Mapping)):
            return iter(events)
    except TypeError:
        pass
    hint = f"for one event use {of_one}"
    if hasattr(events, "__aiter__"):
        hint = "collect them first, with [event async for event in …]"
    raise EventError(f"{verb} takes several events, got {show(events)}; {hint}")


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
            use = f"Event({show(event).removeprefix('str ')})"
            raise EventError(f"track_many takes Event objects; item {index} is a str; use {use}")
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
            "timestamp_ms": self._now_ms() if timestamp is None else to_milliseconds(timestamp),
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
                f" ({self._max_event_bytes}){_largest(payload)}; send less, or raise"
                " max_event_bytes"
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
        except EventError as error:
            # Without the hundreds of frames that lead to what is nested deep.
            raise error.with_traceback(None) from error.__cause__
        except RecursionError:
            raise EventError(
                "properties are nested too deep for this place in the program, or hold themselves"
            ) from None
        except RuntimeError as error:  # of a dict or a set; orjson copies, and never meets it
            raise EventError(
                f"properties were changed by another thread while they were read ({error}); give"
                " track() a copy of them"
            ) from None
        if server is not None:
            checked["properties"]["_server"] = server
        return orjson.dumps(checked)


def _largest(payload: bytes) -> str:
    """Which property takes most of an event that is too large; nothing if none takes half."""
    properties = orjson.loads(payload)["properties"]
    sizes = {name: len(orjson.dumps(value)) for name, value in properties.items()}
    name = max(sizes, key=sizes.__getitem__)
    if sizes[name] < len(payload) // 2:
        return ""
    return f", {sizes[name]} of them in {short('properties.' + name)}"


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


def _own(properties: object) -> dict[str, Any]:
    """A copy of properties that are no plain dict, as one."""
    if not isinstance(properties, Mapping):
        raise EventError(f"properties must be a mapping of names to values, got {show(properties)}")
    try:
        return dict(properties)
    except Exception as error:
        raise EventError(f"properties ({show(properties)}) cannot be read: {error!r}") from error
