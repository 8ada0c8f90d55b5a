"""Events as canonical JSON: what each type becomes, and what cannot be sent says where it lies."""

from __future__ import annotations

import array
import base64
import collections
import contextlib
import dataclasses
import enum
import ipaddress
import json
import math
import sys
import threading
import traceback
import types
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import numpy
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causality_sdk.errors import EventError
from causality_sdk.event import KEY_CHARS, Encoder, Event, several
from causality_sdk.plain import MAX_DEPTH, ORJSON_OPTIONS, convert, plain
from causality_sdk.timestamps import MAX_TIMESTAMP_MS, SECONDS_BELOW, at

NOW = 1_732_147_200_000
KEY = "01934c5e-0000-7000-8000-000000000000"


def make(max_event_bytes: int = 256 * 1024, app_id: str = "app") -> Encoder:
    return Encoder(app_id, max_event_bytes=max_event_bytes, now_ms=lambda: NOW, new_key=lambda: KEY)


ENCODER = make()


def sent(value: object) -> Any:
    """What the server reads for a property."""
    _, payload = ENCODER.encode("e", {"v": value})
    return json.loads(payload)["properties"]["v"]


def refused(value: object, *, name: str = "v") -> str:
    with pytest.raises(EventError) as caught:
        ENCODER.encode("e", {name: value})
    return str(caught.value)


class Color(enum.Enum):
    RED = "red"
    NUMBER = 7
    WHEN = date(2024, 11, 21)
    NAN = math.nan
    BIG = 2**70


class Text(str, enum.Enum):
    BUY = "buy"


class Level(enum.IntEnum):
    HIGH = 3


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclass
class Inner:
    _hidden: int
    when: date


@dataclass
class Outer:
    name: str
    inner: Inner
    items: list[Inner] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class Slotted:
    __slots__ = ("x",)
    x: int


class Point(NamedTuple):
    x: int
    y: float


