"""The command line: the group `causality`, which loads a command's module when it is called.

Neighbours: one module here for each command, its click command named `command`; `groups` for how
they are found, `exits` for the exit codes. Invariant: help and completion of the group import no
command, so that both are quick however many commands there are.
"""

from __future__ import annotations

import click

from causality_sdk._version import __version__
from causality_sdk.cli.groups import LazyGroup

# Name -> its module and its line in the group's help.
COMMANDS = {
    "track": ("causality_sdk.cli.track", "Put events into the queue, and deliver what can be."),
    "send": ("causality_sdk.cli.send", "Send events now; the exit code tells."),
    "queue": ("causality_sdk.cli.queue", "Look at queue files, repair, replay and purge them."),
    "dead-letters": ("causality_sdk.cli.dead_letters", "What the server refused for ever."),
    "health": ("causality_sdk.cli.health", "Ask the server whether it is well."),
    "config": ("causality_sdk.cli.config", "Show each option and where it comes from."),
    "demo": ("causality_sdk.cli.demo", "Show that a crash and an outage lose no event."),
    "bench": ("causality_sdk.cli.bench", "Measure the queue on this machine's disk."),
    "completion": ("causality_sdk.cli.completion", "Print a script with which a shell completes."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  causality track purchase_complete order_id=A-1 total_cents:=1299
  cat events.ndjson | causality track -
  causality send --file events.json --gzip
  causality queue status
  causality track --help     what a command does, and its options

\b
Completion, for bash (zsh and fish alike):
  eval "$(causality completion bash)"
""",
)
@click.version_option(__version__, prog_name="causality")
def main() -> None:
    """Track events through a durable queue, and look after that queue.

    Exit codes: 0 success, 1 wrong arguments or a failed check, 2 a network or server error that a
    retry won't mend, 3 retries exhausted, 4 input that could not be read, 5 output that could not
    be written, 130 interrupted, 141 the reader of the output has gone.
    """
