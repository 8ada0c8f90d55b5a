"""`causality queue purge`: deletes what waits, counted as purged.

Neighbours: `surgery` takes a file, `selection` chooses. Invariant: only after a person or `--yes`
said so, never in a file that somebody owns, and the books of the file balance afterwards.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click

from causality_sdk.cli.option_words import FILES
from causality_sdk.cli.options import CommandWithClient
from causality_sdk.cli.output import count, output, output_options
from causality_sdk.cli.queue.selection import (
    Filter,
    Found,
    chosen_files,
    file_options,
    filter_options,
    waiting,
)
from causality_sdk.cli.surgery import confirm, no_way_back, refuse_live, shrink, taken
from causality_sdk.queue import Queue
from causality_sdk.transactions import Change

_SLICE = 500


@click.command(
    cls=CommandWithClient,
    uses=FILES,
    epilog="""\b
Examples:
  causality queue purge --dry-run
  causality queue purge --type debug_trace --until 2026-11-01
  causality queue export --output kept.ndjson.gz && causality queue purge --yes
""",
)
@filter_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say how many it would be.")
@output_options
@file_options
def command(wanted: Filter, yes: bool, dry_run: bool) -> None:
    """Delete events that wait, for good; all of them, or those that the filters name.

    Asks before. A file that a running process owns is refused, with that process named. What is
    deleted counts as evicted, for the reason purged. To keep a copy, queue export first.
    """
    out = output()
    files = chosen_files()
    refuse_live(files, "purged")
    found = {path: sum(1 for _ in waiting(path, wanted)) for path in files}
    total = sum(found.values())
    document = {
        "dry_run": dry_run,
        "purged": 0 if dry_run else total,
        "files": [{"path": str(path), "events": number} for path, number in found.items()],
    }
    if dry_run or not total:
        document["matching"] = total
        out.summary(document, f"{count(total)} would be deleted")
        return
    names = ", ".join(str(path) for path, number in found.items() if number)
    confirm(f"Delete {count(total)} from {names}? {no_way_back(total)}", yes=yes)
    purged = 0
    for path, number in found.items():
        if number:
            purged += purge(path, wanted)
    document["purged"] = purged
    out.summary(document, f"{count(purged)} deleted")


def purge(path: Path, wanted: Filter) -> int:
    """Deletes from one file; gives the number really deleted. Raises `CommandError`."""
    purged = 0
    with taken(path, "purged") as queue:
        rows = waiting(path, wanted)
        while part := list(islice(rows, _SLICE)):
            purged += _delete(queue, part)
        shrink(queue)
    return purged


def _delete(queue: Queue, rows: list[Found]) -> int:
    def work(change: Change) -> int:
        deleted = size = 0
        for row in rows:
            if change.connection.execute("DELETE FROM queue WHERE id = ?", (row.id,)).rowcount:
                deleted += 1
                size += len(row.payload)
        change.counters.add("evicted_purged", deleted, size)
        change.cost += size
        return deleted

    return queue.change(work)
