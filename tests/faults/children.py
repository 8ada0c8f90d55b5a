"""Starts producers, ends them in every way, and gathers what they leave for the judge.

Neighbour: `programs.producer`. Every row that needs a process uses this.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from faults import oracle
from faults.events import HERE, NOWHERE
from faults.oracle import Verdict

PRODUCER = Path(__file__).resolve().parent / "programs" / "producer.py"
ROOT = PRODUCER.parent.parent.parent.parent
PATIENCE = 60.0  # seconds, after which something hangs


class Place:
    """A directory with a queue and two journals."""

    def __init__(self, directory: Path, queue: Path | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.home = queue.parent if queue is not None else directory / "home"
        self.home.mkdir(exist_ok=True)
        self.queue = queue or self.home / "queue.db"
        self.journal = directory / "journal"
        self.refused = directory / "refused"
        self.arrived = directory / "arrived"
        self.endpoint = NOWHERE  # of the server that the events are for

    def spec(self, **more: Any) -> dict[str, Any]:
        """What tells a producer to work here, as its own server."""
        return {
            "queue": str(self.queue),
            "journal": str(self.journal),
            "refused": str(self.refused),
            "arrived": str(self.arrived),
            "endpoint": self.endpoint,
            **more,
        }

    def promised(self) -> dict[str, str]:
        """What `track()` returned a key for."""
        return dict(oracle.read_journal(self.journal))

    def judge(self, *, evictions: bool = False) -> Verdict:
        """The verdict on this place, every file opened with the product."""
        arrived = oracle.read_journal(self.arrived)
        files = oracle.look_at_all(self.home, HERE._replace(endpoint=self.endpoint))
        return oracle.judge(self.promised(), arrived, files, evictions=evictions)


class Producer:
    """A running producer. Context manager; ends it at the latest when left."""

    def __init__(
        self,
        spec: dict[str, Any],
        *,
        before: Sequence[str] = (),
        python: str = sys.executable,
        program: Path = PRODUCER,
        **options: Any,
    ) -> None:
        self.process = subprocess.Popen(
            [*before, python, str(program), json.dumps(spec)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            **options,
        )

    def wait_for(self, word: str) -> bool:
        """True when it has printed `word`, False when it ended before."""
        assert self.process.stdout is not None
        return any(line.strip() == word for line in self.process.stdout)

    def end(self, timeout: float = PATIENCE) -> tuple[int, str]:
        """Waits for its end; exit code and what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=timeout)
        return self.process.returncode, errors

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()


def produce(spec: dict[str, Any], **options: Any) -> tuple[int, str]:
    """Runs a producer to its end; exit code and what it wrote to stderr."""
    with Producer(spec, **options) as producer:
        return producer.end()


def environment() -> dict[str, str]:
    """Ours, without options of the client, and with our modules first."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CAUSALITY_", "COVERAGE_"))
    }
    kept["PYTHONPATH"] = str(ROOT)
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    kept["NO_PROXY"] = kept["no_proxy"] = "127.0.0.1"
    return kept
