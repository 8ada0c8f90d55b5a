"""One thing that `queue doctor` found. Neighbours: the checks. Invariant: a problem has a fix."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, what to do."""

    level: Literal["ok", "note", "problem"]
    subject: str
    text: str
    fix: str = ""

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)
