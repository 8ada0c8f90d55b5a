"""The payloads that the Causality gateway knows, as data, and whether a value fits a member.

Neighbours: `_proto_payload` chooses by it, `events` validates by it. Pure. Invariant: what fits a
member can be read back from it as it went in, and the gateway's strict parser takes it.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


class Type(enum.Enum):
    """The type of a member, by the name that protobuf gives it."""

    STRING = "string"
    BOOL = "bool"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT = "float"
    ENUM = "enum"
    MESSAGE = "message"
    STRING_MAP = "map<string, string>"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a message. `names` are those of an enum, `members` those of a message.

    `plain` is the Python type every value of which fits, if there is one; an integer fits from
    `low` to `high`. They are looked at for each value of each event, so nothing is computed then.
    """

    type: Type
    required: bool = False
    repeated: bool = False
    enum: str = ""
    names: tuple[str, ...] = ()
    message: str = ""
    members: Mapping[str, Member] = field(default_factory=dict)
    plain: object = None
    low: int = 0
    high: int = 0


def _enum(name: str, *values: str) -> Member:
    prefix = "".join("_" + c if c.isupper() else c for c in name).lstrip("_").upper()
    return Member(Type.ENUM, enum=name, names=tuple(f"{prefix}_{value}" for value in values))


def _message(name: str, **members: Member) -> Member:
    return Member(Type.MESSAGE, message=name, members=MappingProxyType(members))


INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

_TEXT = Member(Type.STRING, plain=str)
_NEEDED = Member(Type.STRING, required=True, plain=str)
_FLAG = Member(Type.BOOL, plain=bool)
_INT32 = Member(Type.INT32, low=-(2**31), high=2**31 - 1)
_INT64 = Member(Type.INT64, low=INT64_MIN, high=INT64_MAX)
_TEXTS = Member(Type.STRING, repeated=True)
_TEXT_MAP = Member(Type.STRING_MAP)

_POINT = _message("Coordinates", x=Member(Type.FLOAT), y=Member(Type.FLOAT))
_ITEM = _message(
    "PurchaseItem", product_id=_TEXT, product_name=_TEXT, quantity=_INT32, price_cents=_INT64
)
_ITEMS = Member(Type.MESSAGE, repeated=True, message=_ITEM.message, members=_ITEM.members)

SWIPE_DIRECTION = _enum("SwipeDirection", "LEFT", "RIGHT", "UP", "DOWN")
SCROLL_DIRECTION = _enum("ScrollDirection", "UP", "DOWN")
NETWORK_TYPE = _enum(
    "NetworkType", "UNSPECIFIED", "WIFI", "CELLULAR_2G", "CELLULAR_3G", "CELLULAR_4G",
    "CELLULAR_5G", "ETHERNET", "OFFLINE",
)  # fmt: skip
PERMISSION_STATUS = _enum("PermissionStatus", "GRANTED", "DENIED", "DENIED_PERMANENTLY")
MEMORY_WARNING_LEVEL = _enum("MemoryWarningLevel", "LOW", "CRITICAL")
BATTERY_STATE = _enum("BatteryState", "CHARGING", "DISCHARGING", "FULL")
PLATFORM = _enum("Platform", "UNSPECIFIED", "IOS", "ANDROID", "WEB")


def _payload(**members: Member) -> Mapping[str, Member]:
    return MappingProxyType(members)


