"""How soon the next request may go, where the server takes some and not others. No clock, no I/O.

Neighbours: the sender's steps ask before each request and tell how it ended. One thread. Times are
seconds of its clock. All senders of a process to one server share it.

An outage is the business of the backoff. What is here is for failures in between successes, of
which there are two kinds. *Time*: a limit, in requests, events or bytes, lets the next one through
once enough time has passed; so requests are spaced, by a distance that is searched for between one
that was too short and one that was enough. *Chance*: one replica of several is broken, and the very
next request may pass; so it goes at once. Which of them it is, an attempt made at once finds out,
and now and then another one, since it may change.

A batch stays as large as it is: neither kind says anything about its size.
"""

from __future__ import annotations

import math

SHORT = 4.0  # seconds; what takes longer is a limit only if it comes again
STEADY = 10  # requests that passed at a distance, before a shorter one is tried
SHORTER = 0.9  # of the distance is tried then
CLOSE = 1.05  # the distance and one that was too short are as near as they need to be
SHORTEST = 0.001  # seconds between two requests; below it there is no pace
LONGEST = 60.0  # seconds between two requests; whoever allows fewer is asked by the backoff
FLAP_SECONDS = 60.0  # a failure is one of several within that time
EXPERIMENT = 8  # failures after which it is tried again whether it is chance
IMMEDIATE = 5  # failures in a row that are followed at once, where it is chance
CHANCE = 0.25  # share of requests sent at once that must pass
FORGET = 0.9  # weight of what was found out before


class Throttle:
    """The pace of one destination."""

    def __init__(self) -> None:
        self.distance = 0.0  # seconds from one accepted request to the next attempt
        self._enough = 0.0  # the shortest distance that is known to be long enough
        self._too_short = 0.0  # the longest distance that was refused
        self._steady = 0  # requests that passed since the distance was changed
        self._accepted_at: float | None = None
        self._base = -math.inf  # what distances are measured from
        self._ready_at = -math.inf
        self._run = 0  # failures in a row
        self._since_failure = 0  # requests accepted since the last failure
        self._episode_at: float | None = None  # when the first request after a failure passed
        self._last_failure = -math.inf
        self._flaps = 0  # failures that were followed by a success soon after
        self._is_outage = False  # an attempt had no answer, since one was accepted
        self._was_long = False  # the last time that something passed, it had taken long
        self._at_once = False  # the attempt under way is one that did not wait
        self._won = 0.0  # of those, how many passed
        self._tried = 0.0
        self._experiment = 0  # failures since the last of them

    def ready_at(self) -> float:
        """The time before which no request may go."""
        return self._ready_at

    @property
    def _is_chance(self) -> bool:
        return (self._won + 1.0) / (self._tried + 2.0) >= CHANCE

    def accepted(self, now: float) -> None:
        """The server took a request."""
        at_once, self._at_once = self._at_once, False
        if at_once:
            self._won = self._won * FORGET + 1.0
            self._tried = self._tried * FORGET + 1.0
            if self._won > self._tried / 2:
                # Not the time that had passed made it pass.
                self.distance = self._enough = self._too_short = 0.0
        elif self._run:
            self._learn(now)
        elif self.distance:
            self._shorten()
        if self._run:
            self._flaps += 1
            self._episode_at = now
            self._since_failure = 0
        self._since_failure += 1
        self._run = 0
        self._accepted_at = self._base = now
        self._ready_at = now + self.distance if self.distance else -math.inf

    def failed(self, now: float, *, asked: float | None = None) -> float | None:
        """The server answered, and took nothing. Gives the seconds until the next attempt.

        None: as long as the backoff says. `asked`: seconds that the server asked for.
        """
        if self._at_once:
            self._at_once = False
            self._won *= FORGET
            self._tried = self._tried * FORGET + 1.0
        if now - self._last_failure > FLAP_SECONDS:
            self._flaps = 0
        self._last_failure = now
        self._run += 1
        if self._run == 1 and self._accepted_at is not None:
            # Time in which nothing was to be sent is not what it took.
            self._base = max(self._base, now - max(self.distance, 1.0) * 2)
        gap = now - self._base if self._accepted_at is not None else 0.0
        if self._run == 1 and gap > self._too_short:
            self._too_short = gap
        if asked is not None and asked > 0:
            return None
        if self._flaps and self._run <= IMMEDIATE and self._try_at_once():
            self._at_once = True
            return 0.0
        if not self.distance or self._run > IMMEDIATE:
            return None
        # What was enough before; if it is not any more, a little longer each time.
        wait = self._enough - gap if self._enough > gap * CLOSE else gap * 0.25
        return min(max(wait, 0.01), LONGEST)

    def _try_at_once(self) -> bool:
        self._experiment += 1
        if self._is_chance or self._experiment >= EXPERIMENT:
            self._experiment = 0
            return True
        return False

    def silent(self) -> None:
        """There was no answer: an outage, whose length says nothing about a pace."""
        self._is_outage = True

    def _learn(self, now: float) -> None:
        """A request passed after others had failed: so much time was enough."""
        is_outage, self._is_outage = self._is_outage, False
        if self._accepted_at is None or is_outage:
            return
        enough = now - self._base
        if self._episode_at is not None and self._since_failure > 1:
            # Several passed in between, as where a window of time allows so many.
            enough = min(enough, (now - self._episode_at) / self._since_failure)
        elif enough > SHORT and not self._was_long:
            # A short outage looks the same, and is what it was unless it comes again at once.
            self._was_long = True
            return
        self._was_long = enough > SHORT
        self.distance = self._enough = min(enough, LONGEST)
        self._too_short = min(self._too_short, self.distance / CLOSE)
        self._steady = 0

    def _shorten(self) -> None:
        """A request passed at the distance: a shorter one may be enough."""
        self._enough = self.distance
        self._steady += 1
        if self.distance <= self._too_short * CLOSE:
            if self._steady < STEADY:
                return
            self._too_short = self.distance * (2 * SHORTER - 1)
        self._steady = 0
        self.distance = (self.distance + self._too_short) / 2
        if self.distance < SHORTEST:
            self.distance = self._enough = self._too_short = 0.0
