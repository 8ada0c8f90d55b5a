"""The program that the demo kills: it tracks departures with a real client, as it is told to.

Neighbours: `demo` starts it through `_demo_process`, in a process of its own. It reads commands on
stdin, one a line, the first of which is its options, and answers with JSON on stdout. Invariant:
a line is in the journal only if `track()` has returned for it.

    -> {"file": ..., "directory": ..., "endpoint": ..., "report_every": ...}
    <- {"kind": "ready", "line": ..., "pending": ...}
    -> track 1250           all lines up to this one
    <- {"kind": "progress", "line": ...}, several
    <- {"kind": "tracked", "line": ..., "pending": ...}
    -> drain 60             within so many seconds
    <- {"kind": "drained", "line": ..., "pending": ...}

The end of stdin ends it: it does not outlive the demo.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from causality_sdk.cli._demo_plan import (
    API_KEY,
    APP_ID,
    JOURNAL,
    QUEUE,
    Journal,
    departures,
    read_journal,
)
from causality_sdk.client import Client
from causality_sdk.event import Event


def main() -> None:
    """Runs until stdin ends."""
    # One line when an outage begins and one when it ends; stderr is a file.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = json.loads(sys.stdin.readline())
    directory = Path(options["directory"])
    with (
        Journal(directory / JOURNAL) as journal,
        Client(
            app_id=APP_ID,
            api_key=API_KEY,
            endpoint=options["endpoint"],
            queue_path=directory / QUEUE,
            strict=True,  # None from track() could not be journaled, so let it raise
            # The defaults, 30, 1 and 300 s, are too patient to watch.
            flush_interval=0.2,
            backoff_initial=0.05,
            backoff_max=0.5,
        ) as client,
    ):
        Program(options, client, journal).run()


class Program:
    """Tracks the file of departures from where the journal ends."""

    def __init__(self, options: dict[str, Any], client: Client, journal: Journal) -> None:
        self._client = client
        self._journal = journal
        self._report_every = options["report_every"]
        done = read_journal(Path(options["directory"]) / JOURNAL)
        self._line = done[-1][0] if done else 0  # the last that is in the journal
        self._rest = self._after(self._line, departures(Path(options["file"])))

    def run(self) -> None:
        """Does what stdin says."""
        self._say("ready")
        for command in sys.stdin:
            verb, argument = command.split()
            if verb == "track":
                self._track(int(argument))
                self._say("tracked")
            else:
                self._client.flush(timeout=float(argument))
                self._say("drained")

    def _track(self, last: int) -> None:
        if self._line >= last:
            return
        for count, (line, event) in enumerate(self._rest, 1):
            key = self._client.track(event)
            if key is None:
                raise RuntimeError("track() gave no key under strict")
            self._journal.add(line, key)
            self._line = line
            if line >= last:
                return
            if count % self._report_every == 0:
                _write({"kind": "progress", "line": line})

    def _say(self, kind: str) -> None:
        _write({"kind": kind, "line": self._line, "pending": self._client.stats().pending})

    @staticmethod
    def _after(last: int, source: Iterator[tuple[int, Event]]) -> Iterator[tuple[int, Event]]:
        return ((line, event) for line, event in source if line > last)


def _write(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
