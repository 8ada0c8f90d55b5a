"""`causality dead-letters requeue`. Neighbour: `selection`. Invariant: keys stay as they are."""

from __future__ import annotations

import click

from causality_sdk.cli.dead_letters.selection import change
from causality_sdk.cli.option_words import FILES
from causality_sdk.cli.options import CommandWithClient
from causality_sdk.cli.output import output, output_options
from causality_sdk.cli.queue.selection import Filter, chosen_files, file_options, filter_options


@click.command(
    cls=CommandWithClient,
    uses=FILES,
    epilog="""\b
Examples:
  causality dead-letters requeue 3 4
  causality dead-letters requeue --type order_placed
  causality dead-letters requeue --all && causality queue replay
""",
)
@click.argument("letters", metavar="[NUMBER_OR_KEY]...", nargs=-1)
@filter_options
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Say how many it would be.")
@output_options
@file_options
def command(letters: tuple[str, ...], wanted: Filter, every: bool, dry_run: bool) -> None:
    """Put dead letters back at the tail of their queue, with their keys and times unchanged.

    For when the server was corrected. A letter is named by its number or by its key, of which the
    beginning will do. In a file that a running service owns only the service can,
    with client.dead_letters.requeue(); it is refused here.
    """
    change(
        chosen_files(),
        letters,
        wanted,
        output(),
        verb="requeued",
        question=None,
        yes=True,
        every=every,
        dry_run=dry_run,
        work=lambda dead, chosen: dead.requeue(chosen),
    )