class Lazy(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __repr__(self) -> str:  # the name of a test; the same in every process
        return "Lazy()"

    def __init__(self, **values: Any) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Rude:
    """Everything that an error message may ask of it raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __str__(self) -> str:
        raise RuntimeError("no str")

    def __hash__(self) -> int:
        return 1

    def __format__(self, _spec: str) -> str:
        raise RuntimeError("no format")


BERLIN = timezone(timedelta(hours=1))
UUID_1 = UUID("12345678-1234-5678-1234-567812345678")


class TestWhatAValueBecomes:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, None),
            (True, True),
            (0, 0),
            (-(2**63), -(2**63)),
            (2**64 - 1, 2**64 - 1),
            (2**64, str(2**64)),
            (-(2**63) - 1, str(-(2**63) - 1)),
            (10**300, str(10**300)),
            (1.5, 1.5),
            (-0.0, -0.0),
            (5e-324, 5e-324),
            ('text ü 😀 \x00 " \\', 'text ü 😀 \x00 " \\'),
            ("null", "null"),
            (datetime(2024, 11, 21, 1, 2, 3, 4, BERLIN), "2024-11-21T01:02:03.000004+01:00"),
            (datetime(2024, 11, 21, tzinfo=timezone.utc), "2024-11-21T00:00:00+00:00"),
            (date(2024, 11, 21), "2024-11-21"),
            (UUID_1, str(UUID_1)),
            (Decimal("1299.90"), "1299.90"),
            (Decimal("1E+3"), "1E+3"),
            (Decimal("-0"), "-0"),
            (Color.RED, "red"),
            (Color.NUMBER, 7),
            (Color.WHEN, "2024-11-21"),
            (Color.BIG, str(2**70)),
            (Text.BUY, "buy"),
            (Level.HIGH, 3),
            (Flags.A | Flags.B, 3),
            (
                Outer("o", Inner(1, date(2024, 1, 2)), [Inner(2, date(2024, 1, 3))]),
                {
                    "name": "o",
                    "inner": {"_hidden": 1, "when": "2024-01-02"},
                    "items": [{"_hidden": 2, "when": "2024-01-03"}],
                },
            ),
            (Slotted(1), {"x": 1}),
            (b"\x00\xff", base64.b64encode(b"\x00\xff").decode()),
            (bytearray(b"ab"), "YWI="),
            (memoryview(b"ab"), "YWI="),
            (b"", ""),
            ({"b", "a", "c"}, ["a", "b", "c"]),
            (frozenset({2, 1}), [1, 2]),
            (set(), []),
            ({date(2024, 1, 2), date(2024, 1, 1)}, ["2024-01-01", "2024-01-02"]),
            (PurePosixPath("/a/b"), "/a/b"),
            (Path("c"), "c"),
            ((1, (2,)), [1, [2]]),
            (Point(1, 2.5), [1, 2.5]),
            (numpy.int8(-3), -3),
            (numpy.uint64(2**64 - 1), 2**64 - 1),
            (numpy.float64(0.1), 0.1),
            (numpy.float32(0.5), 0.5),
            (numpy.float16(0.5), 0.5),
            (numpy.bool_(True), True),
            (numpy.str_("n"), "n"),
            (numpy.bytes_(b"ab"), "YWI="),
            (Lazy(a=1, b=Lazy(c=[2])), {"a": 1, "b": {"c": [2]}}),
            (types.MappingProxyType({"a": 1}), {"a": 1}),
            (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
            (collections.defaultdict(int, a=1), {"a": 1}),
            (collections.UserDict({"a": 1}), {"a": 1}),
            (collections.UserList([1, collections.UserList(["a"])]), [1, ["a"]]),
            (collections.UserString("text"), "text"),
            (collections.deque([2, 1]), [2, 1]),
            (range(1, 7, 2), [1, 3, 5]),
            ({"b": 1, "a": 2}.keys(), ["b", "a"]),
            ({"b": 2, "a": 1}.values(), [2, 1]),
            ({"b": 2, "a": 1}.items(), [["b", 2], ["a", 1]]),
            (array.array("i", [1, 2]), [1, 2]),
            (time(8, 30), "08:30:00"),
            (time(8, 30, 0, 5, BERLIN), "08:30:00.000005+01:00"),
            (Fraction(1, 3), "1/3"),
            (ipaddress.ip_address("192.0.2.1"), "192.0.2.1"),
            (ipaddress.ip_network("2001:db8::/32"), "2001:db8::/32"),
            (ipaddress.ip_interface("192.0.2.1/24"), "192.0.2.1/24"),
            ({}, {}),
            ([], []),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_alone_nested_and_the_slow_way(self, value: Any, expected: Any) -> None:
        assert sent(value) == expected
        assert sent([{"deep": (value,)}]) == [{"deep": [expected]}]
        # A null sends the event the slow way, which must agree.
        assert sent([value, None]) == [expected, None]
        assert plain(value, "v") == expected

    @pytest.mark.parametrize("name", ["django.utils.functional.Promise", "babel.support.LazyProxy"])
    def test_a_text_that_is_translated_late_is_the_text(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Late:
            def __str__(self) -> str:
                return "Guten Tag"

        module, _, kind = name.rpartition(".")
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{kind: Late}))
        assert sent([Late(), None]) == ["Guten Tag", None]
        assert sent(Late()) == "Guten Tag"

    def test_a_set_that_cannot_be_sorted_is_sent_all_the_same(self) -> None:
        assert sorted(sent({1, "a"}), key=str) == [1, "a"]
        assert sorted(sent({Color.RED, Color.NUMBER}), key=str) == [7, "red"]

    def test_an_enum_as_a_key_is_its_value(self) -> None:
        assert sent({Color.RED: 1}) == {"red": 1}
        assert sent({Text.BUY: 1}) == {"buy": 1}

    def test_two_keys_that_are_written_alike_are_refused(self) -> None:
        assert refused({"red": 1, Color.RED: 2}).startswith(
            "properties.v has two keys that are written str"
        )


class TestWhatCannotBeSent:
    @pytest.mark.parametrize(
        "value",
        [
            object(),
            Rude(),
            Rude,
            Inner,
            lambda: None,
            1j,
            timedelta(1),
            range(10**9),
            iter([1]),
            (number for number in [1]),
            numpy.array([1]),
            numpy.complex64(1),
            numpy.timedelta64(1, "s"),
            numpy.datetime64("2024-11-21"),
            ValueError("x"),
            sys,
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_any_other_type_names_its_path(self, value: object) -> None:
        for nested in (value, None), (value,):
            assert refused({"cart": [1, {"price": nested}]}).startswith(
                "properties.v.cart[1].price[0] ("
            )

    @pytest.mark.parametrize(
        "value",
        [
            math.nan,
            math.inf,
            -math.inf,
            [math.nan],
            {"a": math.inf},
            (1, math.nan),
            {math.nan},
            frozenset({math.inf, 1.0}),
            Inner(math.nan, date(2024, 1, 1)),  # type: ignore[arg-type]
            Point(1, math.inf),
            numpy.float64("nan"),
            numpy.float32("inf"),
            numpy.longdouble("nan"),
            Decimal("NaN"),
            Decimal("sNaN"),
            Decimal("-Infinity"),
            {Decimal("NaN"), Decimal(1)},
            Color.NAN,
            Lazy(a=math.nan),
            [None, "null", [{"a": {"b": [math.nan]}}]],
        ],
        ids=repr,
    )
    def test_nan_and_infinity_are_refused_wherever_they_hide(self, value: object) -> None:
        message = refused(value)
        assert message.startswith("properties.v")
        assert "JSON has no such number" in message

    def test_the_path_leads_to_the_value(self) -> None:
        with pytest.raises(EventError, match=r"^properties\.cart\[2\]\.price is nan"):
            ENCODER.encode("e", {"cart": [{}, {}, {"price": math.nan}]})
        assert refused(Outer("o", Inner(1, date.min), [Inner(object(), date.min)])).startswith(  # type: ignore[arg-type]
            "properties.v.items[0]._hidden (object <object"
        )

    def test_a_naive_datetime_is_refused_and_told_the_fix(self) -> None:
        assert "has no time zone; use datetime.now(timezone.utc)" in refused(datetime(2024, 1, 1))
        assert refused([1, datetime(2024, 1, 1)]).startswith("properties.v[1] ")
        assert "use an aware datetime" in refused(numpy.datetime64("2024-11-21"))

    @pytest.mark.parametrize(
        "key",
        [1, None, (1, 2), b"a", 1.5, Color.NUMBER, Rude()],
        ids=lambda key: type(key).__name__,
    )
    def test_a_key_that_is_no_string_is_refused(self, key: object) -> None:
        assert refused({"a": {key: 1}}).startswith("properties.v.a has the key ")
        with pytest.raises(EventError, match=r"^properties has the key .*; keys must be strings"):
            ENCODER.encode("e", {key: 1})  # type: ignore[dict-item]

    def test_a_lone_surrogate_is_refused_in_values_keys_and_fields(self) -> None:
        assert refused(["ok", "bad\ud800"]).startswith(
            "properties.v[1] holds a lone surrogate (character 3)"
        )
        assert "lone surrogate" in refused({"\udfff": 1})
        assert "lone surrogate" in refused(PurePosixPath("/a\udcff"))
        for field in ("user_id", "session_id", "device_id", "idempotency_key", "app_id"):
            with pytest.raises(EventError, match=rf"^{field} holds a lone surrogate"):
                ENCODER.encode_event(Event("e", **{field: "\ud800"}))  # type: ignore[arg-type]
        with pytest.raises(EventError, match=r"^event_type holds a lone surrogate"):
            ENCODER.encode("\ud800")

    def test_what_holds_itself_is_refused(self) -> None:
        ring: list[Any] = []
        ring.append(ring)
        wheel: dict[str, Any] = {}
        wheel["a"] = [wheel, wheel]
        knot = Outer("o", Inner(1, date.min))
        knot.items.append(knot)  # type: ignore[arg-type]
        for value in (ring, wheel, knot, Lazy(a=ring)):
            assert "holds itself" in refused(value)

    @pytest.mark.parametrize(
        ("value", "advice"),
        [
            (timedelta(1), "use .total_seconds()"),
            (iter([1]), "use list(...)"),
            (numpy.array([1]), "use .tolist()"),
            (range(10**9), "has 1000000000 items"),
            (object(), "convert it, for example with str(...)"),
            ({1: "a"}, "keys must be strings, use str(...)"),
            ({None: "a"}, "keys must be strings, use str(...)"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_the_advice_fits_the_type(self, value: object, advice: str) -> None:
        assert advice in refused(value)

    def test_what_was_not_awaited_is_told(self) -> None:
        async def later() -> int:
            return 1

        coroutine = later()
        assert "await it" in refused(coroutine)
        coroutine.close()

    def test_what_is_nested_deep_has_a_short_traceback_and_a_short_path(self) -> None:
        ring: dict[str, Any] = {}
        ring["a"] = ring
        with pytest.raises(EventError) as caught:
            ENCODER.encode("e", {"v": ring})
        assert len(traceback.extract_tb(caught.value.__traceback__)) < 10
        assert len("".join(traceback.format_exception(caught.value)).splitlines()) < 30
        assert "properties.v.a.a" in str(caught.value)
        assert len(str(caught.value)) < 130

    def test_too_deep_is_refused_with_a_short_message(self) -> None:
        value: Any = 1
        for _ in range(MAX_DEPTH + 10):
            value = {"a_rather_long_name": value}
        assert "nested more than" in refused(value)
        assert len(refused(value)) < 500

    def test_deep_but_not_too_deep_is_sent_both_ways(self) -> None:
        value: Any = 1
        for _ in range(MAX_DEPTH - 5):
            value = [value]
        assert sent(value) == sent([value, None])[0] == value

    def test_too_deep_for_the_stack_that_is_left_is_refused(self) -> None:
        """A framework may have used most of it up."""
        ring: list[Any] = []
        ring.append(ring)

        def dive(depth: int) -> str:
            return dive(depth - 1) if depth else refused(ring)

        frames = len([None for _ in walk(sys._getframe())])
        assert "hold" in dive(sys.getrecursionlimit() - frames - 150)

    def test_a_number_too_long_to_print_is_refused(self) -> None:
        if hasattr(sys, "get_int_max_str_digits"):
            assert "properties.v is too large a number" in refused(10**5000)

    def test_values_whose_own_code_raises_are_refused(self) -> None:
        @dataclass
        class Unset:
            x: int = dataclasses.field(init=False)

        class Broken(Lazy):
            def __iter__(self) -> Iterator[str]:
                raise RuntimeError("closed")

        for value in (Unset(), memoryview(bytearray(8))[::2], Broken(a=1)):
            assert refused([value]).startswith("properties.v[0] (")
            assert "cannot be read" in refused([value])
        with pytest.raises(EventError, match=r"cannot be read"):
            ENCODER.encode("e", Broken(a=1))

    def test_a_message_is_short_whatever_the_value(self) -> None:
        assert len(refused({"k" * 100_000: object()})) < 1000
        assert len(refused({("k" * 100_000,): 1})) < 1000
        assert len(refused(["x" * 10**6, {1: [2] * 10**6}])) < 1000


def walk(frame: types.FrameType | None) -> Iterator[types.FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


class TestTheFields:
    def test_the_bytes_are_compact_and_in_order(self) -> None:
        key, payload = ENCODER.encode("e", {"a": [1, 2]}, "u", "s", "d")
        server = orjson.dumps(json.loads(payload)["properties"]["_server"])
        assert key == KEY
        assert payload == (
            b'{"app_id":"app","event_type":"e","idempotency_key":"%b","timestamp_ms":%d,'
            b'"device_id":"d","user_id":"u","session_id":"s",'
            b'"properties":{"a":[1,2],"_server":%b}}' % (KEY.encode(), NOW, server)
        )

    def test_absent_optional_fields_are_left_out(self) -> None:
        _, payload = ENCODER.encode("e")
        assert list(json.loads(payload)) == [
            "app_id",
            "event_type",
            "idempotency_key",
            "timestamp_ms",
            "properties",
        ]

    @pytest.mark.parametrize("properties", [None, {}, {"a": 1}, {"a": None}, Lazy(a=1)])
    def test_the_server_part_is_there(self, properties: Mapping[str, Any] | None) -> None:
        _, payload = ENCODER.encode("e", properties)
        server = json.loads(payload)["properties"]["_server"]
        assert list(server) == ["hostname", "python_version", "sdk_version", "os", "arch"]
        assert all(isinstance(value, str) for value in server.values())

    @pytest.mark.parametrize("given", [{"hostname": "then"}, None, "x", {"a": None}])
    def test_a_server_part_that_is_given_is_kept(self, given: object) -> None:
        _, payload = ENCODER.encode("e", {"_server": given, "a": 1})
        assert json.loads(payload)["properties"] == {"_server": given, "a": 1}

    def test_the_callers_properties_are_not_changed(self) -> None:
        properties = {"a": None, "b": {"c": {1}}}
        ENCODER.encode("e", properties)
        assert properties == {"a": None, "b": {"c": {1}}}

    def test_an_event_object_and_arguments_give_the_same_bytes(self) -> None:
        event = Event(
            "e",
            {"a": 1},
            user_id="u",
            session_id="s",
            device_id="d",
            timestamp=NOW + 5,
            idempotency_key="k",
            app_id="other",
        )
        assert ENCODER.encode_event(event) == ENCODER.encode(
            "e", {"a": 1}, "u", "s", "d", NOW + 5, "k", "other"
        )

    @pytest.mark.parametrize("field", ["user_id", "session_id", "device_id", "app_id"])
    def test_a_field_must_be_text_and_not_empty(self, field: str) -> None:
        for value in (1, b"x", UUID_1, Rude()):
            with pytest.raises(EventError, match=rf"^{field} must be a string, got "):
                ENCODER.encode_event(Event("e", **{field: value}))  # type: ignore[arg-type]
        with pytest.raises(EventError, match=rf"^{field} must not be empty"):
            ENCODER.encode_event(Event("e", **{field: ""}))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "event_type", [None, 1, b"e", [], Rude()], ids=lambda v: type(v).__name__
    )
    def test_an_event_needs_a_type(self, event_type: Any) -> None:
        with pytest.raises(EventError, match=r"^event_type must be a string"):
            ENCODER.encode(event_type)
        with pytest.raises(EventError, match=r"^event_type must not be empty"):
            ENCODER.encode("")

    def test_a_string_enum_as_a_type_is_its_value(self) -> None:
        _, payload = ENCODER.encode(Text.BUY, None, Text.BUY)
        assert (json.loads(payload)["event_type"], json.loads(payload)["user_id"]) == ("buy", "buy")

    @pytest.mark.parametrize(
        "properties",
        [[("a", 1)], "a", 5, b"", (), 0, "", [], numpy.array([1, 2]), numpy.array([]), Rude()],
        ids=lambda value: type(value).__name__,
    )
    def test_properties_must_be_a_mapping(self, properties: Any) -> None:
        with pytest.raises(EventError, match=r"^properties must be a mapping of names to values"):
            ENCODER.encode("e", properties)


class TestTimes:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, NOW),
            (SECONDS_BELOW, SECONDS_BELOW),
            (at(1), 1),
            (at(SECONDS_BELOW - 1), SECONDS_BELOW - 1),
            (at(NOW), NOW),
            (datetime(1999, 12, 31, tzinfo=timezone.utc), 946_598_400_000),
            (MAX_TIMESTAMP_MS, MAX_TIMESTAMP_MS),
            (datetime(2024, 11, 21, tzinfo=timezone.utc), NOW),
            (datetime(2024, 11, 21, 1, tzinfo=BERLIN), NOW),
            (datetime(2024, 11, 21, 0, 0, 0, 1999, tzinfo=timezone.utc), NOW + 1),
            (datetime.max.replace(tzinfo=timezone.utc), MAX_TIMESTAMP_MS),
        ],
    )
    def test_a_timestamp_is_milliseconds(self, value: Any, expected: int) -> None:
        _, payload = ENCODER.encode("e", timestamp=value)
        assert json.loads(payload)["timestamp_ms"] == expected

    @given(st.integers(1, MAX_TIMESTAMP_MS), st.integers(0, 999), st.integers(-23 * 60, 23 * 60))
    def test_a_datetime_is_exact_to_the_millisecond(self, ms: int, us: int, minutes: int) -> None:
        zone = timezone(timedelta(minutes=minutes))
        moment = datetime(1970, 1, 1) + timedelta(milliseconds=ms, microseconds=us)
        try:
            local = (moment + timedelta(minutes=minutes)).replace(tzinfo=zone)
        except OverflowError:
            return
        _, payload = ENCODER.encode("e", timestamp=local)
        assert json.loads(payload)["timestamp_ms"] == ms

    @pytest.mark.parametrize(
        "value",
        [
            0,
            -1,
            MAX_TIMESTAMP_MS + 1,
            10**5000,
            datetime(1969, 12, 31, tzinfo=timezone.utc),
            datetime(1970, 1, 1, tzinfo=timezone.utc),
            datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        ],
        ids=lambda value: str(value)[:30] if isinstance(value, datetime) else "number",
    )
    def test_a_time_out_of_range_is_refused(self, value: Any) -> None:
        with pytest.raises(EventError, match=r"timestamp must lie between 1 and"):
            ENCODER.encode("e", timestamp=value)

    @pytest.mark.parametrize("value", [1, 5000, 1_700_000_000, SECONDS_BELOW - 1])
    def test_seconds_are_not_taken_for_milliseconds(self, value: int) -> None:
        with pytest.raises(
            EventError, match=rf"^timestamp {value} would be \d+-\d\d-\d\d"
        ) as caught:
            ENCODER.encode("e", timestamp=value)
        assert "if it is seconds, multiply it by 1000" in str(caught.value)
        assert "an aware datetime" in str(caught.value)

    def test_nanoseconds_and_texts_are_told_what_to_do(self) -> None:
        with pytest.raises(EventError, match=r"for nanoseconds use // 1_000_000"):
            ENCODER.encode("e", timestamp=1_732_147_200_000_000_000)
        with pytest.raises(EventError, match=r"use datetime.fromisoformat\(...\), with a zone"):
            ENCODER.encode("e", timestamp="2024-11-21T00:00:00Z")  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [1.5, True, "2024-11-21", date(2024, 11, 21), Rude()])
    def test_any_other_type_is_refused(self, value: Any) -> None:
        with pytest.raises(EventError, match=r"aware datetime or whole milliseconds"):
            ENCODER.encode("e", timestamp=value)

    def test_a_naive_datetime_is_refused(self) -> None:
        with pytest.raises(EventError, match=r"^timestamp 2024-11-21T00:00:00 has no time zone"):
            ENCODER.encode("e", timestamp=datetime(2024, 11, 21))


class TestKeys:
    def test_a_key_is_a_uuid7_of_its_own(self) -> None:
        encoder = Encoder("app", max_event_bytes=9999)
        key, payload = encoder.encode("e")
        assert UUID(key).version == 7
        assert json.loads(payload)["idempotency_key"] == key
        assert encoder.encode("e")[0] != key

    def test_a_given_key_is_kept(self) -> None:
        for given_key, expected in (
            ("replay-1", "replay-1"),
            (UUID_1, str(UUID_1)),
            ("k" * KEY_CHARS, "k" * KEY_CHARS),
        ):
            key, payload = ENCODER.encode("e", idempotency_key=given_key)
            assert key == expected == json.loads(payload)["idempotency_key"]

    @pytest.mark.parametrize("key", ["", 5, b"k", "k" * (KEY_CHARS + 1), Rude()])
    def test_a_key_that_is_none_is_refused(self, key: Any) -> None:
        with pytest.raises(EventError, match=r"^idempotency_key must"):
            ENCODER.encode("e", idempotency_key=key)

    def test_eight_threads_get_different_keys_and_whole_events(self) -> None:
        encoder = Encoder("app", max_event_bytes=9999)
        made: list[tuple[str, bytes]] = []
        start = threading.Barrier(8)

        def work(name: int) -> None:
            start.wait()
            made.extend(encoder.encode("e", {"n": name, "none": None}) for _ in range(500))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({key for key, _ in made}) == 4000
        assert all(json.loads(payload)["idempotency_key"] == key for key, payload in made)


class TestSize:
    @pytest.mark.parametrize("filler", ["x", "ü", "null "])
    def test_the_limit_is_of_the_bytes_and_includes_itself(self, filler: str) -> None:
        properties = {"a": filler * 100}
        size = len(ENCODER.encode("e", properties)[1])
        assert len(make(size).encode("e", properties)[1]) == size
        with pytest.raises(
            EventError, match=rf"is {size} bytes, above max_event_bytes \({size - 1}\)"
        ):
            make(size - 1).encode("e", properties)

    def test_the_largest_property_is_named(self) -> None:
        with pytest.raises(EventError, match=r"2002 of them in properties.blob; send less"):
            make(1000).encode("e", {"a": 1, "blob": "x" * 2000})
        with pytest.raises(EventError) as caught:
            make(1000).encode("e", {f"p{n}": "x" * 100 for n in range(50)})
        assert "of them in" not in str(caught.value)


class TestWhatIsNoEvent:
    """Each of the usual mistakes is told what was meant."""

    @pytest.mark.parametrize(
        ("given_event", "advice"),
        [
            (None, "got NoneType None; give the type of the event, an Event, or a typed event"),
            ({"event_type": "a"}, "use Event(**…)"),
            ({"event": "a"}, "use Event(**…); 'event' is no field: here it is event_type"),
            ({"event_type": "a", "userId": 7}, "'userId' is no field: did you mean user_id?"),
            ({"event_type": "a", 7: 7}, "use Event(**…)"),
            ([Event("a")], "for several events use track_many()"),
            (Event, "make one: Event(…)"),
            (7, "use str(...), an Event, or a typed event"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_one(self, given_event: Any, advice: str) -> None:
        with pytest.raises(EventError) as caught:
            ENCODER.encode_event(given_event)
        assert advice in str(caught.value)
        with pytest.raises(EventError, match=r"^event 3: event_type must be"):
            ENCODER.encode_item(3, given_event)

    @pytest.mark.parametrize(
        ("given_events", "advice"),
        [
            (Event("a"), "for one event use track()"),
            ("purchase", "for one event use track()"),
            ({"event_type": "a"}, "for one event use track()"),
            (None, "for one event use track()"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_many(self, given_events: Any, advice: str) -> None:
        with pytest.raises(EventError, match=r"^track_many takes several events, got ") as caught:
            several(given_events)
        assert advice in str(caught.value)

    def test_many_of_an_asynchronous_kind(self) -> None:
        async def events() -> AsyncIterator[Event]:
            yield Event("a")

        given_events: Any = events()
        with pytest.raises(EventError, match=r"\[event async for event in …\]"):
            several(given_events)

    def test_what_a_generator_raises_comes_through(self) -> None:
        def broken() -> Iterator[Event]:
            yield Event("a")
            raise TypeError("mine")

        with pytest.raises(TypeError, match="mine"):
            list(several(broken()))

    def test_a_text_among_many_is_told_as_an_event(self) -> None:
        with pytest.raises(EventError, match=r"item 0 is a str; use Event\('a'\)"):
            ENCODER.encode_item(0, "a")  # type: ignore[arg-type]


def kinds() -> st.SearchStrategy[Any]:
    text = st.text(st.characters(codec="utf-8"), max_size=10)
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | text
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=20,
    )


def rich() -> st.SearchStrategy[Any]:
    """Every type that is converted, in every container."""
    leaves = (
        st.integers(-(2**80), 2**80)
        | st.floats()
        | st.text(max_size=5)
        | st.binary(max_size=5)
        | st.datetimes(timezones=st.sampled_from([None, timezone.utc, BERLIN]))
        | st.dates()
        | st.uuids()
        | st.decimals()
        | st.sampled_from([*Color, *Text, *Level])
        | st.floats(width=32).map(numpy.float32)
        | st.builds(Point, st.integers(), st.floats())
        | st.sets(st.integers() | st.text(max_size=3), max_size=3)
        | st.just(None)
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner)
            | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            | st.builds(Outer, st.text(max_size=3), inner, st.lists(inner, max_size=2))
            | st.builds(lambda value: Lazy(a=value), inner)
        ),
        max_leaves=10,
    )


class TestForAnyValue:
    @given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), kinds(), max_size=5))
    def test_the_bytes_decode_to_the_same_value(self, properties: dict[str, Any]) -> None:
        properties.pop("_server", None)
        _, payload = ENCODER.encode("e", properties)
        read = json.loads(payload)["properties"]
        assert read.pop("_server")
        assert read == properties
        assert orjson.loads(payload)["properties"] == {
            **properties,
            "_server": json.loads(payload)["properties"]["_server"],
        }

    @given(rich())
    def test_the_fast_way_and_the_slow_way_agree(self, value: Any) -> None:
        try:
            fast = orjson.dumps({"v": value}, convert, ORJSON_OPTIONS)
        except TypeError:
            fast = None
        try:
            slow = orjson.dumps({"v": plain(value, "v")})
        except EventError:
            slow = None
        if slow is None:
            assert fast is None or b"null" in fast, "what the slow way refuses gets there"
        elif fast is not None:
            assert fast == slow

    @given(rich())
    def test_an_event_is_json_or_an_event_error(self, value: Any) -> None:
        with contextlib.suppress(EventError):  # nothing else may come out
            _, payload = ENCODER.encode("e", {"v": value})
            json.loads(payload)


def test_properties_that_another_thread_changes_meanwhile_are_an_event_error() -> None:
    """Not a RuntimeError, which programs take for that of a closed client."""

    class Growing(dict[str, Any]):
        def __iter__(self) -> Any:
            raise RuntimeError("dictionary changed size during iteration")

        items = keys = values = __iter__

    with pytest.raises(EventError, match="changed by another thread") as caught:
        ENCODER.encode("e", {"cart": Growing(price=None, other=1), "none": None})
    assert not isinstance(caught.value, RuntimeError)
