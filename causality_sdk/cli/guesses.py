"""What was meant by a command that does not exist, and by an option that stands too early.

Neighbour: `groups`, which loads this when something was wrong. Pure but for imports.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from causality_sdk.cli.groups import LazyGroup


def nearest(name: str, names: list[str]) -> list[str]:
    """Those of `names` that may be meant by `name`, best first."""
    return difflib.get_close_matches(name, names, n=3, cutoff=0.6)


def did_you_mean(found: list[str]) -> str:
    """The question, or nothing."""
    return f" Did you mean {' or '.join(found)}?" if found else ""


def no_such_command(group: LazyGroup, context: click.Context, name: str) -> click.UsageError:
    """The error for it: with the commands that are like it, or have that name elsewhere."""
    root = context.find_root()
    paths = list(_paths(root.command, root.info_name or "causality"))
    here = context.command_path
    # The same name in another group: `causality replay` is `causality queue replay`.
    found = [path for path in paths if path.rpartition(" ")[2] == name]
    if not found:
        names = list(group.lazy)
        found = [f"{here} {each}" for each in nearest(name, names)]
    if not found:
        last = {path.rpartition(" ")[2]: path for path in paths}
        found = [last[each] for each in nearest(name, list(last))]
    return click.UsageError(f"No such command {name!r}.{did_you_mean(found)}", context)


def misplaced_option(
    group: LazyGroup, context: click.Context, arguments: list[str], error: click.NoSuchOption
) -> click.UsageError:
    """The error for it: an option of the command has to stand behind the command."""
    path, command = context.command_path, group
    for word in arguments:
        found = None if word.startswith("-") else command.get_command(context, word)
        if found is None:
            continue
        path = f"{path} {word}"
        if not isinstance(found, click.Group):
            flags = {flag for each in found.params for flag in (*each.opts, *each.secondary_opts)}
            if error.option_name in flags:
                return click.UsageError(
                    f"{error.option_name} stands behind the command: {path} {error.option_name} …",
                    context,
                )
            break
        command = found  # type: ignore[assignment]  # every group of ours is a LazyGroup
    return error


def _paths(command: click.Command, path: str) -> Iterator[str]:
    """The words that call each command, without loading any."""
    lazy = getattr(command, "lazy", {})
    for name, (module, _) in lazy.items():
        yield f"{path} {name}"
        spec = find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None:  # a group
            found = getattr(command, "get_command")(click.Context(command), name)  # noqa: B009
            yield from _paths(found, f"{path} {name}")
