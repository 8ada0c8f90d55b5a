"""All queue files of an app, who holds each, and what is in it.

Neighbours: `queue_reader` reads one, `holders` asks for its owner; `queue status`, `queue doctor`
and the commands that choose files are built on it. Invariant: nothing is written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from causality_sdk import ownership, quarantine
from causality_sdk.cli.exits import InputError
from causality_sdk.cli.queue_reader import QueueReader
from causality_sdk.cli.queue_rows import Snapshot
from causality_sdk.holders import Holder, holder


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file at one moment."""

    path: Path
    holder: Holder
    disk_bytes: int
    """With its log."""
    snapshot: Snapshot | None
    error: str | None
    """Why there is no snapshot."""
    damage: str | None = None
    """What is wrong with its bytes, if it is that."""

    @property
    def oldest_seconds(self) -> float | None:
        """Age of the oldest event that waits, by its timestamp."""
        if self.snapshot is None or self.snapshot.oldest is None:
            return None
        try:
            tracked_ms = int(orjson.loads(self.snapshot.oldest)["timestamp_ms"])
        except (LookupError, TypeError, ValueError):
            return None
        return max(0.0, time.time() - tracked_ms / 1000)

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        found: dict[str, Any] = {
            "path": str(self.path),
            "owner": self.holder.document(),
            "disk_bytes": self.disk_bytes,
            "error": self.error,
        }
        if self.snapshot is None:
            return found
        state, letter = self.snapshot.counters, self.snapshot.last_letter
        return found | {
            "file_uuid": self.snapshot.file_uuid,
            "created_ms": self.snapshot.created_ms,
            "destination": self.snapshot.destination._asdict(),
            "tracked": self.snapshot.tracked,
            "acknowledged": state.acknowledged,
            "evicted": state.evicted,
            "buried": state.buried,
            "requeued": state.requeued,
            "pending": self.snapshot.pending,
            "pending_bytes": self.snapshot.pending_bytes,
            "oldest_seconds": self.oldest_seconds,
            "dead_letters": self.snapshot.letters,
            "last_error": None
            if letter is None
            else {
                "status": letter.status,
                "reason": letter.reason,
                "buried_ms": letter.buried_ms,
                "idempotency_key": letter.idempotency_key,
            },
        }


def files_of(base: Path, *, single: bool = False) -> list[Path]:
    """The queue files of an app that exist: `base` and its siblings, or it alone.

    Raises `InputError` if `base` is a directory.
    """
    if base.is_dir():
        raise InputError(f"{base} is a directory; name the file in it: {base / 'queue.db'}")
    return [
        path
        for path in ([base] if single else ownership.siblings(base))
        if path.is_file() or quarantine.is_waiting(path)
    ]


def report(path: Path) -> FileReport:
    """About one file. Does not raise for what is wrong with it."""
    disk_bytes = _size(path) + _size(path.with_name(path.name + "-wal"))
    owner = holder(path)
    damage = None
    try:
        with QueueReader(path) as reader:
            try:
                return FileReport(path, owner, disk_bytes, reader.snapshot(), None)
            finally:
                damage = reader.damage
    except InputError as error:
        return FileReport(path, owner, disk_bytes, None, error.message, damage)


def _size(file: Path) -> int:
    try:
        # stat only: in a process that owned it, an open and close would drop SQLite's locks
        return file.stat().st_size
    except OSError:
        return 0
