"""A program that forks while its threads track. `forker.py SPEC`, as for `producer.py`, and `how`.

`fork`: children of threads in mid-commit track, collect garbage, end in every way. `double`: of a
child, a grandchild. `prefork`: workers of a master that has made the client, as gunicorn with
`preload_app`. `multiprocessing`: its workers. Prints the number of children that did not end.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from causality_sdk import Client
from faults.events import API_KEY, APP_ID, digest, encoded
from faults.programs.producer import DEFAULTS, Server

THREADS = 4
PER_CHILD = 5
SECONDS = 10.0  # a child that takes longer hangs


class Tracker:
    """Tracks with keys of its own, and journals."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.client = Client(
            api_key=API_KEY,
            endpoint=spec["endpoint"],
            app_id=APP_ID,
            queue_path=spec["queue"],
            transport=Server(spec["arrived"], lie=False),
            flush_interval=0.1,
            close_timeout=5.0,
        )
        self.sabotage = spec["sabotage"]  # "no track": journals what was never tracked
        self._journal = os.open(spec["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.stopping = threading.Event()

    def track(self, first: int, count: int) -> None:
        """Lines `first` and following."""
        for event, key, payload in encoded(count, first):
            if self.stopping.is_set():
                return
            if self.sabotage or self.client.track(event) is not None:
                os.write(self._journal, f"{key} {digest(payload)}\n".encode())


def child(tracker: Tracker, number: int, how: str, sabotage: str) -> None:
    """What a child does; it ends in another way each time."""
    tracker.sabotage = sabotage
    tracker.track(50_000 + number * PER_CHILD, PER_CHILD)
    gc.collect()
    if how == "double" and (inner := os.fork()):
        os.waitpid(inner, 0)
        os._exit(0)
    if how == "double":
        tracker.track(70_000 + number * PER_CHILD, PER_CHILD)
    if how == "prefork":
        tracker.client.close()
        os._exit(0)
    if number % 3 == 0:
        sys.exit(0)  # with atexit hooks, and the garbage
    if number % 3 == 1:
        del tracker.client
        gc.collect()
    os._exit(0)


def wait(pids: list[int]) -> int:
    """How many of them hang. They are killed."""
    deadline = time.monotonic() + SECONDS
    hanging = 0
    for pid in pids:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                hanging += 1
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(0.005)  # waitpid has no timeout
    return hanging


def main(spec: dict[str, Any]) -> None:
    tracker = Tracker(spec)
    sabotage, tracker.sabotage = tracker.sabotage, ""
    how, count = spec["how"], spec["events"]
    threads = []
    if how != "prefork":
        for number in range(THREADS):
            thread = threading.Thread(target=tracker.track, args=(number * 10_000, 10_000))
            thread.start()
            threads.append(thread)
    if how == "multiprocessing":
        context = multiprocessing.get_context("fork")
        workers = [
            context.Process(target=child, args=(tracker, number, "mp", sabotage))
            for number in range(count)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(SECONDS)
        hanging = sum(worker.is_alive() for worker in workers)
        for worker in workers:
            worker.kill()
    else:
        pids = []
        for number in range(count):
            pid = os.fork()
            if pid == 0:
                child(tracker, number, how, sabotage)
            pids.append(pid)
            if len(pids) >= 8:
                hanging_now = wait([pids.pop(0)])
                if hanging_now:
                    break
        hanging = wait(pids)
    tracker.stopping.set()
    for thread in threads:
        thread.join()
    # The parent's lock must be its own still: nobody else may have its file.
    tracker.stopping.clear()
    tracker.track(90_000, 20)
    held = probe(spec["queue"])
    tracker.client.close()
    print(json.dumps({"hanging": hanging, "lock lost": not held}))  # noqa: T201


def probe(queue: str) -> bool:
    """Whether the first file is owned, as another process sees it."""
    import subprocess

    script = (
        "import sys; from pathlib import Path; from causality_sdk.ownership import acquire\n"
        "sys.exit(acquire(Path(sys.argv[1])) is not None)"
    )
    return subprocess.run([sys.executable, "-c", script, queue], check=False).returncode == 0


if __name__ == "__main__":
    main({**DEFAULTS, **json.loads(sys.argv[1])})
