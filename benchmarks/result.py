"""What a row gives, and the medians of rounds. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Result:
    """One line of the table. `met` is None where there is no target."""

    row: str
    what: str
    measured: str
    target: str = ""
    met: bool | None = None
    series: Mapping[str, float] = field(default_factory=dict)
    """For the plots: name to value."""
    at_floor: bool = False
    """Missed, and so it is by what nothing durable can do without, measured beside it."""


def rounds(count: int, subjects: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each of the subjects in turn, `count` times over. A first round warms up and is forgotten."""
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(count + 1):
        for name, measure in subjects.items():
            value = measure()
            if number:
                taken[name].append(value)
    return taken


def median(values: Iterable[float]) -> float:
    """The value in the middle."""
    return statistics.median(values)


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The median of the ratios pair by pair: both of a pair met the machine in the same mood."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def at_most(value: float, limit: float) -> bool:
    """For a target."""
    return value <= limit
