"""What a command prints: results on stdout, everything else on stderr; for people or for programs.

Neighbours: every command; `words` makes text fit to be shown, `tables` puts it into columns.
Invariant: with `--json`, stdout and stderr hold lines of JSON and nothing else; without a terminal
there is no control character.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from causality_sdk.cli.ending import error_document
from causality_sdk.cli.tables import table
from causality_sdk.cli.words import age, count, escaped, in_shell, json_bytes, printable, size

__all__ = [
    "Output", "age", "count", "output", "output_options", "printable", "size", "styled", "table",
]  # fmt: skip

_CLEAR_LINE = "\r\x1b[K"
_OUTPUT = "causality_sdk.output"  # where click's context keeps the three flags
_Command = TypeVar("_Command", bound=Callable[..., Any])


def output_options(command: _Command) -> _Command:
    """Adds `--json`, `--quiet` and `--verbose`; `output()` has what they mean."""
    for flags, text in (
        (("-v", "--verbose"), "Tell of each attempt, decision and status code, on stderr."),
        (("-q", "--quiet"), "Print results and errors only."),
        (("--json", "as_json"), "Print results as JSON, for programs."),
    ):
        command = click.option(*flags, is_flag=True, expose_value=False, callback=_keep, help=text)(
            command
        )
    return command


def _keep(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    context.meta.setdefault(_OUTPUT, {})[parameter.name] = value


class Output:
    """Where the running command prints to."""

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose

    def result(self, document: Any, text: str | None = None) -> None:
        """What the command was asked for: `document` under `--json`, else `text`."""
        if self.as_json:
            self.json_line(document)
        elif text is not None:
            _say(text)

    def summary(self, document: Any, text: str) -> None:
        """What a command did that was not asked for words: quiet leaves the text out."""
        if self.as_json:
            self.json_line(document)
        elif not self.quiet:
            _say(text)

    def line(self, text: str) -> None:
        """One line for people, which is fit to be shown, and may be styled."""
        _say(text, safe=True)

    def json_line(self, document: Any) -> None:
        """One JSON document on a line of its own, at once: whoever reads it may act on it."""
        click.echo(json_bytes(document))
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """What a person should know, and a program need not."""
        if not self.quiet:
            text = _in_shell(text)
            self._tell({"note": text}, text, styled("note:", "cyan"))

    def detail(self, text: str) -> None:
        """One step of the work."""
        if self.verbose:
            self._tell({"detail": text}, text)

    def problem(self, text: str, kind: str, code: int | None = None) -> None:
        """Something that is wrong, though the command goes on, or ends with `code`."""
        text = _in_shell(text)
        self._tell(error_document(kind, text, code), text, styled("Error:", "red"))

    def _tell(self, document: Any, text: str, mark: str = "") -> None:
        if self.as_json:
            click.echo(json_bytes(document), err=True)
        else:
            _say(f"{mark} {escaped(text)}" if mark else escaped(text), err=True, safe=True)

    def progress(self, text: str) -> None:
        """A word for whoever looks at the terminal; nothing anywhere else."""
        if self.shows_progress:
            # In place of a bar that may stand there, which is drawn anew below it.
            line = _CLEAR_LINE + styled(escaped(_in_shell(text)), "dim")
            _say(line, err=True, safe=True)

    @property
    def shows_progress(self) -> bool:
        """Whether somebody looks at stderr who wants to see that something goes on."""
        return sys.stderr.isatty() and not (self.quiet or self.as_json or self.verbose)

    def logger(self) -> logging.Logger:
        """For a client: errors and warnings, but not what the command says itself.

        Verbose: all of it.
        """
        logger = logging.getLogger("causality_sdk.cli")
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
        handler = _Handler(self)
        logger.handlers[:] = [handler]
        return logger


def output(context: click.Context | None = None) -> Output:
    """The output of the running command."""
    context = click.get_current_context() if context is None else context
    return Output(**context.meta.get(_OUTPUT, {}))


class _Handler(logging.Handler):
    """Log lines of the client on stderr."""

    def __init__(self, target: Output) -> None:
        # Its level tells debug=True what is shown here.
        super().__init__(logging.DEBUG if target.verbose else logging.WARNING)
        self._target = target

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().removeprefix("causality: ")
        if record.levelno >= logging.ERROR:
            self._target.problem(text, "Problem")
        elif self._target.verbose:
            self._target.detail(text)
        elif record.levelno >= logging.WARNING and not text.startswith("delivery failed"):
            self._target.note(text)  # that of a failed delivery comes with the summary


def styled(text: str, color: str) -> str:
    """A word that stands out on a terminal; `click.echo` takes that away where there is none.

    `color` may be "bold" or "dim".
    """
    if color == "bold":
        return click.style(text, bold=True)
    if color == "dim":
        return click.style(text, dim=True)
    return click.style(text, fg=color, bold=color == "red")


def _in_shell(text: str) -> str:
    from causality_sdk.cli.settings import FLAGS  # which needs this module itself

    return in_shell(text, FLAGS)


def _say(text: str, *, err: bool = False, safe: bool = False) -> None:
    context = click.get_current_context(silent=True)
    color = None if context is None else context.color
    click.echo(text if safe else escaped(text), err=err, color=color)
