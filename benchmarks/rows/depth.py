"""What does not depend on how much is queued: time, memory, and bytes on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.process import Process
from benchmarks.result import Result, median, ratio, rounds

COUNT = 1000


def depth(bench: Bench) -> Iterator[Result]:
    """`track()`, opening, memory and size of the file, from 1,000 to 1,000,000 queued."""
    depths = [1_000, 10_000, 100_000, 1_000_000]
    if bench.quick:
        depths = [1_000, 10_000, 100_000]
    count = bench.scale(COUNT)
    opened: dict[int, list[float]] = {}
    memory: dict[int, int] = {}
    with ExitStack() as stack:
        queues: dict[int, Process] = {}
        directories = {}
        for queued in depths:
            ours = queues[queued] = stack.enter_context(bench.ours())
            directories[queued] = directory = bench.directory()
            ours.ask("open", path=bench.directory())
            ours.ask("put", count=COUNT)  # everything is loaded
            empty = ours.ask("memory")["now"]
            ours.ask("open", path=directory)
            for _ in range(queued // 1000):
                ours.ask("put_many", calls=1, events=1000)
            memory[queued] = ours.ask("memory")["now"] - empty
            opened[queued] = []
        for _ in range(bench.rounds):
            for queued, ours in queues.items():
                ours.ask("close")
                opened[queued].append(ours.ask("open", path=directories[queued]) * 1e3)
        taken = rounds(
            2 * bench.rounds + 1,
            {str(queued): partial(_put, ours, count) for queued, ours in queues.items()},
        )
        deepest = depths[-1]
        held = queues[deepest].ask("pending")
        queues[deepest].ask("close")
        size = (Path(directories[deepest]) / "queue.db").stat().st_size
    times = ratio(taken[str(deepest)], taken[str(depths[0])])
    yield Result(
        "depth",
        f"`track()` with {deepest:,} queued, against {depths[0]:,}",
        f"{times:.2f} times ({median(taken[str(deepest)]):.1f} µs)",
        "at most 1.15 times",
        times <= 1.15,
        {name: median(each) for name, each in taken.items()},
    )
    yield Result(
        "depth",
        f"opening a queue of {deepest:,} events",
        f"{median(opened[deepest]):.1f} ms",
        "at most 50 ms",
        median(opened[deepest]) <= 50,
    )
    yield Result(
        "depth",
        f"`Client(…)` on an existing queue of {depths[0]:,} events",
        f"{median(opened[depths[0]]):.1f} ms",
        "at most 10 ms",
        median(opened[depths[0]]) <= 10,
    )
    yield Result(
        "depth",
        f"memory with {deepest:,} queued and the server away, above an empty client",
        f"{memory[deepest] / 1e6:.1f} MB ("
        + ", ".join(f"{memory[queued] / 1e6:.1f} with {queued:,}" for queued in depths[:-1])
        + ")",
        "at most 30 MB",
        memory[deepest] <= 30e6,
    )
    payloads = size / held["bytes"]
    yield Result(
        "depth",
        "bytes on disk per queued event, the log aside",
        f"{payloads:.2f} times its payload of {held['bytes'] / held['events']:.0f}",
        "at most 1.25 times",
        payloads <= 1.25,
    )


def _put(process: Process, count: int) -> float:
    return float(process.ask("put", count=count)) / count * 1e6
