"""The batch under way, and whose fault it is when it fails: the server's, or an event's in it.

Neighbours: `courier` sends what is chosen here and tells how it ended; `scout`, `bisection`,
`suspects`, `chance` and `batch` keep the parts of the account. Used by one thread at a time.
Invariants: no event holds up another for longer than it takes to find out; a failure counts
against an event only while others pass.

A batch that the server refuses (400, 422) is halved at once: something in it is bad. Whatever else
it fails with, three failures of the same rows are a question. A scout, one event from elsewhere,
goes in place of the batch. If it passes, the fault is in the batch, which is halved until the event
is alone; that one is set aside. If the scout fails too, the server is away, nothing is counted, and
one event at a time is cheaper than the batch.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass

from causality_sdk.batch import BatchLimit, Size, size_of
from causality_sdk.bisection import Bisection
from causality_sdk.chance import RARE, Chance
from causality_sdk.errors import DeliveryError
from causality_sdk.queue import Queue, Row
from causality_sdk.scout import Scout
from causality_sdk.suspects import Suspects

FRUITLESS = 3  # requests refused in a row, and nothing accepted, before the server is suspected
ASK_AFTER = 3  # failures of the same rows, before it is asked whose fault that is
ASK_SOON = 2  # the same while a flush is waiting, whose retries must do for the answer
LIMITED_ALONE = 6  # failures of one event with 429 or 503, which pass with time as a rule
TWICE = 2  # refusals of an event alone that count as one: the first may have been chance
ELSEWHERE = 4  # scouts while the server is away, of which one is not the head of the batch
PART_UNLIKELY = 0.02  # a part of a bisection fails by chance; what follows can be mended


class Next(enum.Enum):
    """What follows a failure."""

    WAIT = "wait"  # after the backoff
    AGAIN = "again"  # the next request is another one, or finds out more; at once


@dataclass(frozen=True, slots=True)
class Chosen:
    """What to send."""

    rows: Sequence[Row]
    scouting: bool
    counts: bool = True
    """A failure counts against these."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far the queue has been gone through."""

    after: int
    """It began behind this id; -1 where it tells nothing of that."""
    last: int
    """Everything up to this id has been tried."""
    left: bool
    """Something up to `last` is still queued."""


@dataclass(frozen=True, slots=True)
class Blame:
    """What an event failed with, for the record."""

    status: int | None
    words: str
    said: str
    """Such as "answered 500"."""
    error: DeliveryError
    """What is told of it."""


@dataclass(frozen=True, slots=True)
class Found:
    """An event that was found to be to blame, by another one that passed."""

    payload: bytes
    error: DeliveryError


NOWHERE = Position(-1, -1, left=False)


