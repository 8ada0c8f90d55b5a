"""Something else lies at the path of the queue. It must be refused, and stay as it is."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from faults.registry import Fault, Outcome, Run
from faults.starting import construct, fingerprint


def _text(path: Path) -> None:
    path.write_text("a text that somebody needs\n")


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("x")


def _symlink(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_bytes(b"")
    path.symlink_to(target)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        back = Path.cwd()
        os.chdir(path.parent)  # the name of a socket may have 108 bytes
        try:
            listener.bind(path.name)
        finally:
            os.chdir(back)


def _sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE addresses (name)")
        database.execute("INSERT INTO addresses VALUES ('somebody')")
        database.commit()


def _sqlite_in_its_log(path: Path) -> None:
    """All its tables are in the log still, as after a crash of its owner."""
    other = path.with_name("other")
    with closing(sqlite3.connect(other)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA wal_autocheckpoint=0")
        database.execute("CREATE TABLE addresses (name)")
        database.commit()
        for suffix in ("", "-wal"):
            path.with_name(path.name + suffix).write_bytes(
                other.with_name(other.name + suffix).read_bytes()
            )
    for suffix in ("", "-wal", "-shm"):
        other.with_name(other.name + suffix).unlink(missing_ok=True)


def _marked(path: Path) -> None:
    """A database without a table, marked by another program."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA application_id=1234")
        database.execute("PRAGMA user_version=1")


KINDS: dict[str, Callable[[Path], None]] = {
    "a text": _text,
    "a directory": _directory,
    "a symbolic link": _symlink,
    "a FIFO": _fifo,
    "a socket": _socket,
    "a foreign SQLite database": _sqlite,
    "one that lies in its log": _sqlite_in_its_log,
    "an empty one with a mark": _marked,
}


def run(run: Run) -> Outcome:
    """Each kind."""
    failures = []
    changed = refused = 0
    for number, (kind, make) in enumerate(KINDS.items()):
        directory = run.directory(f"wrong-{number}")
        path = directory / "queue.db"
        make(path)
        before = fingerprint(directory)
        found = construct(options={"queue_path": str(path)})
        if found["error"] == "QueueError" and str(path) in found["text"]:
            refused += 1
        else:
            failures.append(f"{kind}: {found['error'] or 'taken'} {found['text']}")
        after = fingerprint(directory)
        if {name: after.get(name) for name in before} != before:
            changed += 1
            failures.append(f"{kind}: it was changed")
    figures = {"kinds": len(KINDS), "refused": refused, "foreign files changed": changed}
    return Outcome(figures, failures)


def control(run: Run) -> Outcome:
    """A file that is one of ours: the checks must see that it is taken, and written to."""
    directory = run.directory("right")
    path = directory / "queue.db"
    construct(options={"queue_path": str(path)})
    before = fingerprint(directory)
    found = construct(options={"queue_path": str(path)})
    failures = [] if found["error"] else ["taken"]
    if fingerprint(directory) != before:
        failures.append("it was changed")
    return Outcome({}, failures)


FAULT = Fault(
    name="another program's file at the path",
    how="a text, a directory, a symbolic link, a FIFO, a socket, databases of other programs",
    promise="QueueError; not one byte changed",
    run=run,
    control=control,
    broken="the file is one of ours",
)
