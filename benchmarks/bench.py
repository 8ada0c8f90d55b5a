"""What every row needs: a scratch directory, the server, processes, and how much to measure."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import Process

OURS = "benchmarks.subjects.ours"


@dataclass
class Bench:
    """One run. `quick` measures a tenth as much: it shows that all works, not how fast."""

    scratch: Path
    server: Process
    endpoint: str
    peers: dict[str, tuple[str, str]]
    """Subject to its interpreter and module; only those that could be installed."""
    quick: bool = False

    def scale(self, count: int) -> int:
        """`count`, or a tenth of it."""
        return max(10, count // 10) if self.quick else count

    @property
    def rounds(self) -> int:
        """How often each is measured."""
        return 3 if self.quick else 7

    def directory(self) -> str:
        """A new empty one."""
        return tempfile.mkdtemp(dir=self.scratch)

    def ours(self) -> Process:
        """A process with our package."""
        return Process(OURS)

    def peer(self, name: str) -> Process:
        """A process with that peer."""
        python, module = self.peers[name]
        return Process(module, name, python=python)

    def named(self, *names: str) -> list[str]:
        """Those of `names` that are there."""
        return [name for name in names if name in self.peers]
