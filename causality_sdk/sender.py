"""The one thread that delivers: waits for a trigger, takes a step, and waits again.

Neighbours: `steps` has what is done; here is when, on which thread, and how it ends. Invariant: one
request is in flight at most, and nothing that goes wrong ends the loop.

The thread is a loop around `step()`; with `start=False` a `flush()` is that loop, in its caller's
thread.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from causality_sdk.errors import ClientClosed, QueueError, TransportError
from causality_sdk.flushing import SHORTEST_ATTEMPT, Flush
from causality_sdk.pacer import FOREVER
from causality_sdk.steps import SMALL_QUEUE, Parts, Steps, as_exception
from causality_sdk.wakeup import Wakeup
from causality_sdk.wire.base import Request, Response

CLOSED = "the client was closed while flush() was waiting"
RESTART_SECONDS = 1.0  # before a thread that could not be started is tried again


class Sender(Steps):
    """Delivers one queue, in a thread of its own from `start()` on."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._thread: threading.Thread | None = None  # set once, by start()
        self._starting = threading.Lock()  # held by whoever tries to start it again
        self._start_again_at: float | None = None  # of the clock, where no thread was to be had
        self._ended = threading.Event()  # set by _end(), as its last act
        self._end_lock = threading.RLock()  # guards the next two; a signal handler may close
        self._over = False  # no step runs any more
        self._on_ended: Callable[[], None] | None = None

    # ------------------------------------------------------------------ any thread

    def start(self) -> None:
        """Starts the thread, unless the interpreter shuts down and starts no more."""
        thread = threading.Thread(target=self._run, name="causality-sender", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if "shutdown" not in str(error):
                self._could_not_start(error)
            return
        self._thread = thread
        self._start_again_at = None

    def _start_again(self) -> bool:
        """Replaces a thread that ended though nobody stopped it. False where there is none now."""
        if self._stopping or self._thread is None or self._thread.is_alive():
            return not self._stopping
        if not self._starting.acquire(blocking=False):
            return True  # somebody else is at it
        try:
            if not self._thread.is_alive():
                self._log.error("causality: the background thread had ended; it is started again")
                self.start()
            return self._thread.is_alive()
        finally:
            self._starting.release()

    def _could_not_start(self, error: RuntimeError) -> None:
        first = self._start_again_at is None
        self._start_again_at = self._clock() + RESTART_SECONDS
        if first:
            self.last_error = QueueError(
                f"the background thread cannot be started ({error}), so that nothing is delivered"
                " before flush(); allow this process more threads"
            )
            self._log.error("causality: %s", self.last_error)

    def wake(self) -> None:
        """Makes the sender look at the queue now. Starts the thread anew if there is none."""
        self._wake.set()
        again_at = self._start_again_at
        if again_at is None or self._stopping or self._clock() < again_at:
            return
        if self._thread is not None:
            self._start_again()
            return
        if self._starting.acquire(blocking=False):  # a signal handler may come in the middle
            try:
                if self._start_again_at is not None:
                    self.start()
            finally:
                self._starting.release()

    @property
    def _has_no_thread(self) -> bool:
        return self._thread is None

    def flush(self, *, timeout: float | None, retries: int, is_last: bool = False) -> Flush:
        """Tries to deliver all that is queued now; returns when that is done, given up or late.

        Waits for the thread, or takes the steps itself where there is none. `timeout` in seconds.
        `is_last`: the sender is stopped afterwards.
        """
        deadline = None if timeout is None else self._clock() + timeout
        flush = Flush(
            target=self._queue.last_id, retries=retries, deadline=deadline, is_last=is_last
        )
        if self._is_interrupted_here():
            flush.complete(
                RuntimeError(
                    "flush() in a hook, or in a signal handler that interrupted a flush or a write,"
                    " would wait for itself; call it outside"
                )
            )
            return flush
        self.flushes.add(flush)
        self._wake.set()
        try:
            if self._over:
                flush.complete(ClientClosed(CLOSED))
            elif self._thread is None:
                self._flush_here(flush)
            elif self._start_again():
                flush.done.wait(timeout)
            else:
                flush.complete(
                    QueueError("the background thread has ended and cannot be started again")
                )
            flush.complete(TimeoutError("flush() did not finish in time"))
        finally:
            self.flushes.discard(flush)
        return flush

    def _is_interrupted_here(self) -> bool:
        """Whether this thread holds what a step needs: a hook or a signal handler is running."""
        return (
            self._turn.is_held_here
            or self._queue.is_entered_here
            or self._buffer.is_entered_here
            or self.flushes.is_entered_here
        )

    def hasten(self, timeout: float) -> None:
        """Makes the thread try to deliver all that is queued, in `timeout` s; waits for nothing."""
        if self._thread is not None and self._queue.pending and not self._over:
            deadline = self._clock() + timeout
            target = self._queue.last_id
            self.flushes.add(Flush(target=target, retries=0, deadline=deadline, is_last=True))
            self._wake.set()

    def abandon(self) -> None:
        """In a forked child: a step that the fork interrupted is the last, and waits for nobody."""
        self._stopping = True
        self._wake = Wakeup()
        self._wake.set()

    def stop(self) -> None:
        """Ends the sender after the attempt under way. Returns at once; may be called twice."""
        self._stopping = True
        self._wake.set()
        # Without a thread a flush may be taking steps; then it is that flush that ends.
        if self._thread is None and self._turn.acquire(blocking=False):
            self._turn.release()
            self._end()

    def shrink(self, seconds: float) -> None:
        """Gives the disk back what a delivered backlog took, for up to `seconds`. After the end.

        For programs that deliver and end at once; in others the steps do it in passing.
        """
        end = self._clock() + seconds
        try:
            while self._queue.pending < SMALL_QUEUE and self._clock() < end:
                self._queue.checkpoint()
                if not self._queue.vacuum_step():
                    return
                while self._clock() < end and self._queue.vacuum_step():
                    pass
        except QueueError:
            return  # the file is as good as before, and the next start tries again

    def wait_until_ended(self, timeout: float) -> bool:
        """True as soon as no step runs any more, False after `timeout` seconds."""
        return self._ended.wait(timeout)

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Calls `callback` once no step runs any more: now, or later on the thread that ends it."""
        with self._end_lock:
            if not self._over:
                self._on_ended = callback
                return
        callback()

    def probe(self, request: Request, timeout: float) -> Response:
        """One request besides the events, on the sender's own connection; in between two batches.

        Waits up to `timeout` seconds for a batch under way. Raises `TransportError`.
        """
        deadline = self._clock() + timeout
        if self._turn.is_held_here or not self._turn.acquire(timeout=timeout):
            raise TransportError("a batch is under way and has no answer yet", reason="timeout")
        try:
            left = deadline - self._clock()
            return self._courier.probe(request, max(left, SHORTEST_ATTEMPT))
        finally:
            self._turn.release()

    @property
    def is_over(self) -> bool:
        """Whether no step runs any more, and none will."""
        return self._over

    # ------------------------------------------------------------------ the loop

    def _run(self) -> None:
        self._log.thread = threading.get_ident()
        error: BaseException | None = None
        try:
            while not self._stopping:
                self._wait(self.step())
        except BaseException as raised:  # noqa: BLE001 - the net below the net
            error = raised
        if self._stopping:
            self._end()
            return
        # The next event, or the next flush(), starts another thread.
        self.last_error = as_exception(error) if error is not None else None
        self._start_again_at = self._clock()
        self.wake_at = 0
        self._log.error("causality: the background thread ended", cause=error)

    def _flush_here(self, flush: Flush) -> None:
        while not (flush.done.is_set() or self._stopping):
            left = math.inf if flush.deadline is None else flush.deadline - self._clock()
            # Another flush may be taking its steps; it works for this one too.
            if left <= 0 or not self._turn.acquire(timeout=min(left, threading.TIMEOUT_MAX)):
                break
            try:
                wait = self._step_locked()
            finally:
                self._turn.release()
            if not flush.done.is_set():
                self._wait(min(math.inf if wait is None else wait, left))
        if self._stopping:
            self._end()

    def _wait(self, seconds: float | None) -> None:
        # wake_at was set by the step: what was committed between it and now is seen here.
        if (seconds is None or seconds > 0) and self._queue.last_id < self.wake_at:
            self._wake.wait(None if seconds is None or seconds == math.inf else seconds)
        self._wake.clear()
        self.wake_at = FOREVER  # until the next step has looked

    def _end(self) -> None:
        try:
            with self._turn:
                if self.adoption is not None:
                    self._try_to(self.adoption.let_go)
                self._try_to(self._courier.close)
        finally:
            self._ends()

    def _ends(self) -> None:
        with self._end_lock:
            self._over = True
            callback, self._on_ended = self._on_ended, None
        # After _over is set: a flush that is added later finds out by itself.
        self.flushes.end(ClientClosed(CLOSED))
        try:
            if callback is not None:
                self._try_to(callback)
        finally:
            self._ended.set()

    def _try_to(self, clean_up: Callable[[], None]) -> None:
        """One thing to tidy that fails, such as a transport's close(), keeps no other from it."""
        try:
            clean_up()
        except BaseException as error:
            if not self._log.swallows(error):
                raise
            self._log.error("causality: the end of the sender met an error", cause=error)
