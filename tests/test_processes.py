"""Two processes of one app side by side: each writes to a file of its own, and all arrives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from owner import Owner

from causality_sdk import Client
from causality_sdk.testing import LoopbackCollector

PROGRAM = """
import json, sys
from pathlib import Path
from typing import Any
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


def test_stats_tell_of_all_files_of_the_app_and_who_owns_each(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    options: dict[str, Any] = {
        "api_key": "test-key",
        "endpoint": "http://127.0.0.1:9",
        "app_id": "pair",
    }
    with Owner() as other:
        assert other.take(path) == "queue.db"
        with Client(**options, queue_path=path, start=False) as client:
            client.track("tick")
            first, second = client.stats().files
            assert (first.path, second.path) == (str(path), str(path.with_name("queue.1.db")))
            assert (first.state, first.pid) == ("owned", other.process.pid)
            assert (second.state, second.pid) == ("owned", os.getpid())
            assert second.bytes > 0
            assert second.host == first.host != ""
            if sys.platform == "linux":
                other.process.send_signal(signal.SIGSTOP)
                os.waitpid(other.process.pid, os.WUNTRACED)
                assert client.stats().files[0].state == "stopped"
                other.process.send_signal(signal.SIGCONT)
            other.kill()
            assert client.stats().files[0].state == "free"
        assert client.stats().files[1].state == "free"


def test_a_queue_in_memory_has_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Client(
        api_key="test-key",
        endpoint="http://127.0.0.1:9",
        app_id="pair",
        queue_path=tmp_path / "file" / "queue.db",
        fallback="memory",
        start=False,
    ) as client:
        assert client.stats().files == ()
