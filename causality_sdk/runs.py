"""Ids as ranges. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def runs(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending ids as ranges first to last without holes: one DELETE each."""
    if ids and ids[-1] - ids[0] == len(ids) - 1:  # nearly always
        return [(ids[0], ids[-1])]
    runs: list[tuple[int, int]] = []
    for row_id in ids:
        if runs and runs[-1][1] == row_id - 1:
            runs[-1] = (runs[-1][0], row_id)
        else:
            runs.append((row_id, row_id))
    return runs
