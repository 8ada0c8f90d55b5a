"""A PackTrack server on loopback: a real HTTP server that keeps events and fails on command.

Neighbours: `_http` carries requests, `_script` holds the dictated answers. Invariant: `events` has
what was acknowledged, once for each idempotency key.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from causality_sdk.testing._answers import json_reply, scripted_reply
from causality_sdk.testing._batch import BatchError, ReceivedRequest, decompress
from causality_sdk.testing._http import HOST, Connection, HttpRequest, HttpServer, Reply
from causality_sdk.testing._script import Body, Script, ScriptedAnswer

_MEMBERS = {
    "source": ({"system"}, {"env"}),
    "workflow": ({"id"}, {"name", "run_id", "step_id"}),
    "actor": ({"type", "id"}, {"display_name"}),
}
_WORDS = {
    "severity": {"debug", "info", "warn", "error"},
    "status": {"ok", "failed", "skipped", "timeout", "retrying", "unknown"},
}
_REQUIRED = {"timestamp", "source", "workflow", "actor", "severity", "status", "message"}
_OPTIONAL = {"metadata", "extra"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


class LoopbackPackTrack:
    """Receives events at `POST /api/ingest` on 127.0.0.1, for tests and demonstrations.

        with LoopbackPackTrack(api_key="test-key") as server:
            client = PackTrackClient(api_key="test-key", base_url=server.endpoint)

    A request under an idempotency key that was acknowledged before is acknowledged again and
    dropped. An event that is not as PackTrack defines it refuses its request with 400. Every
    method may be called from any thread. It prints nothing.
    """

    def __init__(self, api_key: str = "test-key") -> None:
        self.api_key = api_key
        self.healthy = True
        """What `health_path` says: 200, or 503 when it is False."""
        self.health_path = "/api/health"
        """Where health is asked for."""
        self._changed = threading.Condition()
        self._server = HttpServer(self._handle, self._changed)
        self._script: Script[ScriptedAnswer] = Script()  # this and the rest guarded by _changed
        self._events: list[dict[str, Any]] = []
        self._requests: list[ReceivedRequest] = []
        self._keys: set[str] = set()
        self._repeats = 0

    def start(self) -> LoopbackPackTrack:
        """Listens; after a `stop()` on the same port. Returns itself."""
        self._server.listen(self._server.port)
        return self

    def stop(self) -> None:
        """Closes every connection. What was received stays readable. May be called twice."""
        self._server.hang_up(reserve=False)
        self._server.join()

    def down(self) -> None:
        """The server is gone: connections are refused, until `up()`."""
        self._server.hang_up(reserve=True)

    def up(self) -> None:
        """Listens again, on the same port, after `down()`."""
        self._server.listen(self._server.port)

    def __enter__(self) -> LoopbackPackTrack:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """The base URL."""
        return f"http://{HOST}:{self._server.port}"

    def respond(
        self,
        status: int = 200,
        body: Body = b"",
        headers: Mapping[str, str] | None = None,
        *,
        times: int | None = None,
        store: bool = False,
    ) -> None:
        """Dictates the answer to so many requests with events, or to all from now on.

        `store=True` keeps the events first: the acknowledgement that gets lost.
        """
        answer = ScriptedAnswer(status=status, body=body, headers=dict(headers or {}), store=store)
        with self._changed:
            self._script.add(answer, times)

    def drop_next(self, times: int = 1, *, store: bool = False) -> None:
        """Closes the connection of the next requests with events instead of answering."""
        with self._changed:
            self._script.add(ScriptedAnswer(drop=True, store=store), times)

    def respond_normally(self) -> None:
        """Ends what `respond` and `drop_next` began."""
        with self._changed:
            self._script.clear()

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was acknowledged or stored, in order."""
        with self._changed:
            return list(self._events)

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Every request, health included, in the order they were answered."""
        with self._changed:
            return list(self._requests)

    @property
    def repeats(self) -> int:
        """Requests that were dropped for their idempotency key."""
        with self._changed:
            return self._repeats

    def wait_for(self, count: int, timeout: float = 10.0) -> bool:
        """Waits for so many events; False when `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._events) >= count, timeout)

    # What follows runs on the thread of a connection.

    def _handle(self, request: HttpRequest, connection: Connection) -> Reply | None:
        received = ReceivedRequest(request.method, request.path, request.headers, request.body)
        if request.path == "/api/ingest" and request.method == "POST":
            events, complaint = _read(received)
            received = replace(received, count=len(events))
            reply = self._answer(received, events, complaint, connection)
        elif request.path == self.health_path and request.method == "GET":
            reply = json_reply(200 if self.healthy else 503, {"healthy": self.healthy})
        else:
            reply = json_reply(404, {"error": f"there is nothing at {request.path}"})
        with self._changed:
            self._requests.append(replace(received, status=0 if reply is None else reply.status))
            self._changed.notify_all()
        return reply

    def _answer(
        self,
        received: ReceivedRequest,
        events: list[dict[str, Any]],
        complaint: str,
        connection: Connection,
    ) -> Reply | None:
        with self._changed:
            answer = self._script.take()
        if answer is not None:
            if answer.store:
                self._keep(received, events, connection)
            return None if answer.drop else scripted_reply(answer)
        if received.headers.get("x-packtrack-key") != self.api_key:
            return json_reply(401, {"error": "the X-PackTrack-Key header is missing or wrong"})
        if complaint:
            return json_reply(400, {"error": complaint})
        if not self._keep(received, events, connection):
            return None
        return json_reply(202, {"accepted": len(events)})

    def _keep(
        self, received: ReceivedRequest, events: list[dict[str, Any]], connection: Connection
    ) -> bool:
        key = received.headers.get("idempotency-key")
        with self._changed:
            if not connection.open:
                return False
            if key is not None and key in self._keys:
                self._repeats += 1
                return True
            if key is not None:
                self._keys.add(key)
            self._events += events
            return True


def _read(received: ReceivedRequest) -> tuple[list[dict[str, Any]], str]:
    """The events of a request, and what is wrong with them."""
    try:
        found = json.loads(decompress(received.body, received.headers))
    except (BatchError, ValueError, RecursionError) as error:
        return [], f"the body cannot be read: {error}"
    events = found if isinstance(found, list) else [found]
    for index, event in enumerate(events):
        complaint = _wrong(event)
        if complaint:
            return [], f"event {index}: {complaint}"
    return events, ""


def _wrong(event: object) -> str:
    """Why this is no PackTrack event, or nothing."""
    if not isinstance(event, dict):
        return "it must be an object"
    if not _REQUIRED <= event.keys() <= _REQUIRED | _OPTIONAL:
        return f"its fields are {sorted(event)}"
    for name, (required, optional) in _MEMBERS.items():
        part = event[name]
        if not isinstance(part, dict) or not required <= part.keys() <= required | optional:
            return f"{name} has the wrong members"
        if not all(isinstance(value, str) and value for value in part.values()):
            return f"{name} holds what is no text"
    for name, words in _WORDS.items():
        if event[name] not in words:
            return f"{name} is none of its words"
    if not isinstance(event["message"], str) or not event["message"]:
        return "message must be text"
    if not isinstance(event["timestamp"], str) or not _TIME.fullmatch(event["timestamp"]):
        return "timestamp is not RFC 3339"
    if not all(isinstance(event.get(name, {}), dict) for name in _OPTIONAL):
        return "metadata and extra must be objects"
    return ""
