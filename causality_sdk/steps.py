"""What the sender does, one step after another: delivers a batch, adopts, keeps the queue fit.

Neighbours: `sender`, which runs the steps; `courier` carries one batch; `pacer` tells when the next
attempt is due; `flushing` is what callers of `flush()` wait for; `hooks` is told of everything.
Invariant: a step makes one attempt at most, and does not raise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from causality_sdk.adoption import Adoption, Failure
from causality_sdk.buffer import Buffer
from causality_sdk.courier import Answered, Courier
from causality_sdk.errors import QueueError, ResponseError, TransportError
from causality_sdk.flushing import Flushes
from causality_sdk.hooks import Hooks
from causality_sdk.mending import Mender
from causality_sdk.outages import Outages
from causality_sdk.pacer import Pacer
from causality_sdk.queue import Queue
from causality_sdk.stats import Delivered, SenderState
from causality_sdk.throttle import Throttle
from causality_sdk.turn import Turn
from causality_sdk.wakeup import Wakeup

NAMED = 3  # buried events in one line of the log
IDLE_STEPS = 3  # in a row, that were due and did nothing: an event may just have come
IDLE_PAUSE = 0.001  # seconds, doubled each time
IDLE_MOST = 1.0
UNSETTLED_MOST = 20_000  # events that are acknowledged and still queued, before no more are sent
DISK_PAUSE = 1.0  # seconds before a disk that did not take them off the queue is tried again
BUFFER_PAUSE = 1.0  # seconds before a disk that did not take the buffer is tried again
SYNC_PAUSE = 1.0  # the same of a sync
SMALL_QUEUE = 1000  # events; a longer backlog will need its free pages soon


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold, and the seconds it may take."""

    max_batch_events: int
    timeout: float


@dataclass(frozen=True, slots=True)
class Parts:
    """What a sender is put together from."""

    queue: Queue
    courier: Courier
    limits: Limits
    pacer: Pacer
    hooks: Hooks
    buffer: Buffer | None = None
    """Of events that the disk did not take; None makes an empty one."""
    throttle: Throttle = field(default_factory=Throttle)
    """All senders to one server share it."""
    tells_outages: bool = True
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    wake: Wakeup = field(default_factory=Wakeup)


