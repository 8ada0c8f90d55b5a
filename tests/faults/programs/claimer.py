"""Claims queue files and lets them go, again and again. `claimer.py BASE SECONDS SEED ENDPOINT`.

While it owns a file it holds a mark beside it, made with O_EXCL: one that is there already is a
second owner. Prints a line of JSON for each. `SEED` 0 is the control: it does not claim, it takes.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from causality_sdk import ownership
from causality_sdk.claim import claim
from causality_sdk.errors import QueueError
from causality_sdk.queue import Queue
from faults.events import HERE


def is_alive(mark: Path) -> bool:
    """Whether the owner that a mark names lives."""
    try:
        pid = int(mark.read_text())
    except (ValueError, OSError):
        return False
    # One that was killed loses its lock a moment before it is seen to be dead.
    for _ in range(50):
        if _state(pid) == "Z":
            return False
        time.sleep(0.002)
    return True


def _state(pid: int) -> str:
    """Of /proc; Z, too, for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def main(base: Path, seconds: float, seed: int, endpoint: str) -> None:
    rng = random.Random(seed)  # noqa: S311
    destination = HERE._replace(endpoint=endpoint)
    end = time.monotonic() + seconds
    claims = doubles = 0
    while time.monotonic() < end:
        if seed:
            try:
                lease = claim(base, destination).lease
            except QueueError as error:
                print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201
                continue
        else:
            lease = ownership.Lease(base, None, is_same_boot=False)  # type: ignore[arg-type]
        mark = lease.path.with_name(lease.path.name + ".mark")
        try:
            mark_file = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            if is_alive(mark):
                doubles += 1
            mark_file = os.open(mark, os.O_WRONLY | os.O_TRUNC | os.O_CREAT)
        os.write(mark_file, str(os.getpid()).encode())
        os.close(mark_file)
        claims += 1
        if seed:
            queue = Queue(lease.path, max_events=10**6, max_bytes=10**9)
            queue.append(b'{"idempotency_key":"%d-%d"}' % (os.getpid(), claims))
            queue.close()
        time.sleep(rng.uniform(0, 0.002))
        mark.unlink(missing_ok=True)
        if seed:
            lease.release()
    print(json.dumps({"claims": claims, "doubles": doubles}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
