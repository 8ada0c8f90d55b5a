"""A server in memory with facts about each event, and its own account of what a client may do.

Neighbour: `simulation`, whose transport it is. A *phase* is what it does with a batch. It keeps two
accounts that the client's is compared with: `acknowledged`, what it clearly said to have stored,
and `refusals`, which say whether an event may be buried. Not a test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from causality_sdk.errors import TransportError, TransportReason
from causality_sdk.testing._batch import WireEvent, parse_batch
from causality_sdk.wire.base import Request, Response

Phase: TypeAlias = Callable[["ModelServer", Sequence[WireEvent]], Response]
"""Answers one batch, or raises `TransportError`."""


@dataclass
class Refusals:
    """What the server did to one event by itself."""

    times: list[int] = field(default_factory=list)  # numbers of the requests
    counted: int = 0  # refusals that have a witness
    waiting: bool = False  # the last has none yet
    failures: int = 0  # times that a request with this event alone failed otherwise
    bisected_at: int | None = None  # what was accepted in all when its batch was refused


class ModelServer:
    """Answers as its phase says, and as its facts say where the phase does not."""

    def __init__(self) -> None:
        self.phase: Phase = fine
        self.bad: set[str] = set()  # keys that are refused whenever the server looks at events
        self.requests: list[list[str]] = []  # keys of each request
        self.sizes: list[tuple[int, int]] = []  # events and bytes of each request
        self.stored: dict[str, bytes] = {}  # by key, in the order of arrival
        self.acknowledged: dict[str, bytes] = {}  # what the client was told, and heard
        self.refusals: dict[str, Refusals] = {}
        self.violations: list[str] = []
        self._accepted = 0  # events acknowledged so far
        self._busy = False
        self.reachable_calls = 0

    # ------------------------------------------------------------------ the transport

    def send(self, request: Request, timeout: float) -> Response:
        assert timeout > 0
        if self._busy:
            self.violations.append("two requests at once")
        self._busy = True
        try:
            return self._answer(parse_batch(request.body))
        finally:
            self._busy = False

    def close(self) -> None:
        """Nothing to close."""

    def _answer(self, batch: Sequence[WireEvent]) -> Response:
        keys = [key for key, _ in batch]
        for key in keys:
            if key in self.acknowledged:
                self.violations.append(f"{key} was sent again after it was acknowledged")
        self.requests.append(keys)
        self.sizes.append((len(batch), sum(len(raw) for _, raw in batch)))
        try:
            response = self.phase(self, batch)
        except TransportError:
            self._failed(batch)
            raise
        self._account(batch, response)
        return response

    def _failed(self, batch: Sequence[WireEvent]) -> None:
        """Neither taken nor refused: it may count, where others pass meanwhile."""
        if len(batch) == 1:
            self.refusals.setdefault(batch[0][0], Refusals()).failures += 1

    # ------------------------------------------------------------------ facts and accounts

    def good(self, batch: Sequence[WireEvent]) -> list[WireEvent]:
        return [event for event in batch if event[0] not in self.bad]

    def store(self, events: Sequence[WireEvent]) -> None:
        for key, raw in events:
            if self.stored.setdefault(key, raw) != raw:
                self.violations.append(f"{key} came with another payload")

    def refusals_alone(self) -> set[str]:
        """Keys of events that were refused by themselves."""
        return {key for key, entry in self.refusals.items() if entry.times}

    def _account(self, batch: Sequence[WireEvent], response: Response) -> None:
        """By the rules of the documents, not by those of the code."""
        accepted, refused = clearly_said(response, len(batch))
        if not (accepted or refused) and response.status not in (400, 413, 422):
            self._failed(batch)
        if response.status in (400, 422):
            for key, _ in batch:
                entry = self.refusals.setdefault(key, Refusals())
                if len(batch) > 1 and entry.bisected_at is None:
                    entry.bisected_at = self._accepted
        if response.status in (400, 413, 422) and len(batch) == 1:
            refused = [0]
        if accepted:
            self._accepted += len(accepted)
            for entry in self.refusals.values():
                if entry.waiting:
                    entry.counted += 1
                    entry.waiting = False
        for index in accepted:
            key, raw = batch[index]
            if self.stored.get(key) != raw:
                self.violations.append(f"the model acknowledges {key}, which it did not store")
            self.acknowledged[key] = raw
        for index in refused:
            entry = self.refusals.setdefault(batch[index][0], Refusals())
            entry.times.append(len(self.requests))
            bisected = entry.bisected_at is not None and self._accepted > entry.bisected_at
            if accepted or bisected:
                entry.counted += 1
                entry.waiting = False
            else:
                entry.waiting = True
            entry.bisected_at = None


def clearly_said(response: Response, count: int) -> tuple[list[int], list[int]]:
    """Indices that an answer clearly accepts and refuses."""
    if not 200 <= response.status <= 299:
        return [], []
    if not response.body:
        return list(range(count)), []
    try:
        document = json.loads(response.body)
    except ValueError:
        return [], []
    entries: list[Any] = document.get("results") or []
    if not entries:
        says = document.get("acceptedCount", None)
        everything = document == {} or (says == count and not document.get("rejectedCount"))
        return (list(range(count)) if everything else []), []
    named = [entry.get("index", 0) for entry in entries]
    once = {index for index in named if named.count(index) == 1 and 0 <= index < count}
    words = {entry.get("index", 0): entry["status"] for entry in entries}
    accepted = sorted(index for index in once if words[index] == "accepted")
    refused = sorted(index for index in once if words[index] == "rejected")
    return accepted, refused


# ---------------------------------------------------------------------- answers


def json_answer(document: object, status: int = 200) -> Response:
    headers = {"content-type": "application/json"}
    return Response(status, headers, json.dumps(document).encode())


def results(words: Sequence[str], *, reason: str = "not by the schema") -> Response:
    """One result for each event, in order."""
    entries = []
    for index, word in enumerate(words):
        entry: dict[str, object] = {"index": index, "status": word}
        if word == "rejected":
            entry["error"] = reason
        entries.append(entry)
    return json_answer({"results": entries})


# ---------------------------------------------------------------------- phases


def fine(server: ModelServer, batch: Sequence[WireEvent]) -> Response:
    """Takes a batch as a whole, or refuses it for the sake of one event."""
    good = server.good(batch)
    if len(good) < len(batch):
        return json_answer({"error": "an event is not by the schema"}, 400)
    server.store(batch)
    return json_answer({"acceptedCount": len(batch)})


def fine_by_result(server: ModelServer, batch: Sequence[WireEvent]) -> Response:
    """Takes what is good and names the rest."""
    good = {key for key, _ in server.good(batch)}
    server.store(server.good(batch))
    return results(["accepted" if key in good else "rejected" for key, _ in batch])


def answering(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Phase:
    """Says the same to all, and stores nothing."""

    def phase(_server: ModelServer, _batch: Sequence[WireEvent]) -> Response:
        return Response(status, headers or {}, body)

    return phase


def failing(reason: TransportReason, *, stored: bool = False) -> Phase:
    """No answer, whether or not the batch arrived."""

    def phase(server: ModelServer, batch: Sequence[WireEvent]) -> Response:
        if stored:
            server.store(server.good(batch))
        raise TransportError(f"no answer: {reason}", reason=reason)

    return phase


def rejecting_all(_server: ModelServer, batch: Sequence[WireEvent]) -> Response:
    """A broker that is away: each event by name, for a reason that is not the event's."""
    return results(["rejected"] * len(batch), reason="no broker")


def too_large_above(events: int, size: int = 10**9, *, status: int = 413) -> Phase:
    """Fine, but for batches that are larger."""

    def phase(server: ModelServer, batch: Sequence[WireEvent]) -> Response:
        if len(batch) > events or sum(len(raw) for _, raw in batch) > size:
            return Response(status, {}, b"too large")
        return fine(server, batch)

    return phase


def too_slow_above(events: int, reason: TransportReason = "timeout") -> Phase:
    """Fine, but larger batches get no answer."""

    def phase(server: ModelServer, batch: Sequence[WireEvent]) -> Response:
        if len(batch) > events:
            raise TransportError("no answer", reason=reason)
        return fine(server, batch)

    return phase
