"""The generated part of docs/explanation/reliability.md, between two markers.

Neighbour: `command` calls it. Invariant: what a person wrote around the markers stays as it is.
"""

from __future__ import annotations

import datetime
import platform
import re
import sqlite3
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "explanation" / "reliability.md"
BEGIN = "<!-- begin: written by `python -m tests.faults --write` -->"
END = "<!-- end -->"
_PATHS = re.compile(r"/(?:dev/shm|tmp|var|root|home)/[^\s'\",;)]*/")


@dataclass(frozen=True)
class Row:
    """One fault, as text."""

    name: str
    how: str
    promise: str
    figures: Sequence[str]
    verdict: str
    why: str
    control: str
    seconds: float


@dataclass(frozen=True)
class Circumstances:
    """When and where the figures were measured."""

    date: str
    python: str
    sqlite: str
    system: str
    command: str

    @classmethod
    def now(cls, *, quick: bool, seed: int) -> Circumstances:
        """Of this run."""
        words = ["python -m tests.faults", *(["--quick"] if quick else []), "--write"]
        if seed != 1:
            words.append(f"--seed {seed}")
        return cls(
            date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            python=platform.python_version(),
            sqlite=sqlite3.sqlite_version,
            system=f"{platform.system()} {platform.release().partition('-')[0]}"
            f" {platform.machine()}, {_strace()}",
            command=" ".join(words),
        )


def _strace() -> str:
    try:
        done = subprocess.run(["strace", "-V"], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return "without strace"
    return f"strace {done.stdout.split()[3]}"


def render(rows: Sequence[Row], circumstances: Circumstances) -> str:
    """What goes between the markers."""
    kept = sum(row.verdict == "kept" for row in rows)
    lines = [
        f"Measured on {circumstances.date} with Python {circumstances.python} and SQLite"
        f" {circumstances.sqlite}, on {circumstances.system}, by",
        "",
        "```console",
        circumstances.command,
        "```",
        "",
        f"{kept} of {len(rows)} rows kept their promise.",
        "",
        "| fault | promise | figures | verdict | the control, and what it was caught at |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        verdict = row.verdict + (f": {row.why}" if row.why else "")
        cells = [row.name, row.promise, "; ".join(row.figures), verdict, row.control]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    lines += ["", "How each fault is made:", ""]
    lines += [f"- **{row.name}**: {row.how} ({row.seconds:.0f} s)." for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    short = _PATHS.sub("…/", " ".join(text.split()))
    short = short if len(short) <= 1600 else short[:1600] + "…"
    return short.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def splice(text: str, generated: str) -> str:
    """`text` with what lies between the markers replaced. Raises `ValueError` without markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no markers")
    return f"{before}{BEGIN}\n\n{generated}\n{END}{after}"


def write(rows: Sequence[Row], circumstances: Circumstances) -> None:
    """Rewrites the page."""
    PAGE.write_text(
        splice(PAGE.read_text(encoding="utf-8"), render(rows, circumstances)), encoding="utf-8"
    )
