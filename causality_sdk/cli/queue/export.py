"""`causality queue export`: events to a file or a pipe, byte for byte as they lie in the queue.

Neighbours: `selection` and `rows`, `_target` for where to; `import_` is the way back. Invariant: a
file that is there under its name is whole.
"""

from __future__ import annotations

import click

from causality_sdk.cli import streams
from causality_sdk.cli.completions import files
from causality_sdk.cli.exits import UNREADABLE, UNWRITABLE, CommandError
from causality_sdk.cli.option_words import FILES
from causality_sdk.cli.options import CommandWithClient
from causality_sdk.cli.output import count, output, output_options
from causality_sdk.cli.queue._target import opened
from causality_sdk.cli.queue.rows import FORMATS, row_writer
from causality_sdk.cli.queue.selection import (
    Filter,
    Losses,
    buried_in,
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
  causality queue export > waiting.ndjson
  causality queue export --output waiting.ndjson.gz --since 2026-11-20
  causality queue export --queue-path /mnt/kiosk/queue.db --single --format csv --output k.csv
""",
)
@filter_options
@click.option(
    "--output",
    "target",
    shell_complete=files,
    default="-",
    metavar="FILE",
    help="Where to; gzip if it ends in .gz.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="ndjson",
    show_default=True,
    help="NDJSON can be imported again.",
)
@click.option("--dead-letters", is_flag=True, help="The dead letters, and not what waits.")
@click.option(
    "--force",
    is_flag=True,
    help="Replace a file that is there, or write into it if it is a device or a pipe.",
)
@output_options
@file_options
def command(wanted: Filter, target: str, kind: str, dead_letters: bool, force: bool) -> None:
    """Export events: whole, with their keys, so that they can be imported and sent elsewhere.

    Nothing is removed from the queue. Rows whose checksum is wrong are left out and counted. What
    can be read of a damaged file is exported, and what is lost is counted.
    With --json, a summary goes to stdout if the events do not.

    Exits with 4 if one of several files cannot be read at all; the others are exported.
    """
    out = output()
    if target == "-" and streams.current().stdout_closed:
        raise CommandError("standard output is closed; name a file with --output", UNWRITABLE)
    files = chosen_files(must_exist=True)
    losses = Losses()
    look = buried_in if dead_letters else waiting_in
    exported = damaged = 0
    with opened(target, force=force) as stream:
        writer = row_writer(kind, stream, summary=False)
        for found in look(files, wanted, losses):
            if found.sound:
                writer.write(found)
                exported += 1
            else:
                damaged += 1
        writer.end()
    if damaged:
        out.note(f"{count(damaged)} with a wrong checksum left out")
    for line in losses.lines:
        out.note(line)
    if target != "-":
        document = {
            "exported": exported,
            "damaged": damaged,
            "lost": losses.events if losses.counted else None,
            "file": target,
        }
        out.summary(document, f"{count(exported)} in {target}")
    if losses.unreadable:
        raise click.exceptions.Exit(UNREADABLE)
