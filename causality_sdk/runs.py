"""Ids as ranges. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def runs(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending ids as ranges first to last without holes: one DELETE each."""
    runs: list[tuple[int, int]] = []
    for row_id in ids:
        if runs and runs[-1][1] == row_id - 1:
            runs[-1] = (runs[-1][0], row_id)
        else:
            runs.append((row_id, row_id))
    return runs
