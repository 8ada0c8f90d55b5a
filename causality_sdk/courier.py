"""One request from the queue to the server and back: choose, frame, attempt, judge, settle.

Neighbours: the sender says when, and acts on what is reported here; `bisection` and `suspects`
remember what was refused, `batch` how much may go at once; `queue`, `wire`, `transport` and
`delivery` do the parts. Used by one thread at a time. Invariant: a row is removed only after a
verdict ACCEPTED for that very row, or buried after refusals that have a witness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from causality_sdk.batch import BatchLimit
from causality_sdk.bisection import Bisection
from causality_sdk.dead_letters import bury
from causality_sdk.delivery import Outcome, judge
from causality_sdk.errors import DeliveryError, ResponseError, TransportError
from causality_sdk.queue import Queue, Row
from causality_sdk.scout import Scout
from causality_sdk.suspects import Suspects
from causality_sdk.transport.base import Transport
from causality_sdk.wire.base import ACCEPTED, Kind, Request, Response, Verdict, Wire

PROBE_SECONDS = 3.0
FRUITLESS = 3  # requests refused in a row, and nothing accepted, before the server is suspected
UNANSWERED = 2  # attempts with the same batch, before a smaller one is tried
STALLED = 2  # failures in a row at one part of a bisection, before the search is given up
_NOT_SENT = frozenset({"dns", "refused", "unreachable"})  # no byte of the batch can have arrived


@dataclass(frozen=True, slots=True)
class Answered:
    """The server spoke of the events: what it accepted is acknowledged, the rest was left."""

    after: int
    """The request began behind this id."""
    last: int
    """Everything up to this id has been tried."""
    accepted: Sequence[Row]
    rejected: int
    """Events that were refused, by name or alone."""
    left: bool
    """Something up to `last` is still queued."""
    status: int
    complaint: ResponseError | None
    """What to report, where not all was accepted."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing of the request is settled."""

    error: DeliveryError
    hold: bool = False
    """Nothing is wrong with the events, and only a person can mend it."""
    retry_after: str | None = None
    again: bool = False
    """The next request is another one and need not wait."""


