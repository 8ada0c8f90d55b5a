"""Tracks, and ends in one of many ways. Takes what `producer.py` takes, and `how`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from causality_sdk import Client
from faults.events import API_KEY, APP_ID, digest, encoded
from faults.programs.producer import DEFAULTS


def main(spec: dict[str, Any]) -> None:
    client = Client(
        api_key=API_KEY,
        endpoint=spec["endpoint"],
        app_id=APP_ID,
        queue_path=spec["queue"],
        close_timeout=1.0,
    )
    journal = os.open(spec["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for event, key, payload in encoded(spec["events"]):
        if spec["sabotage"] or client.track(event) is not None:
            os.write(journal, f"{key} {digest(payload)}\n".encode())
    print("tracked", flush=True)  # noqa: T201
    how = spec["how"]
    # A shell starts what runs in the background with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if how == "sys.exit":
        sys.exit(3)
    if how == "an exception":
        raise ValueError("of the program")
    if how == "os._exit":
        os._exit(3)
    if how in ("SIGTERM", "SIGINT"):
        if how == "SIGTERM":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        os.kill(os.getpid(), getattr(signal, how))
        signal.pause()
    if how == "SIGTERM, no handler":
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    if how == "abort":
        os.abort()
    # Else: the last line of the program.


if __name__ == "__main__":
    main({**DEFAULTS, **json.loads(sys.argv[1])})
