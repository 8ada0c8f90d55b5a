"""Nothing that lies beside the first queue file of an app keeps a process from starting."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from disk import HERE, tell
from faults.rows.wrong_file import KINDS

from causality_sdk import Client, adoption, header, ownership, schema
from causality_sdk.claim import claim
from causality_sdk.errors import QueueError
from causality_sdk.testing import LoopbackCollector

ROOT = Path(__file__).resolve().parent.parent


def _newer(path: Path) -> None:
    schema.prepare(path, HERE)
    tell(path, f"PRAGMA user_version={header.VERSION + 1}")


def _link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def _lock_that_is_a_directory(path: Path) -> None:
    ownership.lock_path(path).mkdir()


def _lock_that_leads_nowhere(path: Path) -> None:
    ownership.lock_path(path).symlink_to(path.with_name("nowhere"))


def _log_that_is_a_directory(path: Path) -> None:
    schema.prepare(path, HERE)
    path.with_name(path.name + "-wal").mkdir()


ODD: dict[str, Callable[[Path], None]] = {
    **KINDS,
    "a newer release's": _newer,
    "a link to nowhere": _link_to_nowhere,
    "a lock that is a directory": _lock_that_is_a_directory,
    "a lock that leads nowhere": _lock_that_leads_nowhere,
    "a log that is a directory": _log_that_is_a_directory,
}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, FIFOs, users")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    return tmp_path / "app" / "queue.db"


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector() as server:
        yield server


def make(base: Path, collector: LoopbackCollector, **options: Any) -> Client:
    return Client(
        **{
            "api_key": "test-key",
            "endpoint": collector.endpoint,
            "app_id": "a",
            "queue_path": base,
            "close_timeout": 0.0,
            "start": False,
            **options,
        }
    )


def look(directory: Path) -> dict[str, object]:
    """Of each name that is there: what kind of thing it is, and its bytes."""
    return {
        path.name: (path.lstat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in directory.iterdir()
    }


@pytest.mark.parametrize("kind", ODD)
def test_what_cannot_be_used_beside_the_first_file_is_passed_over(base: Path, kind: str) -> None:
    odd = base.with_name("queue.1.db")
    ODD[kind](odd)
    before = look(base.parent)
    first = claim(base, HERE)
    second = claim(base, HERE)
    try:
        assert second.lease.path.name == "queue.2.db"
        ((path, reason),) = second.unusable
        assert path == odd
        assert str(odd) in str(reason)
        assert "give another queue_path" in str(reason)
        after = look(base.parent)
        assert {name: after.get(name) for name in before} == before
    finally:
        first.lease.release()
        second.lease.release()


@pytest.mark.parametrize("kind", ODD)
def test_at_the_first_name_the_same_is_an_error(base: Path, kind: str) -> None:
    ODD[kind](base)
    with pytest.raises(QueueError, match="give another queue_path"):
        claim(base, HERE)


def test_a_directory_in_which_no_file_can_be_made_is_told_at_once(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = count()

    def refused(path: Path, *_: object, **__: object) -> None:
        next(tries)
        raise QueueError(f"queue file {path} cannot be opened (disk full)")

    first = claim(base, HERE)
    monkeypatch.setattr("causality_sdk.repair.prepare", refused)
    with pytest.raises(QueueError, match="disk full"):
        claim(base, HERE)
    first.lease.release()
    assert next(tries) == 1


def test_it_is_told_once_with_the_fix_by_whichever_part_meets_it_first(
    base: Path,
    collector: LoopbackCollector,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adoption, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(adoption, "PUT_OFF_SECONDS", 0.0)
    base.with_name("queue.1.db").write_text("Dear diary,\n")
    with (
        caplog.at_level(logging.WARNING, "causality_sdk"),
        make(base, collector) as first,
        make(base, collector) as second,
        make(base, collector) as third,
    ):
        for client in (first, second, third):
            for number in range(3):
                assert client.track("x", {"number": number})
                assert client.flush(5).remaining == 0
            assert client._pipeline is not None
            assert client._pipeline.sender.adoption is not None
            client._pipeline.sender.adoption.step()
    told = [record.getMessage() for record in caplog.records]
    told = [text for text in told if "queue.1.db is not" in text]
    assert len(told) == 1, told
    assert "is passed over" in told[0]
    assert "move it away" in told[0]


def test_a_forked_child_tracks_past_it_and_does_not_tell_it_again(
    base: Path, collector: LoopbackCollector
) -> None:
    base.with_name("queue.1.db").mkdir()
    found = subprocess.run(
        [sys.executable, "-c", FORKS, str(base), collector.endpoint],
        capture_output=True, text=True, timeout=60, check=True, cwd=ROOT,
    )  # fmt: skip
    assert found.stdout.split() == ["queue.2.db", "queue.3.db", "3", "done"]
    assert found.stderr.count("is passed over") == 1, found.stderr
    assert len(collector.events) == 4


FORKS = """
import logging, os, sys
from pathlib import Path
from causality_sdk import Client
logging.basicConfig()
options = dict(api_key="test-key", endpoint=sys.argv[2], app_id="a", queue_path=sys.argv[1])
options["start"] = False
first, second = Client(**options), Client(**options)
print(Path(second.stats().queue_path).name, flush=True)
second.track("parent")
if os.fork() == 0:
    keys = [second.track("child") for _ in range(3)]
    print(Path(second.stats().queue_path).name, sum(key is not None for key in keys), flush=True)
    second.flush(10)
    second.close(0)
    os._exit(0)
