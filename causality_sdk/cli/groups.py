"""`LazyGroup`: a click group that loads a command's module when it is called, with our exit codes.

Neighbours: `causality_sdk.cli` and the groups inside it are made of it. Invariant: help and
completion of a group import no command, so that both are quick however many commands there are.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from causality_sdk.cli.exits import CLOSED_PIPE, FAILED, INTERRUPTED, INVALID, CommandError
from causality_sdk.errors import CausalityError

Lazy = Mapping[str, tuple[str, str]]
"""Name of a command -> the module that has it as `command`, and its line in the help."""


class LazyGroup(click.Group):
    """Finds its commands in `lazy`, and ends with the exit codes of `exits`."""

    def __init__(self, *args: Any, lazy: Lazy | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lazy = {} if lazy is None else lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads the module of one command, or gives None if there is none."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        command: click.Command = import_module(self._lazy[cmd_name][0]).command
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 (click has it)
        formatter: click.HelpFormatter,
    ) -> None:
        """Writes the table; click's own would load every command for its first line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._lazy.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names with their lines; click's own would load every command for its help."""
        found = [
            CompletionItem(name, help=line)
            for name, (_, line) in self._lazy.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without arguments: the help, as an error. (click 8.1 and 8.2 differ about it.)"""
        if not args and not ctx.resilient_parsing:
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
            try:
                result = super().invoke(ctx)
            finally:
                # Not at the end of the interpreter, which can only print a traceback.
                sys.stdout.flush()
            return result


@contextmanager
def _our_exit_codes() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        error.exit_code = INVALID  # type: ignore[misc]  # click's 2 means something else here
        raise
    except (KeyboardInterrupt, click.Abort):  # click's "Aborted!" would exit with 1
        raise click.exceptions.Exit(INTERRUPTED) from None
    except CausalityError as error:
        raise CommandError(str(error), FAILED) from error
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        _forget_stdout()
        raise click.exceptions.Exit(CLOSED_PIPE) from None


def _forget_stdout() -> None:
    """Nobody reads it any more; what is still buffered must not fail again at the very end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
