"""The bytes of db, -wal and -shm are damaged, before a start and in the middle of work.

Neighbours: none but the oracle. Every damaged copy is opened by a client of the product that
delivers what it still finds; what arrives must be what was tracked, byte for byte.
"""

from __future__ import annotations

import logging
import multiprocessing
import random
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import causality_sdk.queue
from causality_sdk import Client
from causality_sdk.testing._batch import BatchError, parse_batch
from causality_sdk.wire.base import Request, Response
from faults.children import Place, produce
from faults.events import API_KEY, APP_ID, NOWHERE, digest
from faults.registry import Fault, Outcome, Run

EVENTS = 400
PROCESSES = 2
SILENT = logging.Logger("faults", logging.CRITICAL)  # its complaints are right, and thousands


@dataclass(frozen=True)
class Damage:
    """What is done to which file of which copy."""

    base: str  # "closed": all is in the db; "killed": a log is there; "at work": while it is open
    suffix: str
    kind: str  # flip, zero, truncate
    offset: int


@dataclass
class Result:
    """What became of one damaged queue."""

    damage: Damage
    salvaged: int = 0
    foreign: list[str] = field(default_factory=list)
    """Keys, or digests, of what arrived and was never tracked so."""
    crash: str = ""


class Server:
    """Takes what it is given."""

    def __init__(self) -> None:
        self.arrived: dict[str, str] = {}
        self.unreadable: list[str] = []

    def send(self, request: Request, timeout: float) -> Response:  # noqa: ARG002 (the protocol)
        try:
            self.arrived |= {key: digest(raw) for key, raw in parse_batch(request.body)}
        except BatchError:
            self.unreadable.append(digest(request.body))
        return Response(200, {"content-type": "application/json"}, b"{}")

    def close(self) -> None:
        """Nothing to close."""


def _damages(run: Run, place: dict[str, Path], count: int) -> Iterator[Damage]:
    for base in ("closed", "killed", "at work"):
        for suffix in ("", "-wal", "-shm"):
            path = place["killed" if base == "at work" else base]
            file = path.with_name(path.name + suffix)
            size = file.stat().st_size if file.exists() else 0
            for kind in ("flip", "zero", "truncate") if size else ():
                fixed = [0, 20, 100, 4096 + 8][: 1 if run.quick else 4]
                for offset in [*fixed, *(run.rng.randrange(size) for _ in range(count))]:
                    # To cut off the -shm, which SQLite maps into memory, kills whoever works on it.
                    deadly = (base, suffix, kind) == ("at work", "-shm", "truncate")
                    if offset < size and not deadly:
                        yield Damage(base, suffix, kind, offset)


def _spoil(path: Path, damage: Damage) -> None:
    file = path.with_name(path.name + damage.suffix)
    content = file.read_bytes()
    # What is at work may have begun its log anew since the offset was chosen.
    at = damage.offset % max(1, len(content))
    if not content:
        return
    if damage.kind == "truncate":
        changed = content[:at]
    elif damage.kind == "zero":
        changed = content[:at] + bytes(len(content[at : at + 4096])) + content[at + 4096 :]
    else:
        flipped = bytes([content[at] ^ random.Random(at).choice((1, 16, 128, 255))])  # noqa: S311
        changed = content[:at] + flipped + content[at + 1 :]
    if damage.base != "at work":
        file.write_bytes(changed)
        return
    # By another process: to open and close the file here would drop SQLite's locks.
    if damage.kind == "truncate":
        words = ["truncate", f"--size={at}", str(file)]
        subprocess.run(words, check=True)
        return
    last = max(
        n for n in range(at, min(at + 4096, len(content))) if changed[n] != content[n] or n == at
    )
    words = ["dd", f"of={file}", "bs=1", f"seek={at}", "conv=notrunc", "status=none"]
    subprocess.run(words, input=changed[at : last + 1], check=True)


def _client(path: Path, server: Server) -> Client:
    return Client(
        api_key=API_KEY,
        endpoint=NOWHERE,
        app_id=APP_ID,
        queue_path=path,
        transport=server,
        start=False,
        max_retries=1,
        backoff_initial=0.001,
        close_timeout=1.0,
        logger=SILENT,
    )


