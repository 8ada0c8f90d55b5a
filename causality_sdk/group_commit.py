"""Concurrent appends share one commit, where a commit costs an fsync.

Neighbours: `intake` gives it the function that commits; `turn` says who leads. Any thread.
Invariant: `append` returns only after the commit that its payload was part of, and nobody waits
for a thread that went away.

Whoever finds no leader leads: it commits for all who wait, wakes them, and hands over to the first
of those who came meanwhile. Each follower waits on a lock of its own; on one lock for all, every
commit would wake everybody (DeWitt et al., "Implementation Techniques for Main Memory Database
Systems", 1984, for the idea of committing in groups).

A signal handler may raise anywhere in a thread that leads or waits: between a commit and the waking
of those it was for, or of the next leader. Whom nobody wakes looks for itself after a moment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from causality_sdk.errors import QueueError
from causality_sdk.turn import Turn

LOOK_AGAIN = 0.1  # seconds: a commit that takes longer costs each follower a look now and then


class Ticket:
    """One payload that waits for its commit."""

    __slots__ = ("error", "payload", "row_id", "turn")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.row_id = 0  # set by the leader, after the commit
        self.error: QueueError | None = None  # or this
        self.turn = threading.Lock()  # released by the leader: done, or lead yourself
        self.turn.acquire()

    @property
    def is_done(self) -> bool:
        """Whether the leader has dealt with it."""
        return self.row_id != 0 or self.error is not None


class GroupCommit:
    """`commit` is given tickets, in order, and fills each of them in, whatever happens.

    No round takes more than `max_bytes` of payloads, but at least one.
    """

    def __init__(self, commit: Callable[[Sequence[Ticket]], None], *, max_bytes: int) -> None:
        self._commit = commit
        self._max_bytes = max_bytes
        self._waiting: deque[Ticket] = deque()  # any thread adds, the leader takes
        self._lead = Turn()  # held by the leader
        self._before = 1  # tickets of the round before; the leader's

    @property
    def is_led_here(self) -> bool:
        """Whether this very thread is the leader: a signal handler interrupted it."""
        return self._lead.is_held_here

    def append(self, payload: bytes) -> int:
        """Commits `payload`, alone or with others; gives its id. Raises `QueueError`."""
        ticket = Ticket(payload)
        try:
            self._waiting.append(ticket)
            while not ticket.is_done:
                if self._lead.acquire(blocking=False):
                    try:
                        if not ticket.is_done:
                            self._lead_a_round()
                    finally:
                        self._lead.release()
                        # After the release: whoever came before it found a leader and waits now.
                        self._wake_next()
                else:
                    ticket.turn.acquire(timeout=LOOK_AGAIN)
        except BaseException:
            # A signal handler raised: this thread waits no longer, and must not be the one that is
            # woken. What it brought may be part of a commit under way.
            ticket.error = QueueError("interrupted by an exception of a signal handler")
            self._lead.release()  # it may have come before the other one
            self._wake_next()
            raise
        if ticket.error is not None:
            # An error that several threads raise would mix up their tracebacks.
            error = type(ticket.error)(*ticket.error.args)
            raise error from ticket.error
        return ticket.row_id

    def _lead_a_round(self) -> None:
        if len(self._waiting) < self._before:
            # Those of the round before are on their way back. It waits for nobody, but lets run
            # who can: that spares a third of the fsyncs.
            time.sleep(0)
        # A ticket stays among those that wait until it is filled in: a leader that an exception
        # of a signal handler ends must leave it to the next.
        round_: list[Ticket] = []
        size = 0
        for ticket in tuple(self._waiting):
            size += len(ticket.payload)
            if round_ and size > self._max_bytes:
                break
            if not ticket.is_done:
                round_.append(ticket)
        self._before = len(round_)
        try:
            if round_:
                self._commit(round_)
        finally:
            while self._waiting and self._waiting[0].is_done:
                # In this order: one that is taken away first might never be woken.
                _release(self._waiting[0].turn)
                self._waiting.popleft()

    def _wake_next(self) -> None:
        for ticket in tuple(self._waiting):
            _release(ticket.turn)  # one that is done too: its leader may not have come to it
            if not ticket.is_done:
                return


def _release(turn: threading.Lock) -> None:
    try:
        turn.release()
    except RuntimeError:
        return  # two leaders, one after the other, may wake the same thread
