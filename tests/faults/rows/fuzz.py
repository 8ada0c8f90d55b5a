"""What comes from outside, at random: answers of a server, bytes of a queue file, lines of events.

Neighbours: Hypothesis makes the examples and shrinks what fails; `simulation` is the way from the
queue to the server and back, without a socket; `HostileServer` is one with. Invariant that is
tried: no exception escapes but those that are documented, and no row is deleted without its
acknowledgement.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile import HostileServer, Peer
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from simulation import Simulation

from causality_sdk import schema
from causality_sdk.cli.exits import InputError
from causality_sdk.cli.ndjson import read_events
from causality_sdk.errors import QueueError, TransportError
from causality_sdk.event import Encoder
from causality_sdk.queue import Queue
from causality_sdk.testing._batch import parse_batch
from causality_sdk.transport.http import HttpTransport
from causality_sdk.wire.base import Request, Response
from faults import oracle
from faults.children import Place, produce
from faults.events import HERE, digest
from faults.registry import Fault, Outcome, Run

COUNT = 4  # events of a batch

# ---------------------------------------------------------------------- answers of a server

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
_INDEX = st.integers(-2, COUNT + 2) | st.sampled_from([None, True, "1", 1.0, 2**70])
_WORD = st.sampled_from(
    [
        "accepted",
        "ok",
        "success",
        "duplicate",
        "rejected",
        "error",
        "ACCEPTED",
        "",
        "maybe",
        None,
        3,
    ]
)
_RESULT = (
    st.fixed_dictionaries({}, optional={"index": _INDEX, "status": _WORD, "error": _JSON}) | _JSON
)
_NUMBER = st.integers(-1, COUNT + 1) | st.sampled_from([str(COUNT), "x", True, None, float(COUNT)])
_DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "results": st.lists(_RESULT, max_size=COUNT + 2) | _JSON,
        "acceptedCount": _NUMBER,
        "rejectedCount": _NUMBER,
        "accepted_count": _NUMBER,
        "error": _JSON,
        "errors": _JSON,
        "status": _WORD,
        "success": _JSON,
        "ok": _JSON,
    },
)
_BODY = (
    _DOCUMENT.map(lambda found: json.dumps(found).encode())
    | _JSON.map(lambda found: json.dumps(found).encode())
    | st.binary(max_size=40)
    | st.sampled_from([b"", b" ", b"\xef\xbb\xbf", b"{}", b"OK", b"<html>", b"[" * 5000, b"{" * 50])
)
_STATUS = st.sampled_from([200, 201, 202, 204, 400, 413, 422, 429, 503]) | st.integers(100, 999)
_HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "content-type", "content-encoding", "location"]),
    st.sampled_from(["0", "-1", "1e400", "nan", "", "Fri, 31 Dec 1999 23:59:59 GMT", "9" * 400])
    | st.text(max_size=12),
    max_size=3,
)
ANSWERS = st.lists(
    st.builds(Response, status=_STATUS, headers=_HEADERS, body=_BODY, truncated=st.booleans()),
    min_size=1,
    max_size=4,
)


def may_be_gone(response: Response, count: int) -> set[int]:
    """Places of a batch that an answer may have acknowledged, by the words of the documents.

    Wider than what the product takes, so that only what no reading allows is a failure.
    """
    everything = set(range(count))
    if not 200 <= response.status <= 299 or response.truncated:
        return set()
    body = response.body.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        return everything
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return set()
    if not isinstance(document, dict):
        return set()
    results = document.get("results")
    if isinstance(results, list) and results:
        named = [
            entry.get("index", 0)
            for entry in results
            if isinstance(entry, dict)
            and str(entry.get("status")).lower() in ("accepted", "ok", "success", "duplicate")
        ]
        return {
            place
            for place in named
            if isinstance(place, int) and not isinstance(place, bool) and 0 <= place < count
        }
    if document.get("error") or document.get("errors") or document.get("success") is False:
        return set()
    for name in ("acceptedCount", "accepted_count"):
        if document.get(name) is not None and document[name] not in (count, str(count)):
            return set()
    return everything


class _Scripted:
    """Answers in turn, the last one again and again, and keeps account."""

    def __init__(self, answers: list[Response], *, generous: bool) -> None:
        self._answers = answers
        self._generous = generous
        self.allowed: set[str] = set()
        self.requests = 0

    def send(self, request: Request, timeout: float) -> Response:  # noqa: ARG002 (the protocol)
        answer = self._answers[min(self.requests, len(self._answers) - 1)]
        self.requests += 1
        keys = [key for key, _ in parse_batch(request.body)]
        if not self._generous:
            self.allowed |= {keys[place] for place in may_be_gone(answer, len(keys))}
        return answer

    def close(self) -> None:
        """Nothing to close."""


def try_answers(directory: Path, answers: list[Response], *, generous: bool = False) -> None:
    """A batch, these answers, and a look at what is gone. `generous`: none may be."""
    with tempfile.TemporaryDirectory(dir=directory) as home:
        server = _Scripted(answers, generous=generous)
        with Simulation(Path(home) / "queue.db", transport=server) as simulation:
            keys = simulation.track(COUNT)
            simulation.run(200.0)
            counters, tracked, pending, _ = simulation.queue.snapshot()
            rows = simulation.queue.peek(0, max_events=100, max_bytes=10**6)
            there = {oracle.key_of(payload) for _, payload in rows}
            letters = simulation.queue.read("SELECT payload FROM dead_letters")
            there |= {oracle.key_of(bytes(payload)) for (payload,) in letters}
            gone = set(keys) - there
            assert gone <= server.allowed, f"{gone - server.allowed} deleted after {answers}"
            assert counters.buried == 0 or server.allowed, f"buried without a witness: {answers}"
            assert tracked == counters.acknowledged + counters.buried + pending


# ---------------------------------------------------------------------- bytes on a socket

_HEAD = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200\r\n",
        b"HTTP/9.9 200 OK\r\n",
        b"HTTP/1.1 abc\r\n",
        b"\x00",
    ]
)
_LINE = st.sampled_from(
    [
        b"Content-Length: 2\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: x\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Content-Encoding: br\r\n",
        b": empty\r\n",
        b"A" * 70_000 + b": b\r\n",
        b"Retry-After: \xff\xfe\r\n",
        b"Location: http://[\r\n",
        b"Set-Cookie: \x00=\x01; expires=never\r\n",
    ]
)
_REST = st.sampled_from([b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"zz\r\n{}\r\n", b"", b"\x1f\x8b\x00"])
RAW = st.builds(
    lambda head, lines, gap, rest: head + b"".join(lines) + gap + rest,
    _HEAD,
    st.lists(_LINE, max_size=3),
    st.sampled_from([b"\r\n", b"\n", b""]),
    _REST | st.binary(max_size=30),
) | st.binary(max_size=60)


def try_raw(answer: bytes, server: HostileServer, plays: dict[str, bytes]) -> None:
    """One attempt of the real transport: an answer or a `TransportError`, and nothing else."""
    plays["next"] = answer
    transport = HttpTransport(server.endpoint, {"X-API-Key": "test-key"}, secret="test-key")
    try:
        response = transport.send(Request("/v1/events/batch", b"{}"), 2.0)
    except TransportError:
        return
    finally:
        transport.close()
    assert isinstance(response.body, bytes)


# ---------------------------------------------------------------------- bytes of a queue file

SPOILT = st.lists(
    st.tuples(
        st.sampled_from(["", "-wal"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=64) | st.integers(1, 8192).map(bytes),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


def try_file(
    directory: Path,
    model: Path,
    promised: dict[str, str],
    spoils: list[tuple[str, float, bytes, bool]],
) -> None:
    """Opens a spoilt copy: a `QueueError`, or a queue whose rows are those that were written."""
    with tempfile.TemporaryDirectory(dir=directory) as home:
        path = Path(home) / "queue.db"
        for suffix in ("", "-wal"):
            shutil.copy(model.with_name(model.name + suffix), path.with_name(path.name + suffix))
        for suffix, where, data, cut in spoils:
            file = path.with_name(path.name + suffix)
            content = file.read_bytes()
            at = int(where * len(content))
            file.write_bytes(content[:at] + (b"" if cut else data + content[at + len(data) :]))
        try:
            schema.prepare(path, HERE)
            queue = Queue(path, max_events=10**9, max_bytes=2**40)
        except QueueError:
            return
        try:
            for _, payload in queue.take(0, max_events=10**6, max_bytes=2**40):
                key = oracle.key_of(payload)
                assert promised.get(key) == digest(payload), f"{key} is not as it was tracked"
            queue.append(b'{"idempotency_key":"fresh"}')
        except QueueError:
            pass
        finally:
            queue.close()


# ---------------------------------------------------------------------- lines of events

_LINE_OF_EVENT = (
    st.binary(max_size=60)
    | _JSON.map(lambda found: json.dumps(found).encode())
    | st.fixed_dictionaries(
        {"event_type": _JSON},
        optional={
            "properties": _JSON,
            "timestamp_ms": _JSON | st.integers(),
            "user_id": _JSON,
            "idempotency_key": _JSON,
        },
    ).map(lambda found: json.dumps(found).encode())
    | st.sampled_from(
        [b"[" * 100_000, b'{"event_type":NaN}', b'{"event_type":"\\ud800"}', b"9" * 5000]
    )
)
LINES = st.lists(_LINE_OF_EVENT, max_size=4).map(b"\n".join)


def try_lines(directory: Path, text: bytes) -> None:
    """An `InputError`, or events that can be tracked."""
    encoder = Encoder("fuzz", max_event_bytes=2**40)
    with tempfile.TemporaryDirectory(dir=directory) as home:
        path = Path(home) / "events.ndjson"
        path.write_bytes(text)
        try:
            for _, event in read_events(path):
                encoder.encode_event(event)
        except InputError:
            return


# ---------------------------------------------------------------------- the row


def _examples(
    run: Run, count: int, strategy: st.SearchStrategy[Any], attempt: Callable[[Any], None]
) -> str:
    """Tries `count` examples; what failed, shrunk, or nothing."""

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @seed(run.seed)
    @given(strategy)
    def each(example: Any) -> None:
        attempt(example)

    try:
        each()
    except Exception as error:  # noqa: BLE001 - whatever escapes is what is looked for
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def run(run: Run) -> Outcome:
    """All four; quick: 40 examples of each."""
    count = 40 if run.quick else 3000
    directory = run.directory("fuzz")
    place = Place(run.directory("fuzz-model"))
    produce(place.spec(events=60))
    produce(place.spec(first=60, events=60, close=False))
    plays = {"next": b""}

    def play(peer: Peer) -> None:
        peer.request()
        peer.send(plays["next"])

    with HostileServer(play) as server:
        found = {
            "answers": _examples(run, count, ANSWERS, lambda x: try_answers(directory, x)),
            "answers on a socket": _examples(run, count, RAW, lambda x: try_raw(x, server, plays)),
            "queue files": _examples(
                run,
                count,
                SPOILT,
                lambda x: try_file(directory, place.queue, place.promised(), x),
            ),
            "files of lines": _examples(run, count, LINES, lambda x: try_lines(directory, x)),
        }
    failures = [f"{name}: {failure}" for name, failure in found.items() if failure]
    return Outcome({f"examples, {name}": count for name in found}, failures)


def control(run: Run) -> Outcome:
    """A server that stores nothing, whatever it says."""
    directory = run.directory("fuzz-control")
    good = [Response(200, {}, b"{}")]
    try:
        try_answers(directory, good, generous=True)
    except AssertionError as error:
        return Outcome({}, [str(error)[:200]])
    return Outcome({})


FAULT = Fault(
    name="fuzzer",
    how="Hypothesis makes answers of a server, bytes on its socket, bytes in db and -wal, lines of"
    " events",
    promise="no exception escapes, nothing deleted without its acknowledgement",
    run=run,
    control=control,
    broken="the server stores nothing",
)
