"""causality-sdk itself, as an application uses it."""

from __future__ import annotations

import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.event import PURCHASE, SERVER, TYPE, departures
from benchmarks.process import serve, written
from causality_sdk import Client, Event, event
from causality_sdk.wire.base import Request, Response

AWAY = "http://127.0.0.1:9"  # nothing listens there
LARGE = {"max_queue_events": 3_000_000, "max_queue_bytes": 4 * 1024**3}
NO_BYTES = b"{}"


class Answers:
    """A transport that answers at once, in this very process."""

    def send(self, request: Request, timeout: float) -> Response:  # noqa: ARG002 (the protocol has it)
        """Every batch is acknowledged."""
        return Response(200, {"content-type": "application/json"}, NO_BYTES)

    def close(self) -> None:
        """Nothing is open."""


class Subject:
    """One client at a time, and the verbs that the rows ask for."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._departures: list[dict[str, Any]] = []

    @property
    def client(self) -> Client:
        """The one that is open."""
        assert self._client is not None
        return self._client

    def open(
        self, path: str, endpoint: str = AWAY, *, answers: bool = False, **options: Any
    ) -> float:
        """A client on the queue in directory `path`; gives the seconds it took."""
        self.close()
        if answers:
            options["transport"] = Answers()
        directory = Path(path)
        started = time.perf_counter()
        self._client = Client(
            api_key="key",
            endpoint=endpoint,
            app_id="shop",
            queue_path=directory / "queue.db",
            **{**LARGE, **options},
        )
        return time.perf_counter() - started

    def close(self, timeout: float = 5.0) -> float:
        """Gives the seconds it took."""
        started = time.perf_counter()
        if self._client is not None:
            self._client.close(timeout)
            self._client = None
        return time.perf_counter() - started

    def put(self, count: int) -> float:
        """Tracks `count` events, one by one; gives the seconds."""
        track = self.client.track
        started = time.perf_counter()
        for _ in range(count):
            track(TYPE, PURCHASE)
        return time.perf_counter() - started

    def put_many(self, calls: int, events: int) -> float:
        """Calls `track_many` with so many events each time; gives the seconds."""
        batch = [Event(TYPE, PURCHASE)] * events
        started = time.perf_counter()
        for _ in range(calls):
            self.client.track_many(batch)
        return time.perf_counter() - started

    def put_threads(self, threads: int, count: int) -> float:
        """`count` events by each of `threads`; gives the seconds of all together."""
        barrier = threading.Barrier(threads + 1)

        def work() -> None:
            barrier.wait()
            for _ in range(count):
                self.client.track(TYPE, PURCHASE)
            barrier.wait()

        for _ in range(threads):
            threading.Thread(target=work, daemon=True).start()
        barrier.wait()
        started = time.perf_counter()
        barrier.wait()
        return time.perf_counter() - started

    def latencies(self, count: int, rate: float = 0.0) -> dict[str, float]:
        """Tracks `count` events, `rate` a second (0: flat out); gives seconds by percentile.

        An open loop: an event that had to wait for one before it counts from when it was due.
        """
        clock = time.perf_counter
        taken = []
        if self._client is None:  # what the machine alone does to such a loop
            track: Callable[..., object] = _nothing
            log = Path(__file__)
        else:
            track = self.client.track
            log = Path(f"{self.client.stats().queue_path}-wal")
        longest_log = 0
        due = clock()
        for number in range(count):
            if rate:
                due += 1 / rate
                while (ahead := due - clock()) > 0:
                    time.sleep(ahead)
            else:
                due = clock()
            track(TYPE, PURCHASE)
            taken.append(clock() - due)
            if not number % 1000:
                longest_log = max(longest_log, log.stat().st_size)
        taken.sort()
        return {
            "p50": taken[count // 2],
            "p99": taken[count * 99 // 100],
            "p999": taken[count * 999 // 1000],
            "longest": taken[-1],
            "log_bytes": longest_log,
        }

    def deliver(self, count: int) -> dict[str, float]:
        """Tracks the first `count` departures, and flushes; seconds, and what became of them."""
        events = self._read(count)
        track = self.client.track
        started = time.perf_counter()
        for departure in events:
            track(
                departure["event_type"],
                departure["properties"],
                device_id=departure["device_id"],
                timestamp=departure["timestamp_ms"],
            )
        tracked = time.perf_counter() - started
        report = self.client.flush()
        seconds = time.perf_counter() - started
        stats = self.client.stats()
        return {
            "tracked_seconds": tracked,
            "seconds": seconds,
            "remaining": report.remaining,
            "acknowledged": stats.acknowledged,
            "lost": sum((stats.evicted or {}).values()) + stats.buried + stats.buffer_dropped,
        }

    def read_departures(self, count: int) -> int:
        """Reads them beforehand, so that their memory counts before and after."""
        return len(self._read(count))

    def _read(self, count: int) -> Sequence[dict[str, Any]]:
        if len(self._departures) != count:
            self._departures = departures(count)
        return self._departures

    def flush(self) -> dict[str, float]:
        """Gives the seconds, and what was delivered and remains."""
        started = time.perf_counter()
        report = self.client.flush()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "delivered": report.delivered, "remaining": report.remaining}

    def memory(self) -> dict[str, int]:
        """Bytes of resident memory now, and at most so far."""
        resident = 0
        if sys.platform == "linux":
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            resident = pages * os.sysconf("SC_PAGE_SIZE")
        return {"now": resident, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}

    def written(self) -> int:
        """Bytes that this process handed to write() so far, the log and the database alike."""
        return written()

    def pending(self) -> dict[str, int]:
        """Events, and bytes of their payloads, that are queued."""
        stats = self.client.stats()
        return {"events": stats.pending, "bytes": stats.pending_bytes}


def _nothing(event_type: str, properties: object) -> None:
    pass


def run() -> None:
    """Answers until the parent ends it."""
    # The same context on every machine, so that an event is as long everywhere.
    event.server_context = lambda: SERVER  # type: ignore[assignment,attr-defined]
    logging.getLogger("causality_sdk").setLevel(logging.CRITICAL)  # the server is away on purpose
    subject = Subject()
    verbs = [name for name in dir(subject) if not name.startswith("_") and name != "client"]
    serve({name: getattr(subject, name) for name in verbs})
    subject.close()


if __name__ == "__main__":
    run()
