"""How soon the next request may go, where the server takes some and not others. No clock, no I/O.

Neighbours: the sender's steps ask before each request and tell how it ended. One thread. Times are
seconds of its clock. All senders of a process to one server share it.

An outage is the business of the backoff. What is here is for failures in between successes, of
which there are two kinds. *Time*: a limit, in requests, events or bytes, lets the next one through
once enough time has passed; so requests are spaced, by a distance that is searched for between one
that was too short and one that was enough. *Chance*: one replica of several is broken, and the very
next request may pass; so it goes at once. Time is assumed first. A failure at a distance that was
enough before speaks for chance, and an attempt made at once finds out.

A batch stays as large as it is: neither kind says anything about its size.
"""

from __future__ import annotations

import math

SHORT = 4.0  # seconds; what takes longer is a limit only if it comes again
STEADY = 10  # requests that passed at a distance, before a shorter one is tried
MOST_STEADY = 80  # the same, where that never went well
PATIENT = 4  # times as many, where a failure costs the seconds that the server asks for
STEP = 0.1  # by this part shorter; by twice as much each time that it passes, half if not
LEAST_STEP = 0.03
MOST_STEP = 0.3
CLOSE = 0.999  # as good as the distance that was enough
SHORTEST = 0.001  # seconds between two requests; below it there is no pace
LONGEST = 60.0  # seconds between two requests; whoever allows fewer is asked by the backoff
FLAP_SECONDS = 300.0  # a failure is one of several within that time
LITTLE = 4  # failures in a row, before the distance is doubled instead of raised by a quarter
MANY = 15  # the same where it is chance
IMMEDIATE = 5  # failures in a row that are followed at once, where it is chance
BOLD_AFTER = 12  # failures that seem to have come too soon, before that is put to the test
BOLD = 2  # requests without a distance that pass, if it was not the distance
CHANCE = 0.25  # share of requests sent at once that must pass
FORGET = 0.97  # weight of what was found out before


