"""Takes the first queue file that nobody owns and that is meant for our destination.

Neighbours: `ownership` locks, `repair` looks inside and mends. Invariant: a file is opened only
after it was locked, and let go again when its events are meant for somebody else. Nothing beside
the first file of an app keeps a process from starting: what cannot be used there is passed over.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from causality_sdk import filesystem, ownership, place, repair, schema
from causality_sdk.destination import Destination, Elsewhere
from causality_sdk.errors import QueueError
from causality_sdk.forking import is_inherited
from causality_sdk.repair import Repair


class Claim(NamedTuple):
    """A file that is ours until the lease is released, and those that were passed over."""

    lease: ownership.Lease
    others: tuple[Elsewhere, ...]
    """Free files of another destination. What is in them stays until somebody asks for it."""
    repair: Repair | None = None
    """Of the file, if it was damaged."""
    unusable: tuple[tuple[Path, QueueError], ...] = ()
    """What lies at a name of ours and cannot be used, each with the reason and the fix."""
    rekeyed: bool = False
    """What is in it was tracked with another api key, and goes with ours now."""


def claim(base: Path, destination: Destination, *, take_over: bool = False) -> Claim:
    """The first of `base` and its siblings that is free and has our destination, or is new.

    With `take_over` the first that is free, whatever its destination was; it has ours then.
    A damaged file is repaired. Raises `QueueError` where `base` cannot be used, or no name is
    left, or a new file cannot be made.
    """
    place.make_directory(base.parent)
    filesystem.refuse_network(base)
    others: list[Elsewhere] = []
    unusable: list[tuple[Path, QueueError]] = []
    for path in ownership.siblings(base):
        if is_inherited(path):
            continue
        lies_there = path != base and place.is_taken(path)
        try:
            taken = _take(path, destination, take_over=take_over)
        except QueueError as error:
            # Where nothing lay, it is the directory or the disk, and no other name is better.
            if not lies_there:
                raise
            unusable.append((path, error))
            continue
        if isinstance(taken, Claim):
            return taken._replace(others=tuple(others), unusable=tuple(unusable))
        if taken is not None:
            others.append(taken)
    raise QueueError(
        f"all {ownership.MAX_SIBLINGS} queue files beside {base} are in use; give this program a"
        " queue_path of its own"
    )


def _take(path: Path, destination: Destination, *, take_over: bool) -> Claim | Elsewhere | None:
    """The claim of one file, or for whom its events wait; None for one in use, or spent."""
    place.check_place(path)  # before a lock of ours is left beside what is not
    lease = ownership.acquire(path)
    if lease is None:
        return None
    try:
        found, done = repair.prepare(path, destination, is_same_boot=lease.is_same_boot)
        spent = schema.heir(path) is not None
        is_ours = destination.takes(found)
        if not spent and (is_ours or take_over):
            goes_to = destination.over(found) if is_ours else destination
            if goes_to != found:
                # A new key need not be noted at once: the disk may be full.
                with suppress(QueueError) if is_ours else nullcontext():
                    schema.take_over(path, goes_to)
            return Claim(lease, (), done, rekeyed=is_ours and found.key != destination.key)
        # A spent one whoever has counted it removes; what came into it now would be lost.
        elsewhere = None if spent else _elsewhere(path, found, destination)
    except BaseException:
        lease.release()
        raise
    lease.release()
    return elsewhere


def _elsewhere(path: Path, found: Destination, here: Destination) -> Elsewhere:
    return Elsewhere(path, found, schema.waiting(path), here.difference(found))
