"""`causality dead-letters delete`. Neighbour: `selection`. Invariant: asks before it deletes."""

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
  causality dead-letters delete 3
  causality dead-letters delete --until 2026-11-01 --yes
  causality dead-letters delete --all --dry-run
""",
)
@click.argument("letters", metavar="[NUMBER_OR_KEY]...", nargs=-1)
@filter_options
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say how many it would be.")
@output_options
@file_options
def command(
    letters: tuple[str, ...], wanted: Filter, every: bool, yes: bool, dry_run: bool
) -> None:
    """Delete dead letters for good: those that are named, that pass the filters, or --all.

    A letter is named by its number or by its key, of which the beginning will do. Asks before. They
    stay buried in the count. In a file that a running service owns only the service can, with
    client.dead_letters.delete(); it is refused here.
    """
    change(
        chosen_files(),
        letters,
        wanted,
        output(),
        verb="deleted",
        question="Delete",
        yes=yes,
        every=every,
        dry_run=dry_run,
        work=lambda dead, chosen: dead.delete(chosen),
    )
