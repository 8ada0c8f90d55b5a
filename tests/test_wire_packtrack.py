"""The wire `packtrack`: every canonical event becomes a valid object and loses nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import packtrack_schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causality_sdk import Client, Event, EventError
from causality_sdk.event import Encoder
from causality_sdk.packtrack import Actor, PackTrackEvent, Source, Workflow
from causality_sdk.testing import LoopbackCollector, LoopbackPackTrack, RecordingTransport
from causality_sdk.timestamps import at
from causality_sdk.wire import WIRES
from causality_sdk.wire.base import ACCEPTED, RETRY, Response
from causality_sdk.wire.packtrack import PackTrackWire

WIRE = PackTrackWire()
ENCODER = Encoder("shop", max_event_bytes=10**9)

EVENT = PackTrackEvent(
    source=Source("billing"),
    workflow=Workflow("invoice"),
    actor=Actor("cron", "db1"),
    severity="info",
    status="ok",
    message="sent",
    timestamp="2026-01-31T12:00:00.123456789Z",
    metadata={"amount": 5},
    extra={"note": "x"},
)


def sent(*events: Event) -> list[dict[str, Any]]:
    """What a request with these events holds."""
    body = WIRE.frame([ENCODER.encode_event(event)[1] for event in events]).body
    found: list[dict[str, Any]] = json.loads(body)
    for each in found:
        packtrack_schema.check(each)
    return found


def canonical(found: dict[str, Any]) -> dict[str, Any]:
    """The canonical event that such an object was made of: the inverse, for events of any type."""
    extra = dict(found["extra"])
    envelope = extra.pop("_causality")
    server = extra.pop("_server")
    assert extra == {}
    return {**envelope, "properties": {**found.get("metadata", {}), "_server": server}}


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAME = TEXT.filter(bool)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
NAMES = st.sampled_from(["severity", "status", "message", "source", "timestamp", "extra"]) | TEXT
PROPERTIES = st.dictionaries(NAMES.filter(lambda name: name != "_server"), VALUES, max_size=6)


class TestAnyEvent:
    @given(
        NAME | st.just("packtrack_event"),
        PROPERTIES,
        st.none() | NAME,
        st.none() | NAME,
        st.none() | NAME,
        st.integers(1, 253_402_300_799_999),
    )
    def test_it_becomes_a_valid_object_that_holds_every_value(
        self,
        event_type: str,
        properties: dict[str, Any],
        user: str | None,
        session: str | None,
        device: str | None,
        timestamp: int,
    ) -> None:
        event = Event(
            event_type,
            properties,
            user_id=user,
            session_id=session,
            device_id=device,
            timestamp=at(timestamp),
        )
        _, payload = ENCODER.encode_event(event)
        (found,) = json.loads(WIRE.frame([payload]).body)
        packtrack_schema.check(found)
        there = json.loads(payload)
        del there["timestamp_ms"]
        if event_type == "packtrack_event":
            del there["event_type"]
        assert repr(canonical(found)) == repr(reordered(there, canonical(found)))

    def test_its_parts_are_where_people_look_for_them(self) -> None:
        (found,) = sent(
            Event(
                "purchase",
                {"cents": 1299},
                user_id="u-42",
                session_id="s-1",
                device_id="d-1",
                timestamp=1769860800250,
                idempotency_key="k-1",
            )
        )
        server = found["extra"].pop("_server")
        assert server["sdk_version"]
        assert found == {
            "timestamp": "2026-01-31T12:00:00.250Z",
            "source": {"system": "shop"},
            "workflow": {"id": "purchase", "run_id": "s-1"},
            "actor": {"type": "user", "id": "u-42"},
            "severity": "info",
            "status": "unknown",
            "message": "purchase",
            "metadata": {"cents": 1299},
            "extra": {
                "_causality": {
                    "app_id": "shop",
                    "event_type": "purchase",
                    "idempotency_key": "k-1",
                    "user_id": "u-42",
                    "session_id": "s-1",
                    "device_id": "d-1",
                }
            },
        }

    def test_without_a_user_the_actor_is_the_device_and_then_the_app(self) -> None:
        device, app = sent(Event("a", device_id="d-1"), Event("a"))
        assert device["actor"] == {"type": "device", "id": "d-1"}
        assert app["actor"] == {"type": "service", "id": "shop"}

    def test_severity_status_and_message_may_be_properties(self) -> None:
        good, bad = sent(
            Event("a", {"severity": "error", "status": "failed", "message": "jam"}),
            Event("a", {"severity": "fatal", "status": 7, "message": ""}),
        )
        assert (good["severity"], good["status"], good["message"]) == (
            "error",
            "failed",
            "jam",
        )
        assert (bad["severity"], bad["status"], bad["message"]) == ("info", "unknown", "a")
        assert bad["metadata"] == {"severity": "fatal", "status": 7, "message": ""}

    def test_a_row_that_is_no_event_does_not_hold_up_the_others(self) -> None:
        body = json.loads(WIRE.frame([b"\xff{", b"[1]", ENCODER.encode("a")[1]]).body)
        for found in body:
            packtrack_schema.check(found)
        assert body[1]["metadata"] == {"payload": "[1]"}


def reordered(value: Any, like: Any) -> Any:
    """`value` with the keys of its objects in the order of `like`: repr tells 1 from 1.0."""
    if isinstance(value, dict) and isinstance(like, dict):
        names = [name for name in like if name in value]
        names += [name for name in value if name not in like]
        return {name: reordered(value[name], like.get(name)) for name in names}
    return value


class TestPackTrackEvents:
    def test_it_goes_out_as_it_is_with_the_envelope_beside_it(self) -> None:
        (found,) = sent(EVENT.event(idempotency_key="k-1"))
        assert found["extra"].pop("_server")["hostname"]
        assert found["extra"].pop("_causality") == {"app_id": "shop", "idempotency_key": "k-1"}
        assert found == EVENT.to_dict()

    def test_names_in_extra_that_are_taken_stay_the_users(self) -> None:
        event = PackTrackEvent.from_dict(
            EVENT.to_dict() | {"extra": {"_server": 1, "_causality": 2, "__server": 3}}
        )
        (found,) = sent(event.event())
        extra = found["extra"]
        assert (extra["_server"], extra["_causality"], extra["__server"]) == (1, 2, 3)
        assert extra["___server"]["hostname"]
        assert extra["__causality"]["app_id"] == "shop"

    @pytest.mark.parametrize(
        "change",
        [
            {"severity": "fatal"},
            {"source": {}},
            {"source": {"system": "s", "host": "h"}},
            {"actor": {"type": "user", "id": 7}},
            {"timestamp": "now"},
            {"timestamp": "2026-01-31"},
            {"message": ""},
            {"metadata": [1]},
            {"extra": "x"},
        ],
        ids=str,
    )
    def test_what_only_pretends_to_be_one_is_an_event_like_any_other(
        self, change: dict[str, Any]
    ) -> None:
        properties = EVENT.to_dict() | change
        (found,) = sent(Event("packtrack_event", properties))
        assert found["metadata"] == properties

    def test_what_somebody_put_beside_the_object_is_kept(self) -> None:
        (found,) = sent(Event("packtrack_event", EVENT.to_dict() | {"colour": "red"}))
        assert found["extra"]["_properties"] == {"colour": "red"}
        assert found["message"] == "sent"


class TestIdempotencyKey:
    def key(self, *payloads: bytes) -> str:
        return WIRE.frame(payloads).headers["Idempotency-Key"]

    def test_the_same_rows_always_have_the_same_key_and_others_another(self) -> None:
        rows = [ENCODER.encode("a", idempotency_key=f"k-{n}")[1] for n in range(3)]
        assert self.key(*rows) == self.key(*rows)
        keys = {self.key(*some) for some in (rows, rows[:2], rows[1:], rows[::-1], rows[:1])}
        assert len(keys) == 5
        assert all(len(key) == 32 and key.isalnum() for key in keys)

    def test_it_depends_on_where_one_key_ends_and_the_next_begins(self) -> None:
        def keyed(*keys: str) -> str:
            return self.key(*(ENCODER.encode("a", idempotency_key=key)[1] for key in keys))

        assert keyed("ab", "c") != keyed("a", "bc")


class TestVerdicts:
    @pytest.mark.parametrize(
        "response",
        [
            Response(200),
            Response(204),
            Response(202, body=b'{"accepted":2}'),
            Response(200, body=b"ok"),
            Response(299, body=b"[]"),
        ],
        ids=str,
    )
    def test_any_2xx_acknowledges_all(self, response: Response) -> None:
        assert WIRE.verdicts(response, 2) == [ACCEPTED, ACCEPTED]

    @pytest.mark.parametrize(
        "response",
        [
            Response(302),
            Response(400),
            Response(500, body=b"{}"),
            Response(200, body=b"{}", truncated=True),
            Response(200, body=b" <html>"),
            Response(200, body=b"\xef\xbb\xbf<!doctype html>"),
            Response(200, {"content-type": "Text/HTML; charset=utf-8"}, b"Log in"),
        ],
        ids=str,
    )
    def test_nothing_else_does_and_no_page_of_a_portal(self, response: Response) -> None:
        assert WIRE.verdicts(response, 2) == [RETRY, RETRY]


class TestWithAClient:
    def options(self, directory: Path, endpoint: str) -> dict[str, Any]:
        return {
            "api_key": "test-key",
            "endpoint": endpoint,
            "app_id": "shop",
            "queue_path": directory / "queue.db",
            "wire": "packtrack",
            "backoff_initial": 0.001,
            "backoff_max": 0.01,
        }

    def test_it_is_found_by_its_name(self) -> None:
        assert WIRES["packtrack"] is PackTrackWire

    def test_events_of_all_kinds_arrive_in_order(self, tmp_path: Path) -> None:
        with (
            LoopbackPackTrack() as server,
            Client(**self.options(tmp_path, server.endpoint)) as client,
        ):
            key = client.track(EVENT)
            client.track("purchase", {"cents": 1})
            client.track_many([EVENT, Event("refund")])
            report = client.flush(timeout=10)
            assert (report.delivered, report.remaining, report.error) == (4, 0, None)
            assert client.health().ok
        messages = [event["message"] for event in server.events]
        assert messages == ["sent", "purchase", "sent", "refund"]
        assert server.events[0]["extra"]["_causality"]["idempotency_key"] == key
        ingest = next(each for each in server.requests if each.method == "POST")
        assert ingest.path == "/api/ingest"
        assert ingest.headers["x-packtrack-key"] == "test-key"
        assert "x-api-key" not in ingest.headers
        assert server.requests[-1].path == "/api/health"

    def test_a_lost_acknowledgement_costs_no_second_copy(self, tmp_path: Path) -> None:
        with (
            LoopbackPackTrack() as server,
            Client(**self.options(tmp_path, server.endpoint), start=False) as client,
        ):
            server.drop_next(store=True)
            client.track_many([EVENT, EVENT, EVENT])
            assert client.flush(timeout=10).delivered == 3
            assert len(server.events) == 3
            assert server.repeats == 1

    def test_compressed_requests_are_read(self, tmp_path: Path) -> None:
        options = self.options(tmp_path, "")
        with (
            LoopbackPackTrack() as server,
            Client(
                **(options | {"endpoint": server.endpoint}), compression="gzip", start=False
            ) as client,
        ):
            client.track(EVENT)
            assert client.flush(timeout=10).delivered == 1
            assert server.requests[0].headers["content-encoding"] == "gzip"

    def test_what_is_tracked_for_packtrack_can_go_elsewhere(self, tmp_path: Path) -> None:
        options = self.options(tmp_path, "") | {"wire": "causality"}
        with (
            LoopbackCollector(api_key="test-key") as collector,
            Client(**(options | {"endpoint": collector.endpoint}), start=False) as client,
        ):
            client.track(EVENT)
            assert client.flush(timeout=10).delivered == 1
        (event,) = collector.events
        assert event["event_type"] == "packtrack_event"
        del event["properties"]["_server"]
        assert event["properties"] == EVENT.to_dict()

    def test_what_is_given_beside_it_is_carried_in_the_envelope(self, tmp_path: Path) -> None:
        with (
            LoopbackPackTrack() as server,
            Client(**self.options(tmp_path, server.endpoint), start=False) as client,
        ):
            client.track(EVENT, user_id="u-42", session_id="s-1", idempotency_key="k-1")
            with pytest.raises(EventError, match="timestamp belongs inside the PackTrackEvent"):
                client.track(EVENT, timestamp=1)
            with pytest.raises(EventError, match="properties belong inside the PackTrackEvent"):
                client.track(EVENT, {"a": 1})
            assert client.flush(timeout=10).delivered == 1
        assert server.events[0]["extra"]["_causality"] == {
            "app_id": "shop",
            "idempotency_key": "k-1",
            "user_id": "u-42",
            "session_id": "s-1",
        }
        assert server.events[0]["actor"] == EVENT.to_dict()["actor"]

    def test_a_time_before_1970_cannot_be_queued(self, tmp_path: Path) -> None:
        old = PackTrackEvent.from_dict(EVENT.to_dict() | {"timestamp": "1969-12-31T23:59:59Z"})
        options = self.options(tmp_path, "http://127.0.0.1:9")
        with (
            Client(**options, transport=RecordingTransport(), start=False) as client,
            pytest.raises(EventError, match="timestamp must lie between"),
        ):
            client.track(old)


def test_numbers_keep_their_last_digit() -> None:
    (found,) = sent(Event("a", {"pi": math.pi, "least": 5e-324, "big": 2**64 - 1}))
    assert found["metadata"] == {"pi": math.pi, "least": 5e-324, "big": 2**64 - 1}
