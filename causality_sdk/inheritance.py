"""Moves the counters and dead letters of a drained file into our own, once, and removes the file.

Neighbour: `adoption`, which owns both files. Invariant: whatever instant a crash comes at, the
counters of a file end up in exactly one other, and so does a dead letter.

First the file gets an heir: the uuid of ours. Then one transaction of ours takes all over and notes
whom it was from. Then the file goes. A crash may leave it with an heir; from then on only the heir
may finish, or a file that has taken over the heir: its own notes say what was done.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

from causality_sdk import ownership, wal
from causality_sdk.dead_letters import trim
from causality_sdk.errors import QueueError
from causality_sdk.queue import Change, Queue

NOTES_KEPT = 10_000

_LETTERS = "crc, payload, buried_ms, attempts, status, reason"
_CORRUPT = "crc, payload, found_ms"


def is_carried(orphan: Queue, own: Queue) -> bool:
    """Whether `own` has taken over already what `orphan` holds."""
    return _heir(orphan) is not None and _has_note(own, _uuid(orphan))


def tell_from_its_original(orphan: Queue, own: Queue) -> None:
    """Gives a copy a uuid of its own, where its original was taken over here, or is ours.

    A file is copied with an image of its machine, or comes back from a backup. Without an heir it
    was never to be taken over, so that what is in it is not known here. Raises `QueueError`.
    """
    known = _uuid(orphan)
    if _heir(orphan) is not None or not (known == _uuid(own) or _has_note(own, known)):
        return

    def work(change: Change) -> int:
        change.connection.execute("UPDATE state SET file_uuid = ?", (str(uuid.uuid4()),))
        return 0

    orphan.change(work)


def is_somebody_elses(orphan: Queue, own: Queue) -> bool:
    """Whether another file was to take over `orphan`, and only its owner knows whether it did."""
    heir = _heir(orphan)
    return heir is not None and heir != _uuid(own) and not _has_note(own, heir)


def carry(orphan: Queue, own: Queue) -> None:
    """Adds what `orphan` has counted and buried to `own`, and the few events that are left in it.

    Raises `QueueError`; nothing is carried then.
    """
    _appoint(orphan, _uuid(own))
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
    """Removes the file of `orphan`, which `own` has taken over. Closes it.

    False if somebody else has it open still; it is as it was then. Raises `QueueError`.
    """
    own.checkpoint()  # a power cut must not undo what was carried and leave the removal
    if not orphan.empty_log():
        return False
    orphan.close()
    path = orphan.path
    try:
        path.unlink()
        for suffix in ("-wal", "-shm"):  # gone already, unless another program has them open
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:  # Windows: another program reads it
        raise QueueError(
            f"queue file {path} is drained and cannot be removed ({error.strerror or error})"
        ) from error
    return True


def tidy(own: Queue, base: Path) -> None:
    """Forgets whom `own` has taken over, as soon as no file is left that it could be about."""
    count = own.read("SELECT count(*) FROM adopted")[0][0]
    if not count:
        return
    keep = 0 if ownership.existing(base) == [own.path] else NOTES_KEPT
    if count <= keep:
        return
    _sync_directory(own.path.parent)  # a removal that a power cut undoes must still be known of

    def forget(change: Change) -> int:
        change.connection.execute(
            "DELETE FROM adopted WHERE file_uuid NOT IN"
            " (SELECT file_uuid FROM adopted ORDER BY adopted_ms DESC LIMIT ?)",
            (keep,),
        )
        return 0

    own.change(forget)


def _appoint(orphan: Queue, heir: str) -> None:
    def work(change: Change) -> int:
        change.connection.execute("UPDATE state SET heir = ?", (heir,))
        return 0

    orphan.change(work)
    orphan.checkpoint()  # before the heir takes over; after a power cut too


def _uuid(queue: Queue) -> str:
    return str(queue.read("SELECT file_uuid FROM state")[0][0])


def _heir(queue: Queue) -> str | None:
    heir: str | None = queue.read("SELECT heir FROM state")[0][0]
    return heir


def _has_note(own: Queue, file_uuid: str) -> bool:
    return bool(own.read("SELECT 1 FROM adopted WHERE file_uuid = ?", (file_uuid,)))


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":  # a directory cannot be opened there
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise QueueError(f"directory {directory} cannot be synced ({error.strerror})") from error
