"""`PackTrackEvent`: what it takes, what it refuses and in which words, and its two other forms."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import packtrack_schema
import pytest

from causality_sdk.errors import EventError
from causality_sdk.packtrack import Actor, PackTrackEvent, Severity, Source, Status, Workflow
from causality_sdk.wire.packtrack import SEVERITIES, STATUSES

NOON = datetime(2026, 1, 31, 12, 0, 0, 250, tzinfo=timezone.utc)


def event(**changes: Any) -> PackTrackEvent:
    fields: dict[str, Any] = {
        "source": Source("billing"),
        "workflow": Workflow("invoice"),
        "actor": Actor("service", "worker-1"),
        "severity": "info",
        "status": "ok",
        "message": "sent",
        "timestamp": NOON,
    }
    return PackTrackEvent(**(fields | changes))


class TestValidation:
    def test_a_full_event_becomes_the_object_that_packtrack_takes(self) -> None:
        found = event(
            source=Source("billing", "prod"),
            workflow=Workflow("invoice", "Invoices", "run-7", "step-2"),
            actor=Actor("user", "u-42", "Ada"),
            severity=Severity.WARN,
            status=Status.RETRYING,
            metadata={"amount": Decimal("9.90"), "ids": {UUID(int=1)}, "none": None},
            extra={"deep": {"list": [1, 2.5, True]}},
        ).to_dict()
        assert found == {
            "timestamp": "2026-01-31T12:00:00.000250Z",
            "source": {"system": "billing", "env": "prod"},
            "workflow": {
                "id": "invoice",
                "name": "Invoices",
                "run_id": "run-7",
                "step_id": "step-2",
            },
            "actor": {"type": "user", "id": "u-42", "display_name": "Ada"},
            "severity": "warn",
            "status": "retrying",
            "message": "sent",
            "metadata": {"amount": "9.90", "ids": [str(UUID(int=1))], "none": None},
            "extra": {"deep": {"list": [1, 2.5, True]}},
        }
        packtrack_schema.check(found)

    def test_what_has_no_value_is_left_out(self) -> None:
        found = event().to_dict()
        assert set(found) == {
            "timestamp", "source", "workflow", "actor", "severity", "status", "message",
        }  # fmt: skip
        assert found["source"] == {"system": "billing"}
        packtrack_schema.check(found)

    def test_words_and_members_are_the_same(self) -> None:
        assert event(severity="error", status="timeout") == event(
            severity=Severity.ERROR, status=Status.TIMEOUT
        )

    def test_enums_and_the_wire_know_the_same_words(self) -> None:
        assert tuple(member.value for member in Severity) == SEVERITIES
        assert tuple(member.value for member in Status) == STATUSES
        assert list(SEVERITIES) == packtrack_schema.SEVERITIES
        assert list(STATUSES) == packtrack_schema.STATUSES

    def test_the_default_time_is_now(self) -> None:
        before = datetime.now(timezone.utc)
        made = PackTrackEvent(
            source=Source("s"), workflow=Workflow("w"), actor=Actor("t", "i"),
            severity="info", status="ok", message="m",
        )  # fmt: skip
        found = datetime.fromisoformat(str(made.timestamp).replace("Z", "+00:00"))
        assert before <= found <= datetime.now(timezone.utc)

    def test_a_text_keeps_all_its_digits(self) -> None:
        text = "2026-01-31T12:00:00.123456789+01:00"
        assert event(timestamp=text).to_dict()["timestamp"] == text

    @pytest.mark.parametrize(
        ("make", "complaint"),
        [
            (lambda: event(severity="fatal"), "severity must be one of debug, info, warn, error"),
            (lambda: event(severity="INFO"), "got str 'INFO'"),
            (lambda: event(severity=None), "severity must be one of"),
            (lambda: event(severity=["info"]), "severity must be one of"),
            (lambda: event(status="done"), "status must be one of ok, failed, skipped"),
            (lambda: event(message=""), "message must not be empty"),
            (lambda: event(message="  \n"), "message must not be empty"),
            (lambda: event(message=7), "message must be a string, got int 7"),
            (lambda: event(message="\ud800"), "message holds a lone surrogate"),
            (lambda: event(timestamp="yesterday"), "timestamp must be a date and time of RFC 3339"),
            (lambda: event(timestamp=datetime(2026, 1, 1)), "has no time zone"),
            (lambda: event(timestamp=1700000000), "timestamp must be an aware datetime or a text"),
            (lambda: event(source={"system": "x"}), "source must be a Source, got dict"),
            (lambda: event(workflow=None), "workflow must be a Workflow, got NoneType"),
            (lambda: Source(""), "source.system must not be empty"),
            (lambda: Source("a", env=""), "source.env must not be empty"),
            (lambda: Source(None), "source.system must be a string, got NoneType None"),  # type: ignore[arg-type]
            (lambda: Workflow("a", run_id=7), "workflow.run_id must be a string, got int 7"),  # type: ignore[arg-type]
            (lambda: Actor("user", ""), "actor.id must not be empty"),
            (lambda: Actor("", "x"), "actor.type must not be empty"),
            (lambda: event(metadata=[1]), "metadata must be a mapping"),
            (lambda: event(metadata={"a": [1, float("nan")]}), r"metadata.a[1] is nan"),
            (lambda: event(extra={"a": {"b": object()}}), "extra.a.b"),
            (lambda: event(extra={7: 1}), "extra has the key int 7"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_value(
        self, make: Callable[[], object], complaint: str
    ) -> None:
        with pytest.raises(EventError) as caught:
            make()
        assert complaint in str(caught.value)

    def test_a_value_that_holds_itself_is_an_error(self) -> None:
        loop: dict[str, Any] = {}
        loop["self"] = loop
        with pytest.raises(EventError, match="metadata"):
            event(metadata=loop)

    def test_it_cannot_be_changed_and_what_it_was_made_of_does_not_change_it(self) -> None:
        given = {"a": [1]}
        made = event(metadata=given)
        given["a"].append(2)
        assert made.to_dict()["metadata"] == {"a": [1]}
        with pytest.raises(FrozenInstanceError):
            made.message = "other"  # type: ignore[misc]
        assert replace(made, message="other").message == "other"

    def test_it_can_be_pickled_and_compared(self) -> None:
        assert pickle.loads(pickle.dumps(event(metadata={"a": 1}))) == event(metadata={"a": 1})  # noqa: S301


class TestFromDict:
    def test_it_is_the_inverse(self) -> None:
        made = event(actor=Actor("user", "u", "Ada"), metadata={"n": 1}, extra={})
        assert PackTrackEvent.from_dict(json.loads(json.dumps(made.to_dict()))) == made

    def test_null_counts_as_left_out(self) -> None:
        found = event().to_dict() | {"metadata": None}
        found["source"]["env"] = None
        assert PackTrackEvent.from_dict(found) == event()

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"source": None}, "source is missing"),
            ({"severity": None}, "severity is missing"),
            ({"source": {}}, "source.system is missing"),
            ({"actor": {"type": "user"}}, "actor.id is missing"),
            ({"source": "billing"}, "source must be an object, got str 'billing'"),
            (
                {"source": {"system": "a", "host": "b"}},
                "'host' is not a field of source; the fields are system, env",
            ),
            ({"level": "info"}, "'level' is not a field of an event; the fields are source"),
            ({"message": 7}, "message must be a string"),
        ],
    )
    def test_what_is_wrong_is_named(self, change: dict[str, Any], complaint: str) -> None:
        with pytest.raises(EventError) as caught:
            PackTrackEvent.from_dict(event().to_dict() | change)
        assert complaint in str(caught.value)

    def test_what_is_no_object_is_an_error(self) -> None:
        with pytest.raises(EventError, match="an event must be an object, got list"):
            PackTrackEvent.from_dict([])  # type: ignore[arg-type]


class TestCanonical:
    def test_the_canonical_event_carries_the_object_and_its_time(self) -> None:
        canonical = event().event(idempotency_key="k-1")
        assert canonical.event_type == "packtrack_event"
        assert canonical.properties == event().to_dict()
        assert canonical.timestamp == 1769860800000
        # A time of long ago is no number of seconds: the text says what it is.
        old = event(timestamp="1999-12-31T00:00:00Z").event().timestamp
        assert old == datetime(1999, 12, 31, tzinfo=timezone.utc)
        assert canonical.idempotency_key == "k-1"
