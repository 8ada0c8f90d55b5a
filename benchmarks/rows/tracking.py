"""What one event costs its caller: beside the floor and the peers, at the cap, and in the tail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from benchmarks.bench import Bench
from benchmarks.process import Broken, Process
from benchmarks.result import Result, median, ratio, rounds

QUEUES = ("litequeue", "persist-queue-ack", "persist-queue", "diskcache", "huey")
IN_MEMORY = ("segment", "rudderstack", "posthog", "amplitude")
EVENTS = 2000  # of ours in a round; a slow peer gets fewer
WAL_MIB = 16.0


def track(bench: Bench) -> Iterator[Result]:
    """`track()` on one thread, beside everybody."""
    count = bench.scale(EVENTS)
    few = max(10, count // 5)
    with ExitStack() as stack:
        ours = stack.enter_context(bench.ours())
        ours.ask("open", path=bench.directory())
        floor = stack.enter_context(Process("benchmarks.subjects.floor"))
        floor.ask("open", path=bench.directory())
        subjects: dict[str, Callable[[], float]] = {
            "causality-sdk": partial(_put, ours, count),
            "floor": partial(_put, floor, count),
        }
        for name in bench.named(*QUEUES):
            queue = stack.enter_context(bench.peer(name))
            queue.ask("open", path=bench.directory())
            subjects[name] = partial(_put, queue, few)
        for name in bench.named(*IN_MEMORY):
            tracker = stack.enter_context(bench.peer(name))
            subjects[name] = partial(_put_in_memory, tracker, count, bench.endpoint)
        taken = rounds(2 * bench.rounds + 1, subjects)
    mine = taken.pop("causality-sdk")
    to_floor = ratio(mine, taken["floor"])
    yield Result(
        "track",
        "`track()`, one thread, against uuid7 + orjson + bare INSERT",
        f"{median(mine):.1f} µs; {to_floor:.2f} times the floor ({median(taken['floor']):.1f} µs)",
        "at most 1.15 times",
        to_floor <= 1.15,
        {"causality-sdk": median(mine), **{name: median(each) for name, each in taken.items()}},
    )
    wanted = {"litequeue": 2.0, "persist-queue-ack": 8.0, "segment": 1.0}
    for name in (*IN_MEMORY, *QUEUES):
        if name not in taken:
            continue
        factor = ratio(taken[name], mine)
        kind = "in memory only" if name in IN_MEMORY else "on disk"
        least = wanted.get(name)
        yield Result(
            "track",
            f"the same against {name}, {kind}",
            f"{factor:.2f} times faster ({median(taken[name]):.1f} µs)",
            "" if least is None else f"at least {least:g} times",
            None if least is None else factor >= least,
        )


def _put(process: Process, count: int) -> float:
    return float(process.ask("put", count=count)) / count * 1e6


def _put_in_memory(process: Process, count: int, endpoint: str) -> float:
    return float(process.ask("put", count=count, endpoint=endpoint)) / count * 1e6


def tail(bench: Bench) -> Iterator[Result]:
    """The slowest calls while the sender drains, and the longest log."""
    longest = 0.0
    flat_out, steady = bench.scale(100_000), bench.scale(12_000)
    for what, count, rate in (
        ("flat out", flat_out, 0.0),
        ("at 2,000 a second (open loop)", steady, 2000.0),
    ):
        seen, bare = [], []
        for _ in range(3):
            with bench.ours() as ours:
                bare.append(ours.ask("latencies", count=min(count, 12_000), rate=rate)["p999"])
                ours.ask("open", path=bench.directory(), endpoint=bench.endpoint)
                ours.ask("put", count=bench.scale(2000))
                seen.append(ours.ask("latencies", count=count, rate=rate))
        p999 = median(one["p999"] for one in seen) * 1e3
        longest = max(longest, *(one["log_bytes"] for one in seen))
        yield Result(
            "tail",
            f"`track()` p99.9 while the sender drains, {what}",
            f"{p999:.2f} ms (median {median(one['p50'] for one in seen) * 1e6:.0f} µs,"
            f" p99 {median(one['p99'] for one in seen) * 1e6:.0f} µs,"
            f" longest {max(one['longest'] for one in seen) * 1e3:.0f} ms;"
            f" the same loop without track(): {median(bare) * 1e3:.2f} ms)",
            "at most 2 ms",
            p999 <= 2,
            at_floor=median(bare) * 1e3 > 2,
        )
    with bench.ours() as ours:  # nobody drains, nobody checkpoints but track()
        ours.ask("open", path=bench.directory(), start=False)
        alone = ours.ask("latencies", count=flat_out)
        longest = max(longest, alone["log_bytes"])
    yield Result(
        "tail",
        "write-ahead log, longest seen (draining, steady, no sender)",
        f"{longest / 2**20:.1f} MiB",
        "at most 16 MiB",
        longest / 2**20 <= WAL_MIB,
    )


def cap(bench: Bench) -> Iterator[Result]:
    """Evicting, against a queue with room."""
    count = bench.scale(EVENTS)
    with bench.ours() as roomy, bench.ours() as full:
        roomy.ask("open", path=bench.directory())
        full.ask("open", path=bench.directory(), max_queue_events=20_000)
        for process in (roomy, full):
            process.ask("put_many", calls=20, events=1000)
        taken = rounds(
            bench.rounds, {"full": partial(_put, full, count), "roomy": partial(_put, roomy, count)}
        )
    times = ratio(taken["full"], taken["roomy"])
    yield Result(
        "cap",
        "`track()` at the cap, evicting, against below it",
        f"{times:.2f} times ({median(taken['full']):.1f} µs)",
        "at most 1.3 times",
        times <= 1.3,
    )


def power(bench: Bench) -> Iterator[Result]:
    """Eight threads that share an fsync."""
    count = bench.scale(1600)
    with bench.ours() as ours:
        ours.ask("open", path=bench.directory(), durability="power")

        def rate(threads: int) -> float:
            each = count // threads
            return each * threads / float(ours.ask("put_threads", threads=threads, count=each))

        taken = rounds(bench.rounds, {"1": partial(rate, 1), "8": partial(rate, 8)})
    times = ratio(taken["8"], taken["1"])
    yield Result(
        "power",
        '`durability="power"`, 8 threads against one',
        f"{times:.2f} times ({median(taken['8']):,.0f} against {median(taken['1']):,.0f} a second)",
        "at least 2 times",
        times >= 2,
    )


def many(bench: Bench) -> Iterator[Result]:
    """A thousand at once."""
    calls = bench.scale(20)
    with bench.ours() as ours:
        ours.ask("open", path=bench.directory())
        taken = rounds(
            bench.rounds,
            {
                "many": lambda: (
                    float(ours.ask("put_many", calls=calls, events=1000)) / calls / 1000 * 1e6
                )
            },
        )
    each = median(taken["many"])
    yield Result(
        "many",
        "`track_many(1000)`, per event",
        f"{each:.1f} µs",
        "at most 8 µs",
        each <= 8,
    )


def processes(bench: Bench) -> Iterator[Result]:
    """Eight processes of one app, against one; and eight of the floor, each with its own file."""
    count = bench.scale(20_000)
    bare: list[float] = []
    with ExitStack() as stack:
        directory = bench.directory()
        crowd = [stack.enter_context(bench.ours()) for _ in range(8)]
        for process in crowd:
            process.ask("open", path=directory)
        floors = [stack.enter_context(Process("benchmarks.subjects.floor")) for _ in range(8)]
        for process in floors:
            process.ask("open", path=bench.directory())
        alone: list[tuple[float, float]] = []
        together: list[tuple[float, float]] = []
        for _ in range(2 * bench.rounds + 1):
            alone.append(_crowd(crowd[:1], count))
            together.append(_crowd(crowd, count // 4))
            one, all_ = _crowd(floors[:1], count), _crowd(floors, count // 4)
            bare.append(all_[1] / one[1])
    factor = ratio([rate for rate, _ in together], [rate for rate, _ in alone])
    worse = ratio([tail for _, tail in together], [tail for _, tail in alone])
    yield Result(
        "processes",
        "8 processes of one app, against one",
        f"{factor:.2f} times ({median(rate for rate, _ in together):,.0f} events a second)",
        "at least 1.6 times on two cores",
        factor >= 1.6,
    )
    yield Result(
        "processes",
        "p99 of the worst of them, against one alone",
        f"{worse:.1f} times ({median(tail for _, tail in together) * 1e6:.0f} µs; the floor"
        f" {median(bare):.1f} times)",
        "below 5 times",
        worse < 5,
        at_floor=median(bare) >= 5,
    )


def _crowd(crowd: list[Process], count: int) -> tuple[float, float]:
    """Events a second of all together, and the worst p99 among them."""
    tails: list[float] = []
    failures: list[Broken] = []

    def ask(process: Process) -> None:
        try:
            tails.append(process.ask("latencies", count=count)["p99"])
        except Broken as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(process,)) for process in crowd]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if failures:
        raise failures[0]
    return len(crowd) * count / seconds, max(tails)
