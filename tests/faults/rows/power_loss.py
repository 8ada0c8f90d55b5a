"""Power loss, by recording the writes of the product and replaying them up to every moment.

Neighbours: `disk_model` makes the states, the oracle judges each. Recorded are both levels of
durability, "power" also with threads that share commits, and SQLite with `synchronous=OFF`, which
must be caught.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import random
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import oracle, strace
from faults.children import PRODUCER, environment
from faults.disk_model import Disk, State
from faults.registry import Fault, Outcome, Run, scratch_directory
from faults.strace import Call

PROCESSES = 2
LATE_SECONDS = 6.5  # "about the last 5 s": the sender checkpoints 5 s after the first commit


@dataclass
class Tally:
    """What the states of one recording came to."""

    states: int = 0
    distinct: int = 0
    failed_syncs: int = 0
    corrupt: int = 0
    gaps: int = 0
    """States with a gap in the log, where nothing was synced; what was in it is counted."""
    losing: int = 0
    """States in which something is lost."""
    most_lost: int = 0
    oldest_lost: float = 0.0
    """Seconds from the return of `track()` to the cut, of the oldest event that was lost."""
    sent_again: int = 0
    """States in which an event that arrived is queued again."""
    why_corrupt: list[str] = field(default_factory=list)
    why_losing: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """The sum of two parts of one recording."""
        for name in (
            "states",
            "distinct",
            "corrupt",
            "gaps",
            "losing",
            "sent_again",
            "failed_syncs",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.most_lost = max(self.most_lost, other.most_lost)
        self.oldest_lost = max(self.oldest_lost, other.oldest_lost)
        self.why_corrupt += other.why_corrupt
        self.why_losing += other.why_losing


def record(directory: Path, *, inject: str = "", **spec: Any) -> list[Call]:
    """What a producer does in `directory`, until it ends."""
    home = directory / "home"
    home.mkdir(parents=True)
    spec = {
        "queue": str(home / "queue.db"),
        "journal": str(directory / "journal"),
        "arrived": str(directory / "arrived"),
        "close": False,
        **spec,
    }
    output = directory / "trace"
    subprocess.run(
        [*strace.recording(output, inject), sys.executable, str(PRODUCER), json.dumps(spec)],
        check=not inject,  # what is spoiled may end
        capture_output=True,
        env=environment(),
        timeout=300,
    )
    kept = [call for call in strace.parse(output) if call.path.startswith(str(directory))]
    output.unlink()
    return kept


def replay(
    calls: list[Call],
    directory: Path,
    *,
    part: int = 0,
    parts: int = 1,
    forgetful: bool = False,
    gaps: bool = False,
) -> Tally:
    """Judges the states after every `parts`th change. `gaps` as for the oracle."""
    tally = Tally()
    disk = Disk(str(directory / "home"), forgetful=forgetful)
    promised: dict[str, tuple[str, float]] = {}
    arrived: list[oracle.Entry] = []
    seen: set[bytes] = set()
    changes = 0
    with scratch_directory() as scratch:
        for call in calls:
            if call.name == "write" and call.path.startswith(str(directory / "journal")):
                for key, sha in oracle.parse_journal(call.data):
                    promised[key] = (sha, call.time)
            elif call.name == "write" and call.path.startswith(str(directory / "arrived")):
                arrived += oracle.parse_journal(call.data)
            elif disk.apply(call):
                changes += 1
                if changes % parts != part:
                    continue
                rng = random.Random(f"{call.number}")  # noqa: S311 - the same in every run
                for kind, state in disk.states(rng):
                    tally.states += 1
                    mark = _mark(state, len(promised), len(arrived))
                    if mark in seen:
                        continue
                    seen.add(mark)
                    tally.distinct += 1
                    _judge(tally, kind, state, promised, arrived, call, Path(scratch), gaps=gaps)
    tally.failed_syncs = disk.failed_syncs
    return tally


def _mark(state: State, *counts: int) -> bytes:
    found = hashlib.blake2b(repr(counts).encode(), digest_size=16)
    for name in sorted(state):
        found.update(f"{name} {len(state[name])} ".encode())
        found.update(state[name])
    return found.digest()


def _judge(
    tally: Tally,
    kind: str,
    state: State,
    promised: dict[str, tuple[str, float]],
    arrived: list[oracle.Entry],
    call: Call,
    scratch: Path,
    *,
    gaps: bool,
) -> None:
    home = scratch / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    for name, content in state.items():
        (home / name).write_bytes(content)
    found = oracle.look(home / "queue.db")
    keys = {key: sha for key, (sha, _) in promised.items()}
    verdict = oracle.judge(keys, arrived, [found], gaps=gaps)
    tally.gaps += bool(gaps and found.damaged)
    why = f"{kind} after call {call.number} ({call.name}): {'; '.join(verdict.failures)}"
    if found.trouble or verdict.altered or verdict.residual or (found.damaged and not gaps):
        tally.corrupt += 1
        tally.why_corrupt.append(f"{why} ({found.damaged} rows with a wrong CRC)")
    elif verdict.lost:
        tally.losing += 1
        tally.why_losing.append(why)
        tally.most_lost = max(tally.most_lost, len(verdict.lost))
        oldest = min(promised[key][1] for key in verdict.lost)
        tally.oldest_lost = max(tally.oldest_lost, call.time - oldest)
    tally.sent_again += bool(verdict.overlaps)


def _part(where: str, directory: str, part: int, parts: int, forgetful: bool, gaps: bool) -> Tally:
    calls = pickle.loads(Path(where).read_bytes())  # noqa: S301 - written by judge_all
    return replay(calls, Path(directory), part=part, parts=parts, forgetful=forgetful, gaps=gaps)


def judge_all(
    calls: list[Call],
    directory: Path,
    *,
    sample: int = 1,
    forgetful: bool = False,
    gaps: bool = False,
) -> Tally:
    """`replay` on every core. `sample`: only every so many-th change."""
    where = directory / "calls"
    where.write_bytes(pickle.dumps(calls))
    total = Tally()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        work = [
            pool.submit(
                _part,
                str(where),
                str(directory),
                part * sample,
                PROCESSES * sample,
                forgetful,
                gaps,
            )
            for part in range(PROCESSES)
        ]
        for part in work:
            total.add(part.result())
    return total


def _spec(run: Run, level: str, *, threads: int) -> dict[str, Any]:
    spec: dict[str, Any] = {"durability": level, "flush_every": 45, "checkpoint_every": 20}
    if run.quick:
        return {**spec, "events": 60 // threads, "threads": threads}
    if level == "process":
        # The thread checkpoints by the clock, as in a service: what is lost has an age.
        options = {"flush_interval": 11.0, "batch_size": 10**6}
        return {"events": 260, "pace": 0.07, "start": True, "durability": level, "options": options}
    return {**spec, "events": 180 if threads == 1 else 70, "threads": threads}


def _figures(tally: Tally) -> dict[str, object]:
    return {
        "states": tally.states,
        "distinct": tally.distinct,
        "corrupt": tally.corrupt,
        "with a gap in the log, repaired": tally.gaps,
        "lost at most": tally.most_lost,
        "oldest lost, s": round(tally.oldest_lost, 1),
        "states in which some would be sent again": tally.sent_again,
    }


def _one(run: Run, level: str, threads: int = 1, **more: Any) -> Tally:
    directory = run.directory(f"power-loss-{level}-{threads}-{len(more)}")
    calls = record(directory, **{**_spec(run, level, threads=threads), **more})
    # Where nothing is synced a cut may leave any part of the log's end; elsewhere it may not.
    gaps = level == "process" and not more
    return judge_all(calls, directory, sample=4 if run.quick else 1, gaps=gaps)


def run(run: Run) -> Outcome:
    """Both levels of durability."""
    figures: dict[str, object] = {}
    failures = []
    for level, threads in (("power", 1), ("power", 4), ("process", 1)):
        tally = _one(run, level, threads)
        name = f'"{level}"' if threads == 1 else f'"{level}", {threads} threads'
        figures |= {f"{name}: {figure}": value for figure, value in _figures(tally).items()}
        if tally.corrupt:
            failures.append(f"{name}: {tally.corrupt} corrupt states: {tally.why_corrupt[0]}")
        if level == "power" and tally.losing:
            failures.append(f"{name}: {tally.losing} states lose: {tally.why_losing[0]}")
        if tally.oldest_lost > LATE_SECONDS:
            failures.append(f"{name}: an event of {tally.oldest_lost:.1f} s is lost")
        if not run.quick and tally.states < 5000:
            failures.append(f"{name}: only {tally.states} states")
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """SQLite without a sync, promised to be safe."""
    tally = _one(run, "power", sabotage="synchronous off")
    failures = []
    if tally.corrupt:
        failures.append(f"{tally.corrupt} of {tally.states} states corrupt")
    if tally.losing:
        failures.append(f"{tally.losing} states lose up to {tally.most_lost}")
    return Outcome(_figures(tally), failures)


FAULT = Fault(
    name="power loss",
    how="strace records every write; after each, six states of the disk that a cut may leave are"
    " opened: all, none, a prefix, a subset, a torn write, growth without data",
    promise='"power": nothing lost; "process": never corrupt, about the last 5 s',
    run=run,
    control=control,
    broken="synchronous=OFF",
)
