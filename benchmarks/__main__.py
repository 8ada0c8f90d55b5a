"""`python -m benchmarks`: measures every row, prints it beside its target, writes the page."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import page, peers
from benchmarks.bench import Bench
from benchmarks.process import Broken, Process
from benchmarks.result import Result
from benchmarks.rows import delivery, depth, tracking, upkeep

ROWS: dict[str, Callable[[Bench], Iterator[Result]]] = {
    "track": tracking.track,
    "tail": tracking.tail,
    "cap": tracking.cap,
    "power": tracking.power,
    "many": tracking.many,
    "processes": tracking.processes,
    "end-to-end": delivery.end_to_end,
    "real-input": delivery.real_input,
    "drain": delivery.drain,
    "depth": depth.depth,
    "written": upkeep.written,
    "start": upkeep.start,
    "close": upkeep.close,
}


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status: 1 where a row could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    flag = partial(parser.add_argument, action="store_true")
    flag("--quick", help="a tenth of the events, fewer rounds")
    flag("--no-peers", help="nothing but causality-sdk")
    flag("--write", help=f"write {page.PAGE.name} and its plots")
    names = ", ".join(ROWS)
    parser.add_argument("--only", action="append", choices=ROWS, metavar="ROW", help=names)
    parser.add_argument(
        "--venvs", type=Path, default=peers.DEFAULT, help="where the peers live (%(default)s)"
    )
    parser.add_argument(
        "--directory", type=Path, help="where queues are made; must be on the disk to be measured"
    )
    options = parser.parse_args(arguments)
    if options.write and (options.only or options.quick or options.no_peers):
        parser.error("--write needs every row, in full")
    ready, missing = ({}, {}) if options.no_peers else peers.install(options.venvs)
    for requirement, reason in missing.items():
        print(f"not measured, since it cannot be installed: {requirement} ({reason})", flush=True)
    started = time.monotonic()
    results: list[Result] = []
    failed = False
    with (
        tempfile.TemporaryDirectory(dir=options.directory, prefix="benchmarks-") as scratch,
        Process("benchmarks.server") as server,
    ):
        endpoint = f"http://127.0.0.1:{server.ask('up')}"
        bench = Bench(Path(scratch), server, endpoint, ready, options.quick)
        for name in options.only or ROWS:
            failed |= not measure(name, bench, results)
    seconds = time.monotonic() - started
    print(f"{len(results)} lines in {seconds:.0f} s")
    if options.write and not failed:
        page.write(results, missing, seconds)
    return int(failed)


def measure(name: str, bench: Bench, results: list[Result]) -> bool:
    """Adds what the row gives to `results`, and prints it; False if it could not be measured."""
    try:
        for result in ROWS[name](bench):
            results.append(result)
            print(page.line(result), flush=True)
    except (Broken, subprocess.SubprocessError) as error:
        print(f"{name}: could not be measured: {error}", flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
