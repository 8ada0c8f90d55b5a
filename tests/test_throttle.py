"""How soon the next request may go, where a server takes some and not others."""

from __future__ import annotations

import math
from collections.abc import Callable

from causality_sdk.throttle import Throttle

TAKES = 0.01  # seconds that an answer takes


class Server:
    """Asked as the sender asks; keeps the clock."""

    def __init__(self, takes: Callable[[float], bool]) -> None:
        self.now = 100.0
        self.throttle = Throttle()
        self.answers: list[bool] = []
        self._takes = takes

    def ask(self, times: int, *, backoff: float = 1.0) -> None:
        for _ in range(times):
            self.now = max(self.now, self.throttle.ready_at())
            self.throttle.began(self.now)
            passed = self._takes(self.now)
            self.now += TAKES
            self.answers.append(passed)
            if passed:
                self.throttle.accepted(self.now, 100)
                continue
            wait = self.throttle.failed(self.now, events=100)
            self.now += backoff if wait is None else wait


def limit(seconds: float) -> Callable[[float], bool]:
    """One request in so many seconds."""
    last = [-math.inf]

    def takes(now: float) -> bool:
        if now - last[0] < seconds - 1e-9:
            return False
        last[0] = now
        return True

    return takes


def nth(count: int) -> Callable[[float], bool]:
    """Every so many-th request goes to a broken replica."""
    number = [0]

    def takes(_now: float) -> bool:
        number[0] += 1
        return number[0] % count != 0

    return takes


def test_without_a_failure_nothing_waits() -> None:
    server = Server(lambda _now: True)
    server.ask(50)
    assert server.throttle.distance == 0.0
    assert server.now < 101.0


def test_an_outage_that_was_long_sets_no_pace() -> None:
    up = [True]
    server = Server(lambda _now: up[0])
    server.ask(5)
    up[0] = False
    server.ask(8, backoff=60.0)
    up[0] = True
    server.ask(20)
    assert server.throttle.distance == 0.0


def test_a_limit_in_requests_is_kept_with_few_refusals() -> None:
    server = Server(limit(2.0))
    server.ask(60)
    assert server.throttle.distance < 2.2
    late = server.answers[20:]
    assert late.count(False) <= len(late) * 0.2


def test_every_second_request_that_fails_is_followed_at_once() -> None:
    server = Server(nth(2))
    server.ask(40)
    began = server.now
    server.ask(100)
    assert server.now - began < 100 * TAKES * 1.5


def test_one_replica_of_five_sets_no_pace_for_long() -> None:
    server = Server(nth(5))
    server.ask(400)
    began = server.now
    server.ask(100)
    assert server.now - began < 100 * TAKES * 1.5


def test_what_the_server_asks_for_goes_before_all_else() -> None:
    throttle = Throttle()
    for _ in range(3):
        throttle.began(100.0)
        throttle.accepted(100.0, 1)
        throttle.began(100.0)
        assert throttle.failed(100.0, events=1, asked=20.0) is None


def test_a_scout_that_fails_says_nothing_about_the_pace() -> None:
    throttle = Throttle()
    throttle.began(100.0)
    throttle.accepted(100.0, 1)
    throttle.began(101.0)
    assert throttle.failed(101.0, events=1, whole=False) is None
    assert throttle.distance == 0.0
