"""Tracks, and prints how long each `track()` took, in seconds. Takes what `producer.py` takes.

`shared`: another process, which is stopped, is in a transaction on the file meanwhile.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from causality_sdk import Client
from faults.events import API_KEY, APP_ID, encoded
from faults.programs.producer import DEFAULTS, Server

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def main(spec: dict[str, Any]) -> None:
    client = Client(
        api_key=API_KEY,
        endpoint=spec["endpoint"],
        app_id=APP_ID,
        queue_path=spec["queue"],
        transport=Server(spec["arrived"], lie=False),
        flush_interval=0.5,
    )
    holder = None
    if spec["shared"]:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, client.stats().queue_path],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
    times = []
    for event, _key, _payload in encoded(spec["events"], 10_000):
        began = time.perf_counter()
        client.track(event)
        times.append(time.perf_counter() - began)
    if holder is not None:
        holder.kill()
        holder.communicate()
    client.close()
    print(json.dumps(times))  # noqa: T201


if __name__ == "__main__":
    main({**DEFAULTS, **json.loads(sys.argv[1])})
