"""PackTrack's definition of an event, written down a second time and checked by hand. Not a test.

Independent of what the package knows of it: neither its enums nor its regular expressions.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

SEVERITIES = ["debug", "info", "warn", "error"]
STATUSES = ["ok", "failed", "skipped", "timeout", "retrying", "unknown"]
PARTS = {
    "source": {"system": True, "env": False},
    "workflow": {"id": True, "name": False, "run_id": False, "step_id": False},
    "actor": {"type": True, "id": True, "display_name": False},
}


def check(event: Any) -> None:
    """Asserts that `event` is one that PackTrack takes."""
    assert isinstance(event, dict)
    left = dict(event)
    for part, members in PARTS.items():
        found = dict(left.pop(part))
        for name, required in members.items():
            value = found.pop(name, None)
            assert isinstance(value, str) if required else value is None or isinstance(value, str)
            assert value != ""
        assert found == {}, f"{part} has members that PackTrack does not know"
    assert left.pop("severity") in SEVERITIES
    assert left.pop("status") in STATUSES
    message = left.pop("message")
    assert isinstance(message, str)
    assert message
    check_time(left.pop("timestamp"))
    for name in ("metadata", "extra"):
        assert isinstance(left.pop(name, {}), dict)
    assert left == {}, "fields that PackTrack does not know"


def check_time(text: Any) -> None:
    """Asserts RFC 3339, section 5.6, by taking it apart."""
    assert isinstance(text, str)
    clock, offset = (text[:-1], "+00:00") if text[-1] == "Z" else (text[:-6], text[-6:])
    clock, _, fraction = clock.partition(".")
    assert fraction.isdigit() or "." not in text
    assert len(clock) == 19
    assert clock[10] == "T"
    datetime.strptime(clock.replace(":60", ":59"), "%Y-%m-%dT%H:%M:%S")
    datetime.strptime(offset, "%z")
