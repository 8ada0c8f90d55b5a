"""What a command's exit code means, and the errors that carry one. The same for every command.

Neighbours: every command. Invariant: a script can tell a mistake of its own (1, 4) from a server
that will not (2) and one that may later (3), without reading a message.
"""

from __future__ import annotations

from typing import Final

import click

INVALID: Final = 1
"""Wrong arguments, events that cannot be sent, a check that failed."""
REFUSED: Final = 2
"""The network or the server failed in a way that a retry won't mend."""
RETRIES_EXHAUSTED: Final = 3
"""It may work later; the events are still queued."""
UNREADABLE: Final = 4
"""Input could not be read or parsed."""
INTERRUPTED: Final = 130
"""Ctrl-C: 128 + SIGINT, as shells count."""


class InputError(click.ClickException):
    """Input that could not be read or parsed. Names the file, the line where there is one."""

    exit_code = UNREADABLE
