"""What the demo shows: a line for each phase, a progress bar on a terminal, the table at the end.

Neighbour: `demo`. Invariant: without a terminal there are plain lines only, no control character
among them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from causality_sdk.cli._demo_judge import Verdict

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

_CLEAR_LINE = "\r\x1b[K"


class Screen:
    """Lines, and below them a bar where there is a terminal. Quiet: nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._gap = False  # the end of a bar leaves an empty line
        self._bar: ProgressBar[Any] | None = None

    def line(self, text: str) -> None:
        """One line, above the bar."""
        if self._bar is not None:
            click.echo(_CLEAR_LINE, nl=False)
        if not self._quiet:
            click.echo(text)

    def result(self, text: str) -> None:
        """What it comes to, apart from the lines above."""
        self.line(text if self._gap else f"\n{text}")

    @contextmanager
    def tracking(self, total: int) -> Iterator[None]:
        """Shows the bar, if there is a terminal to show it on."""
        if self._quiet or not sys.stdout.isatty():
            yield
            return
        with click.progressbar(
            length=total, label="tracked", show_pos=True, show_eta=False, width=30
        ) as bar:
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None
                self._gap = True

    def tracked(self, count: int) -> None:
        """Moves the bar on to `count`, never back."""
        if self._bar is not None and count > self._bar.pos:
            self._bar.update(count - self._bar.pos)


def table(verdict: Verdict) -> str:
    """The counts, one a line."""
    rows = {
        name.replace("_", " "): value
        for name, value in asdict(verdict).items()
        # These say something only if they are not 0.
        if value or name not in ("buried", "altered", "untracked")
    }
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {value:>9,}" for name, value in rows.items())


def sentence(verdict: Verdict, events: int, seconds: float) -> str:
    """What it comes to, for an input of so many events."""
    if not verdict.ok:
        wrong = {
            "lost": verdict.lost,
            "altered": verdict.altered,
            "still pending": verdict.pending,
            "not tracked": verdict.untracked,
            "delivered twice after deduplication": verdict.duplicates_after_deduplication,
            "unaccounted for (residual)": verdict.residual,
        }
        return "FAILED: " + ", ".join(f"{count:,} {name}" for name, count in wrong.items() if count)
    if verdict.evicted:
        return (
            f"Every event is accounted for, in {seconds:.1f} s; {verdict.evicted:,} of them were"
            " evicted, since the queue was at its cap."
        )
    twice = verdict.tracked - events
    return (
        # Committed, and not noted yet when the kill came: the program could not know.
        (
            f"{twice} was in mid-air at the kill, and tracked again under its key.\n"
            if twice > 0
            else ""
        )
        + f"Every event that was tracked arrived, and counts once. It took {seconds:.1f} s."
    )
