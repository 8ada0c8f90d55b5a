"""Writes events as a table, as NDJSON or as CSV, one at a time.

Neighbours: `list_` and `export`. Invariant: constant memory, and in NDJSON the bytes of an event
as they lie in the queue.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import IO, Any, Protocol

import orjson

from causality_sdk.cli.queue.selection import Found
from causality_sdk.cli.tables import Column, Rows
from causality_sdk.cli.words import json_bytes, printable

FORMATS = ("table", "ndjson", "csv")
_FIELDS = ("app_id", "user_id", "session_id", "device_id")


class RowWriter(Protocol):
    """Gets one event after the other."""

    def write(self, found: Found) -> None:
        """Writes it."""
        ...

    def end(self) -> None:
        """Behind the last one."""
        ...


def row_writer(kind: str, stream: IO[bytes], *, summary: bool) -> RowWriter:
    """For one of `FORMATS`. `summary`: NDJSON of what the table has, and not of whole events."""
    if kind == "table":
        return _Table(stream)
    if kind == "csv":
        return _Csv(stream)
    return _Lines(stream, _short if summary else lambda found: found.payload)


class _Lines:
    def __init__(self, stream: IO[bytes], encode: Callable[[Found], bytes]) -> None:
        self._stream = stream
        self._encode = encode

    def write(self, found: Found) -> None:
        self._stream.write(self._encode(found) + b"\n")

    def end(self) -> None:
        pass


class _Table:
    def __init__(self, stream: IO[bytes]) -> None:
        self._rows = Rows(
            (
                Column("id", right=True),
                Column("time", gives=2, least=17),
                Column("event_type", gives=1),
                Column("idempotency_key", gives=3, least=14),
                Column("bytes", right=True),
                Column("file"),
            ),
            stream,
        )

    def write(self, found: Found) -> None:
        event = found.event
        self._rows.add(
            str(found.id),
            found.time,
            event.get("event_type"),
            event.get("idempotency_key"),
            str(len(found.payload)),
            found.path.name,
        )

    def end(self) -> None:
        self._rows.end()


class _Csv:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._row(
            "id", "idempotency_key", "event_type", "time", "timestamp_ms", *_FIELDS, "bytes",
            "properties", "file",
        )  # fmt: skip

    def write(self, found: Found) -> None:
        event = found.event
        self._row(
            found.id,
            event.get("idempotency_key"),
            event.get("event_type"),
            found.time,
            found.timestamp_ms,
            *(event.get(name) for name in _FIELDS),
            len(found.payload),
            orjson.dumps(event.get("properties", {})).decode(),
            printable(found.path.name),
        )

    def end(self) -> None:
        pass

    def _row(self, *cells: object) -> None:
        self._writer.writerow(cells)
        self._stream.write(self._text.getvalue().encode(errors="backslashreplace"))
        self._text.seek(0)
        self._text.truncate()


def _short(found: Found) -> bytes:
    event = found.event
    document: dict[str, Any] = {
        "id": found.id,
        "idempotency_key": event.get("idempotency_key"),
        "event_type": event.get("event_type"),
        "time": found.time,
        "timestamp_ms": found.timestamp_ms,
        "user_id": event.get("user_id"),
        "bytes": len(found.payload),
        "file": str(found.path),
    }
    return json_bytes(document)