PAYLOADS: Mapping[str, Mapping[str, Member]] = MappingProxyType(
    {
        "user_login": _payload(user_id=_TEXT, method=_TEXT, is_new_user=_FLAG),
        "user_logout": _payload(user_id=_TEXT, reason=_TEXT),
        "user_signup": _payload(user_id=_TEXT, method=_TEXT, referral_source=_TEXT),
        "user_profile_update": _payload(user_id=_TEXT, fields_updated=_TEXTS),
        "screen_view": _payload(
            screen_name=_NEEDED, screen_class=_TEXT, previous_screen=_TEXT, params=_TEXT_MAP
        ),
        "screen_exit": _payload(screen_name=_NEEDED, duration_ms=_INT64, next_screen=_TEXT),
        "button_tap": _payload(
            button_id=_NEEDED, button_text=_TEXT, screen_name=_TEXT, coordinates=_POINT
        ),
        "swipe_gesture": _payload(
            direction=SWIPE_DIRECTION, screen_name=_TEXT, start=_POINT, end=_POINT,
            duration_ms=_INT64,
        ),
        "scroll_event": _payload(
            screen_name=_TEXT, container_id=_TEXT, scroll_depth_percent=_INT32,
            direction=SCROLL_DIRECTION,
        ),
        "text_input": _payload(
            field_id=_NEEDED, field_type=_TEXT, screen_name=_TEXT, text_length=_INT32,
            input_duration_ms=_INT64,
        ),
        "long_press": _payload(
            element_id=_TEXT, screen_name=_TEXT, coordinates=_POINT, duration_ms=_INT64
        ),
        "double_tap": _payload(element_id=_TEXT, screen_name=_TEXT, coordinates=_POINT),
        "product_view": _payload(
            product_id=_NEEDED, product_name=_TEXT, category=_TEXT, price_cents=_INT64,
            currency=_TEXT, source=_TEXT,
        ),
        "add_to_cart": _payload(
            product_id=_NEEDED, product_name=_TEXT, quantity=_INT32, price_cents=_INT64,
            currency=_TEXT, cart_id=_TEXT,
        ),
        "remove_from_cart": _payload(
            product_id=_NEEDED, quantity=_INT32, cart_id=_TEXT, reason=_TEXT
        ),
        "checkout_start": _payload(
            cart_id=_TEXT, item_count=_INT32, total_cents=_INT64, currency=_TEXT
        ),
        "checkout_step": _payload(
            cart_id=_TEXT, step_number=_INT32, step_name=_TEXT, step_duration_ms=_INT64
        ),
        "purchase_complete": _payload(
            order_id=_NEEDED, cart_id=_TEXT, item_count=_INT32, total_cents=_INT64,
            currency=_TEXT, payment_method=_TEXT, items=_ITEMS,
        ),
        "purchase_failed": _payload(
            cart_id=_TEXT, error_code=_TEXT, error_message=_TEXT, payment_method=_TEXT,
            checkout_step=_INT32,
        ),
        "app_start": _payload(
            is_cold_start=_FLAG, launch_duration_ms=_INT64, launch_source=_TEXT,
            deeplink_url=_TEXT,
        ),
        "app_background": _payload(foreground_duration_ms=_INT64, current_screen=_TEXT),
        "app_foreground": _payload(background_duration_ms=_INT64, resume_screen=_TEXT),
        "app_crash": _payload(
            crash_type=_TEXT, crash_message=_TEXT, stack_trace=_TEXT, current_screen=_TEXT
        ),
        "network_change": _payload(previous_type=NETWORK_TYPE, current_type=NETWORK_TYPE),
        "permission_request": _payload(permission_type=_TEXT, trigger_screen=_TEXT),
        "permission_result": _payload(permission_type=_TEXT, status=PERMISSION_STATUS),
        "memory_warning": _payload(
            available_memory_bytes=_INT64, used_memory_bytes=_INT64, level=MEMORY_WARNING_LEVEL
        ),
        "battery_change": _payload(battery_level=_INT32, state=BATTERY_STATE),
    }
)  # fmt: skip
"""Event type to the members of its payload. Everything else is a `custom_event`."""

DEVICE_CONTEXT: Mapping[str, Member] = _payload(
    platform=PLATFORM, os_version=_TEXT, app_version=_TEXT, build_number=_TEXT,
    device_model=_TEXT, manufacturer=_TEXT, screen_width=_INT32, screen_height=_INT32,
    locale=_TEXT, timezone=_TEXT, network_type=NETWORK_TYPE, carrier=_TEXT,
    is_jailbroken=_FLAG, is_emulator=_FLAG, sdk_version=_TEXT,
)  # fmt: skip

_FLOAT = struct.Struct("<f")


def misfit(
    members: Mapping[str, Member], values: Mapping[str, Any], *, exact: bool = True
) -> tuple[str, str] | None:
    """The path to the first value that `members` cannot take, and what it would have to be.

    None if all fit. `exact=False` takes a float that its member would round.
    """
    for name, value in values.items():
        member = members.get(name)
        if member is None:
            return name, "one of the members: " + ", ".join(members)
        if type(value) is member.plain:
            continue
        wrong = _wrong(member, value, exact=exact)
        if wrong is not None:
            return name + wrong[0], wrong[1]
    for name, member in members.items():
        if member.required and not values.get(name):
            return name, "a string that is not empty"
    return None


def _wrong(member: Member, value: Any, *, exact: bool) -> tuple[str, str] | None:
    if not member.repeated:
        return _wrong_single(member, value, exact=exact)
    if type(value) is not list:
        return "", "a list"
    for index, item in enumerate(value):
        wrong = _wrong_single(member, item, exact=exact)
        if wrong is not None:
            return f"[{index}]{wrong[0]}", wrong[1]
    return None


def _wrong_single(member: Member, value: Any, *, exact: bool) -> tuple[str, str] | None:
    # Types are exact: a bool is an int to Python, and 5.0 would come out of an int64 as 5.
    kind, given = member.type, type(value)
    if kind is Type.STRING:
        return None if given is str else ("", "a string")
    if kind is Type.BOOL:
        return None if given is bool else ("", "True or False")
    if member.high:
        if given is int and member.low <= value <= member.high:
            return None
        return "", f"a whole number from {member.low} to {member.high}"
    if kind is Type.FLOAT:
        return _wrong_float(value, exact=exact)
    if kind is Type.ENUM:
        fits = given is str and value in member.names
        return None if fits else ("", "one of " + ", ".join(member.names))
    if given is not dict:
        return "", "a mapping"
    if kind is Type.STRING_MAP:
        bad = next((name for name, text in value.items() if type(text) is not str), None)
        return None if bad is None else (f".{bad}", "a string")
    wrong = misfit(member.members, value, exact=exact)
    return None if wrong is None else (f".{wrong[0]}", wrong[1])


def _wrong_float(value: Any, *, exact: bool) -> tuple[str, str] | None:
    if type(value) not in (int, float) or not -math.inf < value < math.inf:
        return "", "a finite number"
    if exact and as_float32(value) != value:
        return "", "a number that 32 bits hold exactly"
    return None


def as_float32(value: float) -> float | None:
    """The nearest number that a 32-bit float holds; None where all of them are too small."""
    try:
        nearest: float = _FLOAT.unpack(_FLOAT.pack(value))[0]
    except OverflowError:
        return None
    return nearest
