"""One canonical event as a message of the Causality gateway, with nothing lost.

Neighbours: `_proto_schema` knows the typed payloads, `causality_proto` makes requests of messages.
Pure. Invariant: every value of the event is in its message and can be told apart from any other:

- a typed payload, where the type is known and every property fits a member, else `custom_event`;
- in `custom_event` a property lies in the map of its type. What no map takes (null, a list, an
  object, an integer beyond 64 bits) is JSON text in `string_params`; `_json` there lists the names
  of those, as a JSON array. A property that is itself called `_json`, with any number of
  underscores in front, gets one more;
- `correlation_id` holds what no other field takes, as a JSON object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from causality_sdk.wire._proto_schema import INT64_MAX, INT64_MIN, PAYLOADS, misfit
from causality_sdk.wire.device import Machine

_KNOWN = frozenset(
    {
        "app_id", "event_type", "idempotency_key", "timestamp_ms", "device_id", "user_id",
        "session_id", "properties",
    }
)  # fmt: skip
_RESERVED = re.compile("_+json")


def is_canonical(event: Any) -> bool:
    """Whether the gateway could take what is made of `event` at all."""
    if not isinstance(event, dict):
        return False
    for name in ("app_id", "event_type"):
        if not isinstance(event.get(name), str) or not event[name]:
            return False
    timestamp = event.get("timestamp_ms")
    return (
        type(timestamp) is int
        and 0 < timestamp <= INT64_MAX
        and isinstance(event.get("idempotency_key", ""), str)
        and isinstance(event.get("properties", {}), dict)
    )


def message(event: dict[str, Any], installation_id: str, machine: Machine) -> dict[str, Any]:
    """The gateway's message for a canonical `event`.

    `installation_id` stands in where it has no device of its own; what is known of `machine` is
    added if it was made there.
    """
    properties = event.get("properties", {})
    # Keys that a later release may add to the canonical form have no field either.
    rest = {name: event[name] for name in event.keys() - _KNOWN}
    made: dict[str, Any] = {
        "app_id": event["app_id"],
        "device_id": installation_id,
        "timestamp_ms": event["timestamp_ms"],
    }
    device_id = event.get("device_id")
    if isinstance(device_id, str) and device_id:
        made["device_id"] = device_id
    elif "device_id" in event:
        rest["device_id"] = device_id
    if "idempotency_key" in event:
        made["idempotency_key"] = event["idempotency_key"]
    context = _device_context(properties.get("_server"), machine)
    if context:
        made["device_context"] = context
    field, payload = _typed(event, properties, rest) or _custom(event, properties, rest)
    made[field] = payload
    if rest:
        made["correlation_id"] = orjson.dumps(rest, option=orjson.OPT_SORT_KEYS).decode()
    return made


def _device_context(server: object, machine: Machine) -> dict[str, str]:
    if not isinstance(server, dict):
        return {}
    # An event may be sent by another machine than it was made on: a queue that was moved there.
    here = machine.hostname != "" and server.get("hostname") == machine.hostname
    context = dict(machine.context) if here else {}
    for member, name in (("os_version", "os"), ("sdk_version", "sdk_version")):
        if isinstance(server.get(name), str) and server[name]:
            context[member] = server[name]
    return context


def _typed(
    event: Mapping[str, Any], properties: Mapping[str, Any], rest: dict[str, Any]
) -> tuple[str, dict[str, Any]] | None:
    """The payload of the event's own type; None if a property does not fit. Adds to `rest`."""
    members = PAYLOADS.get(event["event_type"])
    if members is None:
        return None
    payload = {name: value for name, value in properties.items() if name != "_server"}
    if misfit(members, payload) is not None:
        return None
    if "_server" in properties:
        rest["_server"] = properties["_server"]
    for name in ("user_id", "session_id"):
        if name not in event:
            continue
        value = event[name]
        takes = name in members and isinstance(value, str)
        if not takes or payload.setdefault(name, value) != value:
            rest[name] = value
    return event["event_type"], payload


def _custom(
    event: Mapping[str, Any], properties: Mapping[str, Any], rest: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The event as `custom_event`. Adds to `rest`."""
    strings: dict[str, str] = {}
    integers: dict[str, int] = {}
    floats: dict[str, float] = {}
    flags: dict[str, bool] = {}
    encoded: list[str] = []
    for name, value in properties.items():
        key = f"_{name}" if _RESERVED.fullmatch(name) else name
        kind = type(value)
        if kind is str:
            strings[key] = value
        elif kind is bool:
            flags[key] = value
        elif kind is int and INT64_MIN <= value <= INT64_MAX:
            integers[key] = value
        elif kind is float:
            floats[key] = value
        else:
            strings[key] = orjson.dumps(value).decode()
            encoded.append(key)
    for name in ("user_id", "session_id"):
        if name not in event:
            continue
        value = event[name]
        if name not in properties and isinstance(value, str):
            strings[name] = value
        elif not isinstance(value, str) or properties[name] != value:
            rest[name] = value
    if encoded:
        strings["_json"] = orjson.dumps(encoded).decode()
    payload: dict[str, Any] = {"event_name": event["event_type"]}
    maps = {
        "string_params": strings,
        "int_params": integers,
        "float_params": floats,
        "bool_params": flags,
    }
    payload.update({name: params for name, params in maps.items() if params})
    return "custom_event", payload
