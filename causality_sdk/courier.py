"""One request from the queue to the server and back: frame, attempt, judge, settle.

Neighbours: `diagnosis` chooses what goes and finds out whose fault a failure is; the sender says
when, and acts on what is reported here; `queue`, `wire`, `transport` and `delivery` do the parts.
Used by one thread at a time. Invariant: a row is removed only after a verdict ACCEPTED for that
very row, or buried after refusals that have a witness.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from causality_sdk.batch import BatchLimit
from causality_sdk.chance import Chance
from causality_sdk.dead_letters import bury, name_of
from causality_sdk.delivery import Outcome, judge
from causality_sdk.diagnosis import Blame, Chosen, Diagnosis, Next, Position
from causality_sdk.errors import DeliveryError, QueueError, ResponseError, TransportError
from causality_sdk.logs import DEBUG, Log
from causality_sdk.queue import Queue, Row
from causality_sdk.transport.base import Transport
from causality_sdk.wire.base import ACCEPTED, Kind, Request, Response, Verdict, Wire

PROBE_SECONDS = 3.0
_NOT_SENT = frozenset({"dns", "refused", "unreachable"})  # no byte of the batch can have arrived
_LIMITED = frozenset({408, 425, 429, 503})  # what passes with time, as a rule


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
    status: int | None
    complaint: DeliveryError | None
    """What to report, where not all was accepted."""
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing of the request is settled."""

    error: DeliveryError
    hold: bool = False
    """Nothing is wrong with the events, and only a person can mend it."""
    retry_after: str | None = None
    again: bool = False
    """The next request is another one and need not wait."""
    certain: bool = True
    """It is not for the sake of these events; others would fail, too."""
    events: int = 0
    """That were sent."""
    whole: bool = True
    """It was a batch as usual: no scout, no part of one, no event that failed alone before."""
    suspected: bool = False
    """It was an event that failed alone before; others may pass."""


