"""Prepares a queue file: makes it, tells new from old, applies migrations, looks if it is sound.

Neighbours: `header` tells ours from foreign, `connections` opens; `repair` calls `prepare` for a
file whose lock its caller holds, and salvages what is damaged. Invariant: a file that is not ours,
or is a newer release's, is never written to.
"""

from __future__ import annotations

import importlib.util
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from causality_sdk import counters, header, possession, quarantine
from causality_sdk.connections import (
    BUSY_SECONDS,
    MEMORY,
    connect,
    is_alone,
    open_unread,
    set_pragmas,
)
from causality_sdk.damage import LogBroken, QueueDamaged, is_damage
from causality_sdk.destination import Destination as Destination  # for those who make one here
from causality_sdk.errors import QueueError
from causality_sdk.forking import OPENING
from causality_sdk.pages import Log
from causality_sdk.place import check_place, foreign, newer

if TYPE_CHECKING:
    from sqlite_utils import Migrations

_RETARGET = "UPDATE state SET endpoint = ?, wire = ?, key_fingerprint = ?"
_PAGE_BYTES = 4096  # `wal` and the cap count on it
_INCREMENTAL = 2  # what PRAGMA auto_vacuum calls it


def prepare(
    path: Path,
    destination: Destination,
    *,
    retarget: bool = True,
    is_same_boot: bool = False,
    load: Callable[[], Migrations] | None = None,
) -> Destination:
    """Makes sure that `path` is a queue file of this release, and gives the destination it has.

    Creates it for `destination` if it is not there; an empty one of another destination is made
    ours under `retarget`. The caller owns the file. Raises `QueueError` for anything else that
    lies there, for a newer schema, and for a place that cannot be used; and `QueueDamaged` after it
    has set a damaged file aside.
    `is_same_boot`: since the machine was switched on, so that a gap in the log is damage and not
    what a power cut leaves. `load` gives the migrations, if not those of this release.
    """
    check_place(path)
    with OPENING:
        return _prepare(path, destination, retarget, is_same_boot, load or load_migrations)


def _prepare(
    path: Path,
    destination: Destination,
    retarget: bool,
    is_same_boot: bool,
    load: Callable[[], Migrations],
) -> Destination:
    try:
        is_sure = header.check_header(path)
        with suppress(FileExistsError):  # SQLite would make it readable for everybody first
            possession.make_file(path)
        # The log is opened before SQLite does and closed after: see `header`.
        with ExitStack() as stack:
            log = _open_log(path, stack)
            connection = stack.enter_context(closing(open_unread(path, BUSY_SECONDS)))
            try:
                set_pragmas(connection, "NORMAL")
                if log is not None and is_same_boot:
                    _check_log(connection, log)
                found = prepare_connection(connection, path, destination, load)
                _look(connection)
                if found != destination and retarget and _retarget(connection, destination):
                    return destination
                return found
            except (sqlite3.Error, QueueDamaged, UnicodeDecodeError) as error:
                if isinstance(error, (QueueDamaged, UnicodeDecodeError)) or is_damage(error):
                    if not is_sure and not header.was_ours(path):
                        raise foreign(path, f"it is a damaged database ({error})") from error
                    # Before the connection closes: it would move the log, and delete it.
                    kind = LogBroken if isinstance(error, LogBroken) else QueueDamaged
                    raise header.damaged(path, str(error), kind) from error
                raise
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, QueueError):
            raise
        raise QueueError(
            f"queue file {path} cannot be opened ({error}); check that its directory is writable"
            " and its disk is healthy, or give another queue_path"
        ) from error


def heir(path: Path) -> str | None:
    """The uuid of the file that takes over this one's counters, if any: it only has to go then.

    The caller owns the file, which was prepared. Raises `sqlite3.Error`.
    """
    with OPENING, closing(connect(path)) as connection:
        found: str | None = connection.execute("SELECT heir FROM state").fetchone()[0]
    return found


def check(path: Path) -> str | None:
    """What SQLite finds wrong with a file that the caller owns; None for nothing. Reads all."""
    try:
        with OPENING, closing(connect(path)) as connection:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.Error) and not is_damage(error):
            raise
        return str(error)
    return None if found == "ok" else " ".join(found.split())


def begin_after(path: Path, last_id: int) -> None:
    """Makes a new file give ids above `last_id`. The caller owns it, and has prepared it."""
    with OPENING, closing(connect(path)) as connection:
        connection.execute("UPDATE state SET mark = ?, requeued = ?", (last_id, last_id))


def waiting(path: Path) -> int:
    """How many events are queued in a file that the caller owns and has prepared."""
    with OPENING, closing(connect(path)) as connection:
        state = counters.load(connection)
        last = connection.execute("SELECT max(id) FROM queue").fetchone()[0]
    return max(state.mark, last or 0) - state.removed


def _open_log(path: Path, stack: ExitStack) -> Log | None:
    """The log of the file, if there is anything in it."""
    try:
        return Log(stack.enter_context(quarantine.beside(path, "-wal").open("rb")))
    except FileNotFoundError:
        return None