class Courier:
    """Carries requests of one queue to one destination, one at a time."""

    def __init__(
        self,
        queue: Queue,
        wire: Wire,
        make_transport: Callable[[], Transport],
        limit: BatchLimit,
    ) -> None:
        self._queue = queue
        self._wire = wire
        self._make_transport = make_transport
        self._limit = limit
        self._suspects = Suspects()
        self._scout = Scout(queue, self._suspects)
        self._transport: Transport | None = None  # made by the first attempt: it loads requests
        self._offline = False  # the last attempt had no answer
        self._rows: Sequence[Row] = ()  # of the batch under way
        self._after = 0  # the id it was taken behind
        self._resent = 0  # times it went without an answer
        self._bisection: Bisection | None = None  # of the batch under way
        self._left = False  # the bisection leaves something behind
        self._stalled = 0  # times in a row that a part of it failed, maybe for its size
        self._fruitless = 0  # requests refused since one was accepted
        self._unsettled: Sequence[Row] = ()  # acknowledged, but the disk did not take the removal

    @property
    def unsettled(self) -> int:
        """Rows that are acknowledged and could not be deleted yet."""
        return len(self._unsettled)

    @property
    def blocked(self) -> bool:
        """Whether the server refuses everything alike, so that it is to be asked slowly."""
        patience = FRUITLESS
        if self._bisection is not None:
            # On its way down to a single bad event a bisection is refused log2(n) times, and
            # neighbours may be bad too.
            patience += 8 + math.ceil(math.log2(len(self._rows)))
        return self._fruitless >= patience

    def deliver(self, after: int, *, most: int, timeout: float) -> Answered | Failed | None:
        """One attempt, with at most `most` events behind `after`; None if there is nothing.

        What is accepted stays `unsettled` until `settle()`. Raises `QueueError` for the disk, and
        whatever a wire or transport of the user's raises.
        """
        rows, scouting = self._choose(after, most)
        if not rows:
            return None
        request = self._wire.frame([payload for _, payload in rows])
        try:
            self._look_first(timeout)
        except TransportError as error:
            return self._unanswered(rows, error, sent=False, scouting=scouting)
        try:
            response = self._send(request, timeout)
        except TransportError as error:
            sent = error.reason not in _NOT_SENT
            return self._unanswered(rows, error, sent=sent, scouting=scouting)
        self._offline = False
        self._resent = 0
        verdicts = self._verdicts(response, len(rows))
        outcome, complaint = judge(response, verdicts)
        if outcome is Outcome.SETTLED or complaint is None:
            return self._answered(rows, verdicts, response, complaint, scouting=scouting)
        if outcome is Outcome.REFUSED or outcome is Outcome.TOO_LARGE:
            return self._refused(rows, outcome, complaint, scouting=scouting)
        hold = outcome is Outcome.HOLD
        if not scouting:
            if complaint.status == 429:
                self._limit.crowded(len(rows))
            else:
                maybe_size = outcome is Outcome.BUSY
                self._limit.failed(len(rows), _bytes(rows), maybe_size=maybe_size)
            self._failed(rows, stalls=not hold)
        return Failed(complaint, hold=hold, retry_after=response.headers.get("retry-after"))

    def settle(self) -> int:
        """Deletes what was acknowledged, buries what is beyond hope; gives the number buried.

        Raises `QueueError`; the next call tries again. Until it succeeded nothing else is sent: an
        acknowledged row must not go out a second time.
        """
        self._queue.settle(self._unsettled)
        self._suspects.forget(row_id for row_id, _ in self._unsettled)
        self._unsettled = ()
        buried = 0
        for row_id, suspect in self._suspects.doomed().items():
            if self._rows and self._rows[0][0] <= row_id <= self._rows[-1][0]:
                continue  # it is about to be sent once more, and may pass
            buried += bury(
                self._queue,
                row_id,
                attempts=suspect.attempts,
                status=suspect.status,
                reason=suspect.words,
            )
            self._suspects.forget([row_id])
        if not self._rows:
            self._queue.give_back()
        return buried

    def probe(self, request: Request, timeout: float) -> Response:
        """One request besides the events. Raises `TransportError`."""
        return self._connection().send(request, timeout)

    def close(self) -> None:
        """Lets go of the connections. May be called twice."""
        if self._transport is not None:
            self._transport.close()

    # ------------------------------------------------------------------ what to send

    def _choose(self, after: int, most: int) -> tuple[Sequence[Row], bool]:
        """The rows to send, and whether they are a scout: one event from elsewhere in the queue.

        While the server refuses everything, a scout finds out whether it is the events' fault.
        """
        if self.blocked:
            scout = self._scout.choose()
            if scout is not None:
                return [scout], True
        if self._bisection is not None:
            return self._bisection.next(), False
        if not self._rows:
            self._rows = self._queue.take(
                after, max_events=min(most, self._limit.events), max_bytes=self._limit.bytes
            )
            self._after = after
        return self._rows, False

    def _look_first(self, timeout: float) -> None:
        """After an attempt without an answer, a packet goes ahead where it can.

        It costs nothing where sending the batch would cost a megabyte.
        """
        if self._offline:
            reachable = getattr(self._connection(), "reachable", None)
            if reachable is not None:
                reachable(min(PROBE_SECONDS, timeout))

    def _send(self, request: Request, timeout: float) -> Response:
        transport = self._connection()
        try:
            return transport.send(request, timeout)
        except TransportError as error:
            if not error.stale:
                raise
        # The server closed an idle connection at the moment we used it, as servers do.
        return transport.send(request, timeout)

    def _connection(self) -> Transport:
        if self._transport is None:
            self._transport = self._make_transport()
        return self._transport

    # ------------------------------------------------------------------ how it went

    def _unanswered(
        self, rows: Sequence[Row], error: TransportError, *, sent: bool, scouting: bool
    ) -> Failed:
        self._offline = True
        if scouting:
            return Failed(error)
        if not sent:
            self._resent = 0
            self._limit.failed(len(rows), _bytes(rows), maybe_size=False)
            self._failed(rows, stalls=False)
            return Failed(error)
        # It may have arrived: it goes again first and unchanged, so that the server knows its keys.
        self._resent += 1
        if self._resent >= UNANSWERED and len(rows) > 1:
            # Whatever the reason: many a server resets the connection at a body that is too long.
            self._limit.failed(len(rows), _bytes(rows), maybe_size=True)
            self._failed(rows, stalls=True)
        return Failed(error)

    def _failed(self, rows: Sequence[Row], *, stalls: bool) -> None:
        """The batch need not go again as it was. `stalls`: another one might pass.

        A bisection outlives an outage, else it would begin anew after each; but not a server that
        goes on failing at one part, which may be too much for it.
        """
        if self._bisection is not None:
            self._stalled += stalls and len(rows) > 1
            if self._stalled < STALLED:
                return
            self._bisection = None
        self._let_go()

    def _answered(
        self,
        rows: Sequence[Row],
        verdicts: Sequence[Verdict],
        response: Response,
        complaint: ResponseError | None,
        *,
        scouting: bool,
    ) -> Answered:
        accepted, refused = _sorted(rows, verdicts)
        if accepted:
            self._fruitless = 0
            self._suspects.witness()
            self._limit.succeeded(len(rows))
        else:
            self._fruitless += 1
        for row_id, words in refused:
            self._suspects.refused(
                row_id, status=response.status, words=words, witnessed=bool(accepted)
            )
        self._unsettled = accepted
        left = len(accepted) < len(rows)
        if not scouting:
            self._stalled = 0
        if scouting and accepted and self._bisection is not None:
            self._bisection.discard(rows[0][0])  # it may be one of this very batch
            after, last, left = self._bisected()
        elif scouting:
            after, last, left = -1, -1, False  # it tells nothing of what lies before it
        elif self._bisection is None:
            after, last = self._after, rows[-1][0]
            self._finish()
        else:
            self._left |= left
            if left:
                self._bisection.answered(witnessed=bool(accepted))
            else:
                self._bisection.accepted()
            after, last, left = self._bisected()
        return Answered(after, last, accepted, len(refused), left, response.status, complaint)

    def _refused(
        self, rows: Sequence[Row], outcome: Outcome, error: ResponseError, *, scouting: bool
    ) -> Answered | Failed:
        """The batch as a whole is refused: for some event's sake, for its size, or for nothing."""
        if not scouting:
            self._stalled = 0
        if len(rows) == 1 or outcome is Outcome.REFUSED:
            self._fruitless += 1  # that a batch is too large says nothing about its events
        if len(rows) > 1:
            if outcome is Outcome.TOO_LARGE:
                self._limit.too_large(len(rows), _bytes(rows))
            if self._bisection is not None:
                self._bisection.refused()
            elif outcome is Outcome.TOO_LARGE:
                self._let_go()
            else:
                self._bisection = Bisection(rows)
                self._left = False
            return Failed(error, again=True)
        bisection = self._bisection
        self._suspects.refused(
            rows[0][0],
            status=error.status,
            words=error.body or str(error),
            witnessed=bisection is not None and bisection.witnessed and not scouting,
        )
        if scouting:
            return Failed(error)
        if bisection is None:
            after, last, left = self._after, rows[-1][0], True
            self._finish()
        else:
            bisection.refused()
            self._left = True
            after, last, left = self._bisected()
        return Answered(after, last, (), 1, left, error.status, error)

    def _bisected(self) -> tuple[int, int, bool]:
        """Where the cursor goes after a part of a bisection: nowhere before it is over."""
        if self._bisection is not None and self._bisection.next():
            return self._after, self._after, False
        after, last, left = self._after, self._rows[-1][0], self._left
        self._bisection = None
        self._finish()
        return after, last, left

    def _finish(self) -> None:
        """The batch under way is over. It stays in flight until it is settled."""
        self._rows = ()

    def _let_go(self) -> None:
        """The batch is not in flight any more."""
        self._rows = ()
        self._queue.give_back()

    def _verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
        verdicts = self._wire.verdicts(response, count)
        if len(verdicts) != count:
            # A wire of the user's own; guessing which verdict is whose could delete an event.
            raise DeliveryError(
                f"wire {self._wire.name} gave {len(verdicts)} verdicts for {count} events"
            )
        return verdicts


def _sorted(
    rows: Sequence[Row], verdicts: Sequence[Verdict]
) -> tuple[Sequence[Row], Sequence[tuple[int, str]]]:
    """Which rows were accepted, and the id of each that was rejected, with the server's words."""
    if verdicts.count(ACCEPTED) == len(rows):  # nearly always
        return rows, ()
    accepted = []
    refused = []
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict.kind is Kind.ACCEPTED:
            accepted.append(row)
        elif verdict.kind is Kind.REJECTED:
            refused.append((row[0], verdict.words))
    return accepted, refused


def _bytes(rows: Sequence[Row]) -> int:
    return sum(len(payload) for _, payload in rows)
