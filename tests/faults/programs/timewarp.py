"""A producer whose wall clock jumps. Takes what `producer.py` takes, and `years`.

The clock of the program is `time.time` and `time.time_ns`, replaced before the product is loaded;
the monotonic clock is the machine's. It jumps by `years` to and fro while it tracks. Prints the
seconds that a delivery took once the server was back.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

YEAR = 365 * 86400.0
offset = 0.0
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + offset
time.time_ns = lambda: _time_ns() + int(offset * 1e9)


def main(spec: dict[str, Any]) -> None:
    global offset
    import os

    from causality_sdk import Client
    from faults.events import API_KEY, APP_ID, digest, encoded

    client = Client(
        api_key=API_KEY,
        endpoint=spec["endpoint"],
        app_id=APP_ID,
        queue_path=spec["queue"],
        flush_interval=0.2,
        backoff_initial=0.05,
        backoff_max=0.5,
    )
    journal = os.open(spec["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    jumps = [0.0, *(sign * spec["years"] * YEAR for sign in (1, -1, 1, -1))]
    for number, (event, key, payload) in enumerate(encoded(spec["events"])):
        offset = jumps[number * len(jumps) // spec["events"]]
        if client.track(event) is not None:
            os.write(journal, f"{key} {digest(payload)}\n".encode())
    print("tracked", flush=True)  # noqa: T201
    sys.stdin.readline()  # the server is back
    began = time.monotonic()
    offset = -offset
    while client.stats().pending and time.monotonic() - began < 30:
        time.sleep(0.02)  # there is no signal for it, and the time is what is measured
    took = time.monotonic() - began
    stats = client.stats()
    client.close()
    print(json.dumps({"seconds": took, "pending": stats.pending, "buried": stats.buried}))  # noqa: T201


if __name__ == "__main__":
    from faults.programs.producer import DEFAULTS

    main({**DEFAULTS, **json.loads(sys.argv[1])})
