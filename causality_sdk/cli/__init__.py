"""The command line: the group `causality`, which loads a command's module when it is called.

Neighbours: one module here for each command, its click command named `command`; `exits` for the
exit codes. Invariant: help and completion of the group import no command, so that both are quick
however many commands there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from causality_sdk._version import __version__
from causality_sdk.cli.exits import INTERRUPTED, INVALID

# Name -> its line in the group's help. The module has the same name, with _ for -.
COMMANDS = {
    "demo": "Show that a crash and an outage lose no event.",
}


class CommandGroup(click.Group):
    """Finds its commands in `COMMANDS`, and ends with the exit codes of `exits`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click has it)
        """Names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Loads the module of one command, or gives None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"causality_sdk.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 (click has it)
        formatter: click.HelpFormatter,
    ) -> None:
        """Writes the table; click's own would load every command for its first line."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without arguments: the help, as an error. (click 8.1 and 8.2 differ about it.)"""
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(INVALID)
        return super().parse_args(ctx, args)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Reads the group's own options."""
        with _our_exit_codes():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Reads the command's options and runs it."""
        with _our_exit_codes():
            return super().invoke(ctx)


@contextmanager
def _our_exit_codes() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        error.exit_code = INVALID  # type: ignore[misc]  # click's 2 means something else here
        raise
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None  # click's "Aborted!" would exit with 1


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Example:
  causality demo            5,000 departures, an outage, a kill -9: nothing lost
  causality demo --help     what a command does, and its options
""",
)
@click.version_option(__version__, prog_name="causality")
def main() -> None:
    """The tracker that never loses an event: a durable queue in front of your event server.

    Exit codes: 0 success, 1 wrong arguments or a failed check, 2 a network or server error that a
    retry won't mend, 3 retries exhausted, 4 input that could not be read, 130 interrupted.
    """
