"""Opens a queue file: tells ours from foreign, new from old, applies migrations, sets pragmas.

Neighbours: `queue` works on the connections made here; `claim` calls `prepare` for a file whose
lock it holds. Invariant: a file that is not ours, or is a newer release's, is never written to.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sqlite3
import stat
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from causality_sdk.errors import QueueError

if TYPE_CHECKING:
    from sqlite_utils import Migrations

APPLICATION_ID = 0x43415553  # "CAUS"; what `file` and other programs tell a database by
VERSION = 1  # the number of migrations; a test holds it against them
MEMORY = Path(":memory:")

_HEADER = b"SQLite format 3\x00"
_BUSY_SECONDS = 2.0  # for people who have the file open in another program


class Destination(NamedTuple):
    """Where the events of a file are meant to go. A file of another destination is left alone."""

    endpoint: str
    wire: str
    key_fingerprint: str


def connect(path: Path, *, synchronous: str = "NORMAL") -> sqlite3.Connection:
    """A connection with our pragmas, in autocommit, usable from every thread.

    The file must have been prepared. Raises `sqlite3.Error`.
    """
    connection = sqlite3.connect(
        str(path),
        timeout=_BUSY_SECONDS,
        isolation_level=None,  # we say BEGIN where we mean it
        check_same_thread=False,  # the queue's locks decide who uses it
    )
    try:
        # mmap_size 0: with mapped files, versions before 3.51.3 can corrupt a WAL database.
        # wal_autocheckpoint 0: checkpoints are paced by `wal.py`, on one connection.
        connection.executescript(
            f"""
            PRAGMA mmap_size=0;
            PRAGMA trusted_schema=OFF;
            PRAGMA wal_autocheckpoint=0;
            PRAGMA synchronous={synchronous};
            PRAGMA fullfsync={1 if synchronous == "FULL" else 0};
            """
        )
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: Path, destination: Destination) -> Destination:
    """Makes sure that `path` is a queue file of this release, and gives the destination it has.

    Creates it for `destination` if it is not there. The caller owns the file. Raises `QueueError`
    for anything else that lies there, for a newer schema, and for a place that cannot be used.
    """
    new = _check_place(path)
    try:
        with closing(connect(path)) as connection:
            if new:
                path.chmod(0o600)
            return prepare_connection(connection, path, destination)
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, QueueError):
            raise
        raise QueueError(
            f"queue file {path} cannot be opened ({error}); check that its directory is writable"
            " and its disk is healthy, or give another queue_path"
        ) from error


def prepare_connection(
    connection: sqlite3.Connection, path: Path, destination: Destination
) -> Destination:
    """`prepare` on an open connection; `path` is for messages only."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != APPLICATION_ID:
        # No tables and no id: a creation that was cut short. Anything else is somebody's data.
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application_id != 0 or tables > 0:
            raise _foreign(path, "it is a database of another program")
        version = 0
    if version > VERSION:
        raise QueueError(
            f"queue file {path} was written by a newer causality-sdk (schema {version}, this one"
            f" knows {VERSION}); upgrade this program, or give another queue_path"
        )
    if version < VERSION:
        _migrate(connection, destination)
    return Destination(
        *connection.execute("SELECT endpoint, wire, key_fingerprint FROM state").fetchone()
    )


def _migrate(connection: sqlite3.Connection, destination: Destination) -> None:
    """From whatever version to `VERSION`, in one transaction: a crash leaves all or nothing."""
    from sqlite_utils import Database  # 65 ms that an existing file need not pay

    # Both must come before the first table, and neither works inside a transaction.
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        database = Database(connection)
        load_migrations().apply(database)
        if connection.execute("SELECT count(*) FROM state").fetchone()[0] == 0:
            connection.execute(
                "INSERT INTO state (id, file_uuid, created_ms, endpoint, wire, key_fingerprint)"
                " VALUES (1, ?, ?, ?, ?, ?)",
                (str(uuid.uuid4()), time.time_ns() // 1_000_000, *destination),
            )
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def load_migrations() -> Migrations:
    """The migrations, from inside the wheel or from the checkout an editable install points to."""
    migrations: Migrations
    if importlib.util.find_spec("causality_sdk._migrations") is not None:
        migrations = importlib.import_module("causality_sdk._migrations.queue").migrations
        return migrations
    source = Path(__file__).parent.parent / "migrations" / "queue.py"
    spec = importlib.util.spec_from_file_location("causality_sdk._migrations_queue", source)
    if spec is None or spec.loader is None:  # pragma: no cover - a .py path always has a loader
        raise ImportError(f"no migrations at {source}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    migrations = module.migrations
    return migrations


def make_directory(directory: Path) -> None:
    """Makes the directory of a queue, for this user alone, where there is none.

    Raises `QueueError`.
    """
    try:
        # mode is for the last directory only, which is the one that holds our files
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise QueueError(
            f"queue directory {directory} cannot be made ({error.strerror or error}); create it"
            " for this user, or give another queue_path"
        ) from error


def _check_place(path: Path) -> bool:
    """True where there is no file yet. Refuses what is no queue file, without touching it."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise _not_writable(path) from None
        return True
    except OSError as error:
        raise QueueError(f"queue file {path} cannot be read ({error.strerror or error})") from error
    if not stat.S_ISREG(info.st_mode):
        raise _foreign(path, f"it is {_kind(info.st_mode)}, not a regular file")
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK | os.X_OK):
        raise _not_writable(path)
    # Nobody in this process has it open: the caller holds its lock. (A plain open and close beside
    # an open connection would drop SQLite's POSIX locks.)
    with path.open("rb") as file:
        start = file.read(len(_HEADER))
    if start and start != _HEADER:
        raise _foreign(path, "it is not an SQLite database")
    return False


def _not_writable(path: Path) -> QueueError:
    return QueueError(
        f"queue file {path} is not writable for this user; fix the permissions of the file and of"
        " its directory, or give another queue_path"
    )


def _foreign(path: Path, what: str) -> QueueError:
    return QueueError(
        f"{path} is not a causality queue: {what}. It was left as it is; move it away, or give"
        " another queue_path"
    )


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return name
    return "a device"
