"""Two processes of one app side by side: each writes to a file of its own, and all arrives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from causality_sdk.testing import LoopbackCollector

PROGRAM = """
import json, sys
from pathlib import Path
from causality_sdk import Client, Event

path, endpoint, name = sys.argv[1:]
client = Client(api_key="test-key", endpoint=endpoint, app_id="pair", queue_path=Path(path))
print("ready", flush=True)
sys.stdin.readline()  # both are there
keys = [client.track("tick", {"process": name, "n": n}) for n in range(300)]
keys += client.track_many(Event("tick", {"process": name, "n": n}) for n in range(300, 500))
report = client.flush(timeout=30)
stats = client.stats()
client.close()
print(json.dumps({"keys": keys, "file": stats.queue_path, "tracked": stats.tracked,
                  "acknowledged": stats.acknowledged, "remaining": report.remaining}))
"""


def test_two_processes_of_one_app_work_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with LoopbackCollector() as collector:
        programs = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(path), collector.endpoint, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("first", "second")
        ]
        results = []
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        for program in programs:
            output, _ = program.communicate(timeout=60)
            assert program.returncode == 0
            results.append(json.loads(output))
        assert {result["file"] for result in results} == {
            str(path),
            str(path.with_name("queue.1.db")),
        }
        assert [result["remaining"] for result in results] == [0, 0]
        assert [(result["tracked"], result["acknowledged"]) for result in results] == [
            (500, 500),
            (500, 500),
        ]
        assert sorted(collector.keys) == sorted(results[0]["keys"] + results[1]["keys"])
        assert collector.duplicates == 0
        for name in ("first", "second"):
            numbers = [
                event["properties"]["n"]
                for event in collector.events
                if event["properties"]["process"] == name
            ]
            assert numbers == list(range(500))
