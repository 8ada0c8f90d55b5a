"""Moves the counters and dead letters of a drained file into our own, once, and removes the file.

Neighbour: `adoption`, which owns both files. Invariant: whatever instant a crash comes at, the
counters of a file are counted in exactly one place as soon as somebody adopts it again, and a dead
letter is in one.

One transaction of our own file takes it all and notes the uuid of the other; the note goes when the
other file is gone. A crash in between leaves both: whoever adopts the file then finds the note in
one of the files beside it, and only removes it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from causality_sdk import ownership, wal
from causality_sdk.dead_letters import trim
from causality_sdk.errors import QueueError
from causality_sdk.forking import OPENING
from causality_sdk.queue import Change, Queue

_LETTERS = "crc, payload, buried_ms, attempts, status, reason"
_CORRUPT = "crc, payload, found_ms"


def is_carried(orphan: Queue, own: Queue, base: Path) -> bool:
    """Whether some file of the app has taken over already what `orphan` holds."""
    file_uuid = _uuid(orphan)
    if own.read("SELECT 1 FROM adopted WHERE file_uuid = ?", (file_uuid,)):
        return True
    return _noted_elsewhere(base, file_uuid, {own.path, orphan.path})


def carry(orphan: Queue, own: Queue) -> None:
    """Adds what `orphan` has counted and buried to `own`, and the few events that are left in it.

    Raises `QueueError`; nothing is carried then.
    """
    notes = [(_uuid(orphan),), *orphan.read("SELECT file_uuid FROM adopted")]
    letters = orphan.read(f"SELECT {_LETTERS} FROM dead_letters ORDER BY id")  # noqa: S608
    corrupt = orphan.read(f"SELECT {_CORRUPT} FROM corrupt_rows ORDER BY id")  # noqa: S608
    left = orphan.peek(0, max_events=max(1, orphan.pending), max_bytes=2**63)
    inherited = orphan.snapshot()[0]  # after the peek, which sets aside what is corrupt
    cost = wal.bulk_cost(len(row[1]) for row in (*letters, *corrupt, *left))

    def work(change: Change) -> int:
        now_ms = time.time_ns() // 1_000_000
        # Its own notes too: the files they are about may lie there still.
        change.connection.executemany(
            f"INSERT OR IGNORE INTO adopted VALUES (?, {now_ms})",  # noqa: S608
            notes,
        )
        change.connection.executemany(
            f"INSERT INTO dead_letters ({_LETTERS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
            letters,
        )
        trim(change.connection)
        change.connection.executemany(
            f"INSERT INTO corrupt_rows ({_CORRUPT}) VALUES (?, ?, ?)",  # noqa: S608
            corrupt,
        )
        change.inherit(inherited)
        for _, payload in left:
            change.append(payload)
        change.cost += cost
        return len(left)

    own.make_room_in_log(cost)
    own.change(work)


def remove(orphan: Queue, own: Queue) -> bool:
    """Removes the file of `orphan`, whose counters `own` has. Closes it.

    False if somebody else has it open still; it is as it was then. Raises `QueueError`.
    """
    own.checkpoint()  # a power cut must not undo what was carried and leave the removal
    if not orphan.empty_log():
        return False
    file_uuid = _uuid(orphan)
    orphan.close()
    path = orphan.path
    try:
        path.unlink()
        for suffix in ("-wal", "-shm"):  # gone already, unless another program has them open
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:  # Windows: another program reads it
        raise QueueError(
            f"queue file {path} is drained and cannot be removed ({error.strerror or error})"
        ) from error

    def forget(change: Change) -> int:
        change.connection.execute("DELETE FROM adopted WHERE file_uuid = ?", (file_uuid,))
        return 0

    own.change(forget)
    return True


def _uuid(queue: Queue) -> str:
    return str(queue.read("SELECT file_uuid FROM state")[0][0])


def _noted_elsewhere(base: Path, file_uuid: str, but: set[Path]) -> bool:
    """Whether another file of the app has counted the file with this uuid already."""
    for path in ownership.existing(base):
        if path in but:
            continue
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with (
            suppress(sqlite3.Error),  # of an older schema, damaged, or just gone
            OPENING,
            closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection,
        ):
            connection.execute("PRAGMA mmap_size=0")
            if connection.execute(
                "SELECT 1 FROM adopted WHERE file_uuid = ?", (file_uuid,)
            ).fetchone():
                return True
    return False


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":  # a directory cannot be opened there
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
