"""What a shell offers for a value: names of apps that have a queue here, names of wires.

Neighbours: `options` names these functions; file names are click's own. Invariant: completion
writes nothing, and never fails.
"""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import unquote

import click
from click.shell_completion import CompletionItem


def files(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of files, which the shell knows."""
    return [CompletionItem(incomplete, type="file")]


def wires(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The formats that there are."""
    from causality_sdk.config import WIRE_NAMES

    return [name for name in WIRE_NAMES if name.startswith(incomplete)]


def app_ids(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The apps that have a directory among this user's data."""
    from causality_sdk.cli.settings import directory_of_apps
    from causality_sdk.errors import CausalityError

    with suppress(OSError, CausalityError):
        names = (unquote(each.name) for each in directory_of_apps().iterdir() if each.is_dir())
        return sorted(name for name in names if name.startswith(incomplete))
    return []
