"""Opening a queue file: new, old, newer, foreign, damaged; and what must stay untouched."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from disk import HERE, ask, check, foreign, opened, payloads, tell
from sqlite_utils import Database, Migrations

from causality_sdk import connections, header, place, quarantine, schema
from causality_sdk.damage import QueueDamaged
from causality_sdk.errors import QueueError
from causality_sdk.schema import Destination

ROOT = Path(__file__).resolve().parent.parent
posix_only = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and file kinds")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


def run(script: str, *arguments: object) -> str:
    """What a child process prints."""
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
    )
    return result.stdout.strip()


class TestANewFile:
    def test_it_is_a_wal_database_with_our_marks(self, path: Path) -> None:
        assert schema.prepare(path, HERE) == HERE
        assert ask(path, "PRAGMA journal_mode") == [("wal",)]
        assert ask(path, "PRAGMA auto_vacuum") == [(2,)]
        assert ask(path, "PRAGMA page_size") == [(4096,)]
        assert ask(path, "PRAGMA application_id") == [(0x43415553,)]
        assert ask(path, "PRAGMA user_version") == [(header.VERSION,)]
        assert ask(path, "PRAGMA integrity_check") == [("ok",)]

    def test_its_version_is_the_number_of_migrations(self) -> None:
        with closing(sqlite3.connect(":memory:")) as connection:
            steps = schema.load_migrations().pending(Database(connection))
        assert len(steps) == header.VERSION

    @posix_only
    def test_it_and_its_directory_are_for_this_user_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "made" / "queue.db"
        umask = os.umask(0)
        try:
            place.make_directory(path.parent)
            with opened(path) as queue:
                queue.append(b"x")
                modes = {
                    file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()
                }
        finally:
            os.umask(umask)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert modes == {"queue.db": 0o600, "queue.db-wal": 0o600, "queue.db-shm": 0o600}

    def test_its_connections_have_our_pragmas(self, path: Path) -> None:
        schema.prepare(path, HERE)
        for synchronous, number in (("NORMAL", 1), ("FULL", 2)):
            with closing(connections.connect(path, synchronous=synchronous)) as connection:
                for pragma, value in (
                    ("synchronous", number),
                    ("mmap_size", 0),
                    ("trusted_schema", 0),
                    ("wal_autocheckpoint", 0),
                ):
                    assert connection.execute(f"PRAGMA {pragma}").fetchone() == (value,)

    def test_every_file_has_an_id_of_its_own(self, tmp_path: Path) -> None:
        ids = set()
        for number in range(3):
            schema.prepare(tmp_path / f"{number}.db", HERE)
            ids.add(ask(tmp_path / f"{number}.db", "SELECT file_uuid FROM state")[0][0])
        assert len(ids) == 3


class TestReopening:
    def test_the_destination_is_that_of_the_creation(self, path: Path) -> None:
        schema.prepare(path, HERE)
        tell(path, "INSERT INTO queue VALUES (1, 1, 0, 'x')")
        assert schema.prepare(path, Destination("http://other", "w", "k")) == HERE

    def test_it_writes_nothing(self, path: Path) -> None:
        schema.prepare(path, HERE)
        before = path.read_bytes()
        schema.prepare(path, HERE)
        assert path.read_bytes() == before

    def test_it_does_not_import_sqlite_utils(self, path: Path) -> None:
        script = (
            "import sys; from pathlib import Path\n"
            "from causality_sdk import schema\n"
            "schema.prepare(Path(sys.argv[1]), schema.Destination('a', 'b', 'c'))\n"
            "print('sqlite_utils' in sys.modules)"
        )
        assert run(script, path) == "True"
        assert run(script, path) == "False"

    @posix_only
    def test_permissions_that_a_person_gave_are_kept(self, path: Path) -> None:
        schema.prepare(path, HERE)
        path.chmod(0o640)
        schema.prepare(path, HERE)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def empty_file(path: Path) -> None:
    path.touch(0o644)


def header_only(path: Path) -> None:
    with foreign(path) as connection:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")


def header_with_other_pages(path: Path) -> None:
    with foreign(path) as connection:
        connection.execute("PRAGMA page_size=1024")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("DROP TABLE t")


def header_in_rollback_mode(path: Path) -> None:
    with foreign(path) as connection:
        connection.execute("PRAGMA user_version=7")


class TestACreationThatWasCutShort:
    @pytest.mark.parametrize(
        "make", [empty_file, header_only, header_with_other_pages, header_in_rollback_mode]
    )
    def test_it_becomes_a_queue(self, path: Path, make: Callable[[Path], None]) -> None:
        make(path)
        assert schema.prepare(path, HERE) == HERE
        assert ask(path, "PRAGMA auto_vacuum") == [(2,)]
        assert ask(path, "PRAGMA page_size") == [(4096,)]
        assert ask(path, "PRAGMA journal_mode") == [("wal",)]
        if os.name == "posix":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with opened(path) as queue:
            queue.append(b"x")
            assert payloads(queue) == [b"x"]
            check(queue)

    @posix_only
    def test_killed_at_any_statement_of_it_the_next_start_succeeds(self, tmp_path: Path) -> None:
        script = (
            "import os, signal, sqlite3, sys; from pathlib import Path\n"
            "from causality_sdk import schema\n"
            "left = int(sys.argv[2])\n"
            "def trace(sql):\n"
            "    global left\n"
            "    left -= 1\n"
            "    if left == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
            "connect = sqlite3.connect\n"
            "def traced(*a, **k):\n"
            "    connection = connect(*a, **k)\n"
            "    connection.set_trace_callback(trace)\n"
            "    return connection\n"
            "sqlite3.connect = traced\n"
            "schema.prepare(Path(sys.argv[1]), schema.Destination('a', 'b', 'c'))\n"
        )
        killed = 0
        for statements in (1, 3, 7, 9, 12, 16, 20, 24, 28, 32, 36):
            path = tmp_path / f"{statements}.db"
            child = subprocess.run(
                [sys.executable, "-c", script, str(path), str(statements)], cwd=ROOT, timeout=30
            )
            assert child.returncode in (0, -signal.SIGKILL)
            killed += child.returncode != 0
            assert schema.prepare(path, HERE) in (HERE, Destination("a", "b", "c"))
            assert ask(path, "SELECT count(*) FROM state") == [(1,)]
        assert killed >= 5

    def test_a_migration_that_fails_in_the_middle_leaves_nothing(self, path: Path) -> None:
        broken = Migrations("causality_queue")

        @broken()
        def m001(db: Database) -> None:
            db.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY)")

        @broken()
        def m002(db: Database) -> None:
            db.execute("CREATE TABLE other (id INTEGER PRIMARY KEY)")
            raise sqlite3.OperationalError("disk I/O error")

        with pytest.raises(QueueError, match="disk I/O error"):
            schema.prepare(path, HERE, load=lambda: broken)
        assert ask(path, "SELECT name FROM sqlite_master") == []
        assert ask(path, "PRAGMA user_version") == [(0,)]
        assert schema.prepare(path, HERE) == HERE


def text_file(path: Path) -> None:
    path.write_text("Dear diary,\n")


def short_file(path: Path) -> None:
    path.write_bytes(b"SQLite")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(8192))


def foreign_database(path: Path) -> None:
    tell(path, "CREATE TABLE diary (entry TEXT)")


def foreign_database_with_an_id(path: Path) -> None:
    tell(path, "PRAGMA application_id=1234")


def foreign_database_with_a_log(path: Path) -> None:
    """As its program left it when it was killed: the log not moved."""
    script = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA journal_mode=WAL')\n"
        "c.execute('CREATE TABLE diary (entry TEXT)')\n"
        "c.execute('INSERT INTO diary VALUES (1)')\n"
        "os._exit(0)"
    )
    run(script, path)
    assert path.with_name(path.name + "-wal").stat().st_size > 0


def large_foreign_database(path: Path) -> None:
    with foreign(path) as connection:
        for number in range(300):
            connection.execute(f"CREATE TABLE diary_{number} (entry TEXT)")


class TestAForeignFile:
    @pytest.mark.parametrize(
        "make",
        [
            text_file,
            short_file,
            foreign_database,
            foreign_database_with_an_id,
            foreign_database_with_a_log,
            large_foreign_database,
        ],
    )
    def test_it_is_refused_and_stays_as_it_is(
        self, path: Path, make: Callable[[Path], None]
    ) -> None:
        make(path)
        files = [path, path.with_name(path.name + "-wal")]
        before = [file.exists() and file.read_bytes() for file in files]
        mode = path.stat().st_mode
        for _ in range(2):
            with pytest.raises(QueueError, match="is not a causality queue") as caught:
                schema.prepare(path, HERE)
            assert str(path) in str(caught.value)
            assert "give another queue_path" in str(caught.value)
        assert [file.exists() and file.read_bytes() for file in files] == before
        assert path.stat().st_mode == mode

    def test_a_directory_is_refused(self, path: Path) -> None:
        path.mkdir()
        with pytest.raises(QueueError, match="it is a directory"):
            schema.prepare(path, HERE)
        assert list(path.iterdir()) == []

    @posix_only
    def test_a_symbolic_link_is_refused_also_to_nowhere(self, path: Path) -> None:
        target = path.with_name("target.db")
        path.symlink_to(target)
        with pytest.raises(QueueError, match="it is a symbolic link"):
            schema.prepare(path, HERE)
        assert not target.exists()
        schema.prepare(target, HERE)
        with pytest.raises(QueueError, match="it is a symbolic link"):
            schema.prepare(path, HERE)

    @posix_only
    def test_a_fifo_is_refused_at_once(self, path: Path) -> None:
        """Opening one would wait for its other end."""
        os.mkfifo(path)
        signal.alarm(10)
        try:
            with pytest.raises(QueueError, match="it is a FIFO"):
                schema.prepare(path, HERE)
        finally:
            signal.alarm(0)


class TestANewerOrDamagedFile:
    def test_a_newer_schema_is_refused_and_untouched(self, path: Path) -> None:
        schema.prepare(path, HERE)
        tell(path, f"PRAGMA user_version={header.VERSION + 1}")
        before = path.read_bytes()
        with pytest.raises(QueueError, match="upgrade this program") as caught:
            schema.prepare(path, HERE)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == before

    def test_a_newer_schema_that_is_in_the_log_still_is_refused_too(self, path: Path) -> None:
        schema.prepare(path, HERE)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA user_version=99")
            with pytest.raises(QueueError, match="schema 99"):
                schema.prepare(path, HERE)

    def test_a_missing_state_row_is_damage(self, path: Path) -> None:
        schema.prepare(path, HERE)
        tell(path, "DELETE FROM state")
        assert_it_is_set_aside(path, "its state row is missing")

    def test_a_damaged_page_is_set_aside(self, path: Path) -> None:
        schema.prepare(path, HERE)
        content = bytearray(path.read_bytes())
        content[100:4096] = bytes(b ^ 0x5A for b in content[100:4096])
        path.write_bytes(content)
        assert_it_is_set_aside(path, "malformed|not a database")

    def test_a_small_file_of_zeros_is_a_creation_that_a_power_cut_ended(self, path: Path) -> None:
        zeros(path)
        assert schema.prepare(path, HERE) == HERE
        assert ask(path, "SELECT count(*) FROM queue") == [(0,)]

    def test_a_large_file_of_zeros_is_what_a_power_cut_left_of_ours(self, path: Path) -> None:
        path.write_bytes(bytes(128 * 1024))
        assert_it_is_set_aside(path, "its header is wrong")

    def test_a_file_cut_off_in_its_header_is_damage(self, path: Path) -> None:
        schema.prepare(path, HERE)
        path.write_bytes(path.read_bytes()[:50])
        assert_it_is_set_aside(path, "malformed|not a database")


def assert_it_is_set_aside(path: Path, why: str) -> None:
    """Whole, and nothing is left at its path."""
    content = path.read_bytes()
    with pytest.raises(QueueDamaged, match=why):
        schema.prepare(path, HERE)
    assert quarantine.damaged_path(path).read_bytes() == content
    assert not path.exists()


UNWRITABLE = """
import os, sys
from pathlib import Path
from causality_sdk import quarantine, schema
from causality_sdk.damage import QueueDamaged
from causality_sdk.errors import QueueError
import filelock, sqlite_utils
from causality_sdk.claim import claim
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    claim(Path(sys.argv[1]), schema.Destination("a", "b", "c"))
except QueueError as error:
    print(error)
