"""The oracle: two journals, what the queue files hold, and a judge that compares them.

A producer writes `key sha256` to its journal only after `track()` returned the key; a server writes
the same to its own before it replies. Neighbours: `programs.producer` is such a producer (and, when
asked, such a server), `LoopbackCollector` such a server; `look` opens a file with the product.
Invariant: `judge` is pure. A line that was cut short is no promise.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from causality_sdk import ownership, schema
from causality_sdk.claim import claim
from causality_sdk.errors import QueueError
from causality_sdk.queue import Queue
from causality_sdk.schema import Destination
from faults.events import HERE, digest

Entry = tuple[str, str]
"""Key, and SHA-256 of the payload."""

_OURS = ("", ".lock", "-wal", "-shm")


@dataclass(frozen=True)
class Found:
    """One queue file, opened and used by the product."""

    pending: Mapping[str, str] = field(default_factory=dict)
    """Key to SHA-256."""
    buried: frozenset[str] = frozenset()
    evicted: int = 0
    damaged: int = 0
    """Rows whose CRC was wrong."""
    residual: int = 0
    trouble: str = ""
    """Why it cannot be used, or what is wrong with it."""


@dataclass(frozen=True)
class Verdict:
    """What became of the promises."""

    promised: int
    arrived: int
    pending: int
    lost: tuple[str, ...]
    """Keys that `track()` returned and that are nowhere."""
    altered: tuple[str, ...]
    duplicates: int
    """Arrivals beyond the first of a key: at least once is the promise."""
    overlaps: int
    """Keys that arrived and are queued still: they will arrive again."""
    residual: int
    troubles: tuple[str, ...]

    @property
    def failures(self) -> list[str]:
        """What breaks a promise; empty where all is kept."""
        found = list(self.troubles)
        if self.lost:
            found.append(f"{len(self.lost)} lost, such as {self.lost[0]}")
        if self.altered:
            found.append(f"{len(self.altered)} altered, such as {self.altered[0]}")
        if self.residual:
            found.append(f"residual {self.residual}")
        return found


def judge(
    promised: Mapping[str, str],
    arrived: Sequence[Entry],
    files: Iterable[Found],
    *,
    evictions: bool = False,
    gaps: bool = False,
) -> Verdict:
    """Every key that track() returned: delivered, evicted, buried or pending, byte for byte.

    `evictions`: whether the queue had a reason to evict. Where it had none, each is a failure.
    `gaps`: whether a cut may have torn the log where nothing was synced. The product takes what is
    sound behind the gap and counts what was in it as corrupt: that is lost, but no failure in
    itself.
    """
    files = list(files)
    counted = Counter(key for key, _ in arrived)
    pending: dict[str, str] = {}
    for found in files:
        pending.update(found.pending)
    buried = frozenset().union(*(found.buried for found in files))
    evicted = sum(found.evicted - (found.damaged if gaps else 0) for found in files)
    missing = [key for key in promised if not (key in counted or key in pending or key in buried)]
    altered = {
        key for key, sha in [*arrived, *pending.items()] if key in promised and promised[key] != sha
    }
    return Verdict(
        promised=len(promised),
        arrived=len(counted),
        pending=len(pending),
        # The queue counts what it evicts, but keeps no keys of it.
        lost=() if evictions and len(missing) <= evicted else tuple(missing),
        altered=tuple(sorted(altered)),
        duplicates=len(arrived) - len(counted),
        overlaps=len(counted.keys() & pending.keys()),
        residual=sum(abs(found.residual) for found in files),
        troubles=(
            *(found.trouble for found in files if found.trouble),
            *([f"{evicted} evicted without a reason"] if evicted and not evictions else []),
        ),
    )


def read_journal(path: Path) -> list[Entry]:
    """The whole lines of a journal; none if there is no such file."""
    return parse_journal(path.read_bytes()) if path.exists() else []


def parse_journal(text: bytes) -> list[Entry]:
    """The whole lines of a journal's text."""
    entries = []
    for line in text.decode("ascii", "replace").split("\n")[:-1]:
        key, _, sha = line.partition(" ")
        entries.append((key, sha))
    return entries


def look(path: Path, destination: Destination = HERE) -> Found:
    """Claims a queue file with the product, reads all of it, and passes a fresh event through.

    Nobody may have it open. That the product sets something aside is trouble, whatever it salvages:
    none of the rows that look so has damaged a byte.
    """
    try:
        claimed = claim(path, destination)
    except Exception as error:  # noqa: BLE001 - whatever it is, it goes into the table
        return Found(trouble=f"it cannot be opened: {error!r}")
    lease, is_spent = claimed.lease, False
    try:
        if lease.path != path:
            lease.release()
            own = ownership.acquire(path)
            is_spent = own is not None and schema.heir(path) is not None
            if own is None or not is_spent:
                return Found(trouble=f"it was passed over for {claimed.lease.path.name}")
            lease = own  # a crash came while another file took it over: it only has to go
        queue = Queue(path, max_events=10**9, max_bytes=2**40)
        try:
            found = _read(queue, is_spent=is_spent)
        finally:
            queue.close()
    except (QueueError, sqlite3.Error) as error:
        return Found(trouble=f"it cannot be used: {error!r}")
    finally:
        lease.release()
    ours = {path.name + suffix for suffix in _OURS}
    strange = [
        entry.name
        for entry in path.parent.glob(f"{path.name}*")
        if entry.name not in ours and not entry.name.endswith(".mark")
    ]
    if strange and not found.trouble:
        return replace(found, trouble=f"something was set aside: {strange[0]}")
    return found


def _read(queue: Queue, *, is_spent: bool) -> Found:
    check = queue.read("PRAGMA integrity_check")[0][0]
    rows = queue.peek(0, max_events=10**9, max_bytes=2**40)
    letters = queue.read("SELECT payload FROM dead_letters")
    counters, tracked, pending, _ = queue.snapshot()
    evicted = sum(counters.evicted.values())
    residual = tracked - counters.acknowledged - evicted - counters.buried - len(rows)
    trouble = "" if check == "ok" else f"integrity_check: {check}"
    if pending != len(rows):
        trouble = trouble or f"it says {pending} pending, and has {len(rows)} rows"
    if not trouble and not is_spent:
        fresh = queue.append(b'{"idempotency_key":"fresh"}')
        taken = queue.take(fresh - 1, max_events=1, max_bytes=10**6)
        if [row_id for row_id, _ in taken] != [fresh] or queue.settle(taken) != 1:
            trouble = "a fresh event does not go through"
        queue.give_back()
    return Found(
        pending={key_of(payload): digest(payload) for _, payload in rows},
        buried=frozenset(key_of(bytes(payload)) for (payload,) in letters),
        evicted=evicted,
        damaged=counters.evicted_corrupt,
        residual=residual,
        trouble=trouble,
    )


def key_of(payload: bytes) -> str:
    """The idempotency key of an event's bytes; the digest, if it is none."""
    try:
        return str(orjson.loads(payload)["idempotency_key"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return digest(payload)


def look_at_all(directory: Path, destination: Destination = HERE) -> list[Found]:
    """Every queue file of a directory."""
    paths = sorted(path for path in directory.glob("queue*.db"))
    return [look(path, destination) for path in paths]
