"""The gateway's messages as protobuf definitions, written down a second time from its facts.

Nothing of the package is imported: what the tests parse requests with must not share a mistake with
the table that makes them. The parser is protobuf's own, with unknown fields refused.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

# As a .proto file would have it; `!` marks what the gateway requires not to be empty.
MESSAGES = """
Coordinates: float x, float y
PurchaseItem: string product_id, string product_name, int32 quantity, int64 price_cents
UserLogin: string user_id, string method, bool is_new_user
UserLogout: string user_id, string reason
UserSignup: string user_id, string method, string referral_source
UserProfileUpdate: string user_id, repeated-string fields_updated
ScreenView: string screen_name!, string screen_class, string previous_screen, strings params
ScreenExit: string screen_name!, int64 duration_ms, string next_screen
ButtonTap: string button_id!, string button_text, string screen_name, Coordinates coordinates
SwipeGesture: SwipeDirection direction, string screen_name, Coordinates start, Coordinates end, \
int64 duration_ms
ScrollEvent: string screen_name, string container_id, int32 scroll_depth_percent, \
ScrollDirection direction
TextInput: string field_id!, string field_type, string screen_name, int32 text_length, \
int64 input_duration_ms
LongPress: string element_id, string screen_name, Coordinates coordinates, int64 duration_ms
DoubleTap: string element_id, string screen_name, Coordinates coordinates
ProductView: string product_id!, string product_name, string category, int64 price_cents, \
string currency, string source
AddToCart: string product_id!, string product_name, int32 quantity, int64 price_cents, \
string currency, string cart_id
RemoveFromCart: string product_id!, int32 quantity, string cart_id, string reason
CheckoutStart: string cart_id, int32 item_count, int64 total_cents, string currency
CheckoutStep: string cart_id, int32 step_number, string step_name, int64 step_duration_ms
PurchaseComplete: string order_id!, string cart_id, int32 item_count, int64 total_cents, \
string currency, string payment_method, repeated-PurchaseItem items
PurchaseFailed: string cart_id, string error_code, string error_message, string payment_method, \
int32 checkout_step
AppStart: bool is_cold_start, int64 launch_duration_ms, string launch_source, string deeplink_url
AppBackground: int64 foreground_duration_ms, string current_screen
AppForeground: int64 background_duration_ms, string resume_screen
AppCrash: string crash_type, string crash_message, string stack_trace, string current_screen
NetworkChange: NetworkType previous_type, NetworkType current_type
PermissionRequest: string permission_type, string trigger_screen
PermissionResult: string permission_type, PermissionStatus status
MemoryWarning: int64 available_memory_bytes, int64 used_memory_bytes, MemoryWarningLevel level
BatteryChange: int32 battery_level, BatteryState state
CustomEvent: string event_name!, strings string_params, int64s int_params, \
doubles float_params, bools bool_params
DeviceContext: Platform platform, string os_version, string app_version, string build_number, \
string device_model, string manufacturer, int32 screen_width, int32 screen_height, \
string locale, string timezone, NetworkType network_type, string carrier, bool is_jailbroken, \
bool is_emulator, string sdk_version
"""

ENUMS = {
    "SwipeDirection": ("SWIPE_DIRECTION_", "UNSPECIFIED LEFT RIGHT UP DOWN"),
    "ScrollDirection": ("SCROLL_DIRECTION_", "UNSPECIFIED UP DOWN"),
    "NetworkType": (
        "NETWORK_TYPE_",
        "UNSPECIFIED WIFI CELLULAR_2G CELLULAR_3G CELLULAR_4G CELLULAR_5G ETHERNET OFFLINE",
    ),
    "PermissionStatus": ("PERMISSION_STATUS_", "UNSPECIFIED GRANTED DENIED DENIED_PERMANENTLY"),
    "MemoryWarningLevel": ("MEMORY_WARNING_LEVEL_", "UNSPECIFIED LOW CRITICAL"),
    "BatteryState": ("BATTERY_STATE_", "UNSPECIFIED CHARGING DISCHARGING FULL"),
    "Platform": ("PLATFORM_", "UNSPECIFIED IOS ANDROID WEB"),
}

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _FIELD.TYPE_STRING,
    "bool": _FIELD.TYPE_BOOL,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "float": _FIELD.TYPE_FLOAT,
    "double": _FIELD.TYPE_DOUBLE,
}
_PACKAGE = "gateway_test"


def _members(line: str) -> list[tuple[str, str, bool]]:
    pairs = [member.split(" ") for member in line.split(", ")]
    return [(kind, name.rstrip("!"), name.endswith("!")) for kind, name in pairs]


DEFINED: dict[str, list[tuple[str, str, bool]]] = {
    name: _members(members)
    for name, members in (line.split(": ") for line in MESSAGES.strip().splitlines())
}
"""Message to its members: type, name, required."""

PAYLOADS: dict[str, str] = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): name
    for name in DEFINED
    if name not in ("Coordinates", "PurchaseItem", "DeviceContext")
}
"""Payload field of the envelope to its message."""


def _type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind in ENUMS:
        field.type, field.type_name = _FIELD.TYPE_ENUM, f".{_PACKAGE}.{kind}"
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"


def _add(message: descriptor_pb2.DescriptorProto, kind: str, name: str) -> None:
    field = message.field.add(name=name, number=len(message.field) + 1)
    field.label = _FIELD.LABEL_OPTIONAL
    if kind.startswith("repeated-"):
        field.label = _FIELD.LABEL_REPEATED
        _type(field, kind.removeprefix("repeated-"))
    elif kind.removesuffix("s") in _SCALARS and kind.endswith("s"):
        entry_name = "".join(word.capitalize() for word in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add(entry, "string", "key")
        _add(entry, kind.removesuffix("s"), "value")
        field.label, field.type = _FIELD.LABEL_REPEATED, _FIELD.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{message.name}.{entry_name}"
    else:
        _type(field, kind)


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="gateway_test.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, (prefix, values) in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values.split()):
            enum.value.add(name=prefix + value, number=number)
    for name, members in DEFINED.items():
        message = file.message_type.add(name=name)
        for kind, member, _ in members:
            _add(message, kind, member)
    envelope = file.message_type.add(name="EventEnvelope")
    for kind, member in (
        ("string", "id"),
        ("string", "app_id"),
        ("string", "device_id"),
        ("int64", "timestamp_ms"),
        ("string", "correlation_id"),
        ("DeviceContext", "device_context"),
        ("string", "idempotency_key"),
    ):
        _add(envelope, kind, member)
    envelope.oneof_decl.add(name="payload")
    for field_name, message_name in PAYLOADS.items():
        _add(envelope, message_name, field_name)
        envelope.field[-1].oneof_index = 0
    batch = file.message_type.add(name="Batch")
    _add(batch, "repeated-EventEnvelope", "events")
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())
_Batch = message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.Batch"))


class RefusedError(ValueError):
    """The gateway refuses the whole batch."""


def parse(body: bytes) -> list[Any]:
    """The envelopes of a batch, read as strictly as the gateway does. Raises `RefusedError`."""
    batch: Any = _Batch()
    try:
        json_format.Parse(body.decode(), batch, ignore_unknown_fields=False)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise RefusedError(str(error)) from error
    events = list(batch.events)
    for envelope in events:
        _check(envelope)
    return events


def payload_of(envelope: Message) -> tuple[str, Any]:
    """The payload field that is set, and its message."""
    name = envelope.WhichOneof("payload")
    return name or "", getattr(envelope, name) if name else None


def binary(envelopes: list[Any]) -> bytes:
    """The same batch as binary protobuf."""
    batch: Any = _Batch()
    batch.events.extend(envelopes)
    encoded: bytes = batch.SerializeToString()
    return encoded


def _check(envelope: Any) -> None:
    if not envelope.app_id or not envelope.device_id or envelope.timestamp_ms <= 0:
        raise RefusedError("app_id, device_id and timestamp_ms are required")
    name, payload = payload_of(envelope)
    if not name:
        raise RefusedError("an event without a payload")
    for _, member, required in DEFINED[PAYLOADS[name]]:
        if required and not getattr(payload, member):
            raise RefusedError(f"{name}.{member} is required")
