"""What a row of the table is. A row's module has one `Fault` named FAULT; `ROWS` lists them.

Neighbours: `rows` are the faults, `command` runs them, `page` shows them. Invariant: every row has
a control, the same run with a rule broken on purpose, which must fail.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROWS = (
    "kill",
    "kill_at_call",
    "power_loss",
    "power_cut",
    "fsync_fails",
    "disk_full",
    "read_only",
    "corruption",
    "wrong_file",
    "beside",
    "schema_versions",
    "fork",
    "ownership",
    "processes",
    "stopped",
    "clock",
    "hostile_server",
    "poison",
    "raising",
    "exits",
    "fuzz",
)


class Unavailable(Exception):
    """This machine cannot make the fault; says what is missing."""


@dataclass(frozen=True)
class Outcome:
    """What one run of a fault showed."""

    figures: Mapping[str, object]
    failures: Sequence[str] = ()
    """Broken promises; empty where all were kept."""


@dataclass
class Run:
    """The circumstances of one run."""

    scratch: Path
    """An empty directory of its own, in memory where that is possible."""
    quick: bool = True
    seed: int = 1
    pythons: tuple[str, ...] = (sys.executable,)
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)  # noqa: S311 - the same faults in every run

    def directory(self, name: str) -> Path:
        """A new directory in the scratch."""
        path = self.scratch / name
        path.mkdir(parents=True)
        return path


@dataclass(frozen=True)
class Fault:
    """One row."""

    name: str
    how: str
    """How the fault is made."""
    promise: str
    run: Callable[[Run], Outcome]
    control: Callable[[Run], Outcome]
    broken: str
    """The rule that the control breaks."""


def load(name: str) -> Fault:
    """The fault of one module of `rows`."""
    fault: Fault = importlib.import_module(f"faults.rows.{name}").FAULT
    return fault


def scratch_directory() -> tempfile.TemporaryDirectory[str]:
    """In memory where there is such a place: thousands of files are written and synced."""
    memory = Path("/dev/shm")  # noqa: S108
    where = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="faults-", dir=where, ignore_cleanup_errors=True)


def need_root() -> None:
    """Raises `Unavailable` for other users."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unavailable("needs root on Linux, to mount a file system")


def need_program(name: str) -> str:
    """The path of a program; raises `Unavailable` where it is not installed."""
    for directory in (None, "/usr/sbin:/sbin"):
        found = shutil.which(name, path=directory)
        if found:
            return found
    raise Unavailable(f"needs {name}, which is not installed")


def need_strace() -> str:
    """The path of strace, if it may trace here."""
    strace = need_program("strace")
    tried = subprocess.run(
        [strace, "-f", "--seccomp-bpf", "-o", os.devnull, "-e", "trace=fdatasync", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        raise Unavailable(f"strace cannot trace here: {tried.stderr.strip()[:100]}")
    return strace
