"""Two plots: throughput against peers, and cost against queue depth. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.result import Result

OURS, OTHERS = "#c2410c", "#94a3b8"


def write(results: Sequence[Result], directory: Path) -> None:
    """Writes `performance-peers.svg` and `performance-depth.svg`."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "causality", "svg.fonttype": "none", "font.size": 10})
    series = {result.row: result.series for result in results if result.series}
    _peers(series["track"], series["end-to-end"], directory / "performance-peers.svg")
    _depth(series["depth"], directory / "performance-depth.svg")


def _peers(track: Mapping[str, float], delivered: Mapping[str, float], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    rates = {name: 1e6 / each for name, each in track.items() if name != "floor"}
    _bars(axes[0], rates, "track(): events a second, one thread")
    _bars(axes[1], delivered, "end to end: tracked and acknowledged, a second")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _bars(axis: object, values: Mapping[str, float], title: str) -> None:
    ordered = sorted(values.items(), key=lambda item: item[1])
    names = [name for name, _ in ordered]
    colors = [OURS if name == "causality-sdk" else OTHERS for name in names]
    bars = axis.barh(names, [value for _, value in ordered], color=colors)  # type: ignore[attr-defined]
    axis.bar_label(bars, [f" {value:,.0f}" for _, value in ordered])  # type: ignore[attr-defined]
    axis.set_title(title, fontsize=10)  # type: ignore[attr-defined]
    axis.margins(x=0.2)  # type: ignore[attr-defined]
    axis.xaxis.set_visible(False)  # type: ignore[attr-defined]
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)  # type: ignore[attr-defined]


def _depth(depth: Mapping[str, float], path: Path) -> None:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 3))
    events = [int(name) for name in depth]
    axis.plot(events, list(depth.values()), marker="o", color=OURS)
    axis.set_xscale("log")
    axis.set_ylim(bottom=0, top=max(depth.values()) * 1.5)
    axis.set_xticks(events, [f"{number:,}" for number in events])
    axis.set_xlabel("events queued")
    axis.set_ylabel("µs per track()")
    axis.set_title("What track() costs does not depend on how much is queued", fontsize=10)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
