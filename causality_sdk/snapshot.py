"""The snapshot that the appending connection keeps from one insert to the next.

Neighbour: `queue_file`, which owns it and lets go of it. With the write lock held. Invariant: it is
let go before any other connection writes or checkpoints, so that it never reads what is old and
never keeps the log from starting over.

An insert that begins from nothing takes and releases the lock of a reader beside that of a writer:
six calls of fcntl instead of two, a quarter of what `track()` costs. A statement that is not read
to its end holds the reader's lock, and the inserts of its connection go on from there; SQLite
commits them all the same (https://www.sqlite.org/lang_transaction.html, "read transactions").
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress


class Snapshot:
    """Of one connection. Not kept at first."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = connection.cursor()
        self.is_kept = False

    def keep(self) -> None:
        """Begins it. Raises `sqlite3.Error`."""
        self.is_kept = True  # first: whatever interrupts the rest, it is let go of
        try:
            self._cursor.execute("SELECT mark FROM state")  # one row, which is not fetched
        except sqlite3.Error:
            self.is_kept = False
            raise

    def let_go(self) -> None:
        """Ends it, if it is kept."""
        if self.is_kept:
            with suppress(sqlite3.Error):  # a statement that fails has ended, too
                self._cursor.fetchall()
            self.is_kept = False


def is_in_the_way(error: sqlite3.Error) -> bool:
    """Whether a write failed at once because of the snapshot, and is to be tried without it.

    Another program has written since, or is writing: SQLite waits for it only where a write begins
    from nothing.
    """
    return "locked" in str(error)
