"""The strict gateway's wire: its parser takes every request, and no value is lost on the way.

`gateway_messages` is that parser, on definitions of its own; `read_back` undoes what the wire did,
by the rules that its documentation gives.
"""

from __future__ import annotations

import json
import math
from typing import Any

import gateway_messages as gateway
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causality_sdk.event import Encoder, Event
from causality_sdk.timestamps import MAX_TIMESTAMP_MS, at
from causality_sdk.wire import WIRES
from causality_sdk.wire._proto_schema import DEVICE_CONTEXT, PAYLOADS, Member, Type
from causality_sdk.wire.base import Kind, Response
from causality_sdk.wire.causality_proto import CausalityProtoWire
from causality_sdk.wire.device import Machine

HERE = Machine("till-7", {"device_model": "PC", "locale": "de-CH", "timezone": "Europe/Zurich"})
SERVER = {
    "hostname": "till-7", "python_version": "3.12.1", "sdk_version": "9.9.9",
    "os": "Linux 6.1", "arch": "x86_64",
}  # fmt: skip
WIRE = CausalityProtoWire("installation-1", machine=HERE)
ENCODER = Encoder("shop", max_event_bytes=10_000_000)


def sent(*events: Event) -> list[Any]:
    """The envelopes that a gateway makes of the request for these events."""
    rows = [ENCODER.encode_event(event)[1] for event in events]
    return gateway.parse(WIRE.frame(rows).body)


def one(event_type: str, properties: dict[str, Any] | None = None, **more: Any) -> Any:
    # With a `_server` of its own, so that every machine makes the same of it.
    [envelope] = sent(Event(event_type, {"_server": SERVER, **(properties or {})}, **more))
    return envelope


def field(envelope: Any) -> str:
    return gateway.payload_of(envelope)[0]


# ------------------------------------------------------------------ the way back


def read_member(kind: str, message: Any, name: str) -> Any:
    value = getattr(message, name)
    if kind.startswith("repeated-"):
        of = kind.removeprefix("repeated-")
        return [read_message(of, item) if of in gateway.DEFINED else item for item in value]
    if kind in gateway.DEFINED:
        return read_message(kind, value)
    if kind in gateway.ENUMS:
        return message.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number[value].name
    return dict(value) if kind == "strings" else value


def read_message(of: str, message: Any) -> dict[str, Any]:
    return {name: read_member(kind, message, name) for kind, name, _ in gateway.DEFINED[of]}


def read_back(envelope: Any) -> dict[str, Any]:
    """The canonical event that an envelope holds; members that were not given have their zero."""
    rest = json.loads(envelope.correlation_id or "{}")
    name, payload = gateway.payload_of(envelope)
    if name == "custom_event":
        event_type = payload.event_name
        encoded = json.loads(payload.string_params.get("_json", "[]"))
        found: dict[str, Any] = {}
        for params in (payload.int_params, payload.float_params, payload.bool_params):
            found.update(params)
        for key, text in payload.string_params.items():
            if key != "_json":
                found[key] = json.loads(text) if key in encoded else text
        properties = {
            key[1:] if key.strip("_") == "json" and key.endswith("_json") and key != "_json"
            else key: value
            for key, value in found.items()
        }  # fmt: skip
    else:
        event_type = name
        properties = read_message(gateway.PAYLOADS[name], payload)
    if "_server" in rest:
        properties["_server"] = rest["_server"]
    return {
        "app_id": envelope.app_id,
        "event_type": event_type,
        "idempotency_key": envelope.idempotency_key,
        "timestamp_ms": envelope.timestamp_ms,
        "device_id": envelope.device_id,
        "user_id": rest.get("user_id", properties.get("user_id")),
        "session_id": rest.get("session_id", properties.get("session_id")),
        "properties": properties,
    }


def holds(out: Any, given: Any, *, typed: bool) -> bool:
    """Whether `out` has all that is in `given`; a typed message may have more, at its zero."""
    if isinstance(given, dict):
        return (
            isinstance(out, dict)
            and (typed or out.keys() == given.keys())
            and all(k in out and holds(out[k], v, typed=typed) for k, v in given.items())
        )
    if isinstance(given, list):
        return (
            isinstance(out, list)
            and len(out) == len(given)
            and all(holds(o, g, typed=typed) for o, g in zip(out, given, strict=True))
        )
    if typed and isinstance(out, float) and not isinstance(given, bool):
        return bool(out == given)  # an integer in a float member
    same_sign = not isinstance(given, float) or math.copysign(1, out) == math.copysign(1, given)
    return type(out) is type(given) and bool(out == given) and same_sign


