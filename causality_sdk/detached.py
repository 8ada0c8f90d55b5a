"""The connections of a queue file while it is mended, and how a file is told from one of its name.

Neighbour: `queue_file`, which gives its connections away and takes new ones. Invariant: what stands
in their place never touches a file.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple


class Detached(NamedTuple):
    """The connections of a queue file that are out of use."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    checkpointer: sqlite3.Connection | None

    def close(self) -> None:
        """Closes them. May be called twice."""
        for connection in self:
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()


class Away:
    """Stands where a connection stood while the file is being mended: every use is an error."""

    in_transaction = False

    def execute(self, *_arguments: Any) -> Any:
        """Raises `sqlite3.OperationalError`."""
        raise sqlite3.OperationalError("its file is being repaired")

    executemany = executescript = execute

    def cursor(self) -> Away:
        """Itself: a cursor of it is an error, too."""
        return self

    def close(self) -> None:
        """Nothing."""


def identity(path: Path) -> tuple[object, object]:
    """Tells a file and its log from others of their names. Only stats: see `schema`."""
    return _inode(path), _inode(path.with_name(path.name + "-wal"))


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return info.st_dev, info.st_ino