def damage_one(
    damage: Damage, base: str, directory: str, promised: dict[str, str], *, trust: bool = False
) -> Result:
    """Makes a copy, spoils it, delivers what can be delivered. `trust`: without looking at CRCs."""
    path = Path(directory) / "queue.db"
    shutil.copytree(Path(base).parent, path.parent)
    result = Result(damage)
    server = Server()
    if trust:
        # Of a process that ends with this.
        setattr(causality_sdk.queue, "is_sound", lambda *_row: True)  # noqa: B010
    try:
        if damage.base != "at work":
            _spoil(path, damage)
            client = _client(path, server)
        else:
            client = _client(path, server)
            client.track("before")
            _spoil(path, damage)
        client.track("fresh")
        client.flush(timeout=5)
        client.track("fresh")
        client.close()
        if damage.base == "at work":
            client = _client(path, server)
            client.flush(timeout=5)
            client.close()
    except Exception as error:  # noqa: BLE001 - the figure is how many there are
        result.crash = f"{type(error).__name__}: {error}"
    result.salvaged = sum(promised.get(key) == sha for key, sha in server.arrived.items())
    result.foreign = server.unreadable + [
        key for key, sha in server.arrived.items() if promised.get(key, sha) != sha
    ]
    shutil.rmtree(path.parent, ignore_errors=True)
    return result


def _bases(run: Run, name: str) -> tuple[dict[str, Path], dict[str, str]]:
    places = {kind: Place(run.directory(f"{name}-{kind}")) for kind in ("closed", "killed")}
    for kind, place in places.items():
        # Half of it is in the db in either case.
        produce(place.spec(events=EVENTS // 2, arrived=None, options={"close_timeout": 0}))
        half = {"first": EVENTS // 2, "events": EVENTS // 2, "arrived": None}
        produce(place.spec(**half, close=kind == "closed", options={"close_timeout": 0}))
    return {kind: place.queue for kind, place in places.items()}, places["closed"].promised()


def run(run: Run) -> Outcome:
    """Many offsets; quick: one for each kind."""
    bases, promised = _bases(run, "corruption")
    results: list[Result] = []
    failures: list[str] = []
    damages = list(_damages(run, bases, 0 if run.quick else 60))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        work = [
            pool.submit(
                damage_one,
                damage,
                str(bases["killed" if damage.base == "at work" else damage.base]),
                str(run.scratch / f"damaged-{number}"),
                promised,
            )
            for number, damage in enumerate(damages)
        ]
        try:
            results = [entry.result() for entry in work]
        except BrokenProcessPool:
            failures.append("a process died of it")
    crashes = [result for result in results if result.crash]
    foreign = [result for result in results if result.foreign]
    if crashes:
        failures.append(
            f"{len(crashes)} of {len(results)} raise to the caller, such as"
            f" {crashes[0].damage}: {crashes[0].crash}".replace(str(run.scratch), "…")
        )
    if foreign:
        failures.append(f"{len(foreign)} deliver what was not tracked: {foreign[0].damage}")
    figures: dict[str, object] = {"damaged files": len(results)}
    for suffix in ("", "-wal", "-shm"):
        found = [result.salvaged for result in results if result.damage.suffix == suffix]
        if found:
            share = 100 * sum(found) / (EVENTS * len(found))
            figures[f"salvaged, {suffix or 'db'} damaged"] = f"{share:.1f} %"
    figures["delivered with a wrong CRC"] = len(foreign)
    figures["exceptions to the caller"] = len(crashes)
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """A reader that does not look at the CRC, and flips in the middle of payloads."""
    bases, promised = _bases(run, "corruption-control")
    content = bases["closed"].read_bytes()
    context = multiprocessing.get_context("spawn")
    foreign = []
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        start = 0
        for number in range(5):
            start = content.index(b'"carrier":"', start + 1) + len('"carrier":"')
            damage = Damage("closed", "", "flip", start)
            directory = str(run.scratch / f"trusted-{number}")
            base = str(bases["closed"])
            work = pool.submit(damage_one, damage, base, directory, promised, trust=True)
            foreign += work.result().foreign
    failures = [f"{len(foreign)} delivered with a wrong CRC"] if foreign else []
    return Outcome({"delivered with a wrong CRC": len(foreign)}, failures)


FAULT = Fault(
    name="corruption",
    how="bits flipped, pages zeroed, files cut off in db, -wal and -shm, of a queue that was"
    " closed, that was killed, and that is at work",
    promise="construction never fails for it; what passes its CRC is salvaged; nothing else is"
    " delivered",
    run=run,
    control=control,
    broken="the CRC is not looked at",
)