class Diagnosis:
    """Of one queue and one destination."""

    def __init__(self, queue: Queue, limit: BatchLimit, chance: Chance | None = None) -> None:
        self._queue = queue
        self._limit = limit
        self.chance = Chance() if chance is None else chance
        self.suspects = Suspects(self.chance)
        self._scout = Scout(queue, self.suspects)
        self._rows: Sequence[Row] = ()  # of the batch under way
        self._after = 0  # the id it was taken behind
        self._bisection: Bisection | None = None  # of the batch under way
        self._left = False  # something of the batch stays behind
        self._tries = 0  # times in a row that just what is under way failed
        self._chances = 0  # of them, those that may be chance
        self._limited = False  # its last failure was for want of time, maybe
        self._misses = 0  # failures and refusals in this batch that nothing has explained yet
        self._blame: Blame | None = None  # what it failed with last; set while `_tries` is
        self._asking = False  # a scout is to tell whose fault it is
        self._away = False  # a scout was asked and did not pass
        self._asked = 0  # scouts since it was asked
        self._elsewhere_at = 0  # which of each few scouts is not the head of the batch
        self._elsewhere_failed = False  # one that was not did not pass
        self._is_head = False  # the last scout was
        self._muddled = False  # the same, at any time since this batch began
        self._unanswerable = False  # there is nobody to ask
        self._is_guilty = False  # others passed while this batch did not
        self._ask_after = ASK_AFTER
        self._fruitless = 0  # requests refused since one was accepted
        self.found: Found | None = None  # since it was last taken

    # ------------------------------------------------------------------ what to send

    @property
    def blocked(self) -> bool:
        """Whether the server refuses everything alike, so that it is to be asked slowly."""
        patience = FRUITLESS
        if self._bisection is not None:
            # On its way down to a single bad event a bisection is refused log2(n) times, and
            # neighbours may be bad too.
            patience += 8 + math.ceil(math.log2(max(2, len(self._rows))))
        return self._fruitless >= patience

    def is_certain(self, rows: Sequence[Row]) -> bool:
        """Whether a failure of these is everybody's: no scout passed, or there is none."""
        return self._elsewhere_failed or self._unanswerable or not self._can_ask(rows)

    def holds(self, row_id: int) -> bool:
        """Whether this event belongs to the batch under way, and may pass with it."""
        return bool(self._rows) and self._rows[0][0] <= row_id <= self._rows[-1][0]

    def choose(
        self,
        after: int,
        most: int,
        *,
        counts: bool = True,
        hurried: bool = False,
        done: Container[int] = frozenset(),
    ) -> Chosen:
        """The rows to send, in flight from now on. No rows: there is nothing behind `after`.

        `hurried`: a flush is waiting, with so many retries and no more. Ids in `done` are
        acknowledged already.
        """
        self._ask_after = ASK_SOON if hurried else ASK_AFTER
        self._unanswerable = False
        if self._asking or self.blocked:
            question = {row_id for row_id, _ in self._part()}
            scout = self._next_scout(question, done)
            if scout is not None and (self._is_head or question != {scout[0]}):
                held = self._queue.hold([scout])
                if held:
                    return Chosen(held, scouting=True, counts=counts)
            self._unanswerable = True
        while self._rows:
            part = self._part()
            held = self._queue.hold(part)
            if len(held) < len(part):
                self._shrink(held)  # evicted meanwhile, or purged
            if held:
                return Chosen(held, scouting=False, counts=counts)
        rows = self._take(after, most, done)
        if after == 0 and rows:
            self.suspects.forget_below(rows[0][0])
        self._rows, self._after = rows, after
        return Chosen(rows, scouting=False, counts=counts)

    def _take(self, after: int, most: int, done: Container[int]) -> Sequence[Row]:
        while True:
            rows = self._queue.take(
                after,
                max_events=min(most, self._limit.events),
                max_bytes=self._limit.bytes,
                alone=self.suspects.alone,
            )
            if not done or not rows:
                return rows
            left = [row for row in rows if row[0] not in done]
            if left:
                return left
            after = rows[-1][0]

    def _next_scout(self, question: Container[int], done: Container[int]) -> Row | None:
        """The head of the batch, or one from elsewhere; the head goes more often.

        A head that passes keeps the order, also when a server is back after an outage. One that
        does not pass, where the next from elsewhere does, is the one to blame. One that was set
        aside before keeps no order, and is no scout.
        """
        turn, self._asked = self._asked, self._asked + 1
        part = self._part()
        is_turn = turn % ELSEWHERE != self._elsewhere_at
        self._is_head = is_turn and bool(part) and not self.is_known(part)
        return part[0] if self._is_head else self._scout.choose(question, done)

    def _part(self) -> Sequence[Row]:
        return self._rows if self._bisection is None else self._bisection.next()

    def _shrink(self, held: Sequence[Row]) -> None:
        ids = {row_id for row_id, _ in held}
        if self._bisection is None:
            self._rows = held
        else:
            self._bisection.keep(ids)
        if not self._part():
            self.let_go()

    # ------------------------------------------------------------------ how it went

    def accepted(
        self,
        chosen: Chosen,
        accepted: Sequence[Row],
        refused: Sequence[tuple[int, str]],
        status: int,
    ) -> Position:
        """The server spoke of each event: took `accepted`, refused some by name with its words."""
        rows = chosen.rows
        if accepted:
            self._fruitless = 0
            self.suspects.witness()
            self.chance.passed()
        else:
            self._fruitless += 1
        for row_id, words in refused:
            self.suspects.refused(row_id, status=status, words=words, witnessed=bool(accepted))
        left = len(accepted) < len(rows)
        if chosen.scouting:
            return self._scouted(rows[0][0]) if accepted else NOWHERE
        if accepted:
            # Counting the bytes of each event would slow the drain down, for nothing mostly.
            size = size_of(rows) if self._limit.is_lowered else Size(len(rows), 0)
            self._limit.succeeded(size)
        if self._bisection is None:
            if accepted:
                self.chance.failed(self._chances)  # the same rows passed unchanged
            self._left |= left
            return self._over()
        self._left |= left
        if accepted:
            self.chance.failed(self._chances)
            self._misses -= self._chances
        if left:
            self._bisection.answered(witnessed=bool(accepted))
        else:
            self._bisection.accepted()
        return self._bisected()

    def refused(self, chosen: Chosen, blame: Blame) -> Position | Next:
        """400, 422: for some event's sake, or for nothing."""
        rows = chosen.rows
        self._fruitless += 1
        if chosen.scouting:
            self.suspects.refused(
                rows[0][0], status=blame.status, words=blame.words, witnessed=False
            )
            self._scout.failed(rows[0][0])
            return Next.WAIT
        self._tries += 1
        self._misses += 1
        self._chances += 1
        if len(rows) > 1:
            if self._tries >= self.chance.failures_that_tell(1, PART_UNLIKELY):
                self._halve(infers=True)
            return Next.AGAIN
        witnessed = self._bisection is not None and self._bisection.witnessed
        least = TWICE if witnessed else 1
        if self._tries < self.chance.failures_that_tell(least, PART_UNLIKELY):
            return Next.AGAIN
        return self._set_aside(rows[0][0], blame, witnessed=witnessed)

    def too_large(self, chosen: Chosen, blame: Blame) -> Position | Next:
        """413, or an answer that is too long: less at once."""
        rows = chosen.rows
        if len(rows) == 1:
            return self.refused(chosen, blame)
        self._limit.too_large(size_of(rows))
        if self._bisection is not None:
            self._bisection.refused()
            self._tries = self._chances = 0
        else:
            self.let_go()
        return Next.AGAIN

    def failed(
        self, chosen: Chosen, blame: Blame, *, hold: bool = False, limited: bool = False
    ) -> Position | Next:
        """Anything else: a 5xx, another 4xx, no answer.

        `hold`: as a rule a server that says so refuses everything. `limited`: it asks for patience,
        so that what is smaller does not go at once.
        """
        rows = chosen.rows
        if not (self.is_known(rows) or self._scout.has_failed(rows[0][0])):
            self.suspects.doubt()
        if chosen.scouting:
            self._scout.failed(rows[0][0])
            self._away = self._muddled = True
            self._elsewhere_failed |= not self._is_head
            part = self._part()
            if self._asking and self.is_known(part):
                return self._pass_over(part[0][0])  # others are better asked without it
            return Next.WAIT
        self._blame = blame
        self._tries += chosen.counts
        self._limited = limited
        self._misses += not limited  # what passes with time is no chance
        self._chances += not limited
        if self._unanswerable:
            return self._nobody_to_ask(rows)
        enough = self._enough(rows, limited=limited)
        is_search = self._bisection is not None or self._is_guilty
        if self._tries >= enough and len(rows) > 1 and is_search:
            self._halve(infers=False)  # a scout passed before this search began
            return Next.WAIT if limited else Next.AGAIN
        soon = hold and self._tries == 1 and self.chance.rate < RARE
        if (self._tries >= enough or soon) and self._can_ask(rows):
            self._asking, self._away, self._elsewhere_failed, self._asked = True, False, False, 0
            # Whoever refuses everything need not be asked twice; and one event is its own head.
            self._elsewhere_at = 0 if hold or len(rows) == 1 else 1
            # Whoever refuses everything says so to the scout as well, and what is in a search or
            # set aside had a pause of its own.
            soon = soon or (self.is_doubted(rows) and not limited)
            return Next.AGAIN if soon else Next.WAIT
        return Next.WAIT

    def _enough(self, rows: Sequence[Row], *, limited: bool = False) -> int:
        """Failures in a row after which chance is no explanation."""
        if not self.is_doubted(rows):
            return self.chance.failures_that_tell(self._ask_after)
        least = self._ask_after if limited and not self.is_known(rows) else 1
        return self.chance.failures_that_tell(least, PART_UNLIKELY)

    def is_doubted(self, rows: Sequence[Row]) -> bool:
        """Whether there is reason to think that the fault is in these."""
        return self._bisection is not None or self._is_guilty or self.is_known(rows)

    def is_known(self, rows: Sequence[Row]) -> bool:
        """Whether this is an event that was found before, and goes alone."""
        return len(rows) == 1 and rows[0][0] in self.suspects.alone

    def _can_ask(self, rows: Sequence[Row]) -> bool:
        return len(rows) > 1 or self._queue.pending > 1

    def not_sent(self) -> None:
        """No byte of it can have arrived: that says nothing about what was in it."""
        self.suspects.doubt()
        if self._bisection is None and not self._asking:
            self._limit.away()
            self.let_go()

    def let_go(self) -> None:
        """The batch need not go again as it was."""
        self._rows = ()
        self._bisection = None
        self._clear()

    # ------------------------------------------------------------------ whose fault it is

    def _scouted(self, row_id: int) -> Position:
        """A scout passed."""
        if not self._asking:
            if self._bisection is not None:
                self._bisection.discard(row_id)  # it may be one of this very batch
                return self._bisected()
            return NOWHERE
        self._asking = False
        if self._bisection is not None:
            self._bisection.discard(row_id)
        elif self.holds(row_id):
            self._rows = [row for row in self._rows if row[0] != row_id]
        if self._away:
            if not self._elsewhere_failed and not self._is_head:
                self._blame_head()
            # Else the server is back, and what failed meanwhile is nobody's fault.
            self._away = False
            self._tries = self._chances = 0
            return NOWHERE
        rows = self._part()
        if not rows:
            return self._bisected()
        if self._tries < self._enough(rows) or self._blame is None:
            return NOWHERE  # it is not everything that fails; try again
        if len(rows) > 1:
            if self._limited and self._bisection is None:
                # A limit in events or bytes lets a smaller one through. What is in it is no reason
                # to send all of it in parts.
                self._limit.try_less(size_of(rows))
                self.let_go()
            else:
                self._halve(infers=False)
            return NOWHERE
        if self._limited and self._tries < LIMITED_ALONE and not self.is_known(rows):
            return NOWHERE
        self._limit.restore()
        row_id, blame = rows[0][0], self._blame
        self.found = Found(rows[0][1], blame.error)
        words = self._words(row_id, self._tries)
        return self._set_aside(
            row_id, Blame(blame.status, words, blame.said, blame.error), witnessed=True
        )

    def _blame_head(self) -> None:
        """The head failed as a scout, and the next scout passed."""
        if self._blame is None or self._bisection is not None or len(self._rows) < 2:
            return
        if self._limited:  # it may only have come too soon
            self._limit.try_less(size_of(self._rows))
            self.let_go()
            return
        row_id = self._rows[0][0]
        self.found = Found(self._rows[0][1], self._blame.error)
        self.suspects.refused(
            row_id, status=self._blame.status, words=self._words(row_id, 1), witnessed=True
        )
        self.suspects.isolate(row_id)
        self._rows = self._rows[1:]
        self._left = True
        self._is_guilty = True  # if the head was not the only one, the others are found by halves

    def _words(self, row_id: int, times: int) -> str:
        assert self._blame is not None  # noqa: S101 - what failed() has set
        times += self.suspects.attempts(row_id)
        words = f"{self._blame.said}, and others passed, {times} times"
        return f"{words}: {self._blame.words}" if self._blame.words else words

    def _nobody_to_ask(self, rows: Sequence[Row]) -> Position | Next:
        """All else that is queued is suspect, too."""
        row_id = rows[0][0]
        if len(rows) > 1 or not self._can_ask(rows):
            return Next.WAIT
        self.suspects.isolate(row_id)
        return self._pass_over(row_id)  # each has its turn: one may be well again

    def _pass_over(self, row_id: int) -> Position:
        """Nothing passed beside this one, which counts for nobody; on to the next."""
        assert self._blame is not None  # noqa: S101 - failed() has set it
        blame = self._blame
        self.suspects.refused(
            row_id,
            status=blame.status,
            words=self._words(row_id, self._tries),
            witnessed=False,
            waits=False,
            times=self._tries,
        )
        self._fruitless += 1
        self._asking = False
        return self._behind_a_single()

    def _set_aside(self, row_id: int, blame: Blame, *, witnessed: bool) -> Position:
        """This event is found."""
        self.suspects.refused(
            row_id,
            status=blame.status,
            words=blame.words,
            witnessed=witnessed,
            times=self._tries,
        )
        self.suspects.isolate(row_id)
        self._misses = 0
        return self._behind_a_single()

    def _behind_a_single(self) -> Position:
        self._left = True
        self._tries = self._chances = 0
        if self._bisection is None:
            return self._over()
        self._bisection.refused()
        return self._bisected()

    def _halve(self, *, infers: bool) -> None:
        self._tries = self._chances = 0
        if self._bisection is None:
            self._bisection = Bisection(self._rows, infers=infers)
        else:
            self._bisection.refused()

    def _bisected(self) -> Position:
        """Where the cursor goes after a part of a bisection: nowhere before it is over."""
        self._tries = self._chances = 0
        bisection = self._bisection
        if bisection is not None:
            if bisection.next():
                return Position(self._after, self._after, left=False)
            if not self._left and self._misses > 0:
                self._explain(bisection)
        return self._over()

    def _explain(self, bisection: Bisection) -> None:
        """All of the batch passed, in parts: then it was the size, or chance."""
        if bisection.infers or self.chance.explains(ASK_AFTER):
            self.chance.failed(self._misses)
        elif not self._muddled:
            self._limit.too_large(bisection.smallest_failed, passed=bisection.largest_passed)

    def _over(self) -> Position:
        """The batch is over."""
        rows = self._rows
        last = rows[-1][0] if rows else self._after
        position = Position(self._after, max(self._after, last), left=self._left)
        self._rows = ()
        self._bisection = None
        self._clear()
        return position

    def _clear(self) -> None:
        self._left = False
        self._tries = self._chances = self._misses = 0
        self._blame = None
        self._limited = False
        self._asking = self._away = self._muddled = self._elsewhere_failed = False
        self._is_guilty = False
