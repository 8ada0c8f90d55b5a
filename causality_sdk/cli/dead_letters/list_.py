"""`causality dead-letters list`. Neighbour: `selection`. Invariant: nothing is written."""

from __future__ import annotations

import sys

import click

from causality_sdk.cli.dead_letters.selection import document, letters
from causality_sdk.cli.option_words import FILES
from causality_sdk.cli.options import CommandWithClient
from causality_sdk.cli.output import output, output_options
from causality_sdk.cli.queue.selection import Filter, chosen_files, file_options, filter_options
from causality_sdk.cli.tables import Column, Rows

_COLUMNS = (
    Column("id", right=True),
    Column("buried", gives=2, least=17),
    Column("status", right=True),
    Column("attempts", right=True),
    Column("type", gives=1),
    Column("key", gives=3, least=14),
    Column("reason", gives=2, least=12),
)


@click.command(
    cls=CommandWithClient,
    uses=FILES,
    epilog="""\b
Examples:
  causality dead-letters list
  causality dead-letters list --type order_placed --json
""",
)
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Letters at most; 0 for all.",
)
@output_options
@file_options
def command(wanted: Filter, limit: int) -> None:
    """List what the server refused for ever: when it was buried, and in which words.

    --since and --until are about the time of the event.
    """
    out = output()
    files = chosen_files()
    rows = None if out.as_json else Rows(_COLUMNS, sys.stdout.buffer)
    every = ((path, letter) for path in files for letter in letters(path, (), wanted))
    for shown, (path, letter) in enumerate(every):
        if limit and shown == limit:
            out.note("there is more; --limit 0 lists all")
            break
        facts = document(path, letter)
        if rows is None:
            out.json_line(facts)
            continue
        rows.add(
            letter.id,
            facts["buried"],
            letter.status or "-",
            letter.attempts,
            facts["event_type"],
            letter.idempotency_key,
            letter.reason,
        )
    if rows is not None and files:
        rows.end()
