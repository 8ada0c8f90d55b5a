"""Makes a damaged queue file whole: salvage into a fresh one, put in place, keep the damaged one.

Neighbours: `claim` and `adoption` open files through `prepare`, `mending` repairs one that is in
use; `salvage` and `quarantine` do the parts. The caller owns the file. Invariant: a crash at any
instant loses nothing: who opens the file next finds it whole, or the damaged one set aside and
begins the salvage again.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from causality_sdk import header, quarantine, salvage, schema
from causality_sdk.damage import LogBroken, QueueDamaged
from causality_sdk.errors import QueueError
from causality_sdk.salvage import Known, Salvaged
from causality_sdk.schema import Destination


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of a damaged, or deleted, queue file. `error` is for `on_error` and the log."""

    error: QueueError
    lost: int = 0
    """Events that were lost with it, counted as corrupt."""


def prepare(
    path: Path, destination: Destination, *, retarget: bool = True, is_same_boot: bool = False
) -> tuple[Destination, Repair | None]:
    """`schema.prepare`, and the repair that was needed first, if any. Raises `QueueError`.

    `is_same_boot` as `Lease.is_same_boot`.
    """
    done = None
    if quarantine.damaged_path(path).exists():
        if path.exists():
            quarantine.conclude(path)  # a crash came before it
        else:
            quarantine_again(path)
            done = rebuild(path, destination, "an earlier repair was cut short")
    try:
        found = schema.prepare(path, destination, retarget=retarget, is_same_boot=is_same_boot)
        return found, done
    except QueueDamaged as damaged:
        is_kept = not isinstance(damaged, LogBroken)
        done = rebuild(path, destination, str(damaged), is_kept=is_kept)
        return schema.prepare(path, destination, retarget=retarget), done


def prepare_thoroughly(
    path: Path, destination: Destination, *, is_same_boot: bool = False
) -> tuple[Destination, Repair | None]:
    """`prepare`, with a look at every page: for who comes to help, before he changes anything.

    The file keeps the destination it has; `destination` is for one whose own cannot be read.
    """
    found, done = prepare(path, destination, retarget=False, is_same_boot=is_same_boot)
    if done is not None:
        return found, done
    try:
        wrong = schema.check(path)
    except sqlite3.Error as error:
        raise _postponed(path, error) from error
    if wrong is None:
        return found, None
    quarantine_again(path)
    done = rebuild(path, found, wrong)
    return schema.prepare(path, found, retarget=False), done


def quarantine_again(path: Path) -> None:
    """Goes on with a move that a crash cut short. Raises `QueueError`."""
    try:
        quarantine.set_aside(path)
    except OSError as error:
        raise _postponed(path, error) from error


def rebuild(
    path: Path,
    destination: Destination,
    cause: str,
    known: Known | None = None,
    *,
    is_kept: bool = True,
) -> Repair:
    """Salvages the file that was set aside and puts the fresh one at `path`.

    `is_kept`: the damaged one is kept for a look.

    Raises `QueueError` where there is no room for it; the same again later, then.
    """
    damaged, target = quarantine.damaged_path(path), quarantine.beside(path, ".salvage")
    started = time.monotonic()
    try:
        is_small = damaged.stat().st_size <= header.UNWRITTEN_BYTES
        try:
            found = salvage.build(damaged, target, destination, known)
        except BaseException:
            salvage.discard(target)  # what a full disk has of it is in the way of everybody
            raise
        target.replace(path)
        quarantine.sync_directory(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise _postponed(path, error) from error
    if not (found.events or found.dead_letters or found.lost) and is_small:
        is_kept = False  # it was being made, and there is nothing in it to look at
    kept = quarantine.conclude(path, is_kept=is_kept)
    return Repair(_report(path, cause, found, kept, time.monotonic() - started), found.lost)


def _report(
    path: Path, cause: str, found: Salvaged, kept: Path | None, seconds: float
) -> QueueError:
    lost = f"{found.lost} are lost" if found.counted else "how many are lost is not known"
    letters = f" and {found.dead_letters} dead letters" if found.dead_letters else ""
    where = f"; the start of the damaged file is kept as {kept.name}" if kept is not None else ""
    return QueueError(
        f"queue file {path} was damaged ({cause}): {found.events} events{letters} were salvaged"
        f" into a fresh file in {seconds:.1f} s, {lost}{where}. Check the disk, and what else"
        " writes to that file"
    )


def _postponed(path: Path, error: Exception) -> QueueError:
    return QueueError(
        f"queue file {path} is damaged and cannot be salvaged now ({error}); nothing of it is"
        " deleted. Make room for a second file of its size in its directory, or check that it is"
        " writable, and it is tried again"
    )
