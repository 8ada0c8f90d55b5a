"""One of many processes of an app: tracks until it is killed, or is told to deliver what is left.

`crowd.py JOURNAL QUEUE ENDPOINT`: `key sha256` is written to the journal only after `track()`
returned the key. A line on stdin ends the tracking: then it delivers and adopts until its file is
the only one and empty, and prints the client's counters as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import sys
import time
from pathlib import Path

from causality_sdk import Client, adoption
from causality_sdk.ownership import existing

adoption.LOOK_SECONDS = 0.2  # so that a minute sees as many adoptions as hours do
PATIENCE = 60.0  # seconds for the end


def main(journal: Path, queue_path: Path, endpoint: str) -> None:
    """Tracks, then drains."""
    client = Client(
        api_key="test-key",
        endpoint=endpoint,
        app_id="crowd",
        queue_path=queue_path,
        flush_interval=0.05,
        backoff_initial=0.02,
        backoff_max=0.2,
    )
    log = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    print(f"ready {client.stats().queue_path}", flush=True)  # noqa: T201 - how it talks to the test
    number = 0
    slowest = 0.0
    told = False
    while not told:
        began = time.perf_counter()
        key = client.track("tick", {"pid": os.getpid(), "number": number})
        slowest = max(slowest, time.perf_counter() - began)
        if key is None:
            raise SystemExit("the disk took no event")
        properties = hashlib.sha256(f"{os.getpid()} {number}".encode()).hexdigest()
        os.write(log, f"{key} {properties}\n".encode())
        number += 1
        # Breathes now and then: two cores, and a whole crowd.
        told = bool(select.select([sys.stdin], [], [], 0.002)[0])
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        client.flush(timeout=5)
        if existing(queue_path) == [Path(client.stats().queue_path)]:
            break
        select.select([], [], [], 0.05)
    stats = client.stats()
    client.close()
    print(  # noqa: T201
        json.dumps(
            {
                "tracked": stats.tracked,
                "acknowledged": stats.acknowledged,
                "evicted": sum((stats.evicted or {}).values()),
                "buried": stats.buried,
                "pending": stats.pending,
                "files": [path.name for path in existing(queue_path)],
                "slowest": slowest,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