class Throttle:
    """The pace of one destination."""

    def __init__(self) -> None:
        # Seconds from one accepted request to the next attempt; more than `_enough` is on trial.
        self.distance = 0.0
        self._enough = 0.0  # the shortest distance that is known to be long enough
        self._too_short = 0.0  # the longest distance that was refused
        self._step = STEP  # by which part a shorter one is tried
        self._is_search = (
            False  # the distance lies between one that was enough and one that was not
        )
        self._patience = STEADY  # of them, before a shorter one is tried again
        self._steady = 0  # requests that passed since one at a shorter distance did not
        self._accepted_at: float | None = None
        self._base = -math.inf  # what distances are measured from
        self._began = -math.inf  # the request under way
        self._ready_at = -math.inf
        self._run = 0  # failures in a row
        self._since_failure = 0  # requests accepted since the last failure
        self._episode_at: float | None = None  # when the first request after a failure passed
        self._last_failure = -math.inf
        self._failed_events = 0  # of that request
        self._flaps = 0  # failures that were followed by a success soon after
        self._is_outage = False  # an attempt had no answer, since one was accepted
        self._is_asked = False  # the server asked for some time, since one was accepted
        self._was_asked = False  # the same, ever
        self._was_long = False  # the last time that something passed, it had taken long
        self._at_once = False  # the attempt under way is one that did not wait
        self._expected = 0  # failures that came too soon after another request, as it seems
        self._bold = 0  # requests to come that keep no distance, to see whether it is that
        self._won = 0.0  # of those that did not wait, how many passed
        self._tried = 0.0

    def ready_at(self) -> float:
        """The time before which no request may go."""
        return self._ready_at

    @property
    def _is_chance(self) -> bool:
        return self._won >= 1.0 and (self._won + 1.0) / (self._tried + 2.0) >= CHANCE

    @property
    def is_at_once(self) -> bool:
        """Whether the next attempt is one that does not wait, which finds out whether it matters.

        That it fails says little about the events that are in it.
        """
        return self._at_once

    def began(self, now: float) -> None:
        """A request goes now."""
        self._began = now

    def accepted(self, now: float, events: int = 0) -> None:
        """The server took a request of so many events; its answer came at `now`."""
        at_once, self._at_once = self._at_once, False
        if self._bold and not self._run:
            self._bold -= 1
            if not self._bold:  # so many in a row need no distance between them
                self._won = self._tried = max(self._won, BOLD)
                self._set_distance(0.0)
        elif at_once:
            if self._run == 1 and events >= self._failed_events:  # a smaller one is no trial
                self._found(won=True)
            if self._is_chance:
                self._set_distance(0.0)  # not the time that had passed made it pass
        elif self._run:
            self._learn(proven=events >= self._failed_events)
        elif self.distance > self._enough:
            if events >= self._failed_events:
                self._settle_on(self.distance)
            else:
                self.distance = self._enough  # it shows as little as the one before
        elif self.distance:
            self._shorten()
        if self._run:
            self._flaps += 1
            self._episode_at = now
            self._since_failure = 0
            if self._expected >= BOLD_AFTER:
                self._expected, self._bold = 0, BOLD
        self._since_failure += 1
        self._run = 0
        self._is_outage = False
        self._accepted_at = self._base = now
        waits = self.distance and not self._bold
        self._ready_at = now + self.distance if waits else -math.inf

    def failed(
        self, now: float, *, events: int = 0, whole: bool = True, asked: float | None = None
    ) -> float | None:
        """The server answered, and took nothing. Gives the seconds until the next attempt.

        None: as long as the backoff says. `whole`: a batch as usual; not a scout or a part of one,
        which pass more easily, and no event that is suspected to fail for its own sake. `asked`:
        seconds that the server asked for.
        """
        if not whole and not self._run:
            return None  # it says nothing about the pace
        at_once, self._at_once = self._at_once, False
        if at_once and self._run == 1:
            self._found(won=False)
        if whole:
            self._failed_events = events
        if now - self._last_failure > FLAP_SECONDS:
            self._flaps = 0
        self._last_failure = now
        self._run += 1
        if self._run == 1 and self._accepted_at is not None:
            # Time in which nothing was to be sent is not what it took.
            self._base = max(self._base, self._began - max(self.distance, 1.0) * 2)
        gap = self._began - self._base if self._accepted_at is not None else 0.0
        was_enough = bool(self._enough) and gap >= self._enough * CLOSE
        if self.distance > self._enough and gap >= self.distance * CLOSE:
            self.distance = self._enough  # it was not the time
        bold, self._bold = self._bold, 0
        if self._run == 1 and not was_enough and not bold:
            self._too_soon(gap)
            self._expected += whole
        if asked is not None and asked > 0:
            self._is_asked = self._was_asked = True
            return None
        if whole and self._flaps and self._may_try_at_once(surprised=was_enough):
            self._at_once = True
            return 0.0
        if not self.distance and not self._flaps:
            return None
        # What was enough before; if it is not any more, a little longer each time, then twice.
        little = MANY if self._is_chance else LITTLE
        longer = gap * (0.25 if self._run <= little else 1.0)
        at = self._began + (self._enough - gap if self._enough * CLOSE > gap else longer)
        return max(at - now, 0.01)

    def _found(self, *, won: bool) -> None:
        """How it went with the first attempt that was made at once after a failure."""
        self._won = self._won * FORGET + won
        self._tried = self._tried * FORGET + 1.0

    def _may_try_at_once(self, *, surprised: bool) -> bool:
        """Whether not to wait. `surprised`: it had waited long enough, as far as was known."""
        if self._run > 1:
            return self._is_chance and self._run <= IMMEDIATE
        return surprised or (self._is_chance and not self.distance)

    def silent(self) -> None:
        """There was no answer: an outage, whose length says nothing about a pace."""
        self._is_outage = True

    def _learn(self, *, proven: bool) -> None:
        """A request passed after others had failed: so much time was enough.

        Not `proven`: it was smaller than they were, and may have passed for that. Then the next one
        waits as long, which shows it.
        """
        is_outage, self._is_outage = self._is_outage, False
        is_asked, self._is_asked = self._is_asked, False
        if self._accepted_at is None or is_outage or (is_asked and self.distance):
            return
        if self._is_chance and not self.distance:
            return  # that it passed in the end is chance, too
        enough = self._began - self._base
        if self._episode_at is not None and self._since_failure > 1:
            # Several passed in between, as where a window of time allows so many.
            enough = min(enough, (self._began - self._episode_at) / self._since_failure)
        elif enough > SHORT and not self._was_long:
            # A short outage looks the same, and is what it was unless it comes again at once.
            self._was_long = True
            return
        self._was_long = enough > SHORT
        if proven:
            self._settle_on(min(enough, LONGEST))
        else:
            self.distance = max(self._enough, min(enough, LONGEST))

    def _settle_on(self, enough: float) -> None:
        self._set_distance(enough)
        if not self.distance:
            return
        # Somewhere between the two: begin in the middle.
        self._step = min(MOST_STEP, (1.0 - self._too_short / max(enough, self._too_short)) / 2)
        self._is_search = self._step > LEAST_STEP
        self._steady = 0

    def _set_distance(self, seconds: float) -> None:
        self.distance = self._enough = seconds if seconds >= SHORTEST else 0.0
        if not self.distance:
            self._too_short = 0.0
            self._is_search = False

    def _too_soon(self, gap: float) -> None:
        """A request failed at a distance that is shorter than any that was enough."""
        self._too_short = gap
        self._step /= 2
        if self._is_search:
            self._is_search = self._step > LEAST_STEP
        else:
            self._patience = min(self._patience * 2, MOST_STEADY)
        self.distance = self._enough
        self._steady = 0

    def _shorten(self) -> None:
        """A request passed at the distance: a shorter one may be enough."""
        if self.distance < self._enough:  # it was tried, and is
            self._enough = self.distance
            if not self._is_search:
                self._step = min(MOST_STEP, self._step * 1.5)
                self._patience = STEADY
        else:
            self._steady += 1
            if not self._is_search:
                if self._steady < self._patience * (PATIENT if self._was_asked else 1):
                    return
                self._step = STEP
        shorter = self._enough * (1.0 - self._step)
        if shorter < SHORTEST:
            self._set_distance(0.0)
        else:
            self.distance = shorter
