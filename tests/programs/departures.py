"""A program that tracks departures, is killed, and goes on where its journal ends.

`departures.py FILE JOURNAL QUEUE ENDPOINT`: a key is written to the journal only after `track()`
returned it. Prints `at N` every few lines, and at the end the client's counters as JSON.

The idempotency key of a departure is made of its line number: a program that resumes its input
after a crash may track the one event that was in mid-air a second time.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import uuid
from pathlib import Path

from causality_sdk import Client

REPORT_EVERY = 20


def key_of(line_number: int) -> str:
    """The idempotency key of the departure on this line, the first being 0."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"departure:{line_number}"))


def main(source: Path, journal: Path, queue_path: Path, endpoint: str) -> None:
    """Tracks what the journal does not have yet, then waits until all of it is delivered."""
    done = journal.read_bytes().count(b"\n") if journal.exists() else 0
    client = Client(
        api_key="test-key",
        endpoint=endpoint,
        app_id="departures",
        queue_path=queue_path,
        flush_interval=0.1,
        backoff_initial=0.02,
        backoff_max=0.2,
    )
    log = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number < done:
                continue
            departure = json.loads(line)
            key = client.track(
                departure["event_type"],
                departure["properties"],
                device_id=departure["device_id"],
                timestamp=departure["timestamp_ms"],
                idempotency_key=key_of(number),
            )
            if key is None:
                raise SystemExit("the disk took no event")
            os.write(log, f"{key}\n".encode())
            if number % REPORT_EVERY == 0:
                print(f"at {number}", flush=True)  # noqa: T201 - how it talks to the test
    print("tracked", flush=True)  # noqa: T201
    sys.stdin.readline()  # the server is back
    while client.flush(timeout=30).remaining:
        pass
    stats = client.stats()
    print(  # noqa: T201
        json.dumps(
            {
                "tracked": stats.tracked,
                "acknowledged": stats.acknowledged,
                "evicted": sum((stats.evicted or {}).values()),
                "buried": stats.buried,
                "pending": stats.pending,
            }
        ),
        flush=True,
    )
    client.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
