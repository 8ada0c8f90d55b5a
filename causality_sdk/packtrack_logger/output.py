"""What the command prints. Neighbours: all of it.

Invariant: a reader that goes away is no error.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from causality_sdk.cli.words import json_text


def say(text: str, *, err: bool = False) -> bool:
    """Prints a line. False when nobody reads any more; what follows is then printed nowhere."""
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        stream = sys.stderr if err else sys.stdout
        # Else Python complains when it flushes the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True


def result(facts: dict[str, Any]) -> str:
    """One JSON object on one line, for `--json` and `--dry-run`.

    In ASCII: neither the terminal's encoding nor a file name that is no text can break it.
    """
    return json_text(facts)


def failure(code: int, message: str, **facts: Any) -> str:
    """The same for what went wrong."""
    return result({"ok": False, "exit_code": code, **facts, "error": message})
