"""What the collector says: replies made of what came and of what was dictated.

Pure. Neighbour: `collector`, which decides which of them it is and stores the events first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from causality_sdk.testing._batch import (
    BatchError,
    ReceivedRequest,
    WireEvent,
    decompress,
    parse_batch,
)
from causality_sdk.testing._http import Reply
from causality_sdk.testing._script import ScriptedAnswer, encode_body

BATCH_PATH = "/v1/events/batch"


def read_batch(received: ReceivedRequest) -> list[WireEvent] | BatchError:
    """The events of a batch request, or what is wrong with it."""
    try:
        return parse_batch(decompress(received.body, received.headers))
    except BatchError as error:
        return error


def json_reply(
    status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None
) -> Reply:
    """An answer with a JSON body."""
    kind = {"Content-Type": "application/json", **(headers or {})}
    return Reply(status, json.dumps(body, separators=(",", ":")).encode(), kind)


def scripted_reply(answer: ScriptedAnswer) -> Reply:
    """An answer as it was dictated."""
    body, kind = encode_body(answer.body)
    headers = dict(answer.headers)
    if kind and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = kind
    return Reply(answer.status, body, headers)


def results(batch: Sequence[WireEvent], accepted: Sequence[bool]) -> dict[str, Any]:
    """The body that names what became of each event."""
    entries: list[dict[str, Any]] = []
    for index, ((key, _), taken) in enumerate(zip(batch, accepted, strict=True)):
        entry: dict[str, Any] = {"index": index, "eventId": key}
        entry["status"] = "accepted" if taken else "rejected"
        if not taken:
            entry["error"] = "rejected by accept_only"
        entries.append(entry)
    count = sum(accepted)
    return {"acceptedCount": count, "rejectedCount": len(batch) - count, "results": entries}


def without_events(method: str, path: str, *, ready: bool) -> Reply:
    """The answer to everything that is not a batch."""
    if path == BATCH_PATH:
        return json_reply(405, {"error": "use POST"}, {"Allow": "POST"})
    if path in ("/health", "/ready") and method in ("GET", "HEAD"):
        if path == "/health" or ready:
            return json_reply(200, {"status": "ok"})
        return json_reply(503, {"status": "not ready"})
    return json_reply(404, {"error": f"there is nothing at {path}"})
