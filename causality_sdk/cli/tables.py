"""Columns: numbers to the right, as wide as the terminal where there is one, and whole in a pipe.

Neighbours: `output`, `queue.rows` and `dead_letters.list_`. Invariant: no text of an event drives
the terminal, and none shifts the columns of a row beside it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import IO, NamedTuple

from causality_sdk.cli.words import cut, padded, printable, width

_GAP = "  "


class Column(NamedTuple):
    """One column of a table."""

    header: str
    right: bool = False
    gives: int = 0
    """Where room is short: those with the highest number give first; 0 never."""
    least: int = 8
    """Columns of the terminal that it keeps, however narrow that is."""


def terminal_width() -> int | None:
    """Of stdout; None where it is no terminal, and lines may be as long as they are."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    rows: Iterable[Sequence[object]], header: Sequence[str] = (), *, columns: int | None = None
) -> str:
    """All rows, numbers to the right. `columns`: the width, if it is not that of the terminal."""
    found = list(rows)
    if not (found or header):
        return ""
    names = list(header) or [""] * len(found[0])
    layout = [
        Column(
            name,
            right=bool(found) and all(isinstance(row[i], (int, float)) for row in found),
            gives=0 if i == 0 else 1,
        )
        for i, name in enumerate(names)
    ]
    cells = [[cell(value) for value in row] for row in found]
    columns = columns or terminal_width()
    widths = measure(layout, cells, columns)
    named = [names, *cells] if header else cells
    return "\n".join(line(row, layout, widths, columns) for row in named)


def measure(
    layout: Sequence[Column], rows: Sequence[Sequence[str]], columns: int | None
) -> list[int]:
    """How wide each column is: as wide as its cells, less where they would not fit."""
    widths = [
        max([width(each.header), *(width(row[i]) for row in rows)]) for i, each in enumerate(layout)
    ]
    if columns is None:
        return widths
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - columns
    ranks = sorted({each.gives for each in layout if each.gives}, reverse=True)
    for rank in ranks:
        some = [i for i, each in enumerate(layout) if each.gives == rank]
        over = _shrink(widths, some, [layout[i].least for i in some], over)
    some = [i for i, each in enumerate(layout) if each.gives]
    _shrink(widths, some, [_LEAST] * len(some), over)  # a very narrow one
    return widths


_LEAST = 6


def _shrink(widths: list[int], some: list[int], least: list[int], over: int) -> int:
    """Takes from the widest of these columns; gives what is still too much."""
    while over > 0:
        can = [i for i, least_of_it in zip(some, least, strict=True) if widths[i] > least_of_it]
        if not can:
            break
        widths[max(can, key=widths.__getitem__)] -= 1
        over -= 1
    return over


def cell(value: object) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))


def line(
    row: Sequence[str], layout: Sequence[Column], widths: Sequence[int], columns: int | None
) -> str:
    """One row, in the widths that `measure` gave for this width of the terminal."""
    cells = [
        padded(
            cut(text, wide) if each.gives and columns is not None else text,
            wide,
            right=each.right,
        )
        for text, wide, each in zip(row, widths, layout, strict=True)
    ]
    return _GAP.join(cells).rstrip()


class Rows:
    """A table of which nobody knows how long it becomes, in memory that does not grow with it.

    The first rows say how wide the columns are.
    """

    def __init__(self, layout: Sequence[Column], stream: IO[bytes]) -> None:
        self._layout = layout
        self._stream = stream
        self._columns = terminal_width()
        self._first: list[list[str]] | None = []
        self._widths: list[int] = []

    def add(self, *values: object) -> None:
        """The next row."""
        row = [cell(value) for value in values]
        if self._first is None:
            self._write(row)
            return
        self._first.append(row)
        if len(self._first) >= _FIRST:
            self.end()

    def end(self) -> None:
        """Writes what waits; to be called once behind the last row."""
        if self._first is None:
            return
        rows, self._first = self._first, None
        self._widths = measure(self._layout, rows, self._columns)
        for row in ([each.header for each in self._layout], *rows):
            self._write(row)

    def _write(self, row: Sequence[str]) -> None:
        text = line(row, self._layout, self._widths, self._columns)
        self._stream.write(text.encode(errors="backslashreplace") + b"\n")


_FIRST = 200  # rows that are looked at before the first is written
