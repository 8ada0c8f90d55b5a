"""Constructs a client, tracks one event, prints what came of it as JSON. For faults at start.

`construct.py SPEC`: `uid` to become first, `options` of the client, `home` False to have no home.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))


from causality_sdk import Client
from faults.events import API_KEY, APP_ID, NOWHERE


def main(spec: dict[str, Any]) -> None:
    if spec.get("uid"):
        # All that is imported late, while the files can still be read.
        for module in ("filelock", "platformdirs", "sqlite_utils", "causality_sdk.transport.http"):
            importlib.import_module(module)
        os.setgroups([])
        os.setgid(spec["uid"])
        os.setuid(spec["uid"])
    if not spec.get("home", True):
        for name in ("HOME", "XDG_DATA_HOME", "USER", "LOGNAME"):
            os.environ.pop(name, None)
    found: dict[str, Any] = {"error": "", "text": "", "key": None}
    try:
        options = {"api_key": API_KEY, "endpoint": NOWHERE, "app_id": APP_ID, "start": False}
        with Client(**{**options, "close_timeout": 0, **spec["options"]}) as client:
            found["key"] = client.track("started")
            found["queue"] = client.stats().queue_path
    except Exception as error:  # noqa: BLE001 - it is what is asked for
        found["error"] = type(error).__name__
        found["text"] = str(error)
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
