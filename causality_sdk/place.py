"""The place of a queue file: what may lie there, whose it is, and the words for what may not.

Neighbours: `claim` and `schema`, which look here before they open a file; `possession` knows users.
Invariant: nothing is opened, and nothing is changed but the directory that is made.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import time
from pathlib import Path

from causality_sdk import possession, quarantine
from causality_sdk.errors import QueueError

_PROBE_BYTES = 128 * 1024  # the index of the log, and a few pages of it
_LITTLE_BYTES = 4 * 1024 * 1024
_NO_ROOM = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


def make_directory(directory: Path) -> None:
    """Makes the directory of a queue, for this user alone, where there is none.

    Raises `QueueError`.
    """
    try:
        if directory.is_dir():
            return
        missing = [each for each in (directory, *directory.parents) if not each.exists()]
        # mode is for the last directory only, which is the one that holds our files
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise QueueError(
            f"queue directory {directory} cannot be made ({error.strerror or error}); create it"
            " for this user, or give another queue_path"
        ) from error
    for made in reversed(missing):
        possession.give_directory(made)


def is_nearly_full(directory: Path) -> bool:
    """`is_full`, where it is worth a try. For who is to open a file that lies there already.

    Without room for the index of the log, which is mapped into memory, a write to it is no error
    but a SIGBUS: on file systems with small blocks SQLite cannot tell beforehand.
    """
    try:
        found = os.statvfs(directory)
    except (AttributeError, OSError):  # Windows; or it is not there yet
        return False
    return found.f_bavail * found.f_frsize < _LITTLE_BYTES and is_full(directory)


def is_full(directory: Path) -> bool:
    """Whether the disk has no room for another small file. Tried, since quotas tell nobody."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    probe = directory / f".causality-{os.getpid()}-{time.monotonic_ns()}"
    try:
        descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        return error.errno in _NO_ROOM
    try:
        left = _PROBE_BYTES
        while left > 0:
            left -= os.write(descriptor, b"x" * left)
    except OSError as error:
        return error.errno in _NO_ROOM
    finally:
        os.close(descriptor)
        probe.unlink()
    return False


def check_place(path: Path) -> None:
    """Refuses what cannot be a queue file, without opening it: that could hang, or do something."""
    for suffix in ("-wal", "-shm"):
        companion = quarantine.beside(path, suffix)
        try:
            mode = companion.lstat().st_mode
        except OSError:  # mostly: not there, or not any more
            continue
        if not stat.S_ISREG(mode):
            raise QueueError(
                f"{companion} is {_kind(mode)}, not a regular file, and SQLite needs its name"
                f" beside {path}; move it away, or give another queue_path"
            )
        if _is_refused(companion):
            raise not_writable(companion)
    try:
        info = path.lstat()
    except FileNotFoundError:
        if not possession.may_enter(path.parent):
            raise not_writable(path) from None
        return
    except OSError as error:
        raise QueueError(f"queue file {path} cannot be read ({error.strerror or error})") from error
    if not stat.S_ISREG(info.st_mode):
        raise foreign(path, f"it is {_kind(info.st_mode)}, not a regular file")
    if _is_refused(path) or not possession.may_enter(path.parent):
        raise not_writable(path)


def _is_refused(path: Path) -> bool:
    """Whether this user may not write to a file that is there. An owner may just remove it."""
    # Twice: it may go, and come again, between any two looks.
    return all(not possession.may_write(path) and os.path.lexists(path) for _ in range(2))


def newer(path: Path, version: int, known: int) -> QueueError:
    """The error for a file of schema `version`, where `known` is the newest we know."""
    return QueueError(
        f"queue file {path} was written by a newer causality-sdk (schema {version}, this one knows"
        f" {known}); upgrade this program, or give another queue_path"
    )


def not_writable(path: Path) -> QueueError:
    """The error for a place that this user cannot write to. Names whose it is, and the fix."""
    owner, user = possession.owner_of(path), possession.this_user()
    if owner is not None and owner != user:
        return QueueError(
            f"queue file {path} is not writable for this user: it belongs to {owner}, and this"
            f" process runs as {user}; {give_it(path)}, or give another queue_path"
        )
    holds = possession.owner_of(path.parent)
    whose = "" if holds in (None, user) else f" (its directory belongs to {holds}, this is {user})"
    return QueueError(
        f"queue file {path} is not writable for this user{whose}; fix the permissions of the file"
        " and of its directory, or give another queue_path"
    )


def give_it(path: Path) -> str:
    """The command that gives a file, and what lies beside it, to the user of this process."""
    name = path.name.removesuffix("-wal").removesuffix("-shm").removesuffix(".lock")
    return f"sudo chown {possession.this_user()} {shlex.quote(str(path.with_name(name)))}*"


def is_taken(path: Path) -> bool:
    """Whether anything lies at the path, or beside it what belongs there."""
    endings = ("", "-wal", "-shm", ".lock", ".damaged")
    return any(os.path.lexists(quarantine.beside(path, ending)) for ending in endings)


def foreign(path: Path, what: str) -> QueueError:
    """The error for what is not ours; `what` says what it is."""
    return QueueError(
        f"{path} is not a causality queue: {what}. It was left as it is; move it away, or give"
        " another queue_path"
    )


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return name
    return "a device"
