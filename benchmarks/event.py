"""The events that everybody tracks: a purchase, and the departures of a real file.

Runs in the environments of the peers too: imports nothing that is not in the standard library.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

TYPE = "purchase_complete"
PURCHASE = {
    "order_id": "A-1",
    "total_cents": 5897,
    "currency": "EUR",
    "items": [
        {"sku": "mug", "quantity": 2, "price_cents": 1299},
        {"sku": "tee", "quantity": 1, "price_cents": 3299},
    ],
}
PAYLOAD_BYTES = 413
"""Of the event as it lies in the queue, whatever the machine is called; see `SERVER`."""

SERVER = {
    "hostname": "shop",
    "python_version": "3.11.7",
    "sdk_version": "0.1.0",
    "os": "Linux",
    "arch": "x86_64",
}
"""The context in every event, of one length on every machine."""

DEPARTURES = Path(__file__).resolve().parent.parent / "tests" / "data" / "flights-100000.ndjson.gz"
MARKER = "distance_miles"
"""A name that is in every departure once, by which the server counts them."""


def departures(count: int) -> list[dict[str, Any]]:
    """The first `count` departures of the file: type, properties, device and time of each."""
    events: list[dict[str, Any]] = []
    with gzip.open(DEPARTURES, "rt", encoding="utf-8") as file:
        for line in file:
            if len(events) == count:
                break
            events.append(json.loads(line))
    return events
