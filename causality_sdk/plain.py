"""What JSON does not know, as JSON: datetime, date, time, UUID, Decimal, Enum, dataclass, bytes,
set, Path, numpy scalars, and what behaves like a list, a set or a text without being one.

Two ways to the same result. `convert` is the hook that orjson calls for a single unknown value;
`plain` walks a whole value and is taken only when the fast way failed or is in doubt, since it
knows the path to what is wrong. Pure. Invariant: nothing is changed silently; NaN, infinity and
naive datetimes raise, and so does what could be written in more than one way, such as a timedelta.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import reprlib
import sys
from collections import UserString
from collections.abc import Awaitable, Iterator, Mapping, Sequence, Set, ValuesView
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import orjson

from causality_sdk.errors import EventError

# Datetimes and dataclasses go through `convert`: orjson would take naive datetimes, and leave out
# the fields of a dataclass that begin with an underscore.
ORJSON_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS

PATH_CHARS = 200  # of the path in an error; a name may be as long as an event
ITEMS_MAX = 1_000_000  # of what only knows how to make them: range(10**9) would fill the memory
MAX_DEPTH = 250  # orjson refuses to go deeper than 254; a value that holds itself goes for ever

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # what orjson writes as a number

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


def show(value: object) -> str:
    """A bounded repr with the type, for error messages: `int 42`, `object <object at …>`."""
    try:
        text = _repr.repr(value)
    except Exception as error:  # noqa: BLE001 - a __repr__ of the user's may raise anything
        text = f"(its repr raised {type(error).__name__})"
    return f"{type(value).__name__} {text}"


def short(path: str) -> str:
    """A path as an error shows it: what holds itself would repeat its name 250 times."""
    return path if len(path) <= PATH_CHARS else f"{path[: PATH_CHARS // 4]}…"


def convert(value: Any) -> Any:
    """One value that orjson does not know as something nearer to JSON.

    May return a container whose items are converted in their turn. Raises `TypeError` with the
    reason, which orjson passes on as its own error.
    """
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise TypeError("has no time zone; use datetime.now(timezone.utc) or .astimezone()")
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise TypeError("is not finite; JSON has no such number, use None or leave it out")
        return str(value)  # as text: a JSON number would be read as a binary float
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (set, frozenset)):
        return _ordered(value)
    if isinstance(value, PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {spec.name: getattr(value, spec.name) for spec in dataclasses.fields(value)}
    return _converted_subclass(value)


def _converted_subclass(value: Any) -> Any:
    """The rarer kinds: numpy scalars, and subclasses that orjson leaves to its hook."""
    numpy = sys.modules.get("numpy")  # a numpy scalar exists only once somebody imported numpy
    if numpy is not None and isinstance(value, numpy.generic):
        kind = value.dtype.kind
        if kind == "b":
            return bool(value)
        if kind in "iu":
            return int(value)
        if kind == "f":
            return float(value)
        if kind == "M":
            raise TypeError("is a numpy datetime64, which has no time zone; use an aware datetime")
    elif isinstance(value, float):
        return float(value)
    elif isinstance(value, tuple):
        return list(value)
    elif isinstance(value, Mapping):
        return dict(value)
    return _converted_lookalike(value)


# Module -> its types that are written as their text. None of them exists before it was imported.
_AS_TEXT = {
    "fractions": ("Fraction",),  # "1/3": as a number it would be rounded
    "ipaddress": (
        "IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network",
    ),  # interfaces are addresses, too
    "django.utils.functional": ("Promise",),  # texts that are translated when they are read
    "flask_babel.speaklater": ("LazyString",),
    "babel.support": ("LazyProxy",),
}  # fmt: skip


def _converted_lookalike(value: Any) -> Any:
    """What behaves like a text, a list or a set; the words for what does not."""
    if isinstance(value, (UserString, time)):
        return str(value)
    for module, names in _AS_TEXT.items():
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(value, tuple(getattr(loaded, n) for n in names)):
            return str(value)
    if isinstance(value, (Sequence, Set, ValuesView)):
        if len(value) > ITEMS_MAX:
            raise TypeError(f"has {len(value)} items, above {ITEMS_MAX}; send less")
        # Of a dict the keys and the items have an order of their own, which a set has not.
        return list(value)
    raise TypeError(_advice(value))


def _advice(value: object) -> str:
    if isinstance(value, timedelta):
        return "has no form of its own in JSON; use .total_seconds(), with the unit in the name"
    if isinstance(value, Awaitable):
        return "was not awaited; await it"
    if isinstance(value, Iterator):
        return "can be read once only; use list(...)"
    if callable(getattr(value, "tolist", None)):
        return "is of a type that cannot be sent; use .tolist()"
    return "is of a type that cannot be sent; convert it, for example with str(...)"


def _converted(value: Any, path: str) -> Any:
    """`convert` with the path in its error."""
    try:
        return convert(value)
    except TypeError as error:
        raise EventError(f"{short(path)} ({show(value)}) {error}") from None
    except Exception as error:  # of the value's own code: a field that was never set, a view
        raise EventError(f"{short(path)} ({show(value)}) cannot be read: {show(error)}") from error


def _ordered(values: set[Any] | frozenset[Any]) -> list[Any]:
    """Sorted where it can be: the order of a set of strings differs in every process."""
    try:
        return sorted(values)
    except Exception:  # noqa: BLE001 - comparing Decimals, one of them a NaN, is no TypeError
        return list(values)


def plain(value: Any, path: str, depth: int = 0) -> Any:
    """`value` with only dict, list, str, int, float, bool and None in it.

    Raises `EventError` that names the path to the first value that cannot be sent, as in
    `properties.cart[2].price`.
    """
    if value is None or value is True or value is False:
        return value
    if depth > MAX_DEPTH:
        raise EventError(f"{short(path)} is nested more than {MAX_DEPTH} deep, or holds itself")
    if isinstance(value, Enum):  # before str and int, which an Enum may also be
        return plain(value.value, path, depth + 1)
    if isinstance(value, str):
        return _checked_text(value, path)
    if isinstance(value, int):
        return _checked_int(value, path)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EventError(
                f"{short(path)} is {float(value)}; JSON has no such number, use None or"
                " leave it out"
            )
        return float(value)
    # What orjson takes as it is; all the rest goes through `convert`, in both ways.
    if isinstance(value, dict):
        return _plain_items(value, path, depth)
    if isinstance(value, list) or type(value) is tuple:
        return [plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    return plain(_converted(value, path), path, depth + 1)


def _plain_items(value: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, item in value.items():
        name = _checked_key(key, path)
        if name in items:
            raise EventError(f"{short(path)} has two keys that are written {show(name)}")
        items[name] = plain(item, f"{path}.{name}", depth + 1)
    return items


def _checked_int(value: int, path: str) -> int | str:
    if _INT_MIN <= value <= _INT_MAX:
        return int(value)
    try:
        return str(int(value))  # most readers of JSON would round it
    except ValueError as error:  # sys.set_int_max_str_digits
        raise EventError(f"{short(path)} is too large a number: {error}") from None


def _checked_text(text: str, path: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EventError(
            f"{short(path)} holds a lone surrogate (character {error.start}), which is not"
            " Unicode text; decode its source with errors='replace'"
        ) from None
    return str.__str__(text)


def _checked_key(key: object, path: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        raise EventError(
            f"{short(path)} has the key {show(key)}; keys must be strings, use str(...)"
        )
    return _checked_text(key, path)
