"""The main job on real input: killed again and again, the server away half of the time.

Nothing that `track()` returned a key for is lost, nothing arrives twice after deduplication, the
bytes that arrive are those that were queued, and they arrive in order.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import causality_sdk
from causality_sdk.event import Encoder
from causality_sdk.testing import LoopbackCollector

HERE = Path(__file__).parent
PROGRAM = HERE / "programs" / "departures.py"
SAMPLE = Path(causality_sdk.__file__).parent / "cli" / "flights-5000.ndjson.gz"
ALL = HERE / "data" / "flights-100000.ndjson.gz"


def test_5000_departures_survive_five_kills(tmp_path: Path) -> None:
    run(SAMPLE, tmp_path, kills=5, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_100000_departures_survive_ten_kills(tmp_path: Path, seed: int) -> None:
    run(ALL, tmp_path, kills=10, seed=seed)


def run(source: Path, directory: Path, *, kills: int, seed: int) -> None:
    """Plays `source` through a program that is killed `kills` times, and judges what arrived."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    rng = random.Random(seed)  # noqa: S311 - the moments must be the same in every run
    killed_at = sorted(rng.sample(range(len(lines) // 20, len(lines) * 19 // 20), kills))
    # Twenty spells, every second one without a server.
    turns = [(len(lines) * turn // 20, turn % 2 == 1) for turn in range(1, 20)]
    journal = directory / "journal"
    with LoopbackCollector(journal=directory / "arrived") as collector:
        arguments = [
            sys.executable,
            str(PROGRAM),
            str(source),
            str(journal),
            str(directory / "queue" / "queue.db"),
            collector.endpoint,
        ]
        counters = None
        while counters is None:
            with subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as program:
                assert program.stdin is not None
                assert program.stdout is not None
                for line in program.stdout:
                    if line.startswith("at "):
                        at = int(line[3:])
                        while turns and at >= turns[0][0]:
                            collector.down() if turns.pop(0)[1] else collector.up()
                        if killed_at and at >= killed_at[0]:
                            killed_at.pop(0)
                            program.kill()
                    elif line == "tracked\n":
                        collector.up()
                        program.stdin.write("the server is back\n")
                        program.stdin.flush()
                    else:
                        counters = json.loads(line)
            assert counters is None or program.returncode == 0
        assert not killed_at, "it was not killed as often as it should have been"
        judge(lines, journal, collector, counters)


def judge(
    lines: list[str], journal: Path, collector: LoopbackCollector, counters: dict[str, int]
) -> None:
    key_of = load_program().key_of
    expected = [key_of(number) for number in range(len(lines))]
    journaled = journal.read_text().split()
    assert set(journaled) == set(expected)
    assert set(journaled) - set(collector.keys) == set(), "lost"
    # The first arrivals are in the order of tracking, and each key is there once.
    assert collector.keys == expected
    encoder = Encoder("departures", max_event_bytes=10**6)
    payloads = collector.payloads
    for number, (key, line) in enumerate(zip(expected, lines, strict=True)):
        departure = json.loads(line)
        _, payload = encoder.encode(
            departure["event_type"],
            departure["properties"],
            None,
            None,
            departure["device_id"],
            departure["timestamp_ms"],
            key,
        )
        assert payloads[key] == payload, f"departure {number} arrived altered"
    residual = (
        counters["tracked"]
        - counters["acknowledged"]
        - counters["evicted"]
        - counters["buried"]
        - counters["pending"]
    )
    assert residual == 0
    assert (counters["evicted"], counters["buried"], counters["pending"]) == (0, 0, 0)
    # What was in mid-air at a kill may have been tracked twice; nothing was tracked less than once.
    assert len(lines) <= counters["tracked"] <= len(lines) + 10


def load_program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("departures_program", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_judge_sees_a_lost_event_and_an_altered_one(tmp_path: Path) -> None:
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()[:3]
    key_of = load_program().key_of
    keys = [key_of(number) for number in range(3)]
    journal = tmp_path / "journal"
    journal.write_text("".join(f"{key}\n" for key in keys))
    encoder = Encoder("departures", max_event_bytes=10**6)
    payloads = {}
    for key, line in zip(keys, lines, strict=True):
        departure = json.loads(line)
        properties, device = departure["properties"], departure["device_id"]
        when = departure["timestamp_ms"]
        _, payloads[key] = encoder.encode(
            departure["event_type"], properties, None, None, device, when, key
        )
    counters = {"tracked": 3, "acknowledged": 3, "evicted": 0, "buried": 0, "pending": 0}

    class Arrived:
        def __init__(self, **payloads: bytes) -> None:
            self.payloads = payloads
            self.keys = list(payloads)

    judge(lines, journal, Arrived(**payloads), counters)  # type: ignore[arg-type]
    lost = Arrived(**dict(list(payloads.items())[:2]))
    with pytest.raises(AssertionError, match="lost"):
        judge(lines, journal, lost, counters)  # type: ignore[arg-type]
    altered = Arrived(**{**payloads, keys[1]: payloads[keys[1]].replace(b"null", b"0") + b" "})
    with pytest.raises(AssertionError, match="departure 1 arrived altered"):
        judge(lines, journal, altered, counters)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        judge(lines, journal, Arrived(**payloads), {**counters, "acknowledged": 2})  # type: ignore[arg-type]
