"""The group `causality dead-letters`. Each command is a module here."""

from __future__ import annotations

import click

from causality_sdk.cli.groups import LazyGroup

COMMANDS = {
    "list": ("causality_sdk.cli.dead_letters.list_", "What was refused, when, and why."),
    "show": ("causality_sdk.cli.dead_letters.show", "One of them, whole."),
    "requeue": ("causality_sdk.cli.dead_letters.requeue", "Put them back, keys unchanged."),
    "delete": ("causality_sdk.cli.dead_letters.delete", "Delete them for good."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog="""\b
Examples:
  causality dead-letters list
  causality dead-letters show 3
  causality dead-letters requeue --type order_placed
""",
)
def command() -> None:
    """Look at what the server refused for ever, put it back, or delete it.

    Letters are named by their number in the list or by their idempotency key.
    """
