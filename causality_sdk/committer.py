"""The one thread that commits what coroutines hand over: all that waits, in one transaction.

Neighbours: `aio` hands over; `client` commits; `replies` brings the answer back. Invariant: what
was handed over is committed in that order and answered once, whether or not somebody still waits
for the answer.
"""

from __future__ import annotations

import atexit
import copy
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from causality_sdk.client import Client
from causality_sdk.errors import ClientClosed, QueueError, QueueFull
from causality_sdk.pipeline import spend_at_exit
from causality_sdk.replies import Answer, Reply, give

GROUP_BYTES = 1024 * 1024  # of several calls in one transaction: too few to need a second one


@dataclass(frozen=True, slots=True)
class Commit:
    """Events of one call. Without any, what is asked for is only that the client is open."""

    payloads: Sequence[bytes]
    reply: Reply


@dataclass(frozen=True, slots=True)
class Close:
    """The last entry: close the client, by `deadline` of `time.monotonic()`."""

    deadline: float
    reply: Reply


@dataclass(frozen=True, slots=True)
class Abandon:
    """The last entry of a client that was forgotten: let it go without closing it."""


Entry: TypeAlias = "Commit | Close | Abandon | threading.Event"


class Committer:
    """Opens a client, commits through it and closes it, in a thread that starts when needed."""

    def __init__(self, open_client: Callable[[], Client], client: Client | None = None) -> None:
        self._open_client = open_client
        self.client = client  # set once, by the thread
        self._inbox: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the next two, and that nothing follows the last
        self._thread: threading.Thread | None = None
        self._ended = False
        self._following: Entry | None = None  # taken, and not in the last group; the thread's
        self._at_exit = False  # whether the hook is registered; the thread's

    # ------------------------------------------------------------------ any thread

    def commit(self, payloads: Sequence[bytes], reply: Reply) -> None:
        """Takes over; the reply becomes True, False for what waits in memory, or an error.

        Raises `ClientClosed` after `close()`.
        """
        with self._lock:
            if self._ended:
                raise ClientClosed("this client was closed; make a new one, or close it later")
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="causality-committer", daemon=True)
                thread.start()
                self._thread = thread
            self._inbox.put(Commit(payloads, reply))

    def close(self, timeout: float, reply: Reply) -> bool:
        """Closes the client after all that was handed over; False if there is nothing to close."""
        with self._lock:
            if self._ended:
                return False
            self._ended = True
            if self._thread is None:
                return False
            self._inbox.put(Close(time.monotonic() + timeout, reply))
            return True

    def abandon(self) -> None:
        """Ends the thread once all is committed; the client is let go and not closed."""
        with self._lock:
            self._ended = True
            self._inbox.put(Abandon())

    def drain(self) -> None:
        """The atexit hook: an event whose task was cancelled may still be on its way to the disk.

        It waits where a disk is stuck only, and then for `close_timeout` at most.
        """
        # In a forked child there is no such thread, and nothing is under way.
        if self.client is not None and self._thread is not None and self._thread.is_alive():
            drained = threading.Event()
            self._inbox.put(drained)
            began = time.monotonic()
            drained.wait(self.client.config.close_timeout)
            spend_at_exit(time.monotonic() - began)

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while self._serve(self._take()):
            pass

    def _take(self) -> list[Entry]:
        """What waits: commits as one group, up to its limit; everything else by itself."""
        first, self._following = self._following or self._inbox.get(), None
        group, size = [first], _size(first)
        while self._following is None and isinstance(first, Commit):
            try:
                entry = self._inbox.get_nowait()
            except queue.Empty:
                break
            size += _size(entry)
            if size <= GROUP_BYTES and isinstance(entry, Commit):
                group.append(entry)
            else:
                self._following = entry
        return group

    def _serve(self, group: Sequence[Entry]) -> bool:
        """Does what the group asks for; False after the last one."""
        first = group[0]
        if isinstance(first, Commit):
            give(self._answers([entry for entry in group if isinstance(entry, Commit)]))
        elif isinstance(first, threading.Event):
            first.set()
        else:
            atexit.unregister(self.drain)
            if isinstance(first, Close):
                give([self._close(first)])
            return False
        return True

    def _answers(self, commits: Sequence[Commit]) -> Sequence[Answer]:
        try:
            committed = self._commit([each for entry in commits for each in entry.payloads])
        except QueueFull as error:
            if len(commits) == 1:
                return [Answer(commits[0].reply, error=error)]
            # Nothing was written; alone, the first ones may still fit.
            return [answer for entry in commits for answer in self._answers([entry])]
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            # A copy for each: raised in several tasks, one error would collect their tracebacks.
            return [Answer(entry.reply, error=_copy(error)) for entry in commits]
        return [Answer(entry.reply, committed) for entry in commits]

    def _commit(self, payloads: list[bytes]) -> bool:
        if self.client is None:
            self.client = self._open_client()
        if not self._at_exit:
            self._at_exit = True
            # After the client's own hook was registered, so that it runs before it.
            atexit.register(self.drain)
        return self.client._commit(payloads)

    def _close(self, entry: Close) -> Answer:
        try:
            if self.client is not None:
                self.client.close(max(0.0, entry.deadline - time.monotonic()))
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            return Answer(entry.reply, error=error)
        return Answer(entry.reply)


def _size(entry: Entry) -> int:
    return sum(map(len, entry.payloads)) if isinstance(entry, Commit) else 0


def _copy(error: BaseException) -> BaseException:
    copied = copy.copy(error) if isinstance(error, QueueError) else error
    copied.__cause__ = error.__cause__
    return copied