class Steps:
    """Of one queue. Keeps no reference to the client, so that a forgotten one can go."""

    def __init__(self, parts: Parts) -> None:
        queue = self._queue = parts.queue
        self._courier = parts.courier
        self._limits = parts.limits
        self._pacer = parts.pacer
        self._hooks = parts.hooks
        self._log = parts.hooks.log
        # Not `or`: an empty buffer is false.
        self._buffer = Buffer(queue.append_many) if parts.buffer is None else parts.buffer
        self._clock = parts.clock
        self._throttle = parts.throttle
        self._outages = Outages(self._log, tells=parts.tells_outages)
        self._turn = Turn()  # held by whoever runs a step; guards all below it
        self.retries = 0  # attempts that failed
        self.last_error: Exception | None = None
        self.last_success_ms: int | None = None  # since the epoch
        self.failure: Failure | None = None  # of the last attempt, not for the sake of its events
        self.adoption: Adoption | None = None  # set once, before the start
        self.mender: Mender | None = None  # the same
        self._adopts_next = False  # own batches and those of orphans take turns
        self._worked = False  # this step did something
        self._idle = 0  # steps in a row that were due and did nothing
        self._orphan_fails = False  # the last attempt with one did
        self._settle_at = -math.inf  # when the disk is tried again that did not take rows off
        self._buffer_at = -math.inf  # when the buffer is tried again, after the disk refused it
        self._sync_at = -math.inf  # when a sync is tried again that failed for whatever reason
        self._disk_logged = False  # one line for a failing disk, until it works again
        self.flushes = Flushes()  # any thread adds, the sender completes
        self.wake_at = 1  # written by the sender: the id whose commit must wake it
        # set by any thread, cleared by whoever runs the steps
        self._wake = parts.wake
        self._stopping = False  # set once, by stop()
        self._state: SenderState = "idle"
        queue.wal.on_pressure = self._wake.set
        # What earlier runs lost was told by them; what was lost with a damaged file was not.
        lost, repaired = self._lost(), queue.repair
        lost["corrupt"] -= 0 if repaired is None else repaired.lost
        self._hooks.report_lost(lost)

    @property
    def _has_no_thread(self) -> bool:
        """Whether callers of `flush()` take the steps."""
        return True

    @property
    def state(self) -> SenderState:
        """`idle`, `sending`, `offline` (no answer) or `blocked` (answers that take nothing)."""
        return self._state

    def step(self) -> float | None:
        """Does what is due; gives the seconds until something is due again, None for never.

        At most one attempt. Does not raise: what fails is counted, reported and tried again.
        """
        with self._turn:
            return self._step_locked()

    def _step_locked(self) -> float | None:
        try:
            self._mend()
            self._upkeep()
            if self.flushes.take_added():
                self._pacer.flush_began()
                self._settle_at = -math.inf  # it is to be told now whether the disk works
            self._settle_at_last()
            tried = self._may_send()
            adopts = self._may_adopt(self._clock()) and (self._adopts_next or not tried)
            self._worked |= adopts or tried
            if adopts:
                self._adopts_next = tried = False
                self._adopt()
            elif tried:
                self._adopts_next = True
                self._deliver()
            aside = self._pacer.anything_aside
            # A pass that left something counts once, as it ends. Of what is delivered and still
            # on the disk, _settle_at_last() tells.
            if (tried or not aside) and not self._courier.unsettled:
                attempt = self.flushes.reached(self._pacer.cursor, aside=aside)
                if attempt is not None:
                    self._pacer.flush_failed(self._clock(), attempt)
        except QueueError as error:
            self._file_trouble(error)
        except BaseException as error:
            if not self._log.swallows(error):
                raise
            # A wire or a transport of the user's, or a bug of ours. Neither may end delivery, and
            # without a backoff it would be a busy loop.
            self._log.error("causality: the sender failed; it goes on", cause=error)
            self._state = "blocked"
            self._failed(Failure(as_exception(error)))
        return self._next_wait()

    def _may_send(self) -> bool:
        queue = self._queue
        now = self._clock()
        return now >= self._throttle.ready_at() and self._pacer.may_send(
            now, queue.last_id, queue.pending, self.flushes.target, queue.cap_in_events
        )

    def _may_adopt(self, now: float) -> bool:
        return now >= self._adoption_due_at()

    def _adoption_due_at(self) -> float:
        """When an orphan may have its turn. While the server is away, only if we have nothing."""
        if self.adoption is None or self.flushes.target is not None or self._stopping:
            return math.inf
        if self._pacer.failures and self._queue.pending:
            return math.inf  # our own events find out when it is back
        return max(self.adoption.due_at, self._throttle.ready_at(), self._pacer.retry_at)

    def _next_wait(self) -> float | None:
        now = self._clock()
        last_id = self._queue.last_id
        target = self.flushes.target
        if target is not None and self._courier.unsettled and self._pacer.cursor >= target:
            target = None  # what it waits for is the disk alone
        due = self._pacer.due_at(last_id, self._queue.pending, target, self._queue.cap_in_events)
        if due is not None:
            due = max(due, self._throttle.ready_at())
        if self._courier.unsettled:  # the disk is tried again, whatever else there is to do
            again = max(self._settle_at, self._pacer.retry_at)
            due = again if due is None else min(due, again)
        if self._buffer.waiting:
            due = self._buffer_at if due is None else min(due, self._buffer_at)
        is_well = self._pacer.failures == 0 and not self._orphan_fails
        if is_well and (due is None or due > now):
            self._state = "idle"
        sync_at = self._queue.wal.due_at()
        if sync_at is not None:
            sync_at = max(sync_at, self._sync_at)
        if sync_at is None or due is None:
            self.wake_at = last_id + 1  # the first event after a quiet time starts the timers
        else:
            paced = self._throttle.ready_at() > now
            self.wake_at = self._pacer.wake_at(
                now, last_id, self._queue.pending, self._queue.cap_in_events, paced=paced
            )
        mend_at = None if self.mender is None else self.mender.due_at
        # Until then fewer events than batch_size wake nobody; from then on they do.
        lingers_until = self._pacer.lingers_until if self._pacer.lingers_until > now else None
        dates = (due, sync_at, mend_at, lingers_until, self._adoption_due_at())
        times = [at for at in dates if at is not None]
        soonest = min(times)
        return None if soonest == math.inf else self._unless_idle(max(0.0, soonest - now))

    def _unless_idle(self, wait: float) -> float:
        """`wait`, but longer and longer where steps are due and do nothing.

        There should be no such state; whatever it waits for, the processor is not to pay for it.
        """
        worked, self._worked = self._worked, False
        if worked or wait > 0:
            self._idle = 0
            return wait
        self._idle += 1
        if self._idle <= IDLE_STEPS:
            return wait
        return min(IDLE_PAUSE * 2.0 ** min(self._idle - IDLE_STEPS, 16), IDLE_MOST)

    def _upkeep(self) -> None:
        """Keeps file and log fit. What fails is tried again, and delivery goes on meanwhile.

        It is often delivery that makes the room in which this can be done.
        """
        for job in (self._tell_losses, self._write_buffer, self._sync):
            self._try_upkeep(job)

    def _try_upkeep(self, job: Callable[[], None]) -> None:
        try:
            job()
        except QueueError as error:
            self._upkeep_failed(error)
        except BaseException as error:
            if not self._log.swallows(error):
                raise
            if not self._disk_logged:
                self._log.error("causality: upkeep of the queue failed; it goes on", cause=error)
            self._upkeep_failed(QueueError(str(as_exception(error))))

    def _tell_losses(self) -> None:
        self._hooks.report_lost(self._lost())
        trouble, self._queue.log_trouble = self._queue.log_trouble, None
        if trouble is not None:
            raise trouble

    def _write_buffer(self) -> None:
        if not self._buffer.waiting or self._clock() < self._buffer_at:
            return
        self._worked = True
        if not self._buffer.write():
            self._buffer_at = self._clock() + BUFFER_PAUSE
        elif not self._courier.unsettled:
            self._disk_logged = False

    def _sync(self) -> None:
        if not self._queue.wal.is_due(sender=True) or self._clock() < self._sync_at:
            return
        self._worked = True
        self._sync_at = self._clock() + SYNC_PAUSE
        self._queue.checkpoint()
        self._sync_at = -math.inf
        while self._queue.pending < SMALL_QUEUE and self._queue.vacuum_step():
            if self._wake.is_set():
                break
        if not self._courier.unsettled:
            self._disk_logged = False

    def _upkeep_failed(self, error: QueueError) -> None:
        if self.mender is not None and self._queue.damage is not None:
            self._file_trouble(error)
        else:
            self._tell_disk_trouble(error)

    def _lost(self) -> dict[str, int]:
        """Events that left undelivered, by reason, since the queue file was made."""
        return {**self._queue.evicted, "buffer_full": self._buffer.dropped}

    # ------------------------------------------------------------------ one batch

    def _deliver(self) -> None:
        before, self._state = self._state, "sending"
        self._throttle.began(self._clock())
        result = self._courier.deliver(
            self._pacer.cursor,
            most=self._limits.max_batch_events,
            timeout=self.flushes.bounded(
                self._limits.timeout, self._clock(), by_all=self._has_no_thread
            ),
            counts=not self._throttle.is_at_once,
            hurried=self.flushes.target is not None,
        )
        if result is None:
            self._state = before  # nothing was sent
            self._pacer.reached(self._queue.last_id)
        elif isinstance(result, Answered):
            self._answered(result)
        elif result.again and not self._courier.blocked:
            self._complain(result.error)
        else:
            self._state = "offline" if _is_offline(result.error) else "blocked"
            self._failed(
                Failure(
                    result.error,
                    result.hold,
                    result.retry_after,
                    certain=result.certain,
                    events=result.events,
                    whole=result.whole,
                ),
                suspected=result.suspected,
            )

    def _answered(self, answer: Answered) -> None:
        delivered = len(answer.accepted)
        if delivered:
            self._succeeded(delivered)
        self._pacer.went_through(
            self._clock(), after=answer.after, last=answer.last, left=answer.left
        )
        # Counted first: the acknowledgement is a fact, even when the disk refuses the removal.
        self.flushes.count(delivered=delivered, rejected=answer.rejected)
        self._settle()
        if delivered:
            self._outages.ended(self._clock(), self._queue.pending)
            size = sum(len(payload) for _, payload in answer.accepted)
            status = 0 if answer.status is None else answer.status
            self._hooks.delivered(Delivered(delivered, size, answer.rejected, status))
        if answer.complaint is not None:
            self._complain(answer.complaint)
            blocked, asked = self._courier.blocked, answer.retry_after
            if blocked or asked is not None:
                self._state = "blocked"
                failure = Failure(answer.complaint, retry_after=asked, whole=False)
                self._back_off(failure, refused=blocked)

    def _adopt(self) -> None:
        assert self.adoption is not None  # noqa: S101 - _may_adopt has looked
        progress = self.adoption.step()
        if progress.delivered:
            self._succeeded(progress.delivered)
            self._outages.ended(self._clock(), self._queue.pending)
        self._hooks.inherited(progress.inherited)
        self._orphan_fails = progress.failure is not None
        if progress.failure is not None:
            self.last_error = progress.failure.error
            self._state = "offline" if _is_offline(progress.failure.error) else "blocked"
            if progress.failure.certain:
                self._back_off(progress.failure)
            # Else it is for the sake of its events. It has a pace of its own, and ours do not wait.

    def _succeeded(self, events: int) -> None:
        """The server accepted so many events."""
        self._orphan_fails = False
        self.failure = None
        self.last_success_ms = time.time_ns() // 1_000_000
        self._throttle.accepted(self._clock(), events)
        self._pacer.succeeded()

    def _settle_at_last(self) -> None:
        """Once more what the disk did not take off the queue.

        Meanwhile the events behind it are delivered, up to a limit: they are not sent again, and
        in a crash are only those that would be.
        """
        if not self._courier.unsettled or self._clock() < self._settle_at:
            return
        try:
            self._settle()
        except QueueError as error:
            if self._courier.unsettled >= UNSETTLED_MOST or self._queue.damage is not None:
                raise
            self._worked = True
            self._settle_at = self._clock() + DISK_PAUSE
            self._tell_disk_trouble(error)
            self.flushes.failed(error)

    def _settle(self) -> None:
        self._worked = True
        buried = self._courier.settle()
        if buried:
            self.flushes.count(buried=len(buried))
            more = ", …" if len(buried) > NAMED else ""
            self._log.warning(
                "causality: refused again and again while others passed, and dead letters now: %d,"
                " %s; see client.dead_letters",
                len(buried),
                ", ".join(buried[:NAMED]) + more,
            )

    def _complain(self, error: Exception) -> None:
        """Something was refused, and delivery goes on."""
        self.last_error = error
        self.flushes.complained(error)
        self._hooks.error(error)

    def _failed(self, failure: Failure, *, suspected: bool = False) -> None:
        self.last_error = failure.error
        self._hooks.error(failure.error)
        # What comes after a suspect may pass, and does not wait out its backoff.
        self._back_off(failure, refused=suspected)

    def _back_off(self, failure: Failure, *, refused: bool = False) -> None:
        error, now = failure.error, self._clock()
        self.failure = None if refused or _is_refusal(error) else failure
        self.retries += 1
        asked = self._pacer.seconds_asked(failure.retry_after)
        wait = None
        if isinstance(error, ResponseError) and not (refused or failure.hold):
            wait = self._throttle.failed(
                now, events=failure.events, whole=failure.whole, asked=asked
            )
        elif isinstance(error, TransportError):
            self._throttle.silent()
        self._pacer.failed(now, error, hold=failure.hold, refused=refused, asked=asked, wait=wait)
        self._outages.failed(now, error, self._queue.pending)
        attempt = self.flushes.failed(error, certain=failure.certain)
        if attempt is not None:
            self._pacer.flush_failed(now, attempt, wait)

    def _mend(self) -> None:
        """Repairs the file if it was damaged or deleted, and tells. Raises `QueueError`."""
        repaired, self._queue.repair = self._queue.repair, None  # before it was opened
        if self.mender is not None and repaired is None:
            repaired = self.mender.step()
        if repaired is None:
            return
        self.last_error = repaired.error
        self._log.error("causality: %s", repaired.error)
        self._hooks.error(repaired.error)
        self._hooks.report_lost(self._lost())
        self._queue.log_trouble = None  # of the file that was
        if self._buffer.waiting:
            self._buffer.write()

    def _file_trouble(self, error: QueueError) -> None:
        """The disk's, or damage: that is repaired at once, and only what came of it is told."""
        if self.mender is None or self._queue.damage is None:
            self._disk_trouble(error)
            return
        try:
            self._mend()
        except QueueError as trouble:
            self._disk_trouble(trouble)

    def _disk_trouble(self, error: QueueError) -> None:
        self._pacer.disk_failed(self._clock())
        self._buffer_at = self._clock() + BUFFER_PAUSE
        self._tell_disk_trouble(error)
        self.flushes.failed(error)

    def _tell_disk_trouble(self, error: QueueError) -> None:
        self.last_error = error
        if not self._disk_logged:
            self._disk_logged = True
            self._log.error("causality: %s", error)
        self._hooks.error(error)


def as_exception(error: BaseException) -> Exception:
    """What `last_error` and `on_error` get: they promise an `Exception`."""
    if isinstance(error, Exception):
        return error
    return RuntimeError(f"{type(error).__name__} was raised in the sender: {error}")


def _is_offline(error: Exception) -> bool:
    return isinstance(error, TransportError)


def _is_refusal(error: Exception) -> bool:
    """Whether it is about the events, so that others may pass."""
    return isinstance(error, ResponseError) and error.status in (400, 413, 422)