os.wait()
second.flush(10)
second.close(0)
first.close(0)
print("done")
"""


# ---------------------------------------------------------------- users


def _is_open_to_others(path: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid")
    or os.geteuid() != 0
    or not (_is_open_to_others(Path(sys.prefix)) and _is_open_to_others(ROOT)),
    reason="needs root, who can be two users, and a Python that the other one can read",
)
NOBODY = 65534

AS_NOBODY = """
import logging, os, sys
logging.basicConfig()
import filelock, multiprocessing.util, sqlite_utils, requests
from pathlib import Path
from causality_sdk import Client, QueueError, schema
schema.load_migrations()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
options = dict(api_key="k", endpoint="http://127.0.0.1:9", app_id="a", queue_path=sys.argv[1],
               start=False, close_timeout=0)
clients = []
try:
    for _ in range(int(sys.argv[2])):
        clients.append(Client(**options))
        clients[-1].track("x")
        print(Path(clients[-1].stats().queue_path).name)
except QueueError as error:
    print("QueueError:", error)
"""


def as_nobody(base: Path, clients: int) -> subprocess.CompletedProcess[str]:
    """What a service that runs as another user sees."""
    for directory in base.parent.parents:  # what pytest makes is closed to others
        if directory.stat().st_mode & 0o001:
            break
        directory.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(base), str(clients)],
        capture_output=True, text=True, timeout=60, check=True, cwd="/",
        env={**not_measured(), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def not_measured() -> dict[str, str]:
    """The environment without what measures coverage, whose file the other user cannot write."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COV")}


@pytest.fixture
def theirs(base: Path) -> Path:
    """A queue in a directory of nobody."""
    os.chown(base.parent, NOBODY, NOBODY)
    return base


def owners(directory: Path) -> dict[str, int]:
    return {path.name: path.lstat().st_uid for path in directory.iterdir()}


@needs_root
@pytest.mark.parametrize("names", [["queue.1.db"], ["queue.1.db.lock"], ["queue.1.db-wal"]])
def test_a_file_of_another_user_is_passed_over_and_the_warning_names_him(
    theirs: Path, names: list[str]
) -> None:
    for name in names:
        theirs.with_name(name).touch(mode=0o600)
    found = as_nobody(theirs, 2)
    assert found.stdout.split() == ["queue.db", "queue.2.db"], found.stderr
    assert found.stderr.count("is passed over") == 1
    assert "it belongs to root, and this process runs as nobody" in found.stderr
    assert f"sudo chown nobody {theirs.with_name('queue.1.db')}*" in found.stderr


@needs_root
def test_the_first_file_of_another_user_is_an_error_that_names_him(theirs: Path) -> None:
    theirs.touch(mode=0o600)
    found = as_nobody(theirs, 1)
    assert "QueueError" in found.stdout
    assert "it belongs to root, and this process runs as nobody" in found.stdout
    assert f"sudo chown nobody {theirs}*" in found.stdout


@needs_root
def test_the_fix_that_is_named_works(theirs: Path) -> None:
    theirs.touch(mode=0o600)
    line = as_nobody(theirs, 1).stdout
    command = line.partition("sudo ")[2].partition(", or")[0]
    subprocess.run(["/bin/sh", "-c", command], check=True)
    assert as_nobody(theirs, 1).stdout.split() == ["queue.db"]


@needs_root
def test_what_root_makes_in_a_directory_of_somebody_else_is_his(
    theirs: Path, collector: LoopbackCollector
) -> None:
    deeper = theirs.parent / "a" / "b" / "queue.db"
    for base in (theirs, deeper):
        with make(base, collector, wire="causality-proto") as client:
            client.track("x")
            found = owners(base.parent)
        assert {
            "queue.db", "queue.db-wal", "queue.db-shm", "queue.db.lock",
            "installation-id", "installation-id.lock",
        } <= set(found)  # fmt: skip
        assert set(found.values()) == {NOBODY}, found
    assert set(owners(deeper.parent.parent).values()) == {NOBODY}


@needs_root
def test_what_root_repairs_stays_his(theirs: Path, collector: LoopbackCollector) -> None:
    with make(theirs, collector) as client:
        client.track("x")
        theirs.unlink()  # under the client, which writes it anew
        client.track("y")
        client.flush(5)
        client.track("w")
        assert set(owners(theirs.parent).values()) == {NOBODY}
    with theirs.open("r+b") as file:
        file.write(b"x" * 200)
    with make(theirs, collector) as client:
        client.track("z")
        assert set(owners(theirs.parent).values()) == {NOBODY}
    assert any("corrupt" in name for name in owners(theirs.parent))


@needs_root
def test_root_gives_nothing_away_that_lay_there_before(theirs: Path) -> None:
    """A name that somebody made lead to a file of root must not make that his."""
    secret = theirs.parent.parent / "secret"
    secret.touch(mode=0o600)
    os.link(secret, ownership.lock_path(theirs))
    claim(theirs, HERE).lease.release()
    assert secret.stat().st_uid == 0
