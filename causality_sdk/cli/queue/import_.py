"""`causality queue import`: the events of an export into the queue, their keys unchanged.

Neighbours: `track`, whose work it is, and `export`. Invariant: an event without a key of its own is
not taken, since the server could not tell it from a new one.
"""

from __future__ import annotations

import click

from causality_sdk.cli.completions import files
from causality_sdk.cli.event_source import EventSource
from causality_sdk.cli.option_words import FILES, FILLING
from causality_sdk.cli.options import CommandWithClient, client_options, settings
from causality_sdk.cli.output import output, output_options
from causality_sdk.cli.track import Run, configured, preview
from causality_sdk.errors import EventError
from causality_sdk.event import Event


@click.command(
    cls=CommandWithClient,
    uses=FILES | FILLING | {"endpoint", "api_key", "wire"},
    epilog="""\b
Examples:
  causality queue import waiting.ndjson.gz
  causality queue export --queue-path /mnt/kiosk/queue.db | causality queue import -
  causality queue import waiting.ndjson --queue-path ./again/queue.db --dry-run
""",
)
@click.argument("file", shell_complete=files, metavar="FILE")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do with a line that is not an event. What is before it is imported either way.",
)
@click.option("--dry-run", is_flag=True, help="Validate, and print what would be imported.")
@output_options
@client_options
def command(file: str, on_error: str, dry_run: bool) -> None:
    """Put exported events into the queue, with the keys and times they have.

    The server drops those that it knows by their keys, so that importing twice does no harm. They
    are delivered by the next run of a client with the same options, by a service that has the file
    open, or by causality queue replay. While a service has the queue open, a file of its own is
    filled beside it.

    FILE is what queue export wrote, plain or gzip; - is standard input.
    """
    out = output()
    source = EventSource(file)
    try:
        config = configured(settings(), out, dry_run=dry_run)
        if dry_run:
            preview(config, out, source, skip=on_error == "skip", check=_check)
        else:
            run = Run(config, out, seconds=0.0, deliver=False, verb="imported")
            run.feed(source, skip=on_error == "skip", check=_check)
    finally:
        source.close()


def _check(event: Event) -> None:
    for name in ("idempotency_key", "timestamp"):
        if getattr(event, name) is None:
            missing = "timestamp_ms" if name == "timestamp" else name
            raise EventError(
                f"{missing} is missing; this is no export. For new events use causality track"
            )
