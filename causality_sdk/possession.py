"""Users and the files of a queue: who owns what, and what root makes for others.

Neighbours: `place` words the refusals, `ownership`, `schema` and whoever makes a file make it here.
Invariant: what root makes in a directory of somebody else belongs to that owner, who could not use
it otherwise. (SQLite does the same for the log and its index: they belong to whom the database
belongs to.) On Windows none of this exists, and nothing is done.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def make_file(path: Path) -> None:
    """Makes an empty file, for its owner alone. Raises `FileExistsError` and other `OSError`s."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        give(descriptor, path.parent)
    finally:
        os.close(descriptor)


def give(descriptor: int, directory: Path) -> None:
    """Gives a file that this process has just made to the owner of the directory it lies in.

    By its descriptor: a name could lead elsewhere by now, and root must not give that away.
    """
    if not _is_root():
        return
    with suppress(OSError):  # not in every container may root do so; then it stays root's
        owner = directory.stat()
        if owner.st_uid:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def give_directory(made: Path) -> None:
    """The same for a directory that was just made, and has nothing in it."""
    if not _is_root():
        return
    with suppress(OSError):
        descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_uid == 0 and _holds_directories_only(descriptor):
                give(descriptor, made.parent)
        finally:
            os.close(descriptor)


def owner_of(path: Path) -> str | None:
    """The name of the user whom this belongs to, or its number; None where it cannot be told."""
    try:
        uid = path.lstat().st_uid
    except OSError:
        return None
    return _name(uid) if hasattr(os, "geteuid") else None


def this_user() -> str:
    """The name of the user that this process runs as, or its number."""
    return _name(os.geteuid()) if hasattr(os, "geteuid") else "this user"


def may_write(path: Path) -> bool:
    """Whether this process may read and write a file, as the user that it works as now."""
    return _may(path, os.R_OK | os.W_OK)


def may_enter(directory: Path) -> bool:
    """Whether it may make and remove files there."""
    return _may(directory, os.W_OK | os.X_OK)


def _may(path: Path, mode: int) -> bool:
    # The effective user: a service may give up its rights for a while.
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _holds_directories_only(descriptor: int) -> bool:
    with os.scandir(descriptor) as entries:
        return all(entry.is_dir(follow_symlinks=False) for entry in entries)


def _name(uid: int) -> str:
    try:
        import pwd  # not on Windows; and a user of a container may have no name

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"uid {uid}"
