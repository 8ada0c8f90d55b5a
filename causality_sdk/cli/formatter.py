"""How help looks: bold headings where there is a terminal, and its width.

Neighbours: groups and commands are made with `OurContext`. Invariant: without a terminal, or with
NO_COLOR, help is plain text.
"""

from __future__ import annotations

from typing import Any

import click

from causality_sdk.cli.ending import wants_color


class _Formatter(click.HelpFormatter):
    """Headings and the names of options stand out."""

    def write_heading(self, heading: str) -> None:
        """The first line of a section."""
        self.write(f"{'':>{self.current_indent}}{click.style(heading + ':', bold=True)}\n")

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """The first line of all."""
        super().write_usage(prog, args, click.style(prefix or "Usage:", bold=True) + " ")


class OurContext(click.Context):
    """A context that knows what the environment says about colour."""

    formatter_class = _Formatter

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.color is None:
            self.color = wants_color()


class OurCommand(click.Command):
    """A command whose help looks like this."""

    context_class = OurContext
