"""A signal handler that tracks, flushes or closes in the middle of whatever its thread does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from child_program import unmeasured

from causality_sdk.testing import LoopbackCollector

ROOT = Path(__file__).resolve().parent.parent

# A timer interrupts a loop that tracks flat out. Most interruptions come inside SQLite, with the
# queue's lock held; a handler that waited for that lock would wait for itself, for ever.
PROGRAM = """
import json, signal, sys
from pathlib import Path
from causality_sdk import Client, Event

path, endpoint, durability, start = sys.argv[1:]
client = Client(api_key="test-key", endpoint=endpoint, app_id="signals", queue_path=Path(path),
                durability=durability, start=start == "thread", flush_interval=0.05)
keys, late, interrupted = [], 0, 0

def handler(number, frame):
    global late, interrupted
    signal.setitimer(signal.ITIMER_REAL, 0)
    interrupted += 1
    key = client.track("in the handler", {"number": interrupted})
    if key is None:
        late += 1
    else:
        keys.append(key)
    if interrupted % 7 == 0:
        client.stats()
    if interrupted % 10 == 0:
        client.flush(timeout=0.02)
    if interrupted == 300:
        client.close(timeout=0.5)
        raise SystemExit
    signal.setitimer(signal.ITIMER_REAL, 0.002)

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.002)
number = 0
try:
    while True:
        number += 1
        if number % 50 == 0:
            keys += client.track_many([Event("many", {"number": number})] * 3) or []
        if number % 400 == 0:
            client.flush(timeout=5)
        key = client.track("outside", {"number": number})
        if key is not None:
            keys.append(key)
finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    with open(path + ".keys", "w") as file:
        json.dump({"keys": keys, "late": late, "interrupted": interrupted}, file)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no timer signals")
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("start", ["thread", "no thread"])
def test_it_neither_hangs_nor_loses_an_event_whose_key_was_returned(
    tmp_path: Path, durability: str, start: str
) -> None:
    path = tmp_path / "queue.db"
    with LoopbackCollector() as collector:
        program = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(path), collector.endpoint, durability, start],
            capture_output=True,
            text=True,
            timeout=60,
            env={**unmeasured(os.environ), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
            check=False,
        )
        assert program.returncode == 0
        # A flush that was given 20 ms on a busy machine may have told of an attempt without answer.
        unexpected = [line for line in program.stderr.splitlines() if "0.02 s" not in line]
        assert unexpected == []
        told = json.loads(Path(f"{path}.keys").read_text())
        assert told["interrupted"] == 300
        # The next start delivers what is left; nothing that has a key is missing then.
        rest = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from pathlib import Path; from causality_sdk import Client\n"
                "client = Client(api_key='test-key', endpoint=sys.argv[2], app_id='signals',"
                " queue_path=Path(sys.argv[1]))\n"
                "report = client.flush(timeout=30); stats = client.stats(); client.close()\n"
                "print(report.remaining, stats.tracked - stats.acknowledged)",
                str(path),
                collector.endpoint,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            env={**unmeasured(os.environ), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
            check=True,
        )
        assert rest.stdout == "0 0\n"
        assert set(told["keys"]) - set(collector.keys) == set()
