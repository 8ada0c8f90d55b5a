"""A collector on loopback: a real HTTP server that keeps events and misbehaves on command.

Neighbours: `_http` carries requests, `_received` remembers them, `_script` holds the dictated
answers, `_answers` makes all answers. Invariant: an event that was acknowledged is in `payloads`,
byte for byte as it came, and in the journal; once `down()` or `stop()` has returned, no event is
added.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

from causality_sdk.testing._answers import (
    BATCH_PATH,
    json_reply,
    read_batch,
    results,
    scripted_reply,
    without_events,
)
from causality_sdk.testing._batch import BatchError, ReceivedRequest, WireEvent
from causality_sdk.testing._http import HOST, Connection, HttpRequest, HttpServer, Reply
from causality_sdk.testing._received import Received
from causality_sdk.testing._script import Body, Script, ScriptedAnswer

Predicate = Callable[[int, dict[str, Any]], bool]
Answerer = Callable[[ReceivedRequest], ScriptedAnswer | None]


class LoopbackCollector(Received):
    """Receives batches at `POST /v1/events/batch` on 127.0.0.1, for tests and demonstrations.

        with LoopbackCollector(api_key="test-key") as collector:
            client = Client(api_key="test-key", endpoint=collector.endpoint, app_id="my-app")

    `api_key=None` takes every key. `port=0` picks a free port. `journal` names a file that gets a
    line `key sha256-of-the-raw-bytes` for each unique event, before the answer goes out.

    A request goes through `pause()` and `delay()`, then `answer_with()`, then what `respond()` and
    `drop_next()` scripted, then the normal answer, which checks the key and the body. Every method
    may be called from any thread while it runs. It prints nothing.
    """

    def __init__(
        self,
        api_key: str | None = "test-key",
        *,
        port: int = 0,
        journal: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(journal)
        self.api_key = api_key
        self.ready = True
        """What `GET /ready` says: 200, or 503 when it is False."""
        self._port = port
        self._server = HttpServer(self._handle, self._changed)
        self._paused = False  # this and the next four are guarded by _changed
        self._delay = 0.0
        self._script: Script[ScriptedAnswer] = Script()
        self._predicate: Predicate | None = None
        self._answerer: Answerer | None = None
        # Held while the server starts or ends; always taken before _changed.
        self._lifecycle = threading.Lock()
        self._running = False  # guarded by _lifecycle, as is _up
        self._up = False

    def start(self) -> LoopbackCollector:
        """Listens, if it does not yet; after a `stop()` on the same port. Returns itself."""
        with self._lifecycle:
            if not self._running:
                self._store.open()
                try:
                    self._listen()
                except BaseException:
                    self._store.close()
                    raise
                self._running = True
        return self

    def stop(self) -> None:
        """Closes every connection and ends every thread. What was received stays readable.

        Raises `RuntimeError` when a callable given to the collector does not return in 10 s.
        """
        with self._lifecycle:
            if not self._running:
                return
            self._running = self._up = False
            self._server.hang_up(reserve=False)
        # Without the lock: a callable that calls down() at this moment must be able to finish.
        self._server.join()
        with self._lifecycle:
            if not self._running:
                self._store.close()

    def down(self) -> None:
        """The server is gone: open connections are closed, new ones refused, until `up()`."""
        with self._lifecycle:
            self._check_running()
            if self._up:
                self._up = False
                self._server.hang_up(reserve=True)

    def up(self) -> None:
        """Listens again, on the same port, after `down()`."""
        with self._lifecycle:
            self._check_running()
            if not self._up:
                self._listen()

    def _listen(self) -> None:
        self._server.listen(self._port)
        self._port = self._server.port
        self._up = True

    def _check_running(self) -> None:
        if not self._running:
            raise RuntimeError("the collector is not running: call start() or use it in a with")

    def __enter__(self) -> LoopbackCollector:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on; it stays the same over `down()` and `stop()`."""
        if self._port == 0:
            raise RuntimeError("the port is not known yet: call start() or use it in a with")
        return self._port

    @property
    def endpoint(self) -> str:
        """The base URL, for the client's `endpoint`."""
        return f"http://{HOST}:{self.port}"

    def respond(
        self,
        status: int = 200,
        body: Body = b"",
        headers: Mapping[str, str] | None = None,
        *,
        times: int | None = None,
        store: bool = False,
    ) -> None:
        """Dictates the answer to batches: `times` of them, or all until `respond_normally()`.

        Counted answers queue up and go before the standing one. `store=True` keeps the events of
        an acceptable batch first: the acknowledgement that gets lost.
        """
        answer = ScriptedAnswer(status=status, body=body, headers=dict(headers or {}), store=store)
        with self._changed:
            self._script.add(answer, times)

    def drop_next(self, times: int = 1, *, store: bool = False) -> None:
        """Closes the connection of the next batches without an answer. Queues with `respond()`."""
        with self._changed:
            self._script.add(ScriptedAnswer(drop=True, store=store), times)

    def accept_only(self, predicate: Predicate | None) -> None:
        """Accepts the events for which `predicate(index, event)` is true, rejects the others.

        The answer is a 200 that names the result of each event. None accepts all again.
        """
        with self._changed:
            self._predicate = predicate

    def answer_with(self, answerer: Answerer | None) -> None:
        """Asks `answerer(request)` about each batch; None from it means to go on as usual.

        It runs on the connection's thread, for several connections perhaps at once.
        """
        with self._changed:
            self._answerer = answerer

    def respond_normally(self) -> None:
        """Ends what `respond`, `drop_next`, `accept_only` and `answer_with` began."""
        with self._changed:
            self._script.clear()
            self._predicate = self._answerer = None

    def delay(self, seconds: float) -> None:
        """Lets every request wait so long from its arrival; 0 ends it, for the waiting ones too."""
        if not seconds >= 0:
            raise ValueError(f"seconds must be 0 or more, got {seconds!r}")
        with self._changed:
            self._delay = seconds
            self._changed.notify_all()

    def pause(self) -> None:
        """Holds every request, unjudged and unanswered, until `resume()`: a server that is stuck.

        Resumed, it deals with a held request even if the client has given up on it meanwhile.
        """
        with self._changed:
            self._paused = True

    def resume(self) -> None:
        """Lets the held requests go on."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    # What follows runs on the thread of a connection.

    def _handle(self, request: HttpRequest, connection: Connection) -> Reply | None:
        received = ReceivedRequest(request.method, request.path, request.headers, request.body)
        path = request.path.partition("?")[0]
        is_batch = path == BATCH_PATH and request.method == "POST"
        batch = read_batch(received) if is_batch else []
        if isinstance(batch, list):
            received = replace(received, count=len(batch))
        with self._changed:
            self._received += received.count
            going_on = self._hold_locked(connection)
        reply = None
        if going_on:
            try:
                if is_batch:
                    reply = self._answer(received, batch, connection)
                else:
                    reply = without_events(request.method, path, ready=self.ready)
            except Exception as error:  # noqa: BLE001 (from a caller's callable)
                reply = json_reply(500, {"error": f"inside the collector: {error!r}"})
                with self._changed:
                    self._errors.append(error)
        with self._changed:
            self._log.add(replace(received, status=0 if reply is None else reply.status))
            self._changed.notify_all()
        return reply

    def _hold_locked(self, connection: Connection) -> bool:
        """Waits as `pause()` and `delay()` say. False when the connection was closed meanwhile."""
        arrival = time.monotonic()
        self._held += 1
        if self._paused or self._delay > 0:
            self._changed.notify_all()  # wait_for_held
        while connection.open:
            left = None if self._paused else arrival + self._delay - time.monotonic()
            if left is not None and left <= 0:
                break
            self._changed.wait(left)
        self._held -= 1
        return connection.open

    def _answer(
        self, received: ReceivedRequest, batch: list[WireEvent] | BatchError, connection: Connection
    ) -> Reply | None:
        answer = self._dictated(received)
        right_key = self.api_key is None or received.headers.get("x-api-key") == self.api_key
        if answer is not None:
            if answer.store and right_key and isinstance(batch, list):
                self._keep(batch, connection)
            return None if answer.drop else scripted_reply(answer)
        if not right_key:
            return json_reply(401, {"error": "the X-API-Key header is missing or wrong"})
        if isinstance(batch, BatchError):
            return json_reply(400, {"error": str(batch)})
        with self._changed:
            predicate = self._predicate
        if predicate is None:
            body: dict[str, Any] = {"acceptedCount": len(batch), "rejectedCount": 0}
            return json_reply(200, body) if self._keep(batch, connection) else None
        accepted = [bool(predicate(i, json.loads(raw))) for i, (_, raw) in enumerate(batch)]
        kept = [event for event, taken in zip(batch, accepted, strict=True) if taken]
        if not self._keep(kept, connection):
            return None
        return json_reply(200, results(batch, accepted))

    def _dictated(self, received: ReceivedRequest) -> ScriptedAnswer | None:
        with self._changed:
            answerer = self._answerer
        answer = None if answerer is None else answerer(received)
        if answer is None:
            with self._changed:
                return self._script.take()
        if not isinstance(answer, ScriptedAnswer):
            raise TypeError(f"answer_with() must give None or a ScriptedAnswer, got {answer!r}")
        return answer

    def _keep(self, events: list[WireEvent], connection: Connection) -> bool:
        """Stores the events; not when the server has gone down since they were sent."""
        with self._changed:
            if connection.open:
                self._store.add(events)
            return connection.open
