"""What counts as a damaged queue file, as opposed to a disk that refuses for a while.

Neighbours: `schema` finds damage when a file is opened, `queue_file` in the middle of work;
`repair` and `mending` do something about it.
"""

from __future__ import annotations

import sqlite3

from causality_sdk.errors import QueueError


class QueueDamaged(QueueError):
    """A queue file is damaged. Never seen by callers: it is repaired."""


class LogBroken(QueueDamaged):
    """Only the log has a gap. A power cut leaves one, too: the disk need not be at fault."""


class NoRoom(QueueError):
    """The disk is so full that there is no queue. A client keeps what it is given in memory."""


def is_damage(error: BaseException) -> bool:
    """Whether the bytes of the file are wrong. A full disk, an I/O error, a lock are not that."""
    # SQLITE_CORRUPT and SQLITE_NOTADB come as the very class that all others derive from.
    # (Their codes are attributes from Python 3.11 on only.)
    if type(error) is sqlite3.DatabaseError:
        return True
    # A schema that somebody, or a flipped bit, has changed.
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith(
        (
            "no such table",
            "no such column",
            "malformed database schema",
            "unsupported file format",
            "Could not decode to UTF-8",
        )
    )
