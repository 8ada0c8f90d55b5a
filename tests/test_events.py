"""Typed events: they agree with the gateway's payloads, are checked when made, and go any way."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from causality_sdk import Client, Event, EventError, events
from causality_sdk.testing import RecordingTransport
from causality_sdk.wire._proto_schema import PAYLOADS, Member, Type

ROOT = Path(__file__).resolve().parent.parent
CLASSES: dict[str, Any] = {
    value.event_type: value
    for name in events.__all__
    if inspect.isclass(value := getattr(events, name))
    and issubclass(value, events.TypedEvent)
    and value is not events.TypedEvent
}
PYTHON_TYPES = {
    Type.STRING: str,
    Type.BOOL: bool,
    Type.INT32: int,
    Type.INT64: int,
    Type.FLOAT: float,
    Type.STRING_MAP: Mapping[str, str],
}
SAMPLES: dict[Type, Any] = {
    Type.STRING: "text",
    Type.BOOL: False,
    Type.INT32: -(2**31),
    Type.INT64: 2**63 - 1,
    Type.FLOAT: 0.5,
    Type.STRING_MAP: {"a": "b"},
}


def annotation(member: Member) -> Any:
    """What a class has to say about a member of the schema."""
    kind: Any
    if member.type is Type.ENUM:
        kind = getattr(events, member.enum)
    elif member.type is Type.MESSAGE:
        kind = getattr(events, member.message)
    else:
        kind = PYTHON_TYPES[member.type]
    return Sequence[kind] if member.repeated else kind


def sample(member: Member) -> tuple[Any, Any]:
    """A value for a member, and the property that comes of it."""
    value: Any
    made: Any
    if member.type is Type.ENUM:
        kind = getattr(events, member.enum)
        value, made = list(kind)[-1], member.names[-1]
    elif member.type is Type.MESSAGE:
        pairs = {name: sample(inner) for name, inner in member.members.items()}
        kind = getattr(events, member.message)
        value = kind(**{name: given for name, (given, _) in pairs.items()})
        made = {name: plain for name, (_, plain) in pairs.items()}
    else:
        value, made = SAMPLES[member.type], SAMPLES[member.type]
    return ((value,), [made]) if member.repeated else (value, made)


def hints(of: Any) -> dict[str, Any]:
    found = typing.get_type_hints(of)
    found.pop("event_type", None)
    return found


def test_there_is_a_class_for_each_payload_and_for_nothing_else() -> None:
    assert CLASSES.keys() == PAYLOADS.keys()
    for event_type, made in CLASSES.items():
        assert made.__name__ == "".join(word.capitalize() for word in event_type.split("_"))
        assert made.__doc__


@pytest.mark.parametrize("event_type", sorted(PAYLOADS))
def test_a_class_has_the_members_of_its_payload_in_their_order(event_type: str) -> None:
    made, members = CLASSES[event_type], PAYLOADS[event_type]
    assert [spec.name for spec in dataclasses.fields(made)] == list(members)
    for spec in dataclasses.fields(made):
        member = members[spec.name]
        assert spec.kw_only
        assert (spec.default is dataclasses.MISSING) == member.required
        expected = annotation(member)
        assert hints(made)[spec.name] == (expected if member.required else expected | None)


def test_the_parts_of_events_agree_too() -> None:
    found: dict[str, Member] = {}
    for members in PAYLOADS.values():
        found.update({member.message or member.enum: member for member in members.values()})
    for name, member in found.items():
        if member.type is Type.MESSAGE:
            assert list(hints(getattr(events, name))) == list(member.members)
        elif member.type is Type.ENUM:
            assert tuple(value.value for value in getattr(events, name)) == member.names
    parts = {"Coordinates", "PurchaseItem", "TypedEvent"} | {
        name for name in events.__all__ if issubclass(getattr(events, name), Enum)
    }
    assert {name for name in found if name} == parts - {"TypedEvent"}
    assert set(events.__all__) == parts | {made.__name__ for made in CLASSES.values()}


@pytest.mark.parametrize("event_type", sorted(PAYLOADS))
def test_every_member_becomes_a_property(event_type: str) -> None:
    pairs = {name: sample(member) for name, member in PAYLOADS[event_type].items()}
    made = CLASSES[event_type](**{name: given for name, (given, _) in pairs.items()})
    assert made.properties == {name: plain for name, (_, plain) in pairs.items()}
    assert made.event().event_type == event_type


@pytest.mark.parametrize("event_type", sorted(PAYLOADS))
def test_members_that_are_not_given_are_left_out(event_type: str) -> None:
    needed = {name: "x" for name, member in PAYLOADS[event_type].items() if member.required}
    assert CLASSES[event_type](**needed).properties == needed


class TestWhatIsWrongIsNamed:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: events.PurchaseComplete(order_id=""),
             "PurchaseComplete.order_id must be a string that is not empty, got str ''"),
            (lambda: events.ScreenView(screen_name=None),  # type: ignore[arg-type]
             "ScreenView.screen_name must be a string that is not empty, got None"),
            (lambda: events.AddToCart(product_id="p", quantity=2**31),
             "AddToCart.quantity must be a whole number from -2147483648 to 2147483647,"
             " got int 2147483648"),
            (lambda: events.AddToCart(product_id="p", price_cents=12.99),  # type: ignore[arg-type]
             "got float 12.99"),
            (lambda: events.CheckoutStart(total_cents=2**63), "to 9223372036854775807, got int"),
            (lambda: events.CheckoutStart(item_count=True), "got bool True"),
            (lambda: events.AppStart(is_cold_start=1),  # type: ignore[arg-type]
             "AppStart.is_cold_start must be True or False, got int 1"),
            (lambda: events.SwipeGesture(direction="left"),  # type: ignore[arg-type]
             "SwipeGesture.direction must be one of SWIPE_DIRECTION_LEFT, SWIPE_DIRECTION_RIGHT,"
             " SWIPE_DIRECTION_UP, SWIPE_DIRECTION_DOWN, got str 'left'"),
            (lambda: events.BatteryChange(state=events.MemoryWarningLevel.LOW),  # type: ignore[arg-type]
             "BatteryChange.state must be one of BATTERY_STATE_CHARGING"),
            (lambda: events.LongPress(coordinates=events.Coordinates(x=float("nan"), y=0)),
             "LongPress.coordinates.x must be a finite number"),
            (lambda: events.LongPress(coordinates=events.Coordinates(x="1", y=0)),  # type: ignore[arg-type]
             "LongPress.coordinates.x must be a finite number"),
            (lambda: events.PurchaseComplete(
                order_id="A", items=[events.PurchaseItem(), events.PurchaseItem(quantity=2**40)]),
             "PurchaseComplete.items[1].quantity must be a whole number"),
            (lambda: events.PurchaseComplete(order_id="A", items="p"),  # type: ignore[arg-type]
             "PurchaseComplete.items must be a list, got str 'p'"),
            (lambda: events.UserProfileUpdate(fields_updated=["a", 1]),  # type: ignore[list-item]
             "UserProfileUpdate.fields_updated[1] must be a string"),
            (lambda: events.ScreenView(screen_name="a", params={"n": 1}),  # type: ignore[dict-item]
             "ScreenView.params.n must be a string"),
            (lambda: events.ScreenView(screen_name="a", params={"n": "x" * 999, "m": 1}),  # type: ignore[dict-item]
             "xxx..."),
        ],
    )  # fmt: skip
    def test_member_value_and_what_it_must_be(self, make: Any, words: str) -> None:
        with pytest.raises(EventError) as caught:
            make()
        assert words in str(caught.value)
        assert len(str(caught.value)) < 300

    def test_a_required_member_that_is_missing_is_a_mistake_of_the_call(self) -> None:
        with pytest.raises(TypeError, match="order_id"):
            events.PurchaseComplete()  # type: ignore[call-arg]

    def test_an_event_is_never_changed(self) -> None:
        made = events.ScreenView(screen_name="home")
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.screen_name = "other"  # type: ignore[misc]


class TestCoordinates:
    def test_they_are_kept_as_given(self) -> None:
        tap = events.DoubleTap(coordinates=events.Coordinates(x=0.1, y=3))
        assert tap.properties == {"coordinates": {"x": 0.1, "y": 3}}

    def test_nearest_rounds_to_what_32_bits_hold(self) -> None:
        point = events.Coordinates.nearest(0.1, 3)
        assert (point.x, point.y) == (0.10000000149011612, 3.0)
        assert events.Coordinates.nearest(point.x, point.y) == point

    def test_nearest_refuses_what_they_cannot_hold_at_all(self) -> None:
        with pytest.raises(EventError, match="must fit 32-bit floats, got x=1e"):
            events.Coordinates.nearest(1e300, 0)


class TestTracking:
    @pytest.fixture
    def transport(self) -> RecordingTransport:
        return RecordingTransport()

    @pytest.fixture
    def client(self, transport: RecordingTransport, tmp_path: Path) -> Any:
        with Client(
            api_key="k", endpoint="https://events.invalid", app_id="shop", transport=transport,
            queue_path=tmp_path / "queue.db", start=False,
        ) as running:  # fmt: skip
            yield running

    def test_through_the_default_wire_with_what_is_known_beside_it(
        self, client: Client, transport: RecordingTransport
    ) -> None:
        key = client.track(
            events.SwipeGesture(direction=events.SwipeDirection.UP),
            user_id="u", session_id="s", device_id="d", timestamp=1_732_147_200_005,
            idempotency_key="k-1", app_id="other",
        )  # fmt: skip
        client.flush(timeout=10)
        [event] = transport.events
        event["properties"].pop("_server")
        assert key == "k-1"
        assert event == {
            "app_id": "other", "event_type": "swipe_gesture", "idempotency_key": "k-1",
            "timestamp_ms": 1_732_147_200_005, "device_id": "d", "user_id": "u", "session_id": "s",
            "properties": {"direction": "SWIPE_DIRECTION_UP"},
        }  # fmt: skip

    def test_seconds_beside_a_typed_event_are_refused(self, client: Client) -> None:
        with pytest.raises(EventError, match="multiply it by 1000"):
            client.track(events.AppStart(), timestamp=1_700_000_000)
        with pytest.raises(EventError, match=r"^event 0: timestamp 1700000000 would be 1970"):
            client.track_many([events.AppStart().event(timestamp=1_700_000_000)])

    def test_many_at_once_among_plain_ones(
        self, client: Client, transport: RecordingTransport
    ) -> None:
        app_start = events.AppStart()
        client.track_many([app_start, Event("x"), app_start.event(user_id="u")])
        client.flush(timeout=10)
        assert [event["event_type"] for event in transport.events] == [
            "app_start",
            "x",
            "app_start",
        ]
        assert transport.events[2]["user_id"] == "u"

    def test_your_own_class_can_be_tracked(
        self, client: Client, transport: RecordingTransport
    ) -> None:
        class Sold:
            def event(self, **beside: Any) -> Event:
                return Event("sold", {"n": 1}, **beside)

        client.track(Sold(), user_id="u")
        client.flush(timeout=10)
        assert transport.events[0]["event_type"] == "sold"
        assert transport.events[0]["user_id"] == "u"

    def test_properties_beside_a_typed_event_are_a_mistake(self, client: Client) -> None:
        with pytest.raises(EventError, match="properties belong inside the AppStart"):
            client.track(events.AppStart(), {"a": 1})

    @pytest.mark.parametrize("wrong", [events.AppStart, 5, object()])
    def test_what_is_no_event_is_named(self, client: Client, wrong: Any) -> None:
        with pytest.raises(EventError, match="event_type must be a string, got"):
            client.track(wrong)
        with pytest.raises(EventError, match="event 1: event_type must be a string"):
            client.track_many([events.AppStart(), wrong])

    def test_a_class_whose_event_is_none_is_named(self, client: Client) -> None:
        class Odd:
            def event(self, **_: Any) -> Any:
                return {"event_type": "x"}

        with pytest.raises(EventError, match=r"Odd.event\(\) must give an Event, got dict"):
            client.track(Odd())


def test_importing_them_loads_nothing_slow() -> None:
    script = (
        "import sys, causality_sdk.events\n"
        "slow = {'requests', 'sqlite_utils', 'filelock', 'platformdirs', 'click', 'google'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"
