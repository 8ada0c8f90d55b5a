"""When the next attempt is due, and from where in the queue. Reads no clock and does no I/O.

Neighbours: the sender asks it and tells it how attempts ended; `backoff` computes the delays.
Everything here belongs to the thread that runs the sender's step. Times are seconds of the
sender's monotonic clock.

The sender goes through the queue once: `cursor` is how far it is. What the server left (a refused
event, one it did not speak of) stays behind the cursor, set aside, and holds nobody up; after a
backoff of its own the cursor goes back to the head. A failed attempt moves nothing and delays all.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from causality_sdk.backoff import backoff_delay, retry_after_seconds
from causality_sdk.errors import TransportError

OFFLINE_MAX = 30.0  # seconds between attempts while there is no answer at all
OFFLINE_JITTER = 0.1  # the part of it that is random
LINGER = 0.05  # seconds from one batch to the next while events come fast, unless it is full
HOLD_AFTER = 3  # failures in a row, before a server that refuses everything is asked slowly
FULL_PART = 0.5  # of what the queue can hold makes an attempt due
DISK_PAUSE = 1.0  # seconds before a disk that refused is tried again
FOREVER = 2**63  # an id that is never reached


@dataclass(frozen=True, slots=True)
class Pace:
    """The options that set the pace. Seconds."""

    batch_size: int
    max_batch_events: int
    flush_interval: float
    backoff_initial: float
    backoff_max: float
    jitter: float
    rng: random.Random = field(default_factory=random.Random, repr=False)
    wall_clock: Callable[[], float] = time.time
    """Seconds since the epoch; only for a `Retry-After` that is a date."""


class Pacer:
    """See the module."""

    def __init__(self, pace: Pace, backlog: int) -> None:
        self._pace = pace
        self.cursor = 0  # events up to here were tried; those still queued are set aside
        self._target = backlog  # send without waiting for a trigger up to this id
        self._due: float | None = None  # when the interval of the waiting events is over
        self.lingers_until = -math.inf  # before that, batch_size events are too few
        self._retry_at = -math.inf  # no attempt before
        self._flush_retry_at = -math.inf  # the same, while a flush is waiting
        self._asked_until = -math.inf  # what the last Retry-After said
        self._refused_since: float | None = None  # when the server refused all it was asked with
        self._refused_id: int | None = None  # the newest event there was then
        self.failures = 0  # attempts in a row that failed
        self._aside_at: float | None = None  # when to go back for what was set aside
        self._aside_target = 0  # how far the pass was to go when that was set
        self._stumbled = False  # an attempt of this pass failed
        self._aside_rounds = 0  # times in a row that something was set aside again

    # ------------------------------------------------------------------ questions

    def may_send(
        self,
        now: float,
        last_id: int,
        pending: int,
        flush_target: int | None,
        cap: float = math.inf,
    ) -> bool:
        """Whether to make an attempt now. Starts timers, and goes back for what was set aside.

        `cap` is how many events the queue can hold.
        """
        if pending == 0:
            self.reached(last_id)
            self._aside_at = None
            return False
        gate = self._flush_retry_at if flush_target is not None else self._gate(last_id)
        if now < gate:
            self._start_timer(now, last_id, pending)
            return False
        if self._aside_at is not None and (
            (now >= self._aside_at and not self._must_go_on)
            or (flush_target is not None and self.cursor >= flush_target)
        ):
            self._begin_anew()
            self._target = max(self._target, last_id)
        if flush_target is not None:
            self._target = max(self._target, flush_target)
        fresh = self._fresh(last_id, pending)
        if fresh <= 0:
            self._due = None
            return False
        if self.cursor < self._target:
            return True
        if fresh >= self._enough(now, cap) or (self._due is not None and now >= self._due):
            self._target = last_id
            self.lingers_until = now + LINGER
            return True
        self._start_timer(now, last_id, pending)
        return False

    @property
    def _must_go_on(self) -> bool:
        """Whether a pass must reach its end before another begins.

        Where attempts fail they are so slow that the time to go back comes before the end: the
        first events would be tried for ever, and a good one behind them never.
        """
        return self._stumbled and self.cursor < self._aside_target

    def due_at(
        self, last_id: int, pending: int, flush_target: int | None, cap: float = math.inf
    ) -> float | None:
        """When `may_send` may say yes, if nothing new comes; None for never."""
        if flush_target is not None:
            return self._flush_retry_at
        times = []
        if self._aside_at is not None:
            times.append(max(self._aside_at, self._gate(last_id)))
        fresh = self._fresh(last_id, pending)
        if fresh > 0:
            # No timer yet: an event came after may_send() looked. Look again at once.
            due = -math.inf if self._due is None else self._due
            if self.cursor < self._target or fresh >= min(
                self._pace.max_batch_events, cap * FULL_PART
            ):
                due = -math.inf
            elif fresh >= self._pace.batch_size:
                due = min(due, self.lingers_until)
            times.append(max(due, self._gate(last_id)))
        return min(times) if times else None

    def wake_at(
        self, now: float, last_id: int, pending: int, cap: float = math.inf, *, paced: bool = False
    ) -> int:
        """The id whose commit makes an attempt due; above `last_id`. `paced`: none is due yet."""
        if paced or now < self._retry_at:
            return FOREVER
        # By what is queued: ids between the cursor and last_id may be those of evicted events.
        missing = self._enough(now, cap) - self._fresh(last_id, pending)
        return last_id + max(1, missing)

    def _enough(self, now: float, cap: float) -> int:
        """Events that make an attempt due.

        A thread that tracks without a pause has another `batch_size` of them ready as soon as one
        batch is through. Sent one by one such small batches cost three times as much for each
        event, here and at the server, as Nagle found of small packets (RFC 896).
        """
        pace = self._pace
        enough = pace.batch_size
        if now < self.lingers_until:
            enough = max(enough, pace.max_batch_events)
        # Well before the queue is full, while there is time to send.
        return max(1, int(min(enough, cap * FULL_PART)))

    @property
    def retry_at(self) -> float:
        """No attempt before this time, flushes aside."""
        return self._retry_at

    @property
    def anything_aside(self) -> bool:
        """Whether something behind the cursor is known to be queued still."""
        return self._aside_at is not None

    def _gate(self, last_id: int) -> float:
        """No attempt before this time, flushes aside.

        An event that came after everything was refused is one more to ask with: it waits no longer
        than it would if all was well.
        """
        if self._refused_since is None:
            return self._retry_at
        if self._refused_id is None:
            self._refused_id = last_id
        if last_id == self._refused_id:
            return self._retry_at
        return min(self._retry_at, self._refused_since + self._pace.flush_interval)

    def _fresh(self, last_id: int, pending: int) -> int:
        return min(pending, last_id - self.cursor)

    def _start_timer(self, now: float, last_id: int, pending: int) -> None:
        if self._due is None and self._fresh(last_id, pending) > 0:
            self._due = now + self._pace.flush_interval

    # ------------------------------------------------------------------ answers

    def reached(self, last_id: int) -> None:
        """There is nothing in the queue behind the cursor up to `last_id`."""
        self.cursor = max(self.cursor, last_id)
        self._due = None

    def went_through(self, now: float, *, after: int, last: int, left: bool) -> None:
        """Everything behind `after` up to `last` was tried; `left`: not all of it is gone."""
        if self.cursor != after:
            return  # the cursor went back while this batch waited, or it was no batch of its own
        self.cursor = last
        self._due = None
        if left and self._aside_at is None:
            self._aside_rounds += 1
            self._aside_at = now + self._delay(self._aside_rounds, self._pace.backoff_max)
            self._aside_target = self._target
        elif not left and self.cursor >= self._target and self._aside_at is None:
            self._aside_rounds = 0

    def succeeded(self) -> None:
        """The server accepted events: whatever it asked for before is over."""
        self.failures = 0
        self._refused_since = None
        self._retry_at = self._flush_retry_at = self._asked_until = -math.inf

    def failed(
        self,
        now: float,
        error: Exception,
        *,
        hold: bool = False,
        refused: bool = False,
        asked: float | None = None,
        wait: float | None = None,
    ) -> None:
        """An attempt failed and settled nothing.

        `refused`: the server refused the events, without a witness that it is their fault. `asked`:
        seconds that the server asked for. `wait`: seconds, where more is known than that it failed.
        """
        self._refused_since = now if refused else None
        self._refused_id = None
        self.failures += 1
        self._stumbled = True
        pace = self._pace
        if wait is not None:
            delay = min(wait, pace.backoff_max)
        elif isinstance(error, TransportError):
            delay = self._offline_delay()
        elif hold and self.failures >= HOLD_AFTER:
            # Nobody but a person will mend it, and every attempt is one more line in their log.
            delay = pace.backoff_max * (1.0 - pace.jitter / 2 * pace.rng.random())
        else:
            delay = self._delay(self.failures, pace.backoff_max)
        self._asked_until = -math.inf if asked is None else now + asked
        self._retry_at = max(now + delay, self._asked_until)

    def seconds_asked(self, retry_after: str | None) -> float | None:
        """What a `Retry-After` asks for."""
        return retry_after_seconds(retry_after, now=self._pace.wall_clock())

    def flush_failed(self, now: float, attempt: int, wait: float | None = None) -> None:
        """The `attempt`-th try of a flush failed, and it has more.

        It does not wait out the backoff of the background. Only a delay that the
        server itself asked for is obeyed. `wait` as in `failed`.
        """
        delay = self._delay(attempt, self._pace.backoff_max) if wait is None else wait
        self._flush_retry_at = now + delay
        self._flush_retry_at = max(self._flush_retry_at, self._asked_until)

    def disk_failed(self, now: float) -> None:
        """The disk refused; the server has nothing to do with it."""
        self._retry_at = max(self._retry_at, now + DISK_PAUSE)
        self._flush_retry_at = max(self._flush_retry_at, now + DISK_PAUSE)

    def flush_began(self) -> None:
        """A flush interrupts a backoff at once, and begins with what was set aside."""
        self._flush_retry_at = -math.inf
        if self._aside_at is not None:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self.cursor = 0
        self._aside_at = None
        self._stumbled = False

    def _offline_delay(self) -> float:
        """Between `backoff_initial` and `OFFLINE_MAX`; near the latter once it has grown to it.

        Full jitter down to nothing would ask twice as often as needed for as long as the network
        is away, and now and then twice within a second. Where clients are in those 30 s has been
        spread by the shorter delays before.
        """
        pace = self._pace
        most = min(pace.backoff_max, OFFLINE_MAX)
        least = min(pace.backoff_initial, most)
        if pace.backoff_initial * 2.0 ** min(self.failures - 1, 62) >= most:
            return max(least, most * (1.0 - OFFLINE_JITTER * pace.jitter * pace.rng.random()))
        return max(least, self._delay(self.failures, most))

    def _delay(self, attempt: int, maximum: float) -> float:
        pace = self._pace
        return backoff_delay(
            attempt,
            initial=min(pace.backoff_initial, maximum),
            maximum=maximum,
            jitter=pace.jitter,
            rng=pace.rng,
        )
