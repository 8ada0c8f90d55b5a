"""What a collector remembers: the unique events as raw bytes, and the requests that came.

Neighbour: `collector`, which calls both under its lock. Invariant: the first arrival of a key
wins and is in the journal before `EventStore.add` returns.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from causality_sdk.testing._batch import ReceivedRequest, WireEvent

KEPT_REQUESTS = 10_000
KEPT_BODIES = 1_000
KEPT_BODY_BYTES = 64 * 1024 * 1024


class EventStore:
    """Unique events in order of first arrival. Not thread-safe."""

    def __init__(self, journal: str | os.PathLike[str] | None) -> None:
        self.payloads: dict[str, bytes] = {}
        self.duplicates = 0
        self._path = journal
        self._journal: BinaryIO | None = None

    def open(self) -> None:
        """Opens the journal, if there is to be one. May follow `close`."""
        if self._path is not None and self._journal is None:
            self._journal = Path(self._path).open("ab")  # noqa: SIM115 (until close)

    def close(self) -> None:
        """Closes the journal. The events stay."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def add(self, events: Iterable[WireEvent]) -> None:
        """Keeps what is new, counts the rest, and writes the journal's lines."""
        fresh: dict[str, bytes] = {}
        for key, raw in events:
            if key in self.payloads or key in fresh:
                self.duplicates += 1
            else:
                fresh[key] = raw
        if self._journal is not None and fresh:
            self._journal.write(b"".join(map(_journal_line, fresh.items())))
            # To the operating system, which a kill -9 of this process does not take it from.
            self._journal.flush()
        self.payloads.update(fresh)  # last: an event that the journal has not is not ours

    def clear(self) -> None:
        """Forgets the events and their keys. The journal is left as it is."""
        self.payloads = {}
        self.duplicates = 0


def _journal_line(event: WireEvent) -> bytes:
    key, raw = event
    if not (key.isascii() and key.isprintable()):
        key = json.dumps(key)[1:-1]  # a line break in a key must not forge a line
    return f"{key} {hashlib.sha256(raw).hexdigest()}\n".encode()


class RequestLog:
    """The latest requests, the very latest with their bodies. Not thread-safe."""

    def __init__(self) -> None:
        self.total = 0
        self._bare: deque[ReceivedRequest] = deque(maxlen=KEPT_REQUESTS - KEPT_BODIES)
        self._whole: deque[ReceivedRequest] = deque()
        self._body_bytes = 0

    def add(self, request: ReceivedRequest) -> None:
        """Remembers a request and lets go of the oldest bodies that are too many."""
        self.total += 1
        self._whole.append(request)
        self._body_bytes += len(request.body)
        while len(self._whole) > KEPT_BODIES or (
            self._body_bytes > KEPT_BODY_BYTES and len(self._whole) > 1
        ):
            oldest = self._whole.popleft()
            self._body_bytes -= len(oldest.body)
            self._bare.append(replace(oldest, body=b""))

    def snapshot(self) -> list[ReceivedRequest]:
        """The requests that are remembered, oldest first."""
        return [*self._bare, *self._whole]
