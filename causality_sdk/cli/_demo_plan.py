"""What both processes of the demo must agree on: the events, their keys, the journal.

Neighbours: `demo` and the child it starts. Invariant: the key of a line is the same in every
process, so that a program which resumes its input after a crash, and tracks the event that was in
mid-air a second time, does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from uuid import UUID, uuid5

from causality_sdk.cli.ndjson import read_events
from causality_sdk.event import Event

SAMPLE = Path(__file__).with_name("flights-5000.ndjson.gz")
APP_ID = "causality-demo"
API_KEY = "demo-key"
QUEUE = "queue.db"
JOURNAL = "tracked.txt"
ARRIVALS = "arrived.txt"
LOG = "child.log"

_TAIL_BYTES = 256  # of the journal hold its last line, whole

_NAMESPACE = UUID("6f1d7c1e-0f0b-5b0e-9f0a-2b8f0d3c5a71")  # of nothing else


def key_of(line: int) -> str:
    """The idempotency key of the event on this line, the same in every run."""
    return str(uuid5(_NAMESPACE, str(line)))


def departures(path: Path) -> Iterator[tuple[int, Event]]:
    """Line numbers and events, each with its key. Raises `InputError`."""
    for line, event in read_events(path):
        yield line, replace(event, idempotency_key=key_of(line))


class Journal:
    """Which lines were tracked: one is written after `track()` has returned, and at once.

    What it holds was promised to be durable. It goes to the operating system unbuffered, which a
    kill -9 of this process does not take it from.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._file = os.open(path, flags, 0o600)
        # A kill can cut a line short where it crosses a page; its event is tracked again.
        os.ftruncate(self._file, len(_complete(path.read_bytes())))

    def add(self, line: int, key: str) -> None:
        """Notes one line of the input and its key."""
        os.write(self._file, f"{line} {key}\n".encode())

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_journal(path: Path) -> list[tuple[int, str]]:
    """Lines and keys in the order they were tracked; none if there is no journal yet."""
    if not path.exists():
        return []
    return [_entry(line) for line in _complete(path.read_bytes()).splitlines()]


def last_tracked(path: Path) -> int:
    """The last line in the journal, without reading all of it; 0 if there is none yet."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        entries = _complete(file.read()).splitlines()
    return _entry(entries[-1])[0] if entries else 0


def _complete(journal: bytes) -> bytes:
    return journal[: journal.rfind(b"\n") + 1]


def _entry(text: bytes) -> tuple[int, str]:
    line, key = text.decode("ascii").split()
    return int(line), key
