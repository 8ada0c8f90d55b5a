"""The group `causality queue`. Each command is a module here; see the group `causality` itself."""

from __future__ import annotations

import click

from causality_sdk.cli.groups import LazyGroup

COMMANDS = {
    "status": ("causality_sdk.cli.queue.status", "Files, owners, what waits, what was lost."),
    "list": ("causality_sdk.cli.queue.list_", "The events that wait, one a line."),
    "show": ("causality_sdk.cli.queue.show", "One event, whole."),
    "export": ("causality_sdk.cli.queue.export", "Events to a file or a pipe, as they are."),
    "import": ("causality_sdk.cli.queue.import_", "Events of an export into the queue."),
    "replay": ("causality_sdk.cli.queue.replay", "Deliver what waits in files nobody owns."),
    "purge": ("causality_sdk.cli.queue.purge", "Delete what waits."),
    "doctor": ("causality_sdk.cli.queue.doctor", "Find what is wrong, and say the fix."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog="""\b
Examples:
  causality queue status --app-id kiosk-7
  causality queue list --queue-path /mnt/kiosk/queue.db --type order_placed
  causality queue replay --rate 200
""",
)
def command() -> None:
    """Look at queue files, repair, replay and purge them.

    Which files: those of --app-id, or the one of --queue-path, each with its siblings (queue.1.db,
    queue.2.db, …); with --single, that file alone. Looking never disturbs the process that has a
    file open; what changes a file refuses while it does.
    """
