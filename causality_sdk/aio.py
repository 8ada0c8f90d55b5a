"""`AsyncClient`: the verbs of `Client` for asyncio.

Neighbours: `committer`, which commits in a thread of its own; `client`, which does all the rest.
Invariant: nothing here waits for the disk or the network on the event loop; what runs on it is
the encoding of an event, so that a bad one raises where it is tracked.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Never, NoReturn, TypeVar, Unpack
from uuid import UUID

from causality_sdk.client import Client
from causality_sdk.committer import Committer
from causality_sdk.config import Config
from causality_sdk.dead_letters import DeadLetter, DeadLetters
from causality_sdk.errors import ClientClosed, ConfigError
from causality_sdk.event import Encoder, Event, Properties, Trackable, several
from causality_sdk.options import ClientOptions, OptionsSignature, no_copies
from causality_sdk.replies import Reply, in_thread
from causality_sdk.stats import FlushReport, Health, Stats

__all__ = ["AsyncClient", "AsyncDeadLetters"]

T = TypeVar("T")

ENCODED_AT_ONCE = 50  # events of a track_many, about a millisecond, between two turns of the loop
CLOSE_GRACE = 0.1  # seconds that close() gives its thread to come back in time


class AsyncClient:
    """A durable event tracker for asyncio, with the verbs of `Client` as coroutines.

    Takes the fields of `Config` as keywords, or `config=`, and raises `ConfigError` for a wrong
    one at once. The queue file is opened by `open()`, by `async with`, or by the first verb that
    is awaited: making a client costs the event loop nothing and needs none, so that it may be a
    global of a module. It may be used from several event loops, in several threads.

    Hooks run on the client's own thread, as those of `Client`, not on the event loop.
    """

    __signature__ = OptionsSignature(ClientOptions, "causality_sdk.config", "Config")

    def __init__(
        self,
        *misplaced: Never,
        config: Config | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        if misplaced:
            raise ConfigError(
                "AsyncClient takes keywords only, such as"
                " AsyncClient(api_key=…, endpoint=…, app_id=…)"
            )
        if config is not None and options:
            raise ConfigError(
                f"pass config= or single options, not both (got {', '.join(options)})"
            )
        config = Config.load(**options) if config is None else config
        if not isinstance(config, Config):
            raise ConfigError(f"config must be a Config, got {type(config).__name__}")
        self.config = config
        self._encoder = Encoder(config.app_id, max_event_bytes=config.max_event_bytes)
        self._closed = False
        self._start(None)

    def _start(self, client: Client | None) -> None:
        self._process = os.getpid()
        # It holds no reference to this object, so that a forgotten one can go.
        self._committer = Committer(partial(Client, config=self.config), client)
        self._finalizer = weakref.finalize(self, self._committer.abandon)
        self._finalizer.atexit = False  # at exit the committer's own hook sees to what is under way

    # ------------------------------------------------------------------ the verbs

    async def open(self) -> AsyncClient:
        """Opens the queue file and starts delivery, if that is not done yet. Returns itself.

        Raises `QueueError` when the queue file cannot be used, `ClientClosed` after `close()`.
        """
        if self.config.enabled:
            await self._opened()
        return self

    async def track(
        self,
        event: str | Event | Trackable,
        properties: Properties | None = None,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        device_id: str | None = None,
        timestamp: datetime | int | None = None,
        idempotency_key: str | UUID | None = None,
        app_id: str | None = None,
    ) -> str | None:
        """Commits one event to the queue and gives its idempotency key, once it is committed.

        Arguments, None and errors as for `Client.track`. Events that are tracked at the same time
        share a commit, in the order of the calls. Cancelled while it waits, it raises, and the
        event is committed all the same: whoever tracks it again passes the same
        `idempotency_key`.
        """
        if not self.config.enabled:
            return None
        if isinstance(event, str):
            key, payload = self._encoder.encode(
                event,
                properties,
                user_id,
                session_id,
                device_id,
                timestamp,
                idempotency_key,
                app_id,
            )
        else:
            key, payload = self._encoder.encode_event(
                event,
                properties,
                user_id,
                session_id,
                device_id,
                timestamp,
                idempotency_key,
                app_id,
            )
        return key if await self._commit([payload]) else None

    async def track_many(self, events: Iterable[Event | Trackable]) -> list[str] | None:
        """Commits events in order, in one transaction, and gives their keys.

        As `Client.track_many`: a bad event raises `EventError` that names its index, and none is
        queued. Cancelled while they are being encoded, it queues none; later, all.
        """
        if not self.config.enabled:
            return None
        keys, payloads = [], []
        for index, event in enumerate(several(events)):
            if index % ENCODED_AT_ONCE == ENCODED_AT_ONCE - 1:
                await asyncio.sleep(0)
            key, payload = self._encoder.encode_item(index, event)
            keys.append(key)
            payloads.append(payload)
        return keys if await self._commit(payloads) else None

    async def flush(self, timeout: float | None = None) -> FlushReport:
        """Tries to deliver all that is queued at this moment, and reports. As `Client.flush`.

        Give it a `timeout` (seconds) rather than cancelling it: a cancelled flush goes on in its
        thread. `track()` does not wait for it.
        """
        if not self.config.enabled:
            return FlushReport()
        return await in_thread((await self._opened()).flush, timeout)

    async def close(self, timeout: float | None = None) -> None:
        """Commits what was handed over, sends what it can, closes the file. Idempotent.

        Returns within `timeout` seconds (default: `close_timeout`), also when the disk is stuck;
        its thread goes on then. What was not delivered stays on disk and is sent by the next
        client of this app. Cancelled, it closes all the same.
        """
        self._closed = True
        if not self.config.enabled:
            return
        seconds = self.config.close_timeout if timeout is None else timeout
        reply = Reply()
        if self._here().close(seconds, reply):
            try:
                done, _ = await asyncio.wait([reply.future], timeout=seconds + CLOSE_GRACE)
                for future in done:
                    future.result()
            finally:
                reply.future.cancel()  # ends the wait, not the work

    async def stats(self) -> Stats:
        """Counters and state of this moment; also after `close()`."""
        if not self.config.enabled:
            return Stats()
        # Not on the event loop: it waits for the lock that a commit holds.
        return await in_thread((self._here().client or await self._opened()).stats)

    async def health(self, timeout: float | None = None) -> Health:
        """Asks the server whether it is well, within `timeout` seconds. As `Client.health`."""
        if not self.config.enabled:
            return Health(ok=True)
        return await in_thread((await self._opened()).health, timeout)

    @property
    def dead_letters(self) -> AsyncDeadLetters:
        """Events that were buried: to look at, to put back, to delete."""
        return AsyncDeadLetters(self)

    async def __aenter__(self) -> AsyncClient:
        return await self.open()

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    if not TYPE_CHECKING:  # to a type checker these are what they are: mistakes

        def __enter__(self) -> NoReturn:
            raise TypeError("AsyncClient is not for with: use async with, or causality_sdk.Client")

        def __exit__(self, *_exception: object) -> NoReturn:
            raise TypeError("AsyncClient is not for with: use async with, or causality_sdk.Client")

    def __reduce__(self) -> NoReturn:
        raise TypeError(no_copies("AsyncClient"))

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._committer.client else "not open yet"
        state = state if self.config.enabled else "disabled"
        return (
            f"<AsyncClient app_id={self.config.app_id!r} endpoint={self.config.endpoint!r} {state}>"
        )

    # ------------------------------------------------------------------ inside

    def _here(self) -> Committer:
        """The committer of this process: its thread does not come along into a forked child."""
        if self._process != os.getpid():
            self._finalizer.detach()
            self._start(self._committer.client)
        return self._committer

    async def _commit(self, payloads: list[bytes]) -> bool:
        reply = Reply()
        self._here().commit(payloads, reply)
        committed: bool = await reply.future
        return committed

    async def _opened(self) -> Client:
        client = self._here().client
        if client is None or self._closed:
            await self._commit([])  # raises where it is closed
            client = self._committer.client
        if client is None:
            raise ClientClosed("this client was closed before it was opened; make a new one")
        return client


class AsyncDeadLetters:
    """The dead letters of one queue file, as `DeadLetters`. `async for` gives all, oldest first.

    Each method may raise `QueueError`, with nothing changed, and `ClientClosed`.
    """

    def __init__(self, owner: AsyncClient) -> None:
        self._owner = owner

    async def count(self) -> int:
        """How many there are."""
        return await self._ask(len)

    async def page(self, *, limit: int = 100, after: int = 0) -> list[DeadLetter]:
        """Up to `limit` letters with an id above `after`, oldest first."""
        return await self._ask(lambda letters: letters.page(limit=limit, after=after))

    async def requeue(self, letters: Iterable[DeadLetter | int] | None = None) -> int:
        """Puts letters (or ids of them; None: all) back at the tail, keys unchanged.

        Gives the number put back. Those that are gone meanwhile are passed over.
        """
        return await self._ask(lambda there: there.requeue(letters))

    async def delete(self, letters: Iterable[DeadLetter | int] | None = None) -> int:
        """Deletes letters (or ids of them; None: all) for good; gives their number."""
        return await self._ask(lambda there: there.delete(letters))

    async def __aiter__(self) -> AsyncIterator[DeadLetter]:
        """All, oldest first, a hundred at a time; what is buried meanwhile is among them."""
        after = 0
        while letters := await self.page(after=after):
            for letter in letters:
                yield letter
            after = letters[-1].id

    async def _ask(self, ask: Callable[[DeadLetters], T]) -> T:
        if not self._owner.config.enabled:
            return ask(DeadLetters(None))
        return await in_thread(ask, (await self._owner._opened()).dead_letters)
