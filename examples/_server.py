"""Where the examples send: your server if the environment names one, else one on loopback."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from causality_sdk.testing import LoopbackCollector


@contextmanager
def server() -> Iterator[tuple[dict[str, Any], LoopbackCollector | None]]:
    """Options for a `Client`, and the collector that stands in for a server.

    With `CAUSALITY_ENDPOINT` and `CAUSALITY_API_KEY` set, the client reads both itself, the queue
    lies where it always does, and there is no collector.
    """
    if os.environ.get("CAUSALITY_ENDPOINT") and os.environ.get("CAUSALITY_API_KEY"):
        yield {}, None
        return
    with (
        tempfile.TemporaryDirectory() as directory,
        LoopbackCollector(api_key="test-key") as collector,
    ):
        options = {
            "endpoint": collector.endpoint,
            "api_key": "test-key",
            "queue_path": Path(directory) / "queue.db",
        }
        yield options, collector
