"""PackTrack's format: `POST /api/ingest` with a JSON array; any 2xx acknowledges all of it.

Neighbour: `causality_sdk.packtrack` makes events of this shape. Invariant: every event that can be
queued becomes a valid PackTrack object, and nothing that was in it is left out.

An event that `PackTrackEvent` made carries its object in `properties` and is sent as that object.
Of any other event one is made: see `_from_any`. Either way the rest of the canonical event goes
into `extra`: the `_server` context under `_server`, the envelope (idempotency key, app id, event
type, user, session, device) under `_causality`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson

from causality_sdk.wire.base import ACCEPTED, RETRY, Request, Response, Verdict

EVENT_TYPE = "packtrack_event"
"""The canonical event type of a `PackTrackEvent`."""
SEVERITIES = ("debug", "info", "warn", "error")
STATUSES = ("ok", "failed", "skipped", "timeout", "retrying", "unknown")
INGEST_PATH = "/api/ingest"
HEALTH_PATH = "/api/health"
KEY_HEADER = "X-PackTrack-Key"
IDEMPOTENCY_HEADER = "Idempotency-Key"
HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}

_EPOCH = datetime(1970, 1, 1)
_KEY_DIGITS = 32  # of a SHA-256 in hex: 128 bits
_BOM = b"\xef\xbb\xbf"
# Part -> its required members, and the others.
_PARTS = {
    "source": ({"system"}, {"env"}),
    "workflow": ({"id"}, {"name", "run_id", "step_id"}),
    "actor": ({"type", "id"}, {"display_name"}),
}
# The shape of RFC 3339, section 5.6; PackTrackEvent has looked at the rest.
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)
_OWN = frozenset(
    {"timestamp", "source", "workflow", "actor", "severity", "status", "message", "metadata"}
)


class PackTrackWire:
    """PackTrack, as its ingest endpoint takes it."""

    name = "packtrack"
    key_header = KEY_HEADER
    health_path = HEALTH_PATH

    def frame(self, payloads: Sequence[bytes]) -> Request:
        """The rows as PackTrack objects, under a key that is the same whenever they are sent."""
        rows = [_decoded(payload) for payload in payloads]
        digest = hashlib.sha256()
        for row, payload in zip(rows, payloads, strict=True):
            key = row.get("idempotency_key")
            # The length in front: else two keys and their concatenation would be one.
            part = key.encode() if isinstance(key, str) else payload
            digest.update(b"%d:%b" % (len(part), part))
        return Request(
            path=INGEST_PATH,
            headers={**HEADERS, IDEMPOTENCY_HEADER: digest.hexdigest()[:_KEY_DIGITS]},
            body=b"[" + b",".join(orjson.dumps(packtrack_object(row)) for row in rows) + b"]",
        )

    def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
        """All or nothing, by the status."""
        return [ACCEPTED if acknowledges(response) else RETRY] * count


def acknowledges(response: Response) -> bool:
    """Whether the answer takes all that was sent: any 2xx, but for a page.

    A page, or an answer that is longer than anybody reads, is not PackTrack's: it is what a
    captive portal or a proxy puts in its place.
    """
    if not 200 <= response.status <= 299 or response.truncated:
        return False
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    start = response.body.removeprefix(_BOM).lstrip()[:1]
    return kind not in ("text/html", "application/xhtml+xml") and start != b"<"


def packtrack_object(event: Mapping[str, Any]) -> dict[str, Any]:
    """The PackTrack object of one canonical event."""
    properties = event.get("properties")
    properties = dict(properties) if isinstance(properties, dict) else {}
    server = properties.pop("_server", None)
    if event.get("event_type") == EVENT_TYPE and _is_object(properties):
        made = {name: value for name, value in properties.items() if name in _OWN}
        rest = {name: value for name, value in properties.items() if name not in _OWN}
        extra = dict(rest.pop("extra", {}))
        # What somebody put beside the object's own fields, by hand.
        _add(extra, "_properties", rest)
    else:
        made = _from_any(event, properties)
        extra = {}
    _add(extra, "_server", server)
    _add(extra, "_causality", _envelope(event))
    return {**made, "extra": extra} if extra else made


def _from_any(event: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """An object for an event that knows nothing of PackTrack.

    The app is the source, the event type the workflow, the session its run. The actor is the
    user, else the device, else the app. Severity, status and message are properties of these
    names where PackTrack takes their values, else `info`, `unknown` and the event type. All
    properties are the metadata.
    """
    app = _text(event.get("app_id"), "unknown")
    event_type = _text(event.get("event_type"), "unknown")
    workflow = {"id": event_type}
    if isinstance(event.get("session_id"), str):
        workflow["run_id"] = event["session_id"]
    severity, status = properties.get("severity"), properties.get("status")
    made = {
        "timestamp": _rfc3339(event.get("timestamp_ms")),
        "source": {"system": app},
        "workflow": workflow,
        "actor": _actor(event, app),
        "severity": severity if severity in SEVERITIES else "info",
        "status": status if status in STATUSES else "unknown",
        "message": _text(properties.get("message"), event_type),
    }
    return {**made, "metadata": properties} if properties else made


def _actor(event: Mapping[str, Any], app: str) -> dict[str, str]:
    for kind, name in (("user", "user_id"), ("device", "device_id")):
        if _text(event.get(name), ""):
            return {"type": kind, "id": event[name]}
    return {"type": "service", "id": app}


def _envelope(event: Mapping[str, Any]) -> dict[str, Any]:
    """What of the canonical event has no field of its own."""
    # The time is in `timestamp`, to the millisecond at least.
    left_out = {"properties", "timestamp_ms"}
    if event.get("event_type") == EVENT_TYPE:
        left_out.add("event_type")
    return {name: value for name, value in event.items() if name not in left_out}


def _add(extra: dict[str, Any], name: str, value: object) -> None:
    """Puts `value` into `extra`, under another name where the user has taken this one."""
    if value in (None, {}):
        return
    while name in extra:
        name = "_" + name
    extra[name] = value


def _is_object(properties: Mapping[str, Any]) -> bool:
    """Whether the properties are a PackTrack object: what every PackTrackEvent has made of itself,
    and what nobody can rely on when the event was tracked by hand under our event type.
    """
    for name, (required, optional) in _PARTS.items():
        part = properties.get(name)
        if not isinstance(part, dict) or not required <= part.keys() <= required | optional:
            return False
        if not all(_text(value, "") for value in part.values()):
            return False
    return (
        bool(_TIME.fullmatch(_text(properties.get("timestamp"), "")))
        and properties.get("severity") in SEVERITIES
        and properties.get("status") in STATUSES
        and bool(_text(properties.get("message"), ""))
        and isinstance(properties.get("metadata", {}), dict)
        and isinstance(properties.get("extra", {}), dict)
    )


def _decoded(payload: bytes) -> dict[str, Any]:
    """The canonical event. What is none must not hold up the rows behind it."""
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict):
        return document
    return {"properties": {"payload": payload.decode("utf-8", "replace")}}


def _rfc3339(milliseconds: object) -> str:
    """RFC 3339, section 5.6, in UTC."""
    if not isinstance(milliseconds, int) or not 0 <= milliseconds < 253_402_300_800_000:
        milliseconds = 0
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds") + "Z"


def _text(value: object, default: str) -> str:
    return value if isinstance(value, str) and value.strip() else default
