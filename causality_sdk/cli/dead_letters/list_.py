"""`causality dead-letters list`. Neighbour: `selection`. Invariant: nothing is written."""

from __future__ import annotations

import click

from causality_sdk.cli.dead_letters.selection import document, letters
from causality_sdk.cli.option_words import FILES
from causality_sdk.cli.options import CommandWithClient
from causality_sdk.cli.output import output, output_options, printable
from causality_sdk.cli.queue.selection import Filter, chosen_files, file_options, filter_options

_LAYOUT = "{:>6}  {:<24}  {:>6}  {:>8}  {:<24}  {:<36}  {}"


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
    if not out.as_json:
        click.echo(_LAYOUT.format("id", "buried", "status", "attempts", "type", "key", "reason"))
    shown = 0
    for path in files:
        for letter in letters(path, (), wanted):
            if limit and shown == limit:
                out.note("there is more; --limit 0 lists all")
                return
            shown += 1
            facts = document(path, letter)
            if out.as_json:
                out.json_line(facts)
                continue
            click.echo(
                _LAYOUT.format(
                    letter.id,
                    facts["buried"],
                    letter.status or "-",
                    letter.attempts,
                    printable(str(facts["event_type"] or "-")),
                    printable(str(letter.idempotency_key or "-")),
                    printable(letter.reason),
                ).rstrip()
            )
