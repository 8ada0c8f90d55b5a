"""A program whose disk fills up and has room again. Takes what `producer.py` takes, and orders.

Orders come on stdin, an answer on stdout for each: `track N`, `limit BYTES` (RLIMIT_FSIZE; 0 for
none), `flush`, `recover` (waits until nothing is buffered any more), `stats`, `close`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from causality_sdk import Client
from faults.events import API_KEY, APP_ID, digest, encoded
from faults.programs.producer import DEFAULTS, Server

RECOVERY = 30.0  # seconds, after which it counts as never


def main(spec: dict[str, Any]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    journal = os.open(spec["journal"], flags, 0o600)
    refused = os.open(spec["refused"], flags, 0o600)
    client = Client(
        api_key=API_KEY,
        endpoint=spec["endpoint"],
        app_id=APP_ID,
        queue_path=spec["queue"],
        transport=Server(spec["arrived"], lie=False),
        flush_interval=3600.0,
        batch_size=10**6,
        **spec["options"],
    )
    events = encoded(100_000, spec["first"])
    answer: Any = "ready"
    while True:
        print(json.dumps(answer), flush=True)  # noqa: T201
        order, _, number = sys.stdin.readline().strip().partition(" ")
        answer = None
        if order == "track":
            for _ in range(int(number)):
                event, key, payload = next(events)
                line = f"{key} {digest(payload)}\n".encode()
                os.write(refused if client.track(event) is None else journal, line)
        elif order == "limit":
            limit(int(number))
        elif order == "flush":
            client.flush(timeout=0.4)
        elif order == "recover":
            answer = recover(client)
        elif order == "stats":
            stats = client.stats()
            answer = {"buffered": stats.buffered, "dropped": stats.buffer_dropped}
        else:
            client.close()
            return


def recover(client: Client) -> float | None:
    """Seconds until the buffer is empty, by itself; None if it is not in time."""
    began = time.monotonic()
    while client.stats().buffered:
        if time.monotonic() - began > RECOVERY:
            return None
        time.sleep(0.01)  # there is no signal for it, and the time is what is measured
    return time.monotonic() - began


def limit(size: int) -> None:
    """No file may grow beyond `size` bytes; a write then fails with EFBIG."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size or hard, hard))


if __name__ == "__main__":
    main({**DEFAULTS, **json.loads(sys.argv[1])})
