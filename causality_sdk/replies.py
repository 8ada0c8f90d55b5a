"""What a coroutine awaits and a thread answers, without either ever blocking the other.

Neighbours: `committer` and `aio`. Invariant: an answer is given from any thread, and one that
nobody waits for any more (cancelled, or its event loop closed) is dropped without a sound.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class Reply:
    """Made on the event loop that will wait for it."""

    __slots__ = ("future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reply is to become: a result, or an error."""

    reply: Reply
    result: Any = None
    error: BaseException | None = None


def give(answers: Sequence[Answer]) -> None:
    """Gives answers to those who wait. Any thread; wakes each event loop once."""
    loops: dict[asyncio.AbstractEventLoop, list[Answer]] = {}
    for answer in answers:
        loops.setdefault(answer.reply.loop, []).append(answer)
    for loop, ours in loops.items():
        with suppress(RuntimeError):  # the loop is closed, so nobody waits there
            loop.call_soon_threadsafe(_settle, ours)


def _settle(answers: Sequence[Answer]) -> None:
    for answer in answers:
        future = answer.reply.future
        if future.done():
            continue  # cancelled
        if answer.error is None:
            future.set_result(answer.result)
        else:
            future.set_exception(answer.error)


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Runs what may take long in a thread of its own. Cancelled, the thread still ends its work.

    Not in an executor: the end of an event loop, and of the interpreter, waits for the threads of
    one, and a full one would let a short question wait behind a long flush.
    """
    reply = Reply()
    threading.Thread(
        target=_run, args=(reply, function, arguments), name="causality-call", daemon=True
    ).start()
    result: T = await reply.future
    return result


def _run(reply: Reply, function: Callable[..., object], arguments: Sequence[object]) -> None:
    try:
        answer = Answer(reply, function(*arguments))
    except BaseException as error:  # noqa: BLE001 - raised where it is awaited
        answer = Answer(reply, error=error)
    give([answer])
