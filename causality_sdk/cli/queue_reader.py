"""Reads a queue file that may be anybody's: a running service's, or a copy on a read-only medium.

Neighbours: `queue_files`, and the commands that list and export. Invariant: the file is opened
read-only, and no transaction is open while the caller does something with what it was given.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from causality_sdk import connections, counters, header, quarantine, salvage
from causality_sdk.cli.exits import InputError
from causality_sdk.cli.queue_rows import Ids, Snapshot, Stored, bytes_of, letter_of
from causality_sdk.damage import is_damage
from causality_sdk.dead_letters import DeadLetter
from causality_sdk.holders import holder
from causality_sdk.queue_file import is_sound
from causality_sdk.schema import Destination

PAGE_ROWS = 200
_LETTERS = (
    "SELECT id, payload, buried_ms, attempts, status, reason FROM dead_letters"
    " WHERE id > ? ORDER BY id LIMIT ?"
)


class QueueReader:
    """One file, open for reading. A context manager. Raises `InputError` for what is no queue.

    A damaged one of ours can be opened: its rows are looked for in what is left of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None
        """What is wrong with its bytes, as far as was seen; the rest is read all the same."""
        self.lost: int | None = 0
        """Events that `rows` should have given and could not read; None: nobody knows how many."""
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._connection: sqlite3.Connection | None = None
        if quarantine.is_waiting(path):
            self.damage = "it was set aside, and its repair was cut short"
            return
        if not path.is_file():
            raise InputError(f"there is no queue file {path}")
        try:
            self._connection = self._open()
        except sqlite3.Error as error:
            self._forget_copy()
            if not (is_damage(error) and header.was_ours(path)):
                raise InputError(f"queue file {path} cannot be read ({error})") from error
            self.damage = str(error)
        except _Damaged as damaged:
            self._forget_copy()
            self.damage = str(damaged)
        except BaseException:
            self._forget_copy()
            raise

    def snapshot(self) -> Snapshot:
        """All of one moment. Raises `DamagedInput` where it cannot be read."""
        connection = self._connection
        if connection is None:
            raise self._is_damaged()
        try:
            with _Failing(self.path):
                connection.execute("BEGIN")  # a read transaction, for these few rows
                try:
                    return self._snapshot(connection)
                finally:
                    connection.execute("COMMIT")
        except InputError as error:
            if not self._meets_damage(error):
                raise
            raise self._is_damaged() from error

    def rows(self) -> Iterator[Stored]:
        """What waits, oldest first; what is added meanwhile is among it.

        What SQLite cannot read of a damaged file is looked for in its pages; see `lost`.
        """
        given = Ids()
        try:
            while rows := self._query(
                "SELECT id, payload, crc FROM queue WHERE id > ? ORDER BY id LIMIT ?", given.last
            ):
                for row_id, payload, crc in rows:
                    given.add(row_id)
                    yield Stored(row_id, bytes_of(payload), is_sound(payload, crc))
        except InputError as error:
            if not self._meets_damage(error):
                raise
            yield from self._remaining_rows(given)

    def letters(self) -> Iterator[DeadLetter]:
        """The dead letters, oldest first."""
        after = 0
        try:
            while rows := self._query(_LETTERS, after):
                for row in rows:
                    yield letter_of(row)
                after = rows[-1][0]
        except InputError as error:
            if not self._meets_damage(error):
                raise
            with self._remains() as remains:
                for row in remains.letters():
                    if row[0] > after:
                        yield letter_of(row)

    def destination(self) -> Destination | None:
        """Whom its events are for; None if that cannot be read."""
        try:
            return self.snapshot().destination
        except DamagedInput:
            with self._remains() as remains:
                return remains.destination

    def check(self) -> str | None:
        """What SQLite finds wrong with the file, or None. Reads all of it."""
        if self._connection is None:
            return self.damage
        try:
            found = str(self._connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.Error as error:
            return str(error)
        return None if found == "ok" else found

    def close(self) -> None:
        """Closes it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._forget_copy()

    def __enter__(self) -> QueueReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ damaged

    def _meets_damage(self, error: InputError) -> bool:
        """Notes the damage, if it is that."""
        if isinstance(error, DamagedInput):
            return True
        cause = error.__cause__
        if cause is None or not is_damage(cause):
            return False
        self.damage = str(cause)
        return True

    def _is_damaged(self) -> DamagedInput:
        return DamagedInput(f"queue file {self.path} is damaged ({self.damage})")

    def _remains(self) -> salvage.Remains:
        self.close()  # its pages must not be read beside a connection of ours
        aside = quarantine.damaged_path(self.path)
        try:
            return salvage.Remains(aside if quarantine.is_waiting(self.path) else self.path)
        except OSError as error:
            raise InputError(
                f"queue file {self.path} cannot be read ({error.strerror or error})"
            ) from error

    def _remaining_rows(self, given: Ids) -> Iterator[Stored]:
        with self._remains() as remains:
            for row_id, payload in remains.rows():
                if row_id not in given:
                    given.add(row_id)
                    yield Stored(row_id, payload, sound=True)
            self.lost = remains.lost(given.count, given.highest)

    # ------------------------------------------------------------------ inside

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect(self.path, "ro")
        except sqlite3.OperationalError as error:
            # With a log beside it SQLite needs to write the index of it, which a read-only medium
            # does not let it; and a file that somebody owns cannot be copied consistently.
            if holder(self.path).held or "locked" in str(error):
                raise
        return self._connect(self._copied(), "rw")

    def _connect(self, path: Path, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=connections.BUSY_SECONDS,
            isolation_level=None,
        )
        try:
            connection.execute("PRAGMA mmap_size=0")
            connection.execute("PRAGMA trusted_schema=OFF")
            self._check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if found != header.APPLICATION_ID:
            if header.was_ours(self.path):
                raise _Damaged("its header is wrong")
            raise InputError(f"{self.path} is not a causality queue")
        if version > header.VERSION:
            raise InputError(
                f"queue file {self.path} was written by a newer causality-sdk (schema {version},"
                f" this one knows {header.VERSION}); upgrade this program"
            )
        if connection.execute("SELECT count(*) FROM state").fetchone()[0] != 1:
            raise _Damaged("its state row is missing")

    def _copied(self) -> Path:
        """A copy that SQLite may write to, with the log, without the index of the log."""
        self._copy = tempfile.TemporaryDirectory(prefix="causality-")
        copy = Path(self._copy.name) / self.path.name
        try:
            shutil.copyfile(self.path, copy)
            log = self.path.with_name(self.path.name + "-wal")
            if log.exists():
                shutil.copyfile(log, copy.with_name(log.name))
        except OSError as error:
            raise InputError(
                f"queue file {self.path} cannot be read where it is, nor copied to"
                f" {copy.parent} ({error.strerror or error})"
            ) from error
        return copy

    def _forget_copy(self) -> None:
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def _query(self, query: str, after: int) -> list[tuple[Any, ...]]:
        if self._connection is None:
            raise self._is_damaged()
        # fetchall: the read transaction ends here, before anything is printed
        with _Failing(self.path):
            return self._connection.execute(query, (after, PAGE_ROWS)).fetchall()

    def _snapshot(self, connection: sqlite3.Connection) -> Snapshot:
        one = connection.execute
        state = counters.load(connection)
        file_uuid, created_ms, *destination = one(
            "SELECT file_uuid, created_ms, endpoint, wire, key_fingerprint FROM state"
        ).fetchone()
        last_id, last_total = one("SELECT max(id), CAST(total AS INTEGER) FROM queue").fetchone()
        last, total = max((state.mark, state.mark_total), (last_id or 0, last_total or 0))
        oldest = one("SELECT payload FROM queue ORDER BY id LIMIT 1").fetchone()
        letter = one(
            _LETTERS.replace("id > ? ORDER BY id", "id > ? ORDER BY id DESC"), (0, 1)
        ).fetchone()
        return Snapshot(
            file_uuid,
            created_ms,
            Destination(*destination),
            state,
            tracked=last - state.requeued,
            pending=last - state.removed,
            pending_bytes=total - state.removed_bytes,
            oldest=None if oldest is None else bytes_of(oldest[0]),
            letters=one("SELECT count(*) FROM dead_letters").fetchone()[0],
            last_letter=None if letter is None else letter_of(letter),
        )


class DamagedInput(InputError):
    """A queue file of ours whose bytes are wrong. A replay salvages what can be read of it."""


class _Damaged(Exception):
    """It is ours and cannot be read."""


class _Failing:
    """A database error inside is an `InputError` that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise InputError(
                f"queue file {self._path} cannot be read ({error}); see causality queue doctor"
            ) from error
