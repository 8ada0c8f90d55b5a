"""What the machine pays: bytes written to the disk, time to start and to end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from benchmarks.bench import Bench
from benchmarks.process import Broken, Process
from benchmarks.result import Result, median, ratio, rounds

PAGE = 4096
CLOSE_TIMEOUT = 1.0


def written(bench: Bench) -> Iterator[Result]:
    """Bytes written per event, the log and the database alike: what wears an SD card."""
    events = bench.scale(20_000)
    for durability in ("process", "power"):
        with bench.ours() as ours:
            ours.ask("open", path=bench.directory(), durability=durability, start=False)
            ours.ask("put", count=100)
            size = _size(ours)
            try:
                each = _written(ours, "put", count=events) / events
                grouped = _written(ours, "put_many", calls=events // 1000, events=1000) / (
                    events // 1000 * 1000
                )
            except Broken as error:
                yield Result("written", "bytes written per event", f"not counted here: {error}")
                return
        yield Result(
            "written",
            f'bytes written per event, `track()`, `durability="{durability}"`',
            f"{each:,.0f} ({each / PAGE:.2f} pages)",
            "at most 2 pages",
            each <= 2 * PAGE,
        )
        yield Result(
            "written",
            f'the same, `track_many(1000)`, `durability="{durability}"`',
            f"{grouped:,.0f} ({grouped / size:.2f} times the payload)",
            "shown; the goal is 1.5 times",
            grouped <= 1.5 * size,
        )


def _size(ours: Process) -> float:
    held = ours.ask("pending")
    return float(held["bytes"] / held["events"])


def _written(ours: Process, verb: str, **arguments: int) -> float:
    before = ours.ask("written")
    ours.ask(verb, **arguments)
    return float(ours.ask("written") - before)


def start(bench: Bench) -> Iterator[Result]:
    """`import causality_sdk`, beside Segment's import."""
    imports = {"causality-sdk": (sys.executable, "causality_sdk")}
    if "segment" in bench.peers:
        imports["segment"] = (bench.peers["segment"][0], "segment.analytics")
    taken = rounds(
        2 * bench.rounds + 1,
        {name: partial(_import_ms, *each) for name, each in imports.items()},
    )
    mine = taken["causality-sdk"]
    share = ratio(mine, taken["segment"]) if "segment" in taken else None
    beside = ""
    if share is not None:
        beside = f"; {share:.2f} times Segment's ({median(taken['segment']):.0f} ms)"
    yield Result(
        "start",
        "`import causality_sdk`",
        f"{median(mine):.0f} ms{beside}",
        "at most half of Segment's",
        None if share is None else share <= 0.5,
    )


def _import_ms(python: str, module: str) -> float:
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout) * 1e3


def close(bench: Bench) -> Iterator[Result]:
    """`close()` while the server is away: refused, and silent."""
    taken = []
    for _ in range(3):
        with bench.ours() as ours:
            ours.ask("open", path=bench.directory())
            ours.ask("put", count=1000)
            taken.append(ours.ask("close", timeout=CLOSE_TIMEOUT))
    yield Result(
        "close",
        f"`close()` with the server away, close_timeout {CLOSE_TIMEOUT:g} s",
        f"{max(taken):.2f} s at most",
        f"at most {CLOSE_TIMEOUT + 0.1:g} s",
        max(taken) <= CLOSE_TIMEOUT + 0.1,
    )
