"""A program under gevent or eventlet: `greenlets.py LIBRARY SCENE ENDPOINT QUEUE`.

Its standard library is patched first, as those who use them do. Prints as JSON what the scene saw,
in one of them `stall`: by how many seconds a greenlet that wakes every 5 ms was late at worst.
"""

from __future__ import annotations

import sys

LIBRARY, SCENE, ENDPOINT, QUEUE = sys.argv[1:]
if SCENE == "imported first":
    import causality_sdk  # noqa: F401 - what it binds now must not be what is patched below
if LIBRARY == "gevent":
    from gevent import monkey

    monkey.patch_all()
else:
    import eventlet

    eventlet.monkey_patch()

import json  # noqa: E402 - whatever is imported from here on is patched
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import requests  # noqa: E402, F401 - the sender would load it in its greenlet, with the hub waiting

from causality_sdk import Client  # noqa: E402

client: Client
SEEN: dict[str, Any] = {}


class Watch:
    """Measures the hub."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._over = False
        self._thread = threading.Thread(target=self._run)  # a greenlet, since it is patched

    def __enter__(self) -> Watch:
        self._thread.start()
        time.sleep(0.02)
        return self

    def __exit__(self, *_exception: object) -> None:
        time.sleep(0.02)
        self._over = True
        self._thread.join()
        SEEN["stall"] = self.worst

    def _run(self) -> None:
        while not self._over:
            due = time.perf_counter() + 0.005
            time.sleep(0.005)
            self.worst = max(self.worst, time.perf_counter() - due)


def make(**options: Any) -> Client:
    """A client of this program."""
    return Client(
        api_key="test-key",
        endpoint=ENDPOINT,
        app_id="greenlets",
        queue_path=QUEUE,
        **{"timeout": 1, "close_timeout": 0.5, "batch_size": 20, **options},
    )


def in_greenlets(work: Callable[[], object], count: int = 10) -> None:
    """Runs `work` so many times at once."""
    greenlets = [threading.Thread(target=work) for _ in range(count)]
    for greenlet in greenlets:
        greenlet.start()
    for greenlet in greenlets:
        greenlet.join()


def track_some(client: Client) -> None:
    """20 events, with room for the others in between."""
    for number in range(20):
        assert client.track("x", {"n": number}) is not None
        time.sleep(0)


def deliver() -> None:
    """Many greenlets track, the background delivers, flush and close finish it."""
    delivered = threading.Event()
    with make(on_delivered=lambda _: delivered.set()) as client:
        in_greenlets(lambda: track_some(client))
        SEEN["background"] = delivered.wait(10)
        report = client.flush(timeout=10)
        SEEN["flush"] = [report.remaining, repr(report.error)]
        SEEN["health"] = client.health(timeout=5).ok
    SEEN["threads"] = [t.name for t in threading.enumerate() if "causality" in t.name]
    SEEN["pending"] = client.stats().pending


def hang() -> None:
    """The server answers nothing: only those who wait for it may wait."""
    client = make(timeout=10)
    with Watch():
        client.track("first")
        waiting = threading.Thread(target=client.flush, args=(4,))
        waiting.start()
        in_greenlets(lambda: track_some(client))
        SEEN["flush_waits"] = waiting.is_alive()
        waiting.join()
        started = time.monotonic()
        client.close()
        SEEN["close"] = time.monotonic() - started


def leave() -> None:
    """The program ends without a close."""
    global client
    # Held to the end: one that is forgotten is let go without a last attempt.
    client = make(close_timeout=0.5 if SCENE == "leave at once" else 20)
    track_some(client)


def flush_in_a_hook() -> None:
    """It would wait for itself, and is told so."""
    errors: list[str] = []
    called = threading.Event()

    def hook(_details: object) -> None:
        errors.append(repr(client.flush(timeout=10).error))
        called.set()

    with make(on_delivered=hook) as client:
        client.track("x")
        client.flush(timeout=5)
        SEEN["called"] = called.wait(10)
    SEEN["errors"] = errors


def by_hand() -> None:
    """Without a thread: the greenlet that flushes delivers, the others go on."""
    with make(start=False) as client:
        in_greenlets(lambda: track_some(client))
        in_greenlets(lambda: client.flush(timeout=10), 3)
        SEEN["pending"] = client.stats().pending


SCENES = {
    "deliver": deliver,
    "imported first": deliver,
    "hang": hang,
    "leave": leave,
    "leave at once": leave,
    "flush in a hook": flush_in_a_hook,
    "by hand": by_hand,
}
SCENES[SCENE]()
print(json.dumps(SEEN))  # noqa: T201 - how it talks to the test
