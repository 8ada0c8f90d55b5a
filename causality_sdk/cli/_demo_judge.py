"""Judges the demo: what was promised against what arrived and what the queue file counts.

Neighbours: `demo` gathers the evidence. It trusts nobody's word: promises come from the child's
journal, arrivals from the server's, the counts from the queue file, whose rows are counted.
Invariant: `judge` is pure; made-up evidence of a loss gets a verdict of a loss.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causality_sdk.event import Event


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """What one queue file, or several together, says. `pending` are the rows that are there."""

    tracked: int = 0
    acknowledged: int = 0
    evicted: int = 0
    buried: int = 0
    pending: frozenset[str] = frozenset()
    """Keys of the rows."""
    rows: int = 0

    @property
    def residual(self) -> int:
        """Events that were tracked and are nowhere: 0, if the queue keeps its books."""
        return self.tracked - self.acknowledged - self.evicted - self.buried - self.rows


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the verdict depends on."""

    source: Mapping[str, Event]
    """Key to the event on its line of the input."""
    journaled: Sequence[str]
    """Keys of the events for which `track()` returned."""
    arrived: Sequence[str]
    """Keys in the server's journal, after deduplication."""
    payloads: Mapping[str, bytes]
    """Key to bytes as they came."""
    received: int
    """Events that came over the wire, duplicates included."""
    queue: QueueCounts


@dataclass(frozen=True, slots=True)
class Verdict:
    """The table at the end."""

    tracked: int
    acknowledged: int
    duplicates_on_the_wire: int
    duplicates_after_deduplication: int
    evicted: int
    buried: int
    pending: int
    lost: int
    altered: int
    """Arrived, but not as they stand in the input."""
    residual: int
    untracked: int
    """Lines of the input that never reached the journal."""

    @property
    def ok(self) -> bool:
        """Whether every event arrived, once, as it was tracked, and the books balance."""
        return not (
            self.lost
            or self.altered
            or self.residual
            or self.pending
            or self.untracked
            or self.duplicates_after_deduplication
        )


def judge(evidence: Evidence) -> Verdict:
    """The verdict: what is journaled must be delivered, evicted or pending."""
    arrived = set(evidence.arrived)
    missing = set(evidence.journaled) - arrived - evidence.queue.pending
    return Verdict(
        tracked=evidence.queue.tracked,
        acknowledged=evidence.queue.acknowledged,
        duplicates_on_the_wire=evidence.received - len(arrived),
        duplicates_after_deduplication=len(evidence.arrived) - len(arrived),
        evicted=evidence.queue.evicted,
        buried=evidence.queue.buried,
        pending=evidence.queue.rows,
        # The queue counts what it evicted, but keeps no keys of it.
        lost=max(0, len(missing) - evidence.queue.evicted),
        altered=sum(
            key not in evidence.source or not is_same(evidence.source[key], payload)
            for key, payload in evidence.payloads.items()
        ),
        residual=evidence.queue.residual,
        untracked=len(evidence.source.keys() - set(evidence.journaled)),
    )


def is_same(event: Event, payload: bytes) -> bool:
    """Whether what arrived is the event of the input, but for what the SDK adds."""
    found: dict[str, Any] = json.loads(payload)
    properties = found.get("properties", {})
    if "_server" not in (event.properties or {}):
        properties = {name: value for name, value in properties.items() if name != "_server"}
    return (
        found.get("event_type") == event.event_type
        and properties == (event.properties or {})
        and (event.timestamp is None or found.get("timestamp_ms") == event.timestamp)
        and all(
            found.get(name) == getattr(event, name)
            for name in ("device_id", "user_id", "session_id")
        )
    )


def read_queues(directory: Path, pattern: str) -> QueueCounts:
    """Adds up the queue files in `directory`. Nobody must have them open. Writes nothing."""
    total = QueueCounts()
    for path in sorted(directory.glob(pattern)):
        found = _read_queue(path)
        total = QueueCounts(
            tracked=total.tracked + found.tracked,
            acknowledged=total.acknowledged + found.acknowledged,
            evicted=total.evicted + found.evicted,
            buried=total.buried + found.buried,
            pending=total.pending | found.pending,
            rows=total.rows + found.rows,
        )
    return total


def _read_queue(path: Path) -> QueueCounts:
    # mode=ro: whoever does not own a queue file only reads it.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        cursor = connection.execute("SELECT * FROM state")
        names = [column[0] for column in cursor.description]
        state = dict(zip(names, cursor.fetchone(), strict=True))
        rows = connection.execute("SELECT id, idempotency_key FROM queued_events").fetchall()
    return QueueCounts(
        # As the queue counts: ids are dense, and what was put back got a second one.
        tracked=max([state["mark"], *(row_id for row_id, _ in rows)]) - state["requeued"],
        acknowledged=state["acknowledged"],
        evicted=sum(  # every reason has a column of events and one of bytes
            state[name]
            for name in names
            if name.startswith("evicted_") and f"{name}_bytes" in state
        ),
        buried=state["buried"],
        pending=frozenset(key for _, key in rows),
        rows=len(rows),
    )
