"""Processes that really fork: both sides go on, each with a queue file of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from queue_files import drain, payloads, queue_files

from causality_sdk.event import Encoder
from causality_sdk.testing import LoopbackCollector

if not hasattr(os, "fork"):
    pytest.skip("nothing forks here", allow_module_level=True)

PROGRAMS = Path(__file__).parent / "programs"
TIMESTAMP_MS = 1_732_147_200_000  # as in programs/forks.py


# ------------------------------------------------------------------------------ under load


@pytest.mark.parametrize("durability", ["process", "power"])
def test_30_forks_under_load_neither_hang_nor_lose_nor_corrupt(
    tmp_path: Path, durability: str
) -> None:
    storm(tmp_path, forks=30, durability=durability, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("durability", ["process", "power"])
def test_250_forks_under_load_neither_hang_nor_lose_nor_corrupt(
    tmp_path: Path, durability: str
) -> None:
    storm(tmp_path, forks=250, durability=durability, seed=2)


def storm(directory: Path, *, forks: int, durability: str, seed: int) -> None:
    """Forks a process that does everything at once, and judges what all of them left."""
    queue, keys = directory / "queue", directory / "keys"
    keys.mkdir()
    with LoopbackCollector(api_key="test-key") as collector:
        program = subprocess.run(
            [
                *(sys.executable, str(PROGRAMS / "forks.py"), str(queue / "queue.db")),
                *(collector.endpoint, str(keys), str(forks), durability, str(seed)),
            ],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert program.returncode == 0, program.stderr
        assert json.loads(program.stdout) == {"hung": 0, "failed": 0, "forks": forks}
        returned = [
            json.loads(line) for path in keys.iterdir() for line in path.read_text().splitlines()
        ]
        assert len({key for key, _, _ in returned}) == len(returned)
        assert len(list(keys.iterdir())) > forks // 2  # most children tracked
        drain(queue, "forks", collector.endpoint)
        arrived = collector.payloads
        encoder = Encoder("forks", max_event_bytes=10_000)
        for key, process, n in returned:
            _, payload = encoder.encode(
                "tick",
                {"process": process, "n": n},
                timestamp=TIMESTAMP_MS,
                idempotency_key=key,
            )
            assert arrived[key] == payload
