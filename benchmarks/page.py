"""Prints the table, and writes `docs/explanation/performance.md` between its markers."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import plots
from benchmarks.peers import PEERS
from benchmarks.process import ROOT
from benchmarks.result import Result

PAGE = ROOT / "docs" / "explanation" / "performance.md"
BEGIN = "<!-- Measured by `python -m benchmarks --write`. Run that, do not edit. -->"
END = "<!-- End of what is measured. -->"


def line(result: Result) -> str:
    """One line for people at a terminal."""
    sign = {True: "ok  ", False: "MISS", None: "    "}[result.met]
    if result.met is False and result.at_floor:
        sign = "FLOOR"
    target = f"   [{result.target}]" if result.target else ""
    return f"{sign} {result.row:<11} {result.what}: {result.measured}{target}"


def write(results: Sequence[Result], missing: Mapping[str, str], seconds: float) -> None:
    """Writes the page's measured part, and the plots beside it."""
    plots.write(results, PAGE.parent)
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(
        f"{before}{BEGIN}\n\n{measured(results, missing, seconds)}\n{END}{after}", encoding="utf-8"
    )


def measured(results: Sequence[Result], missing: Mapping[str, str], seconds: float) -> str:
    """The measured part as Markdown."""
    lines = [
        f"{datetime.date.today().isoformat()}, `python -m benchmarks --write`, {seconds / 60:.0f}"
        f" minutes. {machine()}.",
        "",
        "| what | measured | target | |",
        "| --- | --- | --- | --- |",
    ]
    signs = {True: "met", False: "**missed**", None: ""}
    for result in results:
        sign = signs[result.met]
        if result.met is False and result.at_floor:
            sign = "missed, by the floor too"
        cells = (result.what, result.measured, result.target, sign)
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Peers: " + ", ".join(peer.requirement for peer in PEERS) + "."]
    lines += [f"Not installed, so not measured: {name} ({why})." for name, why in missing.items()]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """Where this was measured, in one sentence."""
    system = platform.uname()
    parts = [
        f"{os.cpu_count()} cores ({_processor()})",
        f"{system.system} {system.release.split('-')[0]}",
        f"Python {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
    ]
    parts += [f"{name} {importlib.metadata.version(name)}" for name in ("orjson", "uuid6")]
    return ", ".join(parts)


def _processor() -> str:
    try:
        for entry in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if entry.startswith("model name"):
                return entry.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
