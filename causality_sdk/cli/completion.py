"""`causality completion`: the script with which a shell completes our command.

Neighbour: click makes it. Invariant: it is printed and installed nowhere.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from causality_sdk.cli.formatter import OurCommand

SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=OurCommand,
    epilog="""\b
Examples:
  eval "$(causality completion bash)"
  causality completion zsh >> ~/.zshrc
  causality completion fish > ~/.config/fish/completions/causality.fish
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script for SHELL: bash, zsh or fish.

    With it the shell completes commands, options, their values and the names of files. For bash,
    put the first example into ~/.bashrc.
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"this release of click has no completion for {shell}")
    shell_complete = found(context.find_root().command, {}, "causality", "_CAUSALITY_COMPLETE")
    click.echo(shell_complete.source().strip())
