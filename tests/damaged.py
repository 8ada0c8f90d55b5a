"""What the tests of damage share: a file that somebody left, and a life after the damage."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from disk import HERE

from causality_sdk import ownership, repair
from causality_sdk.dead_letters import DeadLetters
from causality_sdk.errors import QueueError
from causality_sdk.mending import Mender
from causality_sdk.queue import Queue
from causality_sdk.repair import Repair

ROOT = Path(__file__).resolve().parent.parent
PAGE = 4096

KILLED = """
import os, sys
from pathlib import Path
from disk import HERE
from causality_sdk import schema
from causality_sdk.dead_letters import bury
from causality_sdk.queue import Queue
path, events, size, checkpoint = Path(sys.argv[1]), *map(int, sys.argv[2:])
schema.prepare(path, HERE)
queue = Queue(path, max_events=10**9, max_bytes=2**40)
for number in range(events):
    queue.append(b"%06d" % number + bytes([number % 251]) * (size - 6))
    if number == checkpoint:
        queue.checkpoint()
def end():
    if checkpoint < events:
        os._exit(0)  # nothing is closed
    queue.close()
if events > 20:
    queue.settle(queue.peek(0, max_events=5, max_bytes=2**40))
    bury(queue, 6, attempts=3, status=400, reason="no")
end()
"""


def leave_behind(path: Path, *, events: int, size: int = 200, checkpoint: int = -1) -> list[bytes]:
    """The file of a process that ended without closing it; gives what is queued in it.

    The first five of more than twenty events are acknowledged, the sixth is a dead letter.
    `checkpoint`: after that event all was moved into the database; what follows is in the log.
    If it is the number of events, the file was closed in good order.
    """
    search = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    arguments = [str(path), str(events), str(size), str(checkpoint)]
    subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": search},
    )
    all_of_it = [b"%06d" % n + bytes([n % 251]) * (size - 6) for n in range(events)]
    return all_of_it[6 if events > 20 else 0 :]


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """As a bad disk or a stray program does it: in place, length unchanged."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


class Life:
    """A queue that is opened as a client opens it, and drained as a sender does."""

    def __init__(self, path: Path) -> None:
        self.repairs: list[Repair] = []
        lease = ownership.acquire(path)
        assert lease is not None
        self.lease = lease
        try:
            _, done = repair.prepare(path, HERE, is_same_boot=True)
            if done is not None:
                self.repairs.append(done)
            self.queue = Queue(path, max_events=10**9, max_bytes=2**40)
        except BaseException:
            lease.release()
            raise
        self.mender = Mender(self.queue, lease, path, HERE, time.monotonic)

    def retrying(self, work: Callable[[], list[tuple[int, bytes]]]) -> list[tuple[int, bytes]]:
        """What `work` gives, after at most a few repairs."""
        try:
            return work()
        except QueueError:
            done = self.mender.step()
            if done is None or len(self.repairs) > 3:
                raise
            self.repairs.append(done)
        return self.retrying(work)

    def drain(self, events: int = 10**9) -> list[bytes]:
        """Acknowledges up to `events`, and gives them in the order in which they would be sent."""
        sent: list[tuple[int, bytes]] = []
        while len(sent) < events:
            after = sent[-1][0] if sent else 0
            most = min(100, events - len(sent))
            rows = self.retrying(
                lambda: self.queue.peek(after, max_events=most, max_bytes=2**40)  # noqa: B023
            )
            if not rows:
                break
            self.retrying(lambda: self._settle(rows))  # noqa: B023
            sent += rows
        return [payload for _, payload in sent]

    def letters(self) -> Sequence[bytes]:
        """The payloads of the dead letters."""
        return [letter.payload for letter in DeadLetters(self.queue)]

    def _settle(self, rows: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        self.queue.settle(rows)
        return []

    def __enter__(self) -> Life:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.queue.close()
        if self.mender.lease is not None:
            self.mender.lease.release()
