"""Repairs the queue file under a running client: damaged, deleted, or replaced by another.

Neighbours: the sender calls `step` before anything else, on its thread; `repair` and `salvage` make
the fresh file; the queue takes it over under the same object, so nobody else notices but by
`QueueError`s meanwhile. Invariant: an event that was committed is in the old file or in the fresh
one until the fresh one is in use, and ids stay what they are.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from causality_sdk import (
    connections,
    ownership,
    place,
    possession,
    quarantine,
    repair,
    salvage,
    schema,
)
from causality_sdk.errors import QueueError
from causality_sdk.forking import OPENING
from causality_sdk.ownership import Lease
from causality_sdk.queue_file import QueueFile
from causality_sdk.repair import Repair
from causality_sdk.salvage import Known
from causality_sdk.schema import Destination

ROOM_SECONDS = 5.0  # between two looks whether a disk that was full has room again
RETRY_SECONDS = 1.0  # after a repair that the disk did not allow


class Mender:
    """For one queue and the lease of its file. One thread at a time.

    `base` is the first of the files of the app. Both None: a file that is adopted, which stays
    where it is. Times are of `clock`.
    """

    def __init__(
        self,
        queue: QueueFile,
        lease: Lease | None,
        base: Path | None,
        destination: Destination,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self.lease = lease
        self._base = base
        self._destination = destination
        self._clock = clock
        self._trouble: QueueError | None = None  # why the last try failed
        self._hold_until = 0.0  # clock before which there is no other; with _trouble

    @property
    def due_at(self) -> float | None:
        """When to try again what failed; None if nothing did. Of the clock."""
        return self._hold_until if self._trouble is not None or self._queue.is_alone else None

    def step(self) -> Repair | None:
        """Mends what needs it, and tells what became of the file. Costs two stats if nothing does.

        Raises `QueueError` while it cannot be mended: the events of the file are safe, and it is
        tried again.
        """
        if self._queue.is_alone:
            self._look_for_room()
        damaged = self._queue.damage is not None
        there = self._base is None or all(self._queue.in_place())
        unlocked = there and self.lease is not None and not self.lease.is_valid
        if there and not damaged and not unlocked:
            self._trouble = None
            return None
        if self._trouble is not None and self._clock() < self._hold_until:
            if damaged:
                raise self._trouble
            return None  # a file without a name can be read and written as before
        try:
            if unlocked:  # first of all: nothing is written to a file that is not ours
                done = self._lock_again()
            else:
                done = self._mend_damaged() if damaged else self._replace()
        except QueueError as error:
            self._trouble = error
            self._hold_until = self._clock() + RETRY_SECONDS
            raise
        self._trouble = None
        return done

    # ------------------------------------------------------------------ its lock is gone

    def _lock_again(self) -> Repair:
        """Somebody deleted the lock file: the next process would take our file for its own."""
        assert self.lease is not None  # noqa: S101 - `step` has looked
        lost, path = self.lease, self._queue.path
        told = f"lock file {ownership.lock_path(path)} was deleted while {path} was in use"
        lease = ownership.acquire(path)
        if lease is None:
            return Repair(QueueError(f"{told}, and {self._move_on(lost)}"))
        self.lease = lease
        lost.release()
        self._queue.distrust()  # somebody may have had it meanwhile
        return Repair(
            QueueError(f"{told}; it is locked again. Leave it alone, and keep cleaners off it")
        )

    def _move_on(self, lost: Lease) -> str:
        """Goes on in a file of our own: what is in the old one its new owner delivers."""
        queue, old = self._queue, self._queue.path
        _, last_id = queue.known()
        lease = self._free_lease(old)
        try:
            schema.prepare(lease.path, self._destination)
            schema.begin_after(lease.path, last_id)
            with OPENING:
                detached = queue.detach()
                try:
                    queue.attach(lease.path)
                except BaseException:
                    queue.path = old
                    queue.reattach(detached)
                    raise
                detached.close()
        except BaseException:
            lease.release()
            raise
        self.lease = lease
        lost.release()
        return (
            f"another process owns that now, with the events in it; this one goes on in"
            f" {lease.path}. Leave lock files alone, and keep cleaners off them"
        )

    # ------------------------------------------------------------------ a full disk

    def _look_for_room(self) -> None:
        """Opens the file as ever, once the disk has room for it. Raises `QueueError`."""
        queue = self._queue
        if self._clock() < self._hold_until:
            return
        self._hold_until = self._clock() + ROOM_SECONDS
        if place.is_full(queue.path.parent):
            return
        with OPENING:
            queue.detach().close()
            try:
                queue.attach(queue.path)
            except QueueError:
                with connections.alone():
                    queue.attach(queue.path)

    # ------------------------------------------------------------------ damaged

    def _mend_damaged(self) -> Repair:
        queue = self._queue
        cause = queue.damage or ""
        with OPENING:
            known = Known(*queue.known())
            detached = queue.detach()
            try:
                if os.name == "nt":  # an open file cannot be moved there
                    detached.close()
                quarantine.set_aside(queue.path)
            except OSError as error:
                queue.reattach(detached)
                raise _stuck(queue.path, "is damaged", error) from error
            detached.close()
            done = repair.rebuild(queue.path, self._destination, cause, known)
            queue.attach(queue.path)
        return done

    # ------------------------------------------------------------------ gone

    def _replace(self) -> Repair:
        """Writes all that is in the file, which has no name any more, to one that has."""
        queue = self._queue
        old, (database, log) = queue.path, queue.in_place()
        lease = self._place(database)
        target = quarantine.beside(lease.path, ".salvage")
        spare: Lease | None = lease
        try:
            with OPENING:
                detached = queue.detach()
                try:
                    _copy(detached.writer, target)
                    detached.close()  # SQLite leaves a log alone whose database was moved
                    if not database and (log or lease.path == old):
                        _remove_log(old)  # who opens what lies there now would take it for its own
                    target.replace(lease.path)
                    quarantine.sync_directory(lease.path.parent)
                except (OSError, sqlite3.Error) as error:
                    queue.reattach(detached)
                    raise _stuck(old, "was deleted or replaced", error) from error
                spare, self.lease = self.lease, lease
                queue.attach(lease.path)
        finally:
            # Without OPENING: a fork waits for it with the gate of file locks closed.
            if spare is not None and spare is not self.lease:
                spare.release()
        return Repair(
            QueueError(
                f"queue file {old} was deleted or replaced while it was in use; its"
                f" {queue.pending} events are in {lease.path} now. Leave the file and its -wal"
                " alone while the program runs"
            )
        )

    def _place(self, database: bool) -> Lease:
        """A path that is ours: the same one, if nothing lies there, or our database still."""
        assert self._base is not None  # noqa: S101 - `step` has looked
        assert self.lease is not None  # noqa: S101 - they come together
        place.make_directory(self._base.parent)
        here = self.lease.path
        if self.lease.is_valid and (database or not os.path.lexists(here)):
            return self.lease
        return self._free_lease(here if self.lease.is_valid else None)

    def _free_lease(self, taken: Path | None) -> Lease:
        """Of a name beside `base` where nothing lies; not `taken`."""
        assert self._base is not None  # noqa: S101 - who asks has looked
        for path in ownership.siblings(self._base):
            if path == taken:
                continue
            if not _is_free(path):
                continue
            lies_there = place.is_taken(path)
            try:
                lease = ownership.acquire(path)
            except QueueError:
                if not lies_there:
                    raise
                continue  # the lock of somebody else
            if lease is None:
                continue
            if _is_free(path):
                return lease
            lease.release()
        raise QueueError(f"there is no free queue file beside {self._base}")


def _is_free(path: Path) -> bool:
    """Whether nothing lies at the path, nor beside it what belongs there."""
    names = (path, *(quarantine.beside(path, ending) for ending in ("-wal", "-shm", ".damaged")))
    return not any(map(os.path.lexists, names))


def _remove_log(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        quarantine.beside(path, suffix).unlink(missing_ok=True)


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    salvage.discard(target)
    possession.make_file(target)
    with closing(connections.connect(target)) as copy:
        connection.backup(copy)
    salvage.sync_file(target)


def _stuck(path: Path, what: str, error: Exception) -> QueueError:
    return QueueError(
        f"queue file {path} {what} and cannot be replaced now ({error}); make room in its"
        " directory, or check that it is writable, and it is tried again"
    )
