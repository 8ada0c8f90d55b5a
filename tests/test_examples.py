"""Every file in examples/ runs by itself, in an empty directory, and prints what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from causality_sdk.testing import LoopbackCollector

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name[0] != "_")

OF_ITS_OWN = {"own_destination.py"}  # brings the only server that understands it

# The lines that must come, in this order; others may stand between them.
PROMISED = {
    "async_service.py": [
        "100 requests served, each event committed to disk",
        "flushed, 0 wait",
        "closed: 121 of 121 events delivered, 0 wait",
    ],
    "backend_service.py": [
        "20 requests served, each event committed to disk",
        "the background thread has delivered a first batch of 20",
        "closed: 23 of 23 events delivered, 0 wait",
    ],
    "gevent_service.py": [
        "40 greenlets have tracked, each event committed to disk",
        "flushed, 0 wait",
    ],
    "kiosk_offline.py": [
        "online:  1 event delivered",
        "offline: 5 events wait in the queue file",
        "the server has 6 events, tickets in order: [1, 2, 3, 4, 5]",
        "done:    6 delivered, 0 wait",
    ],
    "own_destination.py": [
        "the wire and the transport keep their protocols",
        "3 events delivered, 0 wait",
        "the server stored 3 lines and saw the key a-key",
    ],
    "replay_after_outage.py": [
        "a process tracked 7 events and was killed",
        "before: tracked 7, acknowledged 0, pending 7",
        "after : tracked 7, acknowledged 7, pending 0",
        "the server received 10 events over both processes",
        "it knew 3 by their key and kept 7",
        "keys unchanged: True",
    ],
}


def run(
    example: Path, directory: Path, options: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if "CAUSALITY" not in name}
    # In development mode asyncio tells of slow steps, which a busy machine has.
    environ.pop("PYTHONDEVMODE", None)
    environ |= {"HOME": str(directory), "XDG_DATA_HOME": str(directory), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=directory,
        env=environ | options,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )


def test_every_example_has_its_promise() -> None:
    assert {path.name for path in EXAMPLES} == set(PROMISED)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_prints_what_it_promises(example: Path, tmp_path: Path) -> None:
    result = run(example, tmp_path, {})
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line for line in lines if line in PROMISED[example.name]] == PROMISED[example.name]
    assert list(tmp_path.iterdir()) == [], "it left something behind"


def test_a_wire_and_a_transport_by_hand_are_short() -> None:
    lines = (ROOT / "examples" / "_lines.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 40


@pytest.mark.parametrize(
    "example",
    [path for path in EXAMPLES if path.name not in OF_ITS_OWN],
    ids=lambda path: path.name,
)
def test_an_example_uses_the_server_that_the_environment_names(
    example: Path, tmp_path: Path
) -> None:
    with LoopbackCollector(api_key="a-key") as collector:
        options = {
            "CAUSALITY_ENDPOINT": collector.endpoint,
            "CAUSALITY_API_KEY": "a-key",
            "CAUSALITY_QUEUE_PATH": str(tmp_path / "queue.db"),
        }
        result = run(example, tmp_path, options)
        assert (result.returncode, result.stderr) == (0, "")
        assert collector.count > 0
