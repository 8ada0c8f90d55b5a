"""What a command's exit code means, and the errors that carry one. The same for every command.

Neighbours: every command. Invariant: a script can tell a mistake of its own (1, 4) from a server
that will not (2) and one that may later (3), without reading a message.
"""

from __future__ import annotations

from typing import Final

import click

from causality_sdk.errors import ResponseError, TransportError

INVALID: Final = 1
"""Wrong arguments, events that cannot be sent, a check that failed, or a queue that cannot be used:
it is not writable, is somebody else's, or its disk is full."""
FAILED: Final = INVALID  # the name where it is the machine's fault
REFUSED: Final = 2
"""The network or the server failed in a way that a retry won't mend."""
RETRIES_EXHAUSTED: Final = 3
"""It may work later."""
UNREADABLE: Final = 4
"""Input could not be read or parsed."""
UNWRITABLE: Final = 5
"""The output could not be written, as on a full disk; what was asked is done all the same."""
INTERRUPTED: Final = 130
"""Ctrl-C: 128 + SIGINT, as shells count."""
CLOSED_PIPE: Final = 141
"""Whoever read the output has gone: 128 + SIGPIPE, as shells count."""

_KINDS = {
    INVALID: "CommandError",
    REFUSED: "DeliveryError",
    RETRIES_EXHAUSTED: "DeliveryError",
    UNREADABLE: "InputError",
    UNWRITABLE: "OutputError",
}
_LATER = frozenset({408, 425, 429})  # of the 4xx, those that speak of the moment


class InputError(click.ClickException):
    """Input that could not be read or parsed. Names the file, the line where there is one."""

    exit_code = UNREADABLE
    kind = "InputError"


class CommandError(click.ClickException):
    """Anything else that ends a command, with its exit code."""

    def __init__(
        self, message: str, exit_code: int = INVALID, *, kind: str = "", fix: str = ""
    ) -> None:
        """`kind` and `fix` are for `--json`: the name of the error, and what would mend it."""
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # one class, a code for each error
        self.kind = kind or _KINDS.get(exit_code, "CommandError")
        self.fix = fix


def delivery_code(error: Exception | None) -> int:
    """The code for events that did not arrive: whether trying again can help.

    A status of the 4xx means that this very request is wrong; a certificate that is refused stays
    refused.
    """
    if isinstance(error, ResponseError):
        status = error.status
        client_error = 400 <= status <= 499 and status not in _LATER
        return REFUSED if client_error or not error.retryable else RETRIES_EXHAUSTED
    if isinstance(error, TransportError) and error.reason == "tls":
        return REFUSED
    return RETRIES_EXHAUSTED
