"""A process that forks at random moments while its threads do everything a client can do.

    python forks.py queue endpoint keys-directory forks durability seed

Each process writes the events whose key it got to a file of its own in keys-directory, one JSON
list `[key, process, n]` a line, before it ends. Writes `{"hung": …, "failed": …, "forks": …}`.
"""

from __future__ import annotations

import gc
import json
import os
import random
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from causality_sdk import Client, Event

TIMESTAMP_MS = 1_732_147_200_000  # of every event, so that its bytes can be made again
CHILD_SECONDS = 60.0  # longer than any child needs on a busy machine, shorter than for ever
AT_ONCE = 4  # children


class Tracker:
    """Tracks numbered events of one thread of one process, and remembers what it got keys for."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = f"{os.getpid()}-{name}"
        self.lines: list[str] = []
        self.refused = 0
        self._n = 0

    def _event(self) -> Event:
        self._n += 1
        return Event("tick", {"process": self.name, "n": self._n}, timestamp=TIMESTAMP_MS)

    def track(self) -> None:
        key = self.client.track(self._event())
        if key is None:
            self.refused += 1
        else:
            self._note(key, self._n)

    def track_many(self, count: int) -> None:
        first = self._n + 1
        keys = self.client.track_many([self._event() for _ in range(count)])
        if keys is None:
            self.refused += 1
        for number, key in enumerate(keys or (), first):
            self._note(key, number)

    def _note(self, key: str, n: int) -> None:
        self.lines.append(json.dumps([key, self.name, n]) + "\n")

    def save(self, directory: Path) -> None:
        (directory / self.name).write_text("".join(self.lines))


class Load:
    """Threads that are always inside something when the process forks."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.over = threading.Event()
        self.trackers = [Tracker(client, name) for name in ("one", "many", "cap")]
        one, many, cap = self.trackers
        jobs = [
            one.track,
            lambda: many.track_many(40),
            lambda: cap.track_many(3),
            lambda: client.flush(timeout=0.2),
            self._checkpoint,
            client.stats,
        ]
        self.threads = [threading.Thread(target=self._run, args=(job,)) for job in jobs]

    def _checkpoint(self) -> None:
        assert self.client._pipeline is not None
        self.client._pipeline.queue.checkpoint()

    def _run(self, job: object) -> None:
        assert callable(job)
        while not self.over.wait(0.001):
            job()

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


def child(client: Client, directory: Path, way: int) -> None:
    """What a child does before it ends. `way` chooses how, and how it ends."""
    tracker = Tracker(client, "child")
    if way == 0:
        os._exit(0)  # never used the client
    if way == 1:
        gc.collect()
    if way == 2 and os.fork():  # a grandchild goes on, and its parent ends at once
        os._exit(0)
    for _ in range(3):
        tracker.track()
    tracker.track_many(5)
    if way == 3:
        client.flush(timeout=2)
    tracker.save(directory)
    if way == 4:
        client.close()
    if tracker.refused:
        os._exit(9)
    if way in (5, 6):
        raise SystemExit(0)  # a thread of the client's, and its exit hook
    os._exit(0)


def main() -> None:
    durability: Any  # a word of the type of the option
    queue, endpoint, keys, forks, durability, seed = sys.argv[1:]
    rng = random.Random(int(seed))  # noqa: S311 - the moments should be the same in every run
    client = Client(
        api_key="test-key",
        endpoint=endpoint,
        app_id="forks",
        queue_path=Path(queue),
        durability=durability,
        flush_interval=0.05,
        batch_size=20,
        close_timeout=0.3,
    )
    alive: dict[int, int] = {}  # read end of the pipe whose other end the child holds, and its pid
    hung = failed = 0

    def reap(most: int) -> None:
        """Waits until at most `most` children are left."""
        nonlocal hung, failed
        while len(alive) > most:
            ready, _, _ = select.select(list(alive), [], [], CHILD_SECONDS)
            for end in ready or list(alive):
                pid = alive.pop(end)
                os.close(end)
                if not ready:
                    hung += 1
                    os.kill(pid, signal.SIGKILL)
                failed += os.waitpid(pid, 0)[1] != 0

    pause = threading.Event()
    with Load(client) as load:
        for _ in range(int(forks)):
            pause.wait(rng.random() * 0.01)
            read_end, write_end = os.pipe()
            pid = os.fork()
            if pid == 0:
                load.over.set()
                child(client, Path(keys), rng.randrange(7))
            os.close(write_end)
            rng.randrange(7)  # as the child did
            alive[read_end] = pid
            reap(AT_ONCE - 1)
        reap(0)
    for tracker in load.trackers:
        tracker.save(Path(keys))
    client.close()
    sys.stdout.write(json.dumps({"hung": hung, "failed": failed, "forks": int(forks)}))


if __name__ == "__main__":
    main()
