"""How a run of our programs ends: one line about what went wrong, and an exit code of `exits`.

Neighbours: `groups` and `packtrack_logger` run their commands in here. Invariant: no traceback for
what a person or a machine did; and what a command did is not called undone because nobody could be
told of it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from causality_sdk.cli.exits import FAILED, INTERRUPTED, INVALID, UNWRITABLE, CommandError
from causality_sdk.cli.streams import Streams, mended
from causality_sdk.cli.words import escaped, in_shell, json_text
from causality_sdk.errors import CausalityError


def end(run: Callable[[], Any], arguments: Sequence[str]) -> NoReturn:
    """Runs it, and leaves the program with its exit code."""
    as_json = "--json" in list(arguments)[: _options_end(arguments)]
    with mended() as streams:
        code = _run(run, as_json=as_json)
        code = _after(code, streams, as_json=as_json)
    sys.exit(code)


def error_document(
    kind: str, message: str, code: int | None = None, fix: str = ""
) -> dict[str, Any]:
    """An error as `--json` shows it. `code`: of the command, if that ends with it."""
    found: dict[str, Any] = {"type": kind, "message": message}
    if code is not None:
        found["exit_code"] = code
    if fix:
        found["fix"] = fix
    return {"error": found}


def _options_end(arguments: Sequence[str]) -> int:
    return list(arguments).index("--") if "--" in arguments else len(arguments)


def _run(run: Callable[[], Any], *, as_json: bool) -> int:
    try:
        found = run()
    except click.UsageError as error:
        error.exit_code = INVALID  # type: ignore[misc]  # click's 2 means something else here
        _show(error, as_json=as_json)
        return INVALID
    except click.ClickException as error:
        _show(error, as_json=as_json)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):  # click's "Aborted!" would exit with 1
        return INTERRUPTED
    except CausalityError as error:
        _show(CommandError(str(error), FAILED, kind=type(error).__name__), as_json=as_json)
        return FAILED
    except OSError as error:
        _show(CommandError(_machine(error), FAILED, kind="OSError"), as_json=as_json)
        return FAILED
    return found if isinstance(found, int) else 0


def _after(code: int, streams: Streams, *, as_json: bool) -> int:
    """The code, once all output has gone where it can."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE and streams.error is None:
            streams.error = error
    if streams.error is None:
        return code
    reason = streams.error.strerror or str(streams.error)
    done = "what was asked is done, but not told" if code == 0 else "and the command failed besides"
    problem = CommandError(f"standard output cannot be written: {reason}; {done}", UNWRITABLE)
    _show(problem, as_json=as_json)
    return code or UNWRITABLE


def _show(error: click.ClickException, *, as_json: bool) -> None:
    from causality_sdk.cli.settings import FLAGS  # nothing that a run without an error pays for

    message = in_shell(error.format_message(), FLAGS)
    fix = getattr(error, "fix", "")
    if as_json:
        kind = getattr(error, "kind", "") or _KINDS.get(type(error).__name__, "UsageError")
        click.echo(json_text(error_document(kind, message, error.exit_code, fix)), err=True)
        return
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None:
        click.echo(context.get_usage(), err=True)
        click.echo(f"Try '{context.command_path} --help' for help.\n", err=True)
    word = click.style("Error:", fg="red", bold=True)
    color = None if context is None else context.color
    click.echo(
        f"{word} {escaped(message)}", err=True, color=wants_color() if color is None else color
    )


_KINDS = {"InputError": "InputError", "CommandError": "CommandError", "InvalidEvent": "EventError"}


def wants_color() -> bool | None:
    """What the environment says: True, False, or None for "on a terminal".

    NO_COLOR (no-color.org), FORCE_COLOR (force-color.org) and CLICOLOR, CLICOLOR_FORCE
    (bixense.com/clicolors); the first of them that is set wins.
    """
    environ = os.environ
    if environ.get("NO_COLOR"):
        return False
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
        if environ.get(name) not in (None, "", "0"):
            return True
    if environ.get("CLICOLOR") == "0" or environ.get("TERM") == "dumb":
        return False
    return None


def _machine(error: OSError) -> str:
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{place}{error.strerror or error}"