def assert_held(row: bytes, envelope: Any) -> None:
    event = json.loads(row)
    out = read_back(envelope)
    typed = field(envelope) != "custom_event"
    for name in ("app_id", "event_type", "idempotency_key", "timestamp_ms"):
        assert out[name] == event[name], name
    assert out["device_id"] == event.get("device_id", "installation-1")
    for name in ("user_id", "session_id"):
        if name in event:
            assert out[name] == event[name], name
    properties = dict(event["properties"])
    assert holds(out["properties"].pop("_server"), properties.pop("_server"), typed=False)
    for name, value in properties.items():
        assert holds(out["properties"][name], value, typed=typed), (name, value, out)


# ------------------------------------------------------------------ made-up events

text = st.text(max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
    | st.sampled_from(["null", "true", "1", '"', "[1]", '{"a":1}', "NETWORK_TYPE_WIFI", ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=8,
)
MEMBERS = sorted({member for members in PAYLOADS.values() for member in members})
SPECIAL = ["user_id", "session_id", "_json", "__json", "_server", "json", "x_json", "device_id"]
names = text | st.sampled_from(SPECIAL) | st.sampled_from(MEMBERS)


def fitting(kind: str) -> st.SearchStrategy[Any]:
    """Values that a member of the gateway's messages takes without a loss."""
    if kind.startswith("repeated-"):
        return st.lists(fitting(kind.removeprefix("repeated-")), max_size=3)
    if kind in gateway.DEFINED:
        return st.fixed_dictionaries(
            {}, optional={name: fitting(of) for of, name, _ in gateway.DEFINED[kind]}
        )
    if kind in gateway.ENUMS:
        # Unspecified is named for two of them only.
        prefix, values = gateway.ENUMS[kind]
        known = values.split() if kind == "NetworkType" else values.split()[1:]
        return st.sampled_from([prefix + value for value in known])
    return {
        "string": text,
        "strings": st.dictionaries(text, text, max_size=3),
        "bool": st.booleans(),
        "int32": st.integers(-(2**31), 2**31 - 1),
        "int64": st.integers(-(2**63), 2**63 - 1),
        "float": st.floats(width=32, allow_nan=False, allow_infinity=False)
        | st.integers(-(2**24), 2**24),
    }[kind]


@st.composite
def fitting_events(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    event_type = draw(st.sampled_from(sorted(PAYLOADS)))
    members = gateway.DEFINED[gateway.PAYLOADS[event_type]]
    required = {name: text.filter(bool) for _, name, needed in members if needed}
    optional = {name: fitting(kind) for kind, name, needed in members if not needed}
    return event_type, draw(st.fixed_dictionaries(required, optional=optional))


beside: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "user_id": text.filter(bool),
        "session_id": text.filter(bool),
        "device_id": text.filter(bool),
        "app_id": text.filter(bool),
        "timestamp": st.integers(1, MAX_TIMESTAMP_MS).map(at),
        "idempotency_key": text.filter(bool),
    },
)


NEAR: dict[str, list[Any]] = {
    "string": [None, 1, True, [], "", {}],
    "strings": [None, [], {"a": 1}, {"a": None}, {"a": ""}, ""],
    "bool": [0, 1, "true", None],
    "int32": [2**31, -(2**31) - 1, 5.0, "5", True, None],
    "int64": [2**63, 2**64 - 1, -(2**63), 5.0, "5", False, None],
    "Coordinates": [{"x": 0.1}, {"x": 1e39}, {"x": 2**24 + 1}, {"y": "1"}, {"z": 1.0}, [], None],
    "repeated-string": [[None], ["a", 1], "a", {}, None],
    "repeated-PurchaseItem": [[{"quantity": 2**31}], [{"sku": "a"}], [None], {}, [[]]],
}
ENUM_NEAR = ["left", "LEFT", "SWIPE_DIRECTION_UNSPECIFIED", "BATTERY_STATE_FULL", "", 1, 0, None]


def near(kind: str) -> st.SearchStrategy[Any]:
    """What a member of this kind takes only almost, or not without a loss."""
    return st.sampled_from(ENUM_NEAR if kind in gateway.ENUMS else NEAR[kind])


@st.composite
def arbitrary_events(draw: st.DrawFn) -> Event:
    """Any type, any properties; half of them of a known type, often with something near a fit."""
    more = draw(st.dictionaries(names, json_values, max_size=draw(st.sampled_from([0, 0, 4]))))
    if draw(st.booleans()):
        return Event(draw(text.filter(bool)), more, **draw(beside))
    event_type, properties = draw(fitting_events())
    members = gateway.DEFINED[gateway.PAYLOADS[event_type]]
    for kind, name, _ in draw(st.lists(st.sampled_from(members), max_size=1)):
        properties[name] = draw(near(kind))
    return Event(event_type, {**properties, **more}, **draw(beside))


@settings(max_examples=400)
@given(st.lists(arbitrary_events(), max_size=4))
def test_the_parser_takes_every_request_and_nothing_is_lost(events: list[Event]) -> None:
    rows = [ENCODER.encode_event(event)[1] for event in events]
    envelopes = gateway.parse(WIRE.frame(rows).body)
    assert len(envelopes) == len(rows)
    for row, envelope in zip(rows, envelopes, strict=True):
        assert_held(row, envelope)


@given(fitting_events(), beside)
def test_what_fits_is_typed(made: tuple[str, dict[str, Any]], more: dict[str, Any]) -> None:
    event_type, properties = made
    event = Event(event_type, properties, **more)
    [row] = [ENCODER.encode_event(event)[1]]
    [envelope] = gateway.parse(WIRE.frame([row]).body)
    assert field(envelope) == event_type
    assert_held(row, envelope)


@given(fitting_events(), names, json_values)
def test_what_does_not_fit_is_a_custom_event_whole(
    made: tuple[str, dict[str, Any]], name: str, value: Any
) -> None:
    event_type, properties = made
    if name == "_server" or name in PAYLOADS[event_type]:
        return
    envelope = one(event_type, {**properties, name: value})
    assert field(envelope) == "custom_event"
    assert envelope.custom_event.event_name == event_type


# ------------------------------------------------------------------ single decisions


def test_the_table_and_the_definitions_of_the_tests_agree() -> None:
    def kind(member: Member) -> str:
        if member.type is Type.ENUM:
            name = member.enum
        elif member.type is Type.MESSAGE:
            name = member.message
        else:
            name = "strings" if member.type is Type.STRING_MAP else member.type.value
        return f"repeated-{name}" if member.repeated else name

    def listed(members: Any) -> list[tuple[str, str, bool]]:
        return [(kind(member), name, member.required) for name, member in members.items()]

    for event_type, members in PAYLOADS.items():
        assert listed(members) == gateway.DEFINED[gateway.PAYLOADS[event_type]]
        for member in members.values():
            if member.type is Type.ENUM:
                prefix, values = gateway.ENUMS[member.enum]
                known = {prefix + value for value in values.split()}
                assert known - {f"{prefix}UNSPECIFIED"} <= set(member.names) <= known
    assert listed(DEVICE_CONTEXT) == gateway.DEFINED["DeviceContext"]
    assert {*PAYLOADS, "custom_event"} == set(gateway.PAYLOADS)
    assert len(PAYLOADS) == 28


@pytest.mark.parametrize(
    ("event_type", "properties"),
    [
        ("screen_view", {}),
        ("screen_view", {"screen_name": ""}),
        ("screen_view", {"screen_name": None}),
        ("screen_view", {"screen_name": "home", "params": {"a": 1}}),
        ("screen_view", {"screen_name": "home", "screenClass": "x"}),
        ("product_view", {"product_id": "p", "price_cents": 12.0}),
        ("product_view", {"product_id": "p", "price_cents": True}),
        ("product_view", {"product_id": "p", "price_cents": "1299"}),
        ("product_view", {"product_id": "p", "price_cents": 2**63}),
        ("product_view", {"product_id": 7}),
        ("add_to_cart", {"product_id": "p", "quantity": 2**31}),
        ("button_tap", {"button_id": "b", "coordinates": {"x": 0.1, "y": 1}}),
        ("button_tap", {"button_id": "b", "coordinates": {"x": 1e300}}),
        ("button_tap", {"button_id": "b", "coordinates": {"x": 2**24 + 1}}),
        ("button_tap", {"button_id": "b", "coordinates": {"x": 1, "z": 1}}),
        ("button_tap", {"button_id": "b", "coordinates": None}),
        ("swipe_gesture", {"direction": "left"}),
        ("swipe_gesture", {"direction": 1}),
        ("app_start", {"is_cold_start": 1}),
        ("app_start", {"is_cold_start": None}),
        ("user_profile_update", {"fields_updated": "email"}),
        ("user_profile_update", {"fields_updated": ["email", None]}),
        ("purchase_complete", {"order_id": "A", "items": [{"product_id": "p", "sku": "s"}]}),
        ("purchase_complete", {"order_id": "A", "items": [{"price_cents": None}]}),
        ("custom_event", {"event_name": "x"}),
        ("device_context", {}),
        ("Purchase_Complete", {"order_id": "A"}),
    ],
)
def test_near_misses_are_custom_events(event_type: str, properties: dict[str, Any]) -> None:
    envelope = one(event_type, properties)
    assert field(envelope) == "custom_event"
    assert envelope.custom_event.event_name == event_type


class TestTyped:
    def test_a_type_without_required_members_needs_no_property(self) -> None:
        assert field(one("app_start")) == "app_start"

    def test_a_zero_goes_along_and_reads_as_itself(self) -> None:
        properties = {"is_cold_start": False, "launch_duration_ms": 0, "launch_source": ""}
        body = orjson.loads(WIRE.frame([ENCODER.encode("app_start", properties)[1]]).body)
        assert body["events"][0]["app_start"] == properties

    def test_the_user_goes_into_the_member_that_is_there_for_it(self) -> None:
        envelope = one("user_login", {"method": "pin"}, user_id="u-42")
        assert envelope.user_login.user_id == "u-42"
        assert "user_id" not in json.loads(envelope.correlation_id)

    def test_a_user_that_is_another_than_the_property_is_kept_beside_it(self) -> None:
        envelope = one("user_login", {"user_id": "u-1"}, user_id="u-2")
        assert envelope.user_login.user_id == "u-1"
        assert json.loads(envelope.correlation_id)["user_id"] == "u-2"

    def test_what_no_field_takes_is_the_correlation_id(self) -> None:
        envelope = one("screen_view", {"screen_name": "home"}, user_id="u", session_id="s")
        assert json.loads(envelope.correlation_id) == {
            "user_id": "u", "session_id": "s", "_server": SERVER,
        }  # fmt: skip

    def test_the_correlation_id_of_a_session_stays_the_same(self) -> None:
        """So that the gateway can group by it."""
        events = [one("screen_view", {"screen_name": n}, session_id="s") for n in ("a", "b")]
        assert events[0].correlation_id == events[1].correlation_id


class TestCustom:
    def test_each_property_lies_in_the_map_of_its_type(self) -> None:
        envelope = one("x", {"s": "null", "i": -(2**63), "f": 1.0, "b": False}, user_id="u")
        custom = envelope.custom_event
        assert dict(custom.int_params) == {"i": -(2**63)}
        assert dict(custom.float_params) == {"f": 1.0}
        assert dict(custom.bool_params) == {"b": False}
        assert custom.string_params["s"] == "null"
        assert custom.string_params["user_id"] == "u"
        assert envelope.correlation_id == ""

    def test_what_no_map_takes_is_json_and_is_named_so(self) -> None:
        properties = {"none": None, "text": "null", "huge": 2**64 - 1, "cart": [{"sku": "a"}]}
        params = one("x", properties).custom_event.string_params
        assert params["none"] == "null"
        assert params["text"] == "null"
        assert params["huge"] == "18446744073709551615"
        assert params["cart"] == '[{"sku":"a"}]'
        assert json.loads(params["_server"]) == SERVER
        assert set(json.loads(params["_json"])) == {"none", "huge", "cart", "_server"}

    def test_a_property_with_the_name_of_the_list_gets_an_underscore(self) -> None:
        custom = one("x", {"_json": "a", "__json": 1, "json": 2}).custom_event
        assert custom.string_params["__json"] == "a"
        assert dict(custom.int_params) == {"___json": 1, "json": 2}

    def test_a_property_named_like_the_user_does_not_hide_the_user(self) -> None:
        envelope = one("x", {"user_id": 5, "session_id": "s"}, user_id="u", session_id="s")
        assert envelope.custom_event.int_params["user_id"] == 5
        assert envelope.custom_event.string_params["session_id"] == "s"
        assert json.loads(envelope.correlation_id) == {"user_id": "u"}


class TestDevice:
    def test_an_event_without_a_device_has_that_of_the_installation(self) -> None:
        assert one("x").device_id == "installation-1"
        assert one("x", device_id="d-1").device_id == "d-1"

    def test_without_an_installation_the_device_is_never_empty(self) -> None:
        row = ENCODER.encode("x")[1]
        [envelope] = gateway.parse(CausalityProtoWire().frame([row]).body)
        assert len(envelope.device_id) == 36

    def test_what_is_known_is_the_context(self) -> None:
        context = one("x").device_context
        assert (context.os_version, context.sdk_version) == ("Linux 6.1", "9.9.9")
        assert (context.device_model, context.locale) == ("PC", "de-CH")
        assert context.timezone == "Europe/Zurich"

    def test_an_event_of_another_machine_has_only_what_it_says_itself(self) -> None:
        context = one("x", {"_server": {**SERVER, "hostname": "till-8"}}).device_context
        assert (context.os_version, context.device_model) == ("Linux 6.1", "")

    @pytest.mark.parametrize("server", [None, "till-7", [], {"os": 5, "hostname": None}])
    def test_a_context_of_another_shape_is_carried_and_not_read(self, server: object) -> None:
        envelope = one("app_start", {"_server": server})
        assert not envelope.HasField("device_context")
        assert json.loads(envelope.correlation_id) == {"_server": server}


class TestRowsThatAreNoEvents:
    @pytest.mark.parametrize(
        "row",
        [
            b"not json",
            b"[]",
            b"{}",
            b'{"app_id":"a","event_type":"","idempotency_key":"k","timestamp_ms":1}',
            b'{"app_id":"a","event_type":"x","idempotency_key":"k","timestamp_ms":0}',
            b'{"app_id":"a","event_type":"x","idempotency_key":"k","timestamp_ms":1.5}',
            b'{"app_id":"a","event_type":"x","idempotency_key":1,"timestamp_ms":1}',
            b'{"app_id":"a","event_type":"x","timestamp_ms":1,"properties":[]}',
            b'{"app_id":"a","event_type":"x","timestamp_ms":1,"properties":{"a":'
            + b"[" * 400
            + b"]" * 400
            + b"}}",
        ],
    )
    def test_they_go_as_they_are_and_are_refused(self, row: bytes) -> None:
        """Refused alone, after bisection, such a row becomes a dead letter; it blocks nothing."""
        assert WIRE.frame([row]).body == b'{"events":[' + row + b"]}"
        with pytest.raises(gateway.RefusedError):
            gateway.parse(WIRE.frame([row]).body)

    def test_what_the_canonical_form_does_not_know_yet_is_carried(self) -> None:
        row = b'{"app_id":"a","event_type":"x","timestamp_ms":1,"trace":[1],"user_id":null}'
        [envelope] = gateway.parse(WIRE.frame([row]).body)
        assert json.loads(envelope.correlation_id) == {"trace": [1], "user_id": None}


class TestAnswers:
    def kinds(self, body: bytes, count: int = 2, status: int = 200) -> list[Kind]:
        return [verdict.kind for verdict in WIRE.verdicts(Response(status, body=body), count)]

    def test_results_are_read_with_zeros_left_out(self) -> None:
        body = b'{"acceptedCount":1,"rejectedCount":1,"results":[{"eventId":"a","status":"accepted"'
        body += b'},{"index":1,"status":"rejected","error":"broker away"}]}'
        assert self.kinds(body) == [Kind.ACCEPTED, Kind.REJECTED]
        assert self.kinds(body.replace(b"edCount", b"ed_count")) == [Kind.ACCEPTED, Kind.REJECTED]

    @pytest.mark.parametrize("body", [b'{"acceptedCount":2}', b'{"accepted_count":"2"}'])
    def test_counts_that_cover_the_batch_accept_it(self, body: bytes) -> None:
        assert self.kinds(body) == [Kind.ACCEPTED, Kind.ACCEPTED]

    @pytest.mark.parametrize(
        "body", [b"", b"{}", b'{"rejectedCount":2}', b'{"acceptedCount":1}', b"<html>", b"OK"]
    )
    def test_an_answer_that_counts_nothing_accepts_nothing(self, body: bytes) -> None:
        """A count of zero is left out, so an empty object is not an acknowledgement here."""
        assert self.kinds(body) == [Kind.RETRY, Kind.RETRY]

    @pytest.mark.parametrize("status", [400, 401, 429, 500])
    def test_an_error_accepts_nothing(self, status: int) -> None:
        assert self.kinds(b'{"acceptedCount":2}', status=status) == [Kind.RETRY, Kind.RETRY]


def test_its_names() -> None:
    assert WIRES["causality-proto"] is CausalityProtoWire
    request = WIRE.frame([])
    assert (request.method, request.path, request.body) == (
        "POST", "/v1/events/batch", b'{"events":[]}',
    )  # fmt: skip
    assert request.headers["Content-Type"] == "application/json"
    assert (WIRE.name, WIRE.key_header, WIRE.health_path) == (
        "causality-proto", "X-API-Key", "/health",
    )  # fmt: skip
