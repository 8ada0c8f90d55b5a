"""multiprocessing and concurrent.futures: a child sends its events as it ends.

Such children skip atexit hooks, and under spawn and forkserver they import the main module anew.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from child_program import run, unmeasured
from queue_files import drain, payloads, queue_files

from causality_sdk.testing import LoopbackCollector

PROGRAM = Path(__file__).parent / "programs" / "pools.py"


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_the_events_of_children_are_sent_as_they_end(tmp_path: Path, method: str) -> None:
    """Of a Process, a Pool, a ProcessPoolExecutor; with the module's client or their own."""
    with LoopbackCollector(api_key="test-key") as collector:
        program = subprocess.run(
            [
                *(sys.executable, "-W", "error", str(PROGRAM)),
                *(method, str(tmp_path / "queue.db"), collector.endpoint),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env=unmeasured(os.environ),
            check=False,
        )
        assert (program.returncode, program.stderr) == (0, "")
        keys = json.loads(program.stdout)
        assert len(keys) == len(set(keys)) == 15
        # By the children and the parent, before they ended: nothing was drained here.
        assert sorted(collector.keys) == sorted(keys)
        assert collector.duplicates == 0
        assert [
            list(payloads(path)) for path in queue_files(tmp_path) if list(payloads(path))
        ] == []
        drain(tmp_path, "pools", collector.endpoint)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="nothing forks here"
)
def test_what_a_terminated_pool_did_not_send_is_on_disk(tmp_path: Path) -> None:
    """`with Pool() as pool` kills its workers, so nothing of theirs runs at the end."""
    body = """
        import multiprocessing

        client = make(flush_interval=3600, batch_size=1000)

        def work(number):
            return client.track("work", {"number": number})

        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(json.dumps(pool.map(work, range(20))))
        """
    with LoopbackCollector(api_key="test-key") as collector:
        keys = json.loads(run(body, tmp_path / "queue.db", collector.endpoint))
        drain(tmp_path, "child", collector.endpoint)
        assert sorted(collector.keys) == sorted(keys)


def test_a_client_made_before_multiprocessing_was_imported_is_closed_too(tmp_path: Path) -> None:
    body = """
        client = make(flush_interval=3600, batch_size=1000)
        assert "multiprocessing" not in sys.modules
        import multiprocessing
        process = multiprocessing.get_context("fork").Process(target=client.track, args=("child",))
        process.start()
        process.join()
        assert process.exitcode == 0
        """
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("nothing forks here")
    with LoopbackCollector(api_key="test-key") as collector:
        run(body, tmp_path / "queue.db", collector.endpoint)
        assert [event["event_type"] for event in collector.events] == ["child"]
