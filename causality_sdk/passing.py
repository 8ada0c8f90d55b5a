"""Says of a file that cannot be used that it was passed over: once in the life of a process.

Neighbours: `opening`, for what lay in the way of a client, and `adoption`, which meets the same
files again. A forked child knows what its parent has said.
"""

from __future__ import annotations

import logging
from pathlib import Path

_told: set[tuple[Path, str]] = set()  # added to by any thread; twice told is no harm


def tell(logger: logging.Logger, path: Path, error: Exception) -> None:
    """Warns that `path` is passed over, for the reason and with the fix that `error` names."""
    if (path, str(error)) in _told:
        return
    _told.add((path, str(error)))
    logger.warning(
        "causality: %s. It is passed over: what is in it stays there, and this process goes on"
        " without it",
        error,
    )