else:
    print("no error")
"""


@posix_only
class TestAPlaceThatCannotBeUsed:
    @pytest.mark.parametrize("kind", ["directory", "parent", "file", "lock"])
    def test_it_is_an_error_that_names_path_and_fix(self, tmp_path: Path, kind: str) -> None:
        """The child gives up root, whom permissions do not bind."""
        # What pytest makes is closed to others all the way up.
        for directory in (tmp_path, *tmp_path.parents[:2]):
            directory.chmod(0o755)
        place = tmp_path / "queues"
        place.mkdir()
        path = place / "queue.db"
        if kind == "parent":
            path = place / "deeper" / "queue.db"
        elif kind == "file":
            place.chmod(0o777)
            schema.prepare(path, HERE)
        elif kind == "lock":
            place.chmod(0o777)
            (place / "queue.db.lock").touch(0o600)
        if os.getuid() != 0:
            {"file": path, "lock": place / "queue.db.lock"}.get(kind, place).chmod(0o500)
        try:
            message = run(UNWRITABLE, path)
        finally:
            place.chmod(0o700)
        assert str(path.parent) in message
        assert "queue_path" in message
        assert "writable" in message or "create it for this user" in message

    def test_a_directory_that_is_a_file_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(QueueError, match="cannot be made") as caught:
            place.make_directory(tmp_path / "file")
        assert str(tmp_path / "file") in str(caught.value)

    def test_a_directory_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(QueueError, match="give another queue_path"):
            schema.prepare(tmp_path / "none" / "queue.db", HERE)


def test_a_disk_on_which_no_log_can_be_kept_is_an_error_not_another_journal() -> None:
    class Stubborn(sqlite3.Connection):
        """Answers as SQLite does when the sync for the change of mode failed."""

        def execute(self, query: str, *_arguments: object) -> sqlite3.Cursor:
            return super().execute("SELECT 'delete'" if "journal_mode" in query else query)

    with (
        closing(sqlite3.connect(":memory:", factory=Stubborn)) as connection,
        pytest.raises(sqlite3.OperationalError, match="journal mode stays delete"),
    ):
        schema.keep_log(connection)
