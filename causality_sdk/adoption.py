"""Delivers what dead processes left: takes one orphan at a time, drains it, removes it.

Neighbours: the sender calls `step` in between its own batches and tells when; `ownership` and
`repair` find the file, `inheritance` moves what its owner had counted. All on the sender's thread.
Invariant: an orphan is written to only with its lease, and removed only when it is empty and its
counters are part of our own file.

A file of another destination is left alone. While the server is away nobody holds what another
process could own: then the orphan is let go. Where only its own events fail, it is kept, so that it
is found out which of them it is.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from causality_sdk import inheritance, ownership, passing, place, quarantine, repair, schema
from causality_sdk.destination import Destination, Elsewhere
from causality_sdk.errors import QueueError
from causality_sdk.forking import is_inherited
from causality_sdk.ownership import Lease
from causality_sdk.queue import Queue

LOOK_SECONDS = 30.0  # between two looks for orphans, less up to a tenth
TROUBLES = 3  # of its disk, before an orphan is left alone
REST_EVENTS = 100  # that the server refuses: moved over to our own queue
PATIENCE = 20  # attempts without any progress, before an orphan is put off
PUT_OFF_SECONDS = 600.0  # before a file that could not be drained is looked at again


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed, for the pace of all the rest: it is the same server."""

    error: Exception
    hold: bool = False
    retry_after: str | None = None
    certain: bool = True
    """Other events would fail, too."""
    events: int = 0
    """That were sent."""
    whole: bool = True
    """It was a batch as usual: no scout, no part of one, no event that failed alone before."""


class Drain(Protocol):
    """A sender without a thread, for one file."""

    failure: Failure | None
    """Why its last attempt failed, if that was not for the sake of its events."""

    last_error: Exception | None
    """What it complained of last; a `QueueError` is of its file."""

    @property
    def state(self) -> str:
        """`blocked` also where the server refuses all that is left."""

    def step(self) -> float | None:
        """Does what is due; gives the seconds until something is due again."""

    def stop(self) -> None:
        """Ends it."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file that is ours for a while."""

    lease: Lease
    queue: Queue
    drain: Drain
    is_carried: bool
    """A crash came after its counters were carried: it only has to go."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step of the adoption came to."""

    delivered: int = 0
    """Events of the orphan that the server acknowledged."""
    failure: Failure | None = None
    inherited: Mapping[str, int] = field(default_factory=dict)
    """Events that its owner lost, by reason; they are in our counters now."""


