"""All that one client works with in one process: its queue file, its buffer, its sender.

Neighbours: the client opens one, and a second one in each forked child; `opening` finds the file.
Invariant: whatever way it ends, its file is given up only when no step of the sender runs any more.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import weakref
from collections.abc import Callable

from causality_sdk.adoption import Adoption
from causality_sdk.batch import BatchLimit
from causality_sdk.buffer import Buffer
from causality_sdk.chance import Chance
from causality_sdk.config import Config
from causality_sdk.courier import Courier
from causality_sdk.forking import leak
from causality_sdk.holders import files_of
from causality_sdk.hooks import Hooks
from causality_sdk.mending import Mender
from causality_sdk.opening import (
    destination,
    http_transport,
    make_pace,
    open_queue,
    queue_at,
    release,
)
from causality_sdk.ownership import Lease
from causality_sdk.pacer import Pacer
from causality_sdk.queue import Queue
from causality_sdk.sender import Sender
from causality_sdk.stats import QueueFileStats
from causality_sdk.steps import Limits, Parts
from causality_sdk.throttle import Throttle
from causality_sdk.transport.base import Transport
from causality_sdk.wire.base import Wire


class Pipeline:
    """Opened for the options of `config`. Keeps no reference to the client.

    `buffer` may hold events already; they are the first to be written. `forked`: this process was
    forked with the client in it. Raises `QueueError`.
    """

    def __init__(self, config: Config, wire: Wire, buffer: Buffer, *, forked: bool = False) -> None:
        hooks = _hooks(config)
        self._logger: logging.Logger = config.logger
        self.queue, lease, elsewhere = open_queue(config, wire, hooks)
        self.buffer = buffer
        queue = self.queue
        buffer.attach(queue.append_many, lambda: queue.is_entered_here)
        self._config = config
        self._wire = wire
        # What is learned of the server, by whichever sender.
        self._throttle = Throttle()
        self._limit = BatchLimit(config.batch_size, config.max_batch_events, config.max_batch_bytes)
        self._chance = Chance()
        self._forked = forked
        self._made: Transport | None = None  # by the first attempt: it loads requests
        self.sender = self._sender(self.queue, hooks, buffer)
        self._mender: Mender | None = None  # a queue in memory needs none
        if lease is not None:
            base, meant_for = config.resolved_queue_path, destination(config, wire)
            self._mender = Mender(self.queue, lease, base, meant_for, time.monotonic)
            self.sender.mender = self._mender
            self.sender.adoption = Adoption(
                self.queue,
                base,
                meant_for,
                open_queue=lambda path: queue_at(config, path),
                open_drain=self._drain,
                clock=time.monotonic,
                logger=config.logger,
                elsewhere=elsewhere,
            )
        self._process = os.getpid()
        if config.start:
            self.sender.start()
        _pipelines.add(self)

    def _sender(
        self, queue: Queue, hooks: Hooks, buffer: Buffer | None = None, *, tells: bool = True
    ) -> Sender:
        config = self._config
        return Sender(
            Parts(
                queue,
                Courier(
                    queue,
                    self._wire,
                    self._transport,
                    self._limit,
                    hooks.log,
                    self._chance,
                ),
                limits=Limits(config.max_batch_events, config.timeout),
                pacer=Pacer(make_pace(config), backlog=queue.last_id),
                hooks=hooks,
                buffer=buffer,
                throttle=self._throttle,
                tells_outages=tells,
            )
        )

    def _transport(self) -> Transport:
        """One for all senders of this process: it is the same server."""
        if self._made is None:
            config = self._config
            self._made = config.transport or http_transport(config, self._wire, forked=self._forked)
        return self._made

    def _drain(self, orphan: Queue) -> Sender:
        """A sender without a thread, for a file that is adopted. Outages are told by ours."""
        drain = self._sender(orphan, _hooks(self._config), tells=False)
        meant_for = destination(self._config, self._wire)
        drain.mender = Mender(orphan, None, None, meant_for, time.monotonic)
        return drain

    @property
    def lease(self) -> Lease | None:
        """Of the file that the queue is in now; None for one in memory."""
        return None if self._mender is None else self._mender.lease

    def mend(self) -> bool:
        """Mends the file now, and tells of it; False if nothing was wrong. Raises `QueueError`."""
        repaired = None if self._mender is None else self._mender.step()
        if repaired is not None:
            self._logger.error("causality: %s", repaired.error)
        return repaired is not None

    def files(self) -> tuple[QueueFileStats, ...]:
        """All queue files of the app; none for a queue in memory. Any thread."""
        adoption = self.sender.adoption
        if self.lease is None or adoption is None:
            return ()
        here = destination(self._config, self._wire)
        return files_of(self._config.resolved_queue_path, here, adoption.elsewhere.copy())

    def shut_down(self, timeout: float) -> None:
        """One last attempt, then the end of the sender, within `timeout` seconds. Idempotent."""
        deadline = time.monotonic() + timeout
        free = self.queue.hurry(timeout)
        if self.buffer.waiting and not (free and self.buffer.write()):
            self._logger.error(
                "causality: %d events are lost: the disk took them neither before nor at the end",
                self.buffer.give_up(),
            )
        if self.queue.pending and not self.sender.is_over:
            left = max(0.0, deadline - time.monotonic())
            self.sender.flush(timeout=left, retries=0, is_last=True)
        self.sender.stop()
        if self.sender.wait_until_ended(max(0.0, deadline - time.monotonic())):
            self.sender.shrink(deadline - time.monotonic())

    def shut_down_at_exit(self, timeout: float) -> None:
        """`shut_down` for exit hooks: those of all clients together take `timeout` seconds."""
        timeout = max(0.0, timeout - _exit_seconds)
        for other in list(_pipelines):
            # At once, so that all servers are waited for at the same time.
            if other is not self and other._process == os.getpid():
                other.sender.hasten(timeout)
        began = time.monotonic()
        self.shut_down(timeout)
        spend_at_exit(time.monotonic() - began)

    def leave_to_parent(self) -> None:
        """In a forked child: never works again. The one thread that is left may be in a step."""
        self.sender.abandon()
        leak(self)  # with its sockets

    @property
    def is_entered_here(self) -> bool:
        """Whether this thread is in the middle of a write: a signal handler interrupted it."""
        return self.queue.is_entered_here or self.buffer.is_entered_here

    def give_up(self) -> None:
        """Ends the sender and closes the file; waits for nothing. May be called twice."""
        self.sender.stop()
        # On this thread if the sender is done, else on its own once the attempt under way is over:
        # until then the file must stay ours.
        self.sender.when_ended(lambda: release(self.queue, self.lease))


_pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()  # that may still be open
_exit_seconds = 0.0  # taken by the exit hooks that ran; they run one after another


def spend_at_exit(seconds: float) -> None:
    """An exit hook took so long: there is less left for those that follow."""
    global _exit_seconds
    _exit_seconds += seconds


def _hooks(config: Config) -> Hooks:
    return Hooks(
        logger=config.logger,
        on_delivered=config.on_delivered,
        on_dropped=config.on_dropped,
        on_error=config.on_error,
    )


class AtProcessEnd:
    """Calls `callback` where atexit is skipped: at the end of a child of multiprocessing.

    Works as long as it is kept. Made in the child itself, or in the parent of a child that is to
    be forked.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        multiprocessing = sys.modules.get("multiprocessing.process")
        if multiprocessing is None:
            return
        from multiprocessing.util import register_after_fork

        # A child forgets all finalizers before its function runs, after the main module was
        # imported in it. What is registered here is called right after that.
        register_after_fork(self, AtProcessEnd._register)
        if multiprocessing.parent_process() is not None:
            self._register()

    def _register(self) -> None:
        from multiprocessing.util import Finalize

        # Before the queues and managers of multiprocessing itself (priority 10 and less) close.
        Finalize(None, self._callback, exitpriority=100)
