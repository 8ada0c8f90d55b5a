"""The installation id: one for each directory of queues, made once and kept for good.

Neighbour: `opening`, for destinations that want to know which device an event comes from. A file
of its own, since a queue file may be moved away or copied. Invariant: whoever asks in one directory
gets the same id, and never an empty one.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from causality_sdk import possession
from causality_sdk.errors import QueueError
from causality_sdk.forking import loading_gate
from causality_sdk.ownership import standard_streams_kept

NAME = "installation-id"
_LOCK_SECONDS = 5.0  # for another process that makes it at this moment
_BYTES = 64  # are read; an id has 36


def installation_id(directory: Path) -> str:
    """The id of `directory`, which is made if there is none, or if the file there holds none.

    Raises `QueueError` when it can be neither read nor written.
    """
    path = directory / NAME
    try:
        return _read(path) or _make(path)
    except OSError as error:
        raise QueueError(
            f"installation id {path} cannot be read or made ({error.strerror or error}); make its"
            " directory writable for this user, or give another queue_path"
        ) from error


def _read(path: Path) -> str:
    """The id in the file, or nothing if there is none that is whole."""
    try:
        with path.open("rb") as file:
            text = file.read(_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""
    try:
        return text if str(uuid.UUID(text)) == text else ""
    except ValueError:
        return ""


def _make(path: Path) -> str:
    with loading_gate():
        from filelock import FileLock, Timeout  # loaded for the queue anyhow, a moment later

    target = path.with_name(f"{NAME}.lock")
    with suppress(FileExistsError):
        possession.make_file(target)
    lock = FileLock(
        str(target),
        timeout=_LOCK_SECONDS,
        mode=0o600,
        preserve_lock_file=True,
        fallback_to_soft=False,
    )
    try:
        with standard_streams_kept(), lock:
            return _read(path) or _write(path)
    except Timeout:
        raise QueueError(
            f"installation id {path} cannot be made: another process holds {lock.lock_file};"
            " end it, or give another queue_path"
        ) from None
    except NotImplementedError as error:  # a file system without locks
        raise OSError(str(error)) from error


def _write(path: Path) -> str:
    """Under the lock. The name appears with the whole id behind it, or not at all."""
    made = str(uuid.uuid4())
    draft = path.with_name(f"{NAME}.{made}")
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            possession.give(descriptor, path.parent)
            file.write(made.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the name without the id
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return made
