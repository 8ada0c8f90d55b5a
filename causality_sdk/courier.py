"""One batch from the queue to the server and back: take, frame, attempt, judge, settle.

Neighbours: the sender says from where and how much, and acts on what is reported here; `queue`,
`wire`, `transport` and `delivery` do the parts. Used by one thread at a time. Invariant: a row is
removed only after a verdict ACCEPTED for that very row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from causality_sdk.delivery import Outcome, judge
from causality_sdk.errors import DeliveryError, ResponseError, TransportError
from causality_sdk.queue import Queue, Row
from causality_sdk.transport.base import Transport
from causality_sdk.wire.base import Kind, Request, Response, Verdict, Wire

_NOT_SENT = frozenset({"dns", "refused", "unreachable"})  # no byte of the batch can have arrived


@dataclass(frozen=True, slots=True)
class Answered:
    """The server spoke of the events: what it accepted is acknowledged, the rest was left."""

    after: int
    """The batch began behind this id."""
    last: int
    """The last id of the batch."""
    accepted: Sequence[Row]
    rejected: int
    """Events that were refused by name."""
    events: int
    """Events in the batch."""
    status: int
    complaint: ResponseError | None
    """What to report, where not all was accepted."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing of the batch is settled."""

    error: DeliveryError
    hold: bool = False
    """Nothing is wrong with the events, and only a person can mend it."""
    retry_after: str | None = None


class Courier:
    """Carries batches of one queue to one destination, one at a time."""

    def __init__(self, queue: Queue, wire: Wire, make_transport: Callable[[], Transport]) -> None:
        self._queue = queue
        self._wire = wire
        self._make_transport = make_transport
        self._transport: Transport | None = None  # made by the first attempt: it loads requests
        self._resend: Sequence[Row] = ()  # sent, but not answered: goes again first, unchanged
        self._resend_after = 0  # the id it was taken behind
        self._unsettled: Sequence[Row] = ()  # acknowledged, but the disk did not take the removal

    @property
    def unsettled(self) -> int:
        """Rows that are acknowledged and could not be deleted yet."""
        return len(self._unsettled)

    def deliver(
        self, after: int, *, max_events: int, max_bytes: int, timeout: float
    ) -> Answered | Failed | None:
        """One attempt with the next batch behind `after`; None if there is nothing.

        What is accepted stays `unsettled` until `settle()`. Raises `QueueError` for the disk, and
        whatever a wire or transport of the user's raises.
        """
        if self._resend:
            rows, after = self._resend, self._resend_after
        else:
            rows = self._queue.take(after, max_events=max_events, max_bytes=max_bytes)
        if not rows:
            return None
        self._resend, self._resend_after = rows, after
        request = self._wire.frame([payload for _, payload in rows])
        try:
            response = self._send(request, timeout)
        except TransportError as error:
            if error.reason in _NOT_SENT:
                self._let_go()
            return Failed(error)
        verdicts = self._verdicts(response, len(rows))
        outcome, complaint = judge(response, verdicts)
        if outcome is not Outcome.SETTLED and complaint is not None:
            self._let_go()
            hold = outcome is Outcome.HOLD
            return Failed(complaint, hold=hold, retry_after=response.headers.get("retry-after"))
        self._resend = ()
        self._unsettled = _of_kind(Kind.ACCEPTED, rows, verdicts)
        return Answered(
            after=after,
            last=rows[-1][0],
            accepted=self._unsettled,
            rejected=len(_of_kind(Kind.REJECTED, rows, verdicts)),
            events=len(rows),
            status=response.status,
            complaint=complaint,
        )

    def settle(self) -> None:
        """Deletes what was acknowledged. Raises `QueueError`; the next call tries again.

        Until it succeeded nothing else is sent: an acknowledged row must not go out a second time.
        """
        self._queue.settle(self._unsettled)
        self._unsettled = ()
        self._queue.give_back()

    def probe(self, request: Request, timeout: float) -> Response:
        """One request besides the events. Raises `TransportError`."""
        return self._connection().send(request, timeout)

    def close(self) -> None:
        """Lets go of the connections. May be called twice."""
        if self._transport is not None:
            self._transport.close()

    def _connection(self) -> Transport:
        if self._transport is None:
            self._transport = self._make_transport()
        return self._transport

    def _send(self, request: Request, timeout: float) -> Response:
        transport = self._connection()
        try:
            return transport.send(request, timeout)
        except TransportError as error:
            if not error.stale:
                raise
        # The server closed an idle connection at the moment we used it, as servers do.
        return transport.send(request, timeout)

    def _let_go(self) -> None:
        """The batch is not in flight any more, and need not be sent again as it was."""
        self._resend = ()
        self._queue.give_back()

    def _verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
        verdicts = self._wire.verdicts(response, count)
        if len(verdicts) != count:
            # A wire of the user's own; guessing which verdict is whose could delete an event.
            raise DeliveryError(
                f"wire {self._wire.name} gave {len(verdicts)} verdicts for {count} events"
            )
        return verdicts


def _of_kind(kind: Kind, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Sequence[Row]:
    return [row for row, verdict in zip(rows, verdicts, strict=True) if verdict.kind is kind]
