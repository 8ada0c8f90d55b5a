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
    """Bytes written per event, to the log and from there to the database: what wears an SD card."""
    events = bench.scale(20_000)
    try:
        floor = _floor_written(bench, events // 1000)
    except Broken as error:
        yield Result("written", "bytes written per event", f"not counted here: {error}")
        return
    for durability in ("process", "power"):
        with bench.ours() as ours:
            path = bench.directory()
            single, size = _written(ours, path, durability, "put", count=events)
            calls = events // 1000
            grouped, _ = _written(ours, path, durability, "put_many", calls=calls, events=1000)
        each, together = single / events, grouped / calls / 1000
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
            f"{together:,.0f} ({together / size:.2f} times the payload; bare SQLite {floor:.2f})",
            "at most 1.5 times",
            together <= 1.5 * size,
            at_floor=floor > 1.5 and together <= 1.1 * floor * size,
        )


def _floor_written(bench: Bench, calls: int) -> float:
    """What bare `sqlite3` writes for the same rows in the same groups, in times their payload."""
    with Process("benchmarks.subjects.floor") as floor:
        floor.ask("open", path=bench.directory())
        before = floor.ask("written")
        size = floor.ask("put_many", calls=calls, events=1000)
        floor.ask("close")
        return float((floor.ask("written") - before) / size)


def _written(
    ours: Process, path: str, durability: str, verb: str, **arguments: int
) -> tuple[float, float]:
    """Bytes that `verb` and the checkpoint after it wrote, and those of one payload."""
    ours.ask("open", path=path, durability=durability, start=False)
    ours.ask("put", count=10)
    before = ours.ask("written")
    ours.ask(verb, **arguments)
    held = ours.ask("pending")
    ours.ask("close")
    return float(ours.ask("written") - before), float(held["bytes"] / held["events"])


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