class Adoption:
    """For the process that owns `own`. `base` is the first of the files of its app.

    `open_queue` opens an orphan, `open_drain` makes a sender for it. Times are of `clock`.
    `elsewhere` are files that were found to be of another destination before.
    """

    def __init__(
        self,
        own: Queue,
        base: Path,
        destination: Destination,
        *,
        open_queue: Callable[[Path], Queue],
        open_drain: Callable[[Queue], Drain],
        clock: Callable[[], float],
        logger: logging.Logger,
        rng: random.Random | None = None,
        elsewhere: Iterable[Elsewhere] = (),
    ) -> None:
        self._own = own
        self._base = base
        self._destination = destination
        self._open_queue = open_queue
        self._open_drain = open_drain
        self._clock = clock
        self._logger = logger
        self._rng = rng or random.Random()  # noqa: S311 - spreads looks, keeps no secret
        self._orphan: Orphan | None = None
        self._troubles = 0  # of its file, since it was taken
        self._inherited: Mapping[str, int] = {}  # by the step under way
        self._fruitless = 0  # attempts in a row that delivered nothing of it
        self._put_off: dict[Path, float] = {}  # until when a file is not looked at
        # Files that wait for another destination, as of the last look. Any thread may copy it.
        self.elsewhere = {each.path: each for each in elsewhere if each.pending}
        self.due_at = clock()  # when the next step is due

    def step(self) -> Progress:
        """Takes an orphan, or makes one attempt with the one at hand. Does not raise for it."""
        try:
            if self._orphan is None:
                self._orphan, self._troubles, self._fruitless = self._take(), 0, 0
                if self._orphan is None:
                    inheritance.tidy(self._own, self._base)
                    self.due_at = self._clock() + LOOK_SECONDS * (1 - 0.1 * self._rng.random())
                    return Progress()
            return self._work(self._orphan)
        except QueueError as error:
            path = self._orphan.lease.path if self._orphan is not None else None
            self._give_up(error, path)
            return Progress()

    def let_go(self) -> None:
        """Gives the orphan at hand back. Whoever comes next finds what is left in it."""
        orphan, self._orphan = self._orphan, None
        if orphan is not None:
            try:
                orphan.drain.stop()
            finally:
                orphan.queue.close()
                orphan.lease.release()

    # ------------------------------------------------------------------ taking

    def _take(self) -> Orphan | None:
        now = self._clock()
        if place.is_nearly_full(self._base.parent):
            return None
        for path in ownership.existing(self._base):
            if path == self._own.path or now < self._put_off.get(path, now) or is_inherited(path):
                continue
            try:
                orphan = self._take_one(path)
            except QueueError as error:
                self._give_up(error, path)
                continue
            if orphan is not None:
                return orphan
        return None

    def _take_one(self, path: Path) -> Orphan | None:
        self.elsewhere.pop(path, None)
        place.check_place(path)  # before a lock of ours is left beside what is not
        lease = ownership.acquire(path)
        if lease is None:
            return None  # its owner lives
        try:
            # Removed between the listing and the lock, it must not be made anew.
            found, done = None, None
            if path.exists() or quarantine.is_waiting(path):
                found, done = repair.prepare(
                    path, self._destination, retarget=False, is_same_boot=lease.is_same_boot
                )
            if found is None or not self._destination.takes(found):
                if found is not None:
                    self._put_off[path] = self._clock() + PUT_OFF_SECONDS
                    self._note_elsewhere(path, found)
                lease.release()
                return None
            queue = self._open_queue(path)
            queue.repair = done
        except BaseException:
            lease.release()
            raise
        try:
            if inheritance.is_somebody_elses(queue, self._own):
                queue.close()
                lease.release()
                return None
            inheritance.tell_from_its_original(queue, self._own)
            is_carried = inheritance.is_carried(queue, self._own)
        except BaseException:
            queue.close()
            lease.release()
            raise
        return Orphan(lease, queue, self._open_drain(queue), is_carried)

    def _note_elsewhere(self, path: Path, found: Destination) -> None:
        pending = schema.waiting(path)
        if pending:
            whom = self._destination.difference(found)
            self.elsewhere[path] = Elsewhere(path, found, pending, whom)

    # ------------------------------------------------------------------ draining

    def _work(self, orphan: Orphan) -> Progress:
        self._inherited = {}
        if not orphan.lease.is_valid:  # its lock file was deleted: somebody else may have it
            self.let_go()
            return Progress()
        if orphan.is_carried or not orphan.queue.pending:
            self._remove(orphan)
            return Progress(inherited=self._inherited)
        before = orphan.queue.snapshot()[0].acknowledged
        wait = orphan.drain.step()
        delivered = orphan.queue.snapshot()[0].acknowledged - before
        failure = orphan.drain.failure
        if wait is None and orphan.queue.pending:
            # Some rows were deleted by hand: what is counted is looked for once, and not for ever.
            if orphan.queue.take(0, max_events=1, max_bytes=1):
                wait = LOOK_SECONDS
            orphan.queue.give_back()
        self.due_at = self._clock() + (wait or 0.0)
        is_stuck = failure is not None or orphan.drain.state == "blocked"
        self._fruitless = self._fruitless + 1 if is_stuck and not delivered else 0
        if failure is not None and failure.certain:
            self.let_go()
        elif isinstance(orphan.drain.last_error, QueueError) and not delivered:
            # Once may be a repair that succeeded; the next attempt shows it.
            self._troubles += 1
            if self._troubles >= TROUBLES:
                raise orphan.drain.last_error
        elif not orphan.queue.pending:
            self._remove(orphan)
        elif (orphan.drain.state == "blocked" and failure is None) or self._fruitless >= PATIENCE:
            # The server takes none of the rest. Among our own events it is found out whose fault
            # that is; too many of them stay where they are, and others have their turn.
            if orphan.queue.pending <= REST_EVENTS:
                self._remove(orphan)
            else:
                self._put_off[orphan.lease.path] = self._clock() + PUT_OFF_SECONDS
                self.let_go()
        return Progress(delivered, failure, self._inherited)

    def _remove(self, orphan: Orphan) -> None:
        if not orphan.is_carried:
            self._inherited = orphan.queue.evicted
            inheritance.carry(orphan.queue, self._own)
        self._orphan = None
        self.due_at = self._clock()  # there may be another one
        orphan.drain.stop()
        try:
            if inheritance.remove(orphan.queue, self._own):
                self._logger.info("causality: %s is delivered and removed", orphan.lease.path)
            else:
                self._put_off[orphan.lease.path] = self._clock() + PUT_OFF_SECONDS
        finally:
            orphan.queue.close()
            orphan.lease.release()

    def _give_up(self, error: QueueError, path: Path | None) -> None:
        self.let_go()
        if path is None:
            return
        self._put_off[path] = self._clock() + PUT_OFF_SECONDS
        passing.tell(self._logger, path, error)
