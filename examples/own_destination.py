"""Events for a server of one's own: its wire and its transport are in `_lines.py`.

It takes lines of JSON and answers with `stored 3`. Here it runs on loopback; both parts are tried
by the conformance suite before anything is sent.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from _lines import LinesWire, PlainTransport

from causality_sdk import Client
from causality_sdk.testing import (
    LoopbackCollector,
    ReceivedRequest,
    ScriptedAnswer,
    check_transport,
    check_wire,
)
from causality_sdk.wire.base import Response

stored: list[bytes] = []


def store_lines(request: ReceivedRequest) -> ScriptedAnswer:
    """The server."""
    lines = request.body.splitlines()
    stored.extend(lines)
    return ScriptedAnswer(body=f"stored {len(lines)}")


check_wire(LinesWire(), accepts=lambda count: Response(200, {}, b"stored %d" % count))
check_transport(PlainTransport)
print("the wire and the transport keep their protocols")

with tempfile.TemporaryDirectory() as directory, LoopbackCollector(api_key=None) as server:
    server.answer_with(store_lines)
    with Client(
        endpoint=server.endpoint,
        api_key="a-key",
        app_id="own-destination",
        wire=LinesWire(),
        transport=PlainTransport(server.endpoint, key="a-key"),
        queue_path=Path(directory) / "queue.db",
    ) as client:
        for ticket in range(3):
            client.track("ticket_sold", {"ticket": ticket})
        report = client.flush(timeout=10)
    print(f"{report.delivered} events delivered, {report.remaining} wait")
    key = server.requests[0].headers["x-key"]
    print(f"the server stored {len(stored)} lines and saw the key {key}")
