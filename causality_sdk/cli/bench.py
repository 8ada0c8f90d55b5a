"""`causality bench`: how fast this machine's disk takes events, and how fast they go out again.

Neighbours: `Client` and the collector of `causality_sdk.testing`, on loopback. Invariant: it
touches nothing of the user's but the directory that was named.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click

from causality_sdk.cli.exits import INVALID, CommandError
from causality_sdk.cli.formatter import OurCommand
from causality_sdk.cli.output import output, output_options, table
from causality_sdk.client import Client
from causality_sdk.config import Durability
from causality_sdk.event import Event

_MANY = 500


@click.command(
    cls=OurCommand,
    epilog="""\b
Examples:
  causality bench
  causality bench --directory /var/lib/kiosk --durability power --events 500
  causality bench --json
""",
)
@click.option(
    "--events",
    type=click.IntRange(min=1),
    default=5000,
    show_default=True,
    help="How many to track, each way.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True),
    help="The disk to measure.  [default: that of temporary files]",
)
@click.option(
    "--durability",
    type=click.Choice(["process", "power"]),
    default="process",
    show_default=True,
    help="What a commit survives.",
)
@output_options
def command(events: int, directory: Path | None, durability: Durability) -> None:
    """Measure the queue on this machine's disk: track(), track_many() and delivery on loopback.

    The figures are of this moment and this machine; nothing of yours is read or written.
    """
    out = output()
    with tempfile.TemporaryDirectory(prefix="causality-bench-", dir=directory) as place:
        found = measure(events, Path(place), durability)
    rates = {name: round(amount / seconds) for name, (amount, seconds) in found.items()}
    rows = [
        (name, amount, round(seconds, 3), rates[name]) for name, (amount, seconds) in found.items()
    ]
    document = {
        "durability": durability,
        "events": events,
        "events_per_second": rates,
        "seconds": {name: seconds for name, (_, seconds) in found.items()},
    }
    out.result(document, table(rows, ("what", "events", "seconds", "events/s")))


def measure(events: int, directory: Path, durability: Durability) -> dict[str, tuple[int, float]]:
    """What was done, how often, in how many seconds."""
    from causality_sdk.testing import LoopbackCollector  # half of the start of this command

    properties: dict[str, Any] = {"order_id": "A-1", "total_cents": 1299, "currency": "EUR"}
    found = {}
    with (
        LoopbackCollector(api_key="bench-key") as server,
        Client(
            api_key="bench-key",
            endpoint=server.endpoint,
            app_id="causality-bench",
            queue_path=directory / "queue.db",
            durability=durability,
            start=False,
            max_queue_events=2 * events + 1,
            enabled=True,
            overflow="reject",
        ) as client,
    ):
        client.track("warm_up", properties)
        client.flush()
        started = time.perf_counter()
        for _ in range(events):
            client.track("purchase", properties)
        found["track()"] = (events, time.perf_counter() - started)
        started = time.perf_counter()
        report = client.flush()
        delivered = time.perf_counter() - started
        if report.error is not None or server.count != events + 1:
            raise CommandError(f"the events did not all arrive: {report}", INVALID)
        many = [Event("purchase", properties)] * min(_MANY, events)
        times = max(1, events // len(many))
        started = time.perf_counter()
        for _ in range(times):
            client.track_many(many)
        name = f"track_many() of {len(many)}"
        found[name] = (times * len(many), time.perf_counter() - started)
        found["delivery"] = (report.delivered, delivered)
    return found