def _check_log(connection: sqlite3.Connection, log: Log) -> None:
    """Raises `QueueDamaged` if SQLite takes less of the log than was committed to it.

    Not after a power cut: that leaves gaps in what was not synced, nothing behind such a gap was
    promised, and of a transaction with a gap no page may be taken. Without one, SQLite stops
    without a word at the first frame whose sum is wrong. What comes behind, sound and committed,
    would be gone. A frame that a crash cut short has nothing behind it.
    """
    promised = log.last_commit()
    if not promised:
        return
    if is_alone():  # there is no room for what is moved
        if log.has_gap():
            raise LogBroken("a frame of its log is wrong, and more come behind it")
        return
    # What it moves it would move when the connection closes. Not RESTART: the log must stay.
    taken = max(0, connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])
    if taken < promised and log.last_sound_commit(taken) > taken:
        raise LogBroken(f"frame {taken + 1} of its log is wrong, and more come behind it")


def _look(connection: sqlite3.Connection) -> None:
    """Reads what can be read at the same cost however much is queued. Damage raises."""
    for query in (
        "SELECT max(id), total FROM queue",
        "SELECT min(id), total FROM queue",
        "SELECT max(id), crc FROM dead_letters",
        "SELECT max(id), crc FROM corrupt_rows",
        "SELECT file_uuid FROM adopted LIMIT 1",
    ):
        connection.execute(query).fetchone()
    counters.load(connection)


def prepare_connection(
    connection: sqlite3.Connection,
    path: Path,
    destination: Destination,
    load: Callable[[], Migrations] | None = None,
) -> Destination:
    """`prepare` on an open connection; `path` is for messages only."""
    if header.is_ours(connection, path):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > header.VERSION:
            raise newer(path, version, header.VERSION)
    else:
        version = 0
        if path != MEMORY and path.stat().st_mode & 0o077:
            path.chmod(0o600)  # an empty file that somebody else made; ours is made so
        _lay_out(connection)
    if version < header.VERSION:
        _migrate(connection, destination, load or load_migrations)
    state = connection.execute("SELECT endpoint, wire, key_fingerprint FROM state").fetchone()
    if state is None:
        raise QueueDamaged("its state row is missing")
    return Destination(*state)


def take_over(path: Path, destination: Destination) -> Destination:
    """Makes a file of another destination ours, with all that is in it; gives the new destination.

    The caller owns the file and has prepared it. Rows are canonical, whatever the wire they were
    queued under, so that any other can send them. Raises `QueueError`.
    """
    try:
        with OPENING, closing(connect(path)) as connection:
            connection.execute(_RETARGET, destination)
    except sqlite3.Error as error:
        raise QueueError(
            f"queue file {path} cannot be taken over ({error}); check that its directory is"
            " writable and its disk is healthy, and that no other program has it open"
        ) from error
    return destination


def _retarget(connection: sqlite3.Connection, destination: Destination) -> bool:
    """Makes an empty file ours; False if events or dead letters of the other destination are in it.

    Without this every new api key would leave one more empty file behind, for ever.
    """
    changed = connection.execute(
        _RETARGET  # noqa: S608 - a constant
        + " WHERE NOT EXISTS (SELECT 1 FROM queue) AND NOT EXISTS (SELECT 1 FROM dead_letters)",
        destination,
    ).rowcount
    return changed == 1


def _lay_out(connection: sqlite3.Connection) -> None:
    """Pages and journal of a database without tables. None of it works inside a transaction."""
    for pragma in (f"page_size={_PAGE_BYTES}", "auto_vacuum=INCREMENTAL"):
        connection.execute(f"PRAGMA {pragma}")
    laid_out = [
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "auto_vacuum")
    ]
    if laid_out != [_PAGE_BYTES, _INCREMENTAL]:  # somebody's empty database, with pages of its own
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        connection.execute("VACUUM")
    keep_log(connection)


def keep_log(connection: sqlite3.Connection) -> None:
    """Switches to a write-ahead log. Raises `sqlite3.Error`.

    Where a sync fails, SQLite keeps the mode it has and says so in its answer only.
    """
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode not in ("wal", "memory"):
        raise sqlite3.OperationalError(f"the journal mode stays {mode}")


def _migrate(
    connection: sqlite3.Connection, destination: Destination, load: Callable[[], Migrations]
) -> None:
    """From whatever version to ours, in one transaction: a crash leaves all or nothing."""
    from sqlite_utils import Database  # 65 ms that an existing file need not pay

    connection.execute("BEGIN IMMEDIATE")
    try:
        database = Database(connection)
        load().apply(database)
        if connection.execute("SELECT count(*) FROM state").fetchone()[0] == 0:
            connection.execute(
                "INSERT INTO state (id, file_uuid, created_ms, endpoint, wire, key_fingerprint)"
                " VALUES (1, ?, ?, ?, ?, ?)",
                (str(uuid.uuid4()), time.time_ns() // 1_000_000, *destination),
            )
        connection.execute(f"PRAGMA application_id={header.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={header.VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def load_migrations() -> Migrations:
    """The migrations, from inside the wheel or from the checkout an editable install points to."""
    migrations: Migrations
    try:
        # A statement, and not by name: what freezes programs looks for those.
        from causality_sdk._migrations import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            queue as module,
        )
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("causality_sdk._migrations"):
            raise
    else:
        migrations = module.migrations
        return migrations
    source = Path(__file__).parent.parent / "migrations" / "queue.py"
    spec = importlib.util.spec_from_file_location("causality_sdk._migrations_queue", source)
    if spec is None or spec.loader is None or not source.is_file():
        raise QueueError(
            "no queue file can be made or migrated: the module causality_sdk._migrations.queue is"
            " missing. Put it into the frozen program (PyInstaller: --hidden-import"
            " causality_sdk._migrations.queue), or install causality-sdk again"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    migrations = module.migrations
    return migrations
