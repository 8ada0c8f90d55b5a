"""Whose file it is, told from its bytes before SQLite opens it.

Neighbours: `schema`, which asks; `recognition` knows rows of ours in what is damaged. Invariant:
another program's file, and a newer release's, is not changed by the look.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from causality_sdk import counters, possession, quarantine, recognition
from causality_sdk.connections import BUSY_SECONDS
from causality_sdk.damage import QueueDamaged
from causality_sdk.place import foreign, newer

APPLICATION_ID = 0x43415553  # "CAUS"; what `file` and other programs tell a database by
VERSION = 2  # the number of migrations; a test holds it against them
UNWRITTEN_BYTES = 64 * 1024  # a file is not larger before its first commit is on disk

_HEADER = b"SQLite format 3\x00"
_INTERIOR = b"\x05"  # the kind of a page of a table that has pages below it


def check_header(path: Path) -> bool:
    """Refuses a foreign file and a newer release's, without a change to it.

    False if it cannot be told apart from somebody's empty database.

    SQLite cannot be asked: it moves another program's log into its database when it closes.
    """
    # Nobody in this process has it open: the caller holds its lock. (A plain open and close
    # beside an open connection would drop SQLite's POSIX locks.)
    log = quarantine.beside(path, "-wal")
    try:
        with path.open("rb") as file:
            start = file.read(108)
    except FileNotFoundError:
        start = b""
        if not log.exists():
            return True
    # Of SQLite's file format, sections 1.3 and 1.6: the numbers in the header, and the number of
    # cells in the first page, which is that of tables; it may have none where it has pages below.
    version = int.from_bytes(start[60:64], "big")
    application_id = int.from_bytes(start[68:72], "big")
    if start.startswith(_HEADER) and application_id == APPLICATION_ID:
        if VERSION < version < VERSION + 1000:
            raise newer(path, version, VERSION)
        if not _is_laid_out(start) or version > VERSION:
            raise damaged(path, "its header is wrong")
    elif start and not start.startswith(_HEADER):
        if _is_unwritten(path, log):
            os.truncate(path, 0)  # nothing is in it, so there is nothing to keep
            return True
        if was_ours(path):
            raise damaged(path, "its header is wrong")
        raise foreign(path, "it is not an SQLite database")
    elif application_id or start[100:101] == _INTERIOR or start[103:105].strip(b"\x00"):
        if was_ours(path):
            raise damaged(path, "its header is wrong")
        raise foreign(path, "it is a database of another program")
    elif log.exists() and log.stat().st_size:
        if not start:
            if was_ours(path):
                with suppress(FileExistsError):
                    possession.make_file(path)
                raise damaged(path, "the database is empty and its log is not")
            return True
        # The tables may all be in the log still. A connection that only reads leaves it alone.
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
            return is_ours(connection, path)
    return application_id == APPLICATION_ID or len(start) < 100


def _is_unwritten(path: Path, log: Path) -> bool:
    """Whether a power cut came while the file was made: it has a size, and zeros for content."""
    if path.stat().st_size > UNWRITTEN_BYTES or (log.exists() and log.stat().st_size):
        return False
    return not path.read_bytes().strip(b"\x00")


def _is_laid_out(start: bytes) -> bool:
    """Whether a header has our pages, a log, and a pointer map. Other values mislead SQLite."""
    return start[16:21] == b"\x10\x00\x02\x02\x00" and start[52:56] != bytes(4)


def was_ours(path: Path) -> bool:
    """Whether there is anything of ours in a file that cannot be read."""
    log = quarantine.beside(path, "-wal")
    return recognition.is_ours(path, log, APPLICATION_ID, len(counters.COLUMNS))


def is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """False for a creation that was cut short. Raises for a database of another program."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id == APPLICATION_ID:
        return True
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application_id != 0 or tables > 0:
        raise foreign(path, "it is a database of another program")
    return False


def damaged(path: Path, what: str, kind: type[QueueDamaged] = QueueDamaged) -> QueueDamaged:
    """Sets the file aside, for `repair`."""
    with suppress(PermissionError if os.name == "nt" else FileNotFoundError):
        quarantine.set_aside(path)
    return kind(what)
