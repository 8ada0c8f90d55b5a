"""`LazyGroup`: a click group that loads a command's module when it is called.

Neighbours: `causality_sdk.cli` and the groups inside it are made of it; `ending` has the exit
codes, `guesses` what was meant. Invariant: help and completion of a group import no command, so
that both are quick however many commands there are.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from causality_sdk.cli.ending import end
from causality_sdk.cli.exits import CLOSED_PIPE, INTERRUPTED
from causality_sdk.cli.formatter import OurContext
from causality_sdk.cli.streams import forget_stdout

Lazy = Mapping[str, tuple[str, str]]
"""Name of a command -> the module that has it as `command`, and its line in the help."""


class LazyGroup(click.Group):
    """Finds its commands in `lazy`, and ends with the exit codes of `exits`."""

    context_class = OurContext

    def __init__(self, *args: Any, lazy: Lazy | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lazy = {} if lazy is None else lazy

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs it; a program of its own ends with our exit codes."""

        def run() -> Any:
            return super(LazyGroup, self).main(
                args, prog_name, complete_var, standalone_mode=False, **extra
            )

        given = sys.argv[1:] if args is None else args
        return end(run, given) if standalone_mode else run()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help."""
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads the module of one command, or gives None if there is none."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        command: click.Command = import_module(self.lazy[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of these words. One that is not there is answered with what may be meant."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            from causality_sdk.cli.guesses import no_such_command

            raise no_such_command(self, ctx, args[0])
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 (click has it)
        formatter: click.HelpFormatter,
    ) -> None:
        """Writes the table; click's own would load every command for its first line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.lazy.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names with their lines; click's own would load every command for its help."""
        found = [
            CompletionItem(name, help=line)
            for name, (_, line) in self.lazy.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without arguments: the help. (Releases of click differ about it.)"""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit(0)
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            from causality_sdk.cli.guesses import misplaced_option

            raise misplaced_option(self, ctx, given, error) from None

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Reads the group's own options."""
        with _interruptible():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Reads the command's options and runs it."""
        with _interruptible():
            try:
                result = super().invoke(ctx)
            finally:
                # Not at the end of the interpreter, which can only print a traceback.
                sys.stdout.flush()
            return result


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C, and a reader who went away, have exit codes of their own, which click has not."""
    try:
        yield
    except (KeyboardInterrupt, click.Abort):
        raise click.exceptions.Exit(INTERRUPTED) from None
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        forget_stdout()
        raise click.exceptions.Exit(CLOSED_PIPE) from None
