"""A transport that never leaves the process: it records what it is given and answers by script.

Neighbours: keeps the `Transport` protocol of `transport.base`; reads batches with `_batch`.
Invariant: `send` never waits, and raises nothing but the `TransportError` it was told to.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from causality_sdk.errors import TransportError
from causality_sdk.testing._batch import decompress, parse_batch
from causality_sdk.testing._script import Body, Script, check_status, encode_body
from causality_sdk.wire.base import Request, Response

Decode = Callable[[Request], list[dict[str, Any]]]


def decode_batch(request: Request) -> list[dict[str, Any]]:
    """The events of `{"events":[...]}`, the body of the default wire. Raises `ValueError`."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return [json.loads(raw) for _, raw in parse_batch(decompress(request.body, headers))]


class RecordingTransport:
    """For unit tests: `Client(..., transport=RecordingTransport())`.

    Answers every request with 200 and `{}` unless told otherwise. `decode` gives the events of a
    request; pass your own for a wire of your own. Every method may be called from any thread.
    """

    def __init__(self, *, decode: Decode = decode_batch) -> None:
        self.close_count = 0
        """How often `close()` was called."""
        self._decode = decode
        self._changed = threading.Condition()  # guards all below; notified at every send
        self._requests: list[Request] = []
        self._unread: list[Request] = []  # answered 2xx, not decoded yet
        self._events: list[dict[str, Any]] = []
        self._keys: set[str] = set()
        self._script: Script[Response | TransportError] = Script()

    def send(self, request: Request, timeout: float) -> Response:  # noqa: ARG002 (the protocol has it)
        """Records the request and answers as scripted."""
        with self._changed:
            self._requests.append(request)
            answer = self._script.take()
            if answer is None:
                answer = Response(200, {"content-type": "application/json"}, b"{}")
            if isinstance(answer, Response) and 200 <= answer.status < 300:
                self._unread.append(request)
            self._changed.notify_all()
        if isinstance(answer, TransportError):
            # The same error may be raised many times; its traceback must not grow each time.
            raise answer.with_traceback(None)
        return answer

    def close(self) -> None:
        """Counts. `send` may follow."""
        with self._changed:
            self.close_count += 1

    def respond(
        self,
        status: int = 200,
        body: Body = b"",
        headers: Mapping[str, str] | None = None,
        *,
        times: int | None = None,
    ) -> None:
        """Dictates the answer: `times` requests, or all until `respond_normally()`.

        Counted answers and failures queue up and go before the standing one.
        """
        check_status(status)
        data, kind = encode_body(body)
        given = {name.lower(): value for name, value in (headers or {}).items()}
        if kind:
            given.setdefault("content-type", kind)
        with self._changed:
            self._script.add(Response(status, given, data), times)

    def fail(self, error: TransportError, times: int | None = None) -> None:
        """Lets `send` raise `error`: `times` requests, or all until `respond_normally()`."""
        if not isinstance(error, TransportError):
            raise TypeError(f"error must be a TransportError, got {error!r}")
        with self._changed:
            self._script.add(error, times)

    def respond_normally(self) -> None:
        """Ends what `respond` and `fail` began."""
        with self._changed:
            self._script.clear()

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in order, whatever became of it."""
        with self._changed:
            return list(self._requests)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Events of the requests that were answered 2xx; each idempotency key once, in order.

        Raises what `decode` raises for a request that it cannot read.
        """
        with self._changed:
            self._decode_locked()
            return list(self._events)

    def clear(self) -> None:
        """Forgets requests and events. What is scripted stays."""
        with self._changed:
            self._requests, self._unread, self._events = [], [], []
            self._keys = set()

    def wait_for(self, count: int, timeout: float = 10.0) -> bool:
        """Waits until `events` holds so many; False when `timeout` seconds were not enough."""

        def reached() -> bool:
            self._decode_locked()
            return len(self._events) >= count

        with self._changed:
            return self._changed.wait_for(reached, timeout)

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> bool:
        """Waits until so many requests were sent, whatever became of them."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._requests) >= count, timeout)

    def _decode_locked(self) -> None:
        while self._unread:
            for event in self._decode(self._unread[0]):
                key = event.get("idempotency_key")
                if isinstance(key, str):
                    if key in self._keys:
                        continue
                    self._keys.add(key)
                self._events.append(event)
            del self._unread[0]
