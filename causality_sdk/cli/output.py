"""What a command prints: results on stdout, everything else on stderr; for people or for programs.

Neighbours: every command. Invariant: with `--json`, stdout holds JSON and nothing else; without a
terminal there is no control character.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
import orjson

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
            click.echo(text)

    def summary(self, document: Any, text: str) -> None:
        """What a command did that was not asked for words: quiet leaves the text out."""
        if self.as_json:
            self.json_line(document)
        elif not self.quiet:
            click.echo(text)

    def json_line(self, document: Any) -> None:
        """One JSON document on a line of its own, at once: whoever reads it may act on it."""
        click.echo(orjson.dumps(document, str))
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """What a person should know, and a program need not."""
        if not self.quiet:
            click.echo(f"note: {text}", err=True)

    def detail(self, text: str) -> None:
        """One step of the work."""
        if self.verbose:
            click.echo(text, err=True)

    def problem(self, text: str) -> None:
        """Something that is wrong, though the command goes on."""
        click.echo(f"Error: {text}", err=True)

    @property
    def shows_progress(self) -> bool:
        """Whether a bar may be drawn on stderr."""
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
            self._target.problem(text)
        elif self._target.verbose:
            self._target.detail(text)
        elif record.levelno >= logging.WARNING and not text.startswith("delivery failed"):
            self._target.note(text)  # that of a failed delivery comes with the summary


def table(rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Columns, numbers to the right, and never a control character of an event's text."""
    cells = [[_cell(value) for value in row] for row in rows]
    right = [
        all(isinstance(row[i], (int, float)) for row in rows) if isinstance(rows, list) else False
        for i in range(len(cells[0]) if cells else 0)
    ]
    lines = [list(header), *cells] if header else cells
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(
                line, widths, right or [False] * len(widths), strict=True
            )
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))


def printable(text: str) -> str:
    """Text of an event or of a server, which must not drive the terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def count(number: int, noun: str = "event") -> str:
    """`1 event`, `2,000 events`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number: int) -> str:
    """Bytes, as people read them."""
    value = float(number)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def age(seconds: float) -> str:
    """A length of time, as people read it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
