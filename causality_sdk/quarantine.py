"""Where damaged queue files go: out of the way at once, and kept, a bounded part of them.

Neighbours: `schema` and `mending` set a file aside, `repair` salvages it and concludes. Invariant:
at every instant what is in a damaged file can still be found; what lies at the queue's own path is
never a damaged file whose salvage has begun.

                        set_aside    rebuild    conclude
    queue.db            damaged  ->  -       -> fresh    -> fresh
    queue.db.damaged    -            damaged    damaged     -
    queue.db.corrupt-…  -            -          -           kept

A crash between two of these leaves the state before the arrow or after it; who owns the file next
goes on from there.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

KEPT = 2  # damaged files, for whoever wants to look
KEPT_BYTES = 4 * 1024 * 1024  # of each, log and all; the plan of 32 MiB beside the cap counts on it
_SUFFIXES = ("", "-wal", "-shm")  # the database first: SQLite then leaves its log alone


def beside(path: Path, ending: str) -> Path:
    """The path with something behind its whole name."""
    return path.with_name(path.name + ending)


def damaged_path(path: Path) -> Path:
    """Where a damaged file waits for its salvage."""
    return beside(path, ".damaged")


def is_waiting(path: Path) -> bool:
    """Whether a damaged file was set aside and its salvage is not done."""
    return damaged_path(path).exists() and not path.exists()


def set_aside(path: Path) -> None:
    """Moves a damaged file out of the way, with its log. The same again after a crash.

    Connections may be open: one whose file was moved neither moves its log nor deletes it when it
    closes (on POSIX; on Windows they must be closed first). Raises `OSError`.
    """
    aside = damaged_path(path)
    if path.exists() and aside.exists():
        conclude(path)  # of a repair before: it was done but for this
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            beside(path, suffix).replace(beside(aside, suffix))
    # Else a power cut could leave this log beside the fresh file.
    sync_directory(path.parent)


def conclude(path: Path, *, is_kept: bool = True) -> Path | None:
    """Keeps a part of the salvaged file under a name of its own, and forgets older ones.

    Or, with `is_kept` false, forgets it.

    Gives that name; None if nothing could be kept. What fails here is done the next time.
    """
    aside = damaged_path(path)
    if not is_kept:
        with suppress(OSError):
            for suffix in reversed(_SUFFIXES):
                beside(aside, suffix).unlink(missing_ok=True)
        return None
    kept = _free_name(path)
    with suppress(OSError):
        _cut(aside)
        for suffix in reversed(_SUFFIXES):  # the database last: it is what tells that it is done
            with suppress(FileNotFoundError):
                beside(aside, suffix).replace(beside(kept, suffix))
        _forget(path, kept)
        return kept
    return None


def kept_files(path: Path) -> list[Path]:
    """The damaged files that are kept, oldest first, without their logs."""
    return [file for file in _all_kept(path) if not file.name.endswith(_SUFFIXES[1:])]


def sync_directory(directory: Path) -> None:
    """Makes renames survive a power cut. Raises `OSError`."""
    if os.name == "nt":  # a directory cannot be opened there
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut(aside: Path) -> None:
    """To `KEPT_BYTES` in all. The log gets a quarter, or what the database leaves."""
    sizes = {}
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            sizes[suffix] = beside(aside, suffix).stat().st_size
    log = sizes.get("-wal", 0)
    index = min(sizes.get("-shm", 0), KEPT_BYTES // 16)
    database = min(sizes.get("", 0), KEPT_BYTES - index - min(log, KEPT_BYTES // 4))
    limits = {"": database, "-wal": KEPT_BYTES - index - database, "-shm": index}
    for suffix, size in sizes.items():
        if size > limits[suffix]:
            os.truncate(beside(aside, suffix), limits[suffix])


def _free_name(path: Path) -> Path:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = beside(path, f".corrupt-{moment}")
    number = 1
    while name.exists():
        number += 1
        name = beside(path, f".corrupt-{moment}.{number}")
    return name


def _forget(path: Path, newest: Path) -> None:
    others = [file for file in kept_files(path) if file != newest]
    keep = {newest, *others[len(others) - (KEPT - 1) :]}
    for file in _all_kept(path):  # a log whose database a crash left behind is among them
        name = file.name.removesuffix("-wal").removesuffix("-shm")
        if file.with_name(name) not in keep:
            file.unlink(missing_ok=True)


def _all_kept(path: Path) -> list[Path]:
    start = f"{path.name}.corrupt-"
    return sorted(file for file in path.parent.iterdir() if file.name.startswith(start))
