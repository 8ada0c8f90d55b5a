"""The program that faults happen to: tracks departures, delivers some, checkpoints, journals.

`producer.py SPEC`, a JSON object; what it may hold is in `DEFAULTS`. Prints `ready` when the client
is made, `done` at the end. With `arrived` it is its own server: a transport that journals a batch
and acknowledges it. `sabotage` makes it break a rule, for the controls.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from causality_sdk import Client, Event, adoption, connections
from causality_sdk.testing._batch import parse_batch
from causality_sdk.wire.base import Request, Response
from faults.events import API_KEY, APP_ID, NOWHERE, digest, encoded

DEFAULTS: dict[str, Any] = {
    "queue": None,  # path of the queue file
    "journal": None,  # of the keys that were returned
    "refused": None,  # of the keys of events that track() did not take
    "arrived": None,  # the server's journal; without it, `endpoint` is the server
    "endpoint": NOWHERE,
    "durability": "process",
    "first": 0,  # line of the source
    "events": 100,  # of each thread
    "threads": 1,
    "flush_every": 0,  # events; 0: never
    "checkpoint_every": 0,
    "pace": 0.0,  # seconds between two events
    "start": False,
    "alone": False,  # wait, at the end, until every other queue file is adopted
    "adopt_seconds": 0.0,  # between two looks for orphans; 0: as the product has it
    "close": True,
    "options": {},  # of the client
    "sabotage": "",
}


class Server:
    """Journals each batch, then acknowledges it."""

    def __init__(self, journal: str, *, lie: bool) -> None:
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lie = lie

    def send(self, request: Request, timeout: float) -> Response:  # noqa: ARG002 (the protocol)
        lines = (f"{key} {digest(raw)}\n" for key, raw in parse_batch(request.body))
        if not self._lie:
            os.write(self._journal, "".join(lines).encode())
        return Response(200, {"content-type": "application/json"}, b"{}")

    def close(self) -> None:
        """Nothing to close."""


def without_sync() -> None:
    """The control of power loss: SQLite as it must not be used."""
    connect = connections.connect

    def unsafe(path: Path, *, synchronous: str = "", busy_seconds: float = 2.0) -> Any:  # noqa: ARG001
        return connect(path, synchronous="OFF", busy_seconds=busy_seconds)

    connections.connect = unsafe


def wait_until_alone(directory: Path) -> None:
    """Until one queue file is left, at most 20 s."""
    end = time.monotonic() + 20
    while len(list(directory.glob("queue*.db"))) > 1 and time.monotonic() < end:
        time.sleep(0.01)  # nobody tells


class Worker:
    """One thread of tracking, over events of its own."""

    def __init__(self, spec: dict[str, Any], client: Client, journal: int, refused: int) -> None:
        assert client._pipeline is not None
        self._spec = spec
        self._client = client
        self._queue = client._pipeline.queue
        self._journal = journal
        self._refused = refused

    def run(self, first: int) -> None:
        """Tracks, delivers, checkpoints."""
        spec = self._spec
        for number, (event, key, payload) in enumerate(encoded(spec["events"], first), 1):
            self._track(event, f"{key} {digest(payload)}\n".encode())
            if spec["flush_every"] and number % spec["flush_every"] == 0:
                self._flush()
            if spec["checkpoint_every"] and number % spec["checkpoint_every"] == 0:
                with contextlib.suppress(OSError):  # the rows ask what is kept, not who is told
                    self._queue.checkpoint()
            if spec["pace"]:
                time.sleep(spec["pace"])

    def _track(self, event: Event, line: bytes) -> None:
        too_early = self._spec["sabotage"] == "journal first"
        if too_early:
            os.write(self._journal, line)
            time.sleep(self._spec["pace"])
        if self._client.track(event) is None:
            os.write(self._refused, line)
        elif not too_early:
            os.write(self._journal, line)

    def _flush(self) -> None:
        if self._spec["sabotage"] == "settle without ack":
            self._queue.settle(self._queue.peek(0, max_events=10, max_bytes=10**6))
        else:
            self._client.flush(timeout=30)


def main(spec: dict[str, Any]) -> None:
    sabotage = spec["sabotage"]
    if spec["adopt_seconds"]:
        adoption.LOOK_SECONDS = spec["adopt_seconds"]
    if sabotage == "synchronous off":
        without_sync()
    transport = None
    if spec["arrived"]:
        transport = Server(spec["arrived"], lie=sabotage == "server lies")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    journal = os.open(spec["journal"], flags, 0o600)
    refused = os.open(spec["refused"] or os.devnull, flags, 0o600)
    client = Client(
        api_key=API_KEY,
        endpoint=spec["endpoint"],
        app_id=APP_ID,
        queue_path=spec["queue"],
        durability=spec["durability"],
        transport=transport,
        start=spec["start"],
        **spec["options"],
    )
    print("ready", flush=True)  # noqa: T201
    worker = Worker(spec, client, journal, refused)
    others = [
        threading.Thread(target=worker.run, args=(spec["first"] + number * spec["events"],))
        for number in range(1, spec["threads"])
    ]
    for thread in others:
        thread.start()
    worker.run(spec["first"])
    for thread in others:
        thread.join()
    if spec["alone"]:
        wait_until_alone(Path(spec["queue"]).parent)
    if spec["close"]:
        client.close()
    print("done", flush=True)  # noqa: T201
    if not spec["close"]:
        os._exit(0)


if __name__ == "__main__":
    main({**DEFAULTS, **json.loads(sys.argv[1])})
