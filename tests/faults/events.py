"""The events that are tracked: real departures, each with the key of its line, and their bytes."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

from causality_sdk import Event
from causality_sdk.destination import fingerprint
from causality_sdk.event import Encoder
from causality_sdk.schema import Destination

SOURCE = Path(__file__).resolve().parent.parent / "data" / "flights-100000.ndjson.gz"
APP_ID = "faults"
API_KEY = "test-key"
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there
HERE = Destination(NOWHERE, "causality", fingerprint(API_KEY))


def departures(count: int, first: int = 0) -> Iterator[Event]:
    """`count` events, from line `first` on; the same key for the same line, in any process."""
    with gzip.open(SOURCE, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(itertools.islice(lines, first, first + count), first):
            found = json.loads(line)
            yield Event(
                found["event_type"],
                found["properties"],
                device_id=found["device_id"],
                timestamp=found["timestamp_ms"],
                idempotency_key=str(uuid.uuid5(uuid.NAMESPACE_URL, f"departure:{number}")),
            )


def encoded(count: int, first: int = 0) -> Iterator[tuple[Event, str, bytes]]:
    """Events with the key and the bytes that the product will make of them."""
    encoder = Encoder(APP_ID, max_event_bytes=10**6)
    for event in departures(count, first):
        key, payload = encoder.encode_event(event)
        yield event, key, payload


def digest(payload: bytes) -> str:
    """SHA-256, as the journals have it."""
    return hashlib.sha256(payload).hexdigest()
