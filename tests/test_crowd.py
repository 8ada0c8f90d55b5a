"""Many processes of one app, killed and started again at random: nothing is lost, nothing stays."""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from child_program import unmeasured

from causality_sdk.testing import LoopbackCollector

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(__file__).parent / "programs" / "crowd.py"


class Crowd:
    """Processes of one app, each with a journal of its own."""

    def __init__(self, directory: Path, endpoint: str) -> None:
        self.directory = directory
        self.endpoint = endpoint
        self.queue_path = directory / "state" / "queue.db"
        self.members: list[subprocess.Popen[str]] = []
        self.started = 0

    def start_one(self) -> None:
        self.started += 1
        journal = self.directory / f"journal-{self.started}"
        self.members.append(
            subprocess.Popen(
                [sys.executable, str(PROGRAM), str(journal), str(self.queue_path), self.endpoint],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={
                    **unmeasured(os.environ),
                    "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
                },
            )
        )

    def ready(self, member: subprocess.Popen[str]) -> str:
        assert member.stdout is not None
        word, _, path = member.stdout.readline().strip().partition(" ")
        assert word == "ready"
        return path

    def kill(self, member: subprocess.Popen[str]) -> None:
        self.members.remove(member)
        member.kill()
        member.communicate()

    def journaled(self) -> dict[str, str]:
        entries: dict[str, str] = {}
        for journal in self.directory.glob("journal-*"):
            for line in journal.read_text().splitlines():
                key, _, digest = line.partition(" ")
                if len(digest) == 64:  # the last line may be cut short by a kill
                    entries[key] = digest
        return entries


def run(tmp_path: Path, processes: int, seconds: float, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    with LoopbackCollector() as collector:
        crowd = Crowd(tmp_path, collector.endpoint)
        for _ in range(processes):
            crowd.start_one()
        owned = [crowd.ready(member) for member in crowd.members]
        assert len(set(owned)) == processes, "two processes own one file"
        kills = 0
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                # The instant of the kill is what is random; nothing waits for anything here.
                select.select([], [], [], rng.uniform(0.0, 0.4))
                if rng.random() < 0.1:
                    collector.down()
                elif rng.random() < 0.5:
                    collector.up()
                crowd.kill(rng.choice(crowd.members))
                kills += 1
                crowd.start_one()
            collector.up()
            while len(crowd.members) > 1:
                crowd.kill(rng.choice(crowd.members))
                kills += 1
            last = crowd.members[0]
            output, _ = last.communicate("deliver\n", timeout=120)
        finally:
            for member in crowd.members:
                member.kill()
                member.communicate()
        counters = json.loads(output.splitlines()[-1])
        judge(crowd.journaled(), collector, counters, kills)
        print(  # noqa: T201 - for whoever runs it with -s
            f"{processes} processes, {kills} kills: {counters}, {collector.duplicates} repeated"
        )


def judge(
    journaled: dict[str, str],
    collector: LoopbackCollector,
    counters: dict[str, int],
    kills: int,
) -> None:
    delivered = {
        event["idempotency_key"]: "{pid} {number}".format(**event["properties"])
        for event in collector.events
    }
    assert set(journaled) - set(delivered) == set(), "lost"
    for key, digest in journaled.items():
        assert hashlib.sha256(delivered[key].encode()).hexdigest() == digest, "altered"
    # Every file's counters were carried exactly once: what was tracked is what arrived.
    assert counters["tracked"] == counters["acknowledged"] == len(delivered)
    assert (counters["evicted"], counters["buried"], counters["pending"]) == (0, 0, 0)
    # In mid-air at a kill is one event at most: committed, and its key not yet journaled.
    assert len(journaled) <= len(delivered) <= len(journaled) + kills
    assert len(counters["files"]) == 1  # type: ignore[arg-type]


def test_a_crowd_that_is_killed_at_random_loses_nothing(tmp_path: Path) -> None:
    run(tmp_path, processes=4, seconds=3.0, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("processes", [8, 32])
def test_a_minute_of_it(tmp_path: Path, processes: int) -> None:
    run(tmp_path, processes=processes, seconds=60.0, seed=processes)
