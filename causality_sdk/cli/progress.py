"""A bar on stderr while something long runs, where there is a terminal to draw it on.

Neighbours: `feed` and `queue.replay`. Invariant: without a terminal nothing is written.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

_SECONDS = 0.1  # between two looks of a counter


class Progress:
    """A bar where the length is known, else a number that grows. A context manager."""

    def __init__(self, label: str, length: int | None, *, shown: bool) -> None:
        self._label = label
        self._length = length
        self._shown = shown
        self._bar: ProgressBar[Any] | None = None
        self._drawn_at = -1.0

    def __enter__(self) -> Progress:
        if self._shown and self._length:
            self._bar = click.progressbar(
                length=self._length, label=self._label, file=sys.stderr, width=30
            )
            self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)
        elif self._drawn_at >= 0:
            click.echo(err=True)

    def at(self, done: int, events: int) -> None:
        """So much of the length is done, which is so many events. Never goes back."""
        if self._bar is not None:
            self._bar.label = f"{self._label} {events:,}"
            if done > self._bar.pos:
                self._bar.update(done - self._bar.pos)
            else:
                self._bar.render_progress()  # what was read before is counted only now
        elif self._shown and time.monotonic() - self._drawn_at >= _SECONDS:
            self._drawn_at = time.monotonic()
            click.echo(f"\r{self._label} {events:,}", nl=False, err=True)
