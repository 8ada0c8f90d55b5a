"""A gateway on loopback that parses as strictly as the real one, and answers as it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import gateway_messages as messages

from causality_sdk.testing import LoopbackCollector, ReceivedRequest, ScriptedAnswer

MAX_BODY_BYTES = 5 * 1024 * 1024


class StrictGateway:
    """`stored` has the envelope of each idempotency key, in order of arrival.

    `refuse(envelope)` gives the words of a result that rejects the event; `invalid(envelope)` is
    true for one whose whole batch is refused. `answer_first(status)` dictates answers.
    """

    def __init__(self, *, max_events: int = 1000, api_key: str = "test-key") -> None:
        self.server = LoopbackCollector(api_key=api_key)
        self.max_events = max_events
        self.refuse: Callable[[Any], str] = lambda _: ""
        self.invalid: Callable[[Any], bool] = lambda _: False
        self.stored: dict[str, Any] = {}  # guarded by _storing, until the server has stopped
        self.statuses: list[int] = []  # the same; of each answer to a batch
        self._storing = threading.Lock()
        self._dictated: list[int] = []  # the same
        self.server.answer_with(self._answer_batch)

    def __enter__(self) -> StrictGateway:
        self.server.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.server.stop()

    @property
    def endpoint(self) -> str:
        """The base URL."""
        return self.server.endpoint

    def down(self) -> None:
        """The server is gone, until `up()`."""
        self.server.down()

    def up(self) -> None:
        """It is back, on the same port."""
        self.server.up()

    def answer_first(self, *statuses: int) -> None:
        """The next batches get these statuses, whatever is in them."""
        with self._storing:
            self._dictated += statuses

    def events_of(self, field: str) -> list[Any]:
        """The payloads of this type that are stored."""
        pairs = [messages.payload_of(envelope) for envelope in self.stored.values()]
        return [payload for name, payload in pairs if name == field]

    def _answer_batch(self, request: ReceivedRequest) -> ScriptedAnswer:
        with self._storing:
            answer = self._judge_locked(request)
            self.statuses.append(answer.status)
            return answer

    def _judge_locked(self, request: ReceivedRequest) -> ScriptedAnswer:
        if self._dictated:
            return _error(self._dictated.pop(0), "dictated")
        if request.headers.get("x-api-key") != self.server.api_key:
            return _error(401, "invalid api key")
        if len(request.body) > MAX_BODY_BYTES:
            return _error(400, "http: request body too large")
        try:  # a compressed body is no UTF-8, or no JSON
            envelopes = messages.parse(request.body)
        except messages.RefusedError:
            return _error(400, "invalid request body")
        if len(envelopes) > self.max_events:
            return _error(500, "internal error")
        if any(self.invalid(envelope) for envelope in envelopes):
            return _error(400, "validation failed")
        return self._store_locked(envelopes)

    def _store_locked(self, envelopes: list[Any]) -> ScriptedAnswer:
        results: list[dict[str, Any]] = []
        for index, envelope in enumerate(envelopes):
            words = self.refuse(envelope)
            result: dict[str, Any] = {"index": index} if index else {}  # zeros are left out
            if words:
                results.append({**result, "status": "rejected", "error": words})
                continue
            self.stored.setdefault(envelope.idempotency_key, envelope)
            results.append({**result, "eventId": f"e-{index}", "status": "accepted"})
        accepted = sum(result["status"] == "accepted" for result in results)
        counts = {"acceptedCount": accepted, "rejectedCount": len(results) - accepted}
        return ScriptedAnswer(
            body={**{name: n for name, n in counts.items() if n}, "results": results}
        )


def _error(status: int, words: str) -> ScriptedAnswer:
    return ScriptedAnswer(status=status, body={"error": words})