class Courier:
    """Carries requests of one queue to one destination, one at a time."""

    def __init__(
        self,
        queue: Queue,
        wire: Wire,
        make_transport: Callable[[], Transport],
        limit: BatchLimit,
        log: Log,
        chance: Chance | None = None,
    ) -> None:
        """All couriers to one server share `limit` and `chance`, what was learned about it."""
        self._queue = queue
        self._wire = wire
        self._make_transport = make_transport
        self._log = log
        self._diagnosis = Diagnosis(queue, limit, chance)
        self._transport: Transport | None = None  # made by the first attempt: it loads requests
        self._offline = False  # the last attempt had no answer
        self._unsettled: Sequence[Row] = ()  # acknowledged, but the disk did not take the removal
        self._unsettled_ids: frozenset[int] = frozenset()  # once it refused; never sent again
        self._accepted_now = False  # by the attempt under way: its rows are not to be evicted yet

    @property
    def unsettled(self) -> int:
        """Rows that are acknowledged and could not be deleted yet."""
        return len(self._unsettled)

    @property
    def blocked(self) -> bool:
        """Whether the server refuses everything alike, so that it is to be asked slowly."""
        return self._diagnosis.blocked

    def deliver(
        self,
        after: int,
        *,
        most: int,
        timeout: float,
        counts: bool = True,
        hurried: bool = False,
    ) -> Answered | Failed | None:
        """One attempt, with at most `most` events behind `after`; None if there is nothing.

        Not `counts`: it comes so soon after another that its failure says nothing about the events.
        `hurried`: a flush waits for it.

        What is accepted stays `unsettled` until `settle()`. What a wire or transport of the user's
        raises is a failure like another. Raises `QueueError` for the disk.
        """
        chosen = self._diagnosis.choose(
            after, most, counts=counts, hurried=hurried, done=self._unsettled_ids
        )
        if not chosen.rows:
            return None
        self._accepted_now = False
        try:
            return self._attempt(chosen, timeout)
        except BaseException as error:
            if not self._log.swallows(error):
                raise
            return self._raised(chosen, error)
        finally:
            # Between two attempts nothing is in flight: at the cap an event that cannot be
            # delivered is evicted itself, and not good ones in its stead.
            if not self._accepted_now:
                self._queue.give_back()

    def settle(self) -> Sequence[str]:
        """Deletes what was acknowledged, buries what is beyond hope; gives the names of the buried.

        Raises `QueueError`; the next call tries again. Until it succeeded those rows are passed
        over: an acknowledged one must not go out a second time.
        """
        suspects = self._diagnosis.suspects
        try:
            self._queue.settle(self._unsettled)
        except QueueError:
            self._unsettled_ids = frozenset(row_id for row_id, _ in self._unsettled)
            self._queue.keep(self._unsettled)
            raise
        self._queue.keep(())
        passed = suspects.forget(row_id for row_id, _ in self._unsettled)
        self._diagnosis.chance.failed(passed)  # they were refused, and pass as they are
        self._unsettled, self._unsettled_ids = (), frozenset()
        self._queue.give_back()
        buried: list[str] = []
        for row_id, suspect in suspects.doomed().items():
            if self._diagnosis.holds(row_id):
                continue  # it is about to be sent once more, and may pass
            name = bury(
                self._queue,
                row_id,
                attempts=suspect.attempts,
                status=suspect.status,
                reason=suspect.words,
            )
            if name is not None:
                buried.append(name)
            suspects.forget([row_id])
        return buried

    def probe(self, request: Request, timeout: float) -> Response:
        """One request besides the events. Raises `TransportError`."""
        return self._connection().send(request, timeout)

    def close(self) -> None:
        """Lets go of the connections. May be called twice."""
        if self._transport is None:
            return
        try:
            self._transport.close()
        except BaseException as error:
            if not self._log.swallows(error):
                raise
            # Whatever else is to be let go of does not depend on it.
            self._log.error("causality: the transport cannot be closed", cause=error)

    # ------------------------------------------------------------------ the attempt

    def _attempt(self, chosen: Chosen, timeout: float) -> Answered | Failed:
        rows = chosen.rows
        request = self._wire.frame([payload for _, payload in rows])
        began = time.monotonic()
        try:
            self._look_first(timeout)
        except TransportError as error:
            return self._unanswered(chosen, request, error, began, sent=False)
        try:
            response = self._send(request, timeout)
        except TransportError as error:
            sent = error.reason not in _NOT_SENT
            return self._unanswered(chosen, request, error, began, sent=sent)
        self._offline = False
        verdicts = self._verdicts(response, len(rows))
        outcome, complaint = judge(response, verdicts, url=self._url(request))
        self._tell(chosen, request, began, complaint or f"{response.status}, accepted")
        if outcome is Outcome.SETTLED or complaint is None:
            return self._answered(chosen, verdicts, response, complaint)
        said = f"answered {response.status}"
        blame = Blame(response.status, _words(complaint), said, complaint)
        retry_after = response.headers.get("retry-after")
        hold = outcome is Outcome.HOLD
        if outcome is Outcome.REFUSED:
            found = self._diagnosis.refused(chosen, blame)
        elif outcome is Outcome.TOO_LARGE:
            found = self._diagnosis.too_large(chosen, blame)
        else:
            limited = response.status in _LIMITED or retry_after is not None
            found = self._diagnosis.failed(chosen, blame, hold=hold, limited=limited)
        if isinstance(found, Position):
            return self._found(found, chosen.rows, complaint, response.status, retry_after)
        return self._failure(chosen, complaint, found, hold=hold, retry_after=retry_after)

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

    def _url(self, request: Request) -> str:
        """What was asked, where the transport tells; for people."""
        endpoint = getattr(self._transport, "endpoint", None)
        return f"{endpoint.rstrip('/')}{request.path}" if isinstance(endpoint, str) else ""

    def _tell(self, chosen: Chosen, request: Request, began: float, how: object) -> None:
        """One line for each attempt, for who asks why an event does not arrive."""
        if not self._log.is_told(DEBUG) or getattr(self._transport, "tells_attempts", False):
            return
        self._log.debug(
            "causality: %s %s, %s, %d bytes, %.3f s: %s",
            request.method,
            self._url(request) or request.path,
            "a scout" if chosen.scouting else f"events: {len(chosen.rows)}",
            len(request.body),
            time.monotonic() - began,
            how,
        )

    # ------------------------------------------------------------------ how it went

    def _unanswered(
        self, chosen: Chosen, request: Request, error: TransportError, began: float, *, sent: bool
    ) -> Answered | Failed:
        self._offline = True
        self._tell(chosen, request, began, f"no answer: {error}")
        if not sent:
            self._diagnosis.not_sent()
            return Failed(error)
        # It may have arrived: it goes again first and unchanged, so that the server knows its keys.
        blame = Blame(None, str(error), f"there was no answer ({error.reason})", error)
        found = self._diagnosis.failed(chosen, blame)
        if isinstance(found, Position):
            return self._found(found, chosen.rows, error)
        return self._failure(chosen, error, found)

    def _raised(self, chosen: Chosen, error: BaseException) -> Answered | Failed:
        """A wire or a transport of the user's, or a bug of ours: maybe for one event's sake."""
        self._log.error("causality: the sender failed; it goes on", cause=error)
        kind = type(error).__name__
        told = DeliveryError(f"{kind} was raised in place of an answer: {error}")
        told.__cause__ = error
        found = self._diagnosis.failed(chosen, Blame(None, str(told), f"raised {kind}", told))
        if isinstance(found, Position):
            return self._found(found, chosen.rows, told)
        return self._failure(chosen, told, found)

    def _failure(
        self,
        chosen: Chosen,
        error: DeliveryError,
        following: Next,
        *,
        hold: bool = False,
        retry_after: str | None = None,
    ) -> Failed:
        again = following is Next.AGAIN
        certain = not again and self._diagnosis.is_certain(chosen.rows)
        return Failed(
            error,
            hold=hold and certain,
            retry_after=retry_after,
            again=again,
            certain=certain,
            events=len(chosen.rows),
            whole=not (chosen.scouting or self._diagnosis.is_doubted(chosen.rows)),
            suspected=not chosen.scouting and self._diagnosis.is_known(chosen.rows),
        )

    def _found(
        self,
        position: Position,
        rows: Sequence[Row],
        error: DeliveryError,
        status: int | None = None,
        retry_after: str | None = None,
    ) -> Answered:
        """An event is set aside: delivery goes on behind it."""
        told = _named(error, rows[0][1]) if len(rows) == 1 else error
        left = position.left
        return Answered(position.after, position.last, (), 1, left, status, told, retry_after)

    def _answered(
        self,
        chosen: Chosen,
        verdicts: Sequence[Verdict],
        response: Response,
        complaint: ResponseError | None,
    ) -> Answered:
        accepted, refused = _sorted(chosen.rows, verdicts)
        position = self._diagnosis.accepted(chosen, accepted, refused, response.status)
        told: DeliveryError | None = complaint
        found, self._diagnosis.found = self._diagnosis.found, None
        if found is not None:  # this one passed, and so another is to blame
            told = _named(found.error, found.payload)
        if accepted:
            self._accepted_now = True
            self._unsettled = [*self._unsettled, *accepted] if self._unsettled else accepted
        return Answered(
            position.after,
            position.last,
            accepted,
            len(refused),
            position.left,
            response.status,
            told,
        )

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


def _named(error: DeliveryError, payload: bytes) -> DeliveryError:
    """The same error, with the event it is about: somebody will look for it."""
    message = f"{error}; this is about event {name_of(payload)}, which is set aside"
    if isinstance(error, ResponseError):
        return ResponseError(
            message, status=error.status, body=error.body, retryable=error.retryable
        )
    if isinstance(error, TransportError):
        return TransportError(message, reason=error.reason, stale=error.stale)
    told = DeliveryError(message)
    told.__cause__ = error.__cause__
    return told


def _words(complaint: DeliveryError) -> str:
    body = complaint.body if isinstance(complaint, ResponseError) else ""
    return body or str(complaint)
