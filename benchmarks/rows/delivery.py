"""From `track()` to the acknowledgement, and what a backlog takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.bench import Bench
from benchmarks.event import MARKER
from benchmarks.process import Broken, Process
from benchmarks.result import Result, median, ratio

TRACKERS = (
    "segment",
    "rudderstack",
    "posthog",
    "amplitude",
    "snowplow, 10 a batch",
    "snowplow",
    "mixpanel",
)
ARRIVAL_SECONDS = 30.0
DRAINED = 200_000


def end_to_end(bench: Bench) -> Iterator[Result]:
    """Real departures, tracked and acknowledged: ours durable, the others from memory."""
    count, fewer = bench.scale(100_000), bench.scale(20_000)
    mine: list[float] = []
    bare: list[float] = []
    others: dict[str, list[float]] = {name: [] for name in bench.named(*TRACKERS)}
    notes: dict[str, str] = {}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(bench.peer(name)) for name in others}
        ours = stack.enter_context(bench.ours())
        floor = stack.enter_context(Process("benchmarks.subjects.floor"))
        _ours(bench, ours, 100)  # what is loaded late is loaded; the others load it at import
        for _ in range(3 if bench.quick else 5):
            mine.append(_ours(bench, ours, count))
            bare.append(_floor(bench, floor, count))
            for name, process in processes.items():
                if name in notes:
                    continue
                try:
                    rate = _theirs(bench, process, fewer)
                except Broken as error:
                    notes[name] = str(error)
                    others.pop(name)
                    continue
                others[name].append(rate)
    ahead = [rates for rates in others.values() if ratio(mine, rates) <= 1]
    best = max(others, key=lambda name: median(others[name]), default="")
    yield Result(
        "end-to-end",
        f"end to end, {count:,} real events, durable",
        f"{median(mine):,.0f} events a second"
        + (f"; the fastest peer, {best}, {median(others[best]):,.0f}" if best else "")
        + f"; the floor (a thread of bare INSERT, one of SELECT, POST, DELETE) {median(bare):,.0f}",
        "more than every peer",
        all(ratio(mine, rates) > 1 for rates in others.values()) if others else None,
        {"causality-sdk": median(mine), **{name: median(each) for name, each in others.items()}},
        at_floor=ratio(mine, bare) >= 0.9 and all(ratio(bare, rates) <= 1 for rates in ahead),
    )
    for name, rates in others.items():
        yield Result(
            "end-to-end",
            f"the same against {name}, from memory ({fewer:,} events)",
            f"{ratio(mine, rates):.2f} times as many ({median(rates):,.0f} a second)",
        )
    for name, words in notes.items():
        yield Result("end-to-end", f"the same against {name}", f"failed: {words}")


def _ours(bench: Bench, ours: Process, count: int) -> float:
    ours.ask("read_departures", count=count)
    ours.ask("open", path=bench.directory(), endpoint=bench.endpoint)
    bench.server.ask("expect", marker=MARKER)
    outcome = ours.ask("deliver", count=count)
    _check(outcome, count, bench.server.ask("counted"))
    return float(count / outcome["seconds"])


def _floor(bench: Bench, floor: Process, count: int) -> float:
    path = bench.directory()
    floor.ask("open", path=path)
    bench.server.ask("expect", marker=MARKER)
    seconds = floor.ask("deliver", count=count, path=path, endpoint=bench.endpoint)
    arrived = bench.server.ask("counted")
    if arrived != count:
        raise Broken(f"{arrived} of {count} events of the floor arrived")
    return float(count / seconds)


def _check(outcome: dict[str, float], count: int, arrived: int) -> None:
    settled = outcome["acknowledged"] == count and not outcome["remaining"] + outcome["lost"]
    if arrived != count or not settled:
        raise Broken(f"{arrived} of {count} events arrived: {outcome}")


def _theirs(bench: Bench, process: Process, count: int) -> float:
    """Events a second until the last of them was at the server. Raises `Broken` for a loss."""
    bench.server.ask("expect", marker=MARKER)
    seconds = float(process.ask("deliver", count=count, endpoint=bench.endpoint))
    # The flush of some returns while another thread still sends.
    started = time.perf_counter()
    arrived = int(bench.server.ask("counted"))
    while arrived < count:
        if time.perf_counter() - started > ARRIVAL_SECONDS:
            raise Broken(f"{arrived} of {count} events arrived")
        time.sleep(0.001)
        arrived += int(bench.server.ask("counted"))
    if arrived > count:
        raise Broken(f"{arrived} events arrived of {count}")
    return count / (seconds + time.perf_counter() - started)


def real_input(bench: Bench) -> Iterator[Result]:
    """All departures of the file, with the memory they take; and with the server away and back."""
    count = bench.scale(100_000)
    for what in ("the server there", "the server away, then back"):
        away = what.endswith("back")
        bench.server.ask("expect", marker=MARKER)
        with bench.ours() as ours:
            ours.ask("read_departures", count=count)
            before = ours.ask("memory")["now"]
            ours.ask("open", path=bench.directory(), endpoint=bench.endpoint)
            if away:
                bench.server.ask("down")
                started = time.perf_counter()
                outcome = ours.ask("deliver", count=count)  # gives up: nobody answers
                if outcome["remaining"] != count:
                    raise Broken(f"the server was away, and {outcome}")
                bench.server.ask("up")
                flushed = ours.ask("flush")
                outcome |= {"seconds": time.perf_counter() - started, **flushed}
                outcome["acknowledged"] = flushed["delivered"]
                detail = (
                    f"tracked in {outcome['tracked_seconds']:.1f} s, delivered in"
                    f" {flushed['seconds']:.1f} s once it was back"
                )
            else:
                outcome = ours.ask("deliver", count=count)
                detail = f"{count / outcome['seconds']:,.0f} events a second"
            memory = ours.ask("memory")
        _check(outcome, count, bench.server.ask("counted"))
        yield Result(
            "real-input",
            f"{count:,} departures tracked, delivered, acknowledged, deleted; {what}",
            f"{detail}; peak memory {max(0, memory['peak'] - before) / 1e6:.0f} MB above the events"
            " that wait in the program",
        )


def drain(bench: Bench) -> Iterator[Result]:
    """A backlog that lies on disk, to a server that answers at once."""
    count = bench.scale(DRAINED)
    rates: dict[str, list[float]] = {"stub": [], "loopback": []}
    for _ in range(3 if bench.quick else 5):
        for where, taken in rates.items():
            with bench.ours() as ours:
                queue = {"path": bench.directory(), "endpoint": bench.endpoint, "start": False}
                ours.ask("open", **queue)
                ours.ask("put_many", calls=count // 1000, events=1000)
                ours.ask("close", timeout=0.0)  # else it would deliver what it can
                ours.ask("open", answers=where == "stub", **queue)
                flush = ours.ask("flush")
                if flush["remaining"] or flush["delivered"] != count // 1000 * 1000:
                    raise Broken(f"the backlog was not drained: {flush}")
                taken.append(flush["delivered"] / flush["seconds"])
    stub, loopback = median(rates["stub"]), median(rates["loopback"])
    yield Result(
        "drain",
        f"drain of {count:,} events on disk, a transport that answers at once",
        f"{stub:,.0f} events a second",
        "above 200,000",
        stub > 200_000,
    )
    yield Result(
        "drain",
        "the same through HTTP to a server on loopback, on the same two cores",
        f"{loopback:,.0f} events a second",
    )
