"""`causality queue list`: the events that wait, one a line.

Neighbours: `selection` and `rows`. Invariant: no transaction is open while it prints.
"""

from __future__ import annotations

import sys

import click

from causality_sdk.cli.exits import UNREADABLE
from causality_sdk.cli.option_words import FILES
from causality_sdk.cli.options import CommandWithClient
from causality_sdk.cli.output import output, output_options
from causality_sdk.cli.queue.rows import FORMATS, row_writer
from causality_sdk.cli.queue.selection import (
    Filter,
    Losses,
    chosen_files,
    file_options,
    filter_options,
    waiting_in,
)


@click.command(
    cls=CommandWithClient,
    uses=FILES,
    epilog="""\b
Examples:
  causality queue list
  causality queue list --type order_placed --since 2h --limit 0
  causality queue list --queue-path /mnt/kiosk/queue.db --format csv > waiting.csv
""",
)
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Events at most; 0 for all.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="How to print them.  [default: table; with --json, ndjson]",
)
@output_options
@file_options
def command(wanted: Filter, limit: int, kind: str | None) -> None:
    """List the events that wait, oldest first, file by file.

    It may be a queue in use: what is added meanwhile is listed too, what is delivered is not.

    Exits with 4 if one of several files cannot be read at all; the others are listed.
    """
    out = output()
    if out.as_json and kind not in (None, "ndjson"):
        raise click.UsageError(
            f"--json prints NDJSON, one event a line; leave out it or --format {kind}"
        )
    kind = kind or ("ndjson" if out.as_json else "table")
    files = chosen_files()
    if not files:
        return
    writer = row_writer(kind, sys.stdout.buffer, summary=True)
    damaged = 0
    losses = Losses()
    every = waiting_in(files, wanted, losses)
    for shown, found in enumerate(every):
        if limit and shown == limit:
            out.note(f"there is more; --limit 0 lists all, --limit {limit * 10} the first of them")
            break
        damaged += not found.sound
        writer.write(found)
    writer.end()
    if damaged:
        out.note(f"{damaged:,} of them have a wrong checksum; their owner will set them aside")
    for line in losses.lines:
        out.note(line)
    if losses.unreadable:
        raise click.exceptions.Exit(UNREADABLE)
