"""A lock that belongs to a call: it excludes as any lock does, and is never left over."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from interruption import Interrupt, Interruption, interrupt

from causality_sdk import turn as module
from causality_sdk.turn import Turn


def test_one_at_a_time_has_it_and_all_get_it() -> None:
    turn = Turn()
    inside, most, total = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, total
        for number in range(500):
            if number % 2:
                assert turn.acquire()
            else:
                while not turn.acquire(blocking=False):
                    pass
            inside += 1
            most = max(most, inside)
            total += 1
            inside -= 1
            turn.release()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result(60)
    assert (most, total) == (1, 2000)
    assert not turn.locked()


def test_who_does_not_get_it_in_time_is_told() -> None:
    turn = Turn()
    with turn, ThreadPoolExecutor(1) as pool:
        assert turn.locked()
        assert turn.is_held_here
        assert not pool.submit(turn.acquire, timeout=0.01).result(10)
        assert not pool.submit(turn.acquire, blocking=False).result(10)
        assert not pool.submit(lambda: turn.is_held_here).result(10)
    assert not turn.locked()
    assert not turn.is_held_here


def test_it_ends_with_the_call_that_took_it() -> None:
    turn = Turn()
    held, go_on = threading.Event(), threading.Event()

    def forget() -> None:
        assert turn.acquire()
        held.set()
        go_on.wait(10)

    with ThreadPoolExecutor(2) as pool:
        forgetful = pool.submit(forget)
        assert held.wait(10)
        assert not turn.acquire(timeout=0.01)

        def take() -> None:
            with turn:
                assert turn.is_held_here

        waiting = pool.submit(take)
        go_on.set()
        waiting.result(10)
        forgetful.result(10)
    assert not turn.locked()


def test_it_ends_with_a_call_that_an_exception_ends_even_while_its_traceback_is_kept() -> None:
    turn = Turn()

    def fail() -> None:
        turn.acquire()
        raise Interrupt

    kept: list[BaseException] = []
    try:
        fail()
    except Interrupt as error:
        kept.append(error)
    assert not turn.is_held_here
    assert turn.acquire(blocking=False)
    turn.release()


def test_another_function_cannot_release_it() -> None:
    turn = Turn()

    def other() -> None:
        turn.release()

    with turn:
        other()
        assert turn.locked()


def test_an_exception_at_any_instruction_leaves_it_free_and_a_handler_sees_whether_it_is_held() -> (
    None
):
    turn = Turn()
    held: list[bool] = []

    def look_and_raise() -> None:
        held.append(turn.is_held_here)
        raise Interrupt

    def take() -> None:
        with turn:
            assert turn.is_held_here

    for handler in (interrupt, look_and_raise):
        number = 0
        while True:
            interruption = Interruption(number, handler, module)
            interruption.run(take)
            assert not turn.locked(), number
            take()
            if not interruption.happened:
                break
            number += 1
        assert number > 50
    assert set(held) == {True, False}
