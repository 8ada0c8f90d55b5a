"""Which file a process gets: the first that nobody owns and that is meant for its destination."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path

import pytest
from disk import HERE, ask, opened, tell
from owner import Owner

from causality_sdk import ownership, schema
from causality_sdk.claim import Claim, claim
from causality_sdk.destination import fingerprint
from causality_sdk.errors import QueueError
from causality_sdk.schema import Destination


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "app" / "queue.db"


@contextmanager
def claimed(base: Path, destination: Destination = HERE) -> Iterator[Claim]:
    found = claim(base, destination)
    try:
        yield found
    finally:
        found.lease.release()


def test_the_first_gets_the_base_and_its_directory_is_made(base: Path) -> None:
    with claimed(base) as found:
        assert found.lease.path == base
        assert found.others == ()
    if os.name == "posix":
        assert base.parent.stat().st_mode & 0o777 == 0o700


def test_a_second_client_of_the_same_process_gets_a_sibling(base: Path) -> None:
    with claimed(base) as first, claimed(base) as second, claimed(base) as third:
        names = [found.lease.path.name for found in (first, second, third)]
        assert names == ["queue.db", "queue.1.db", "queue.2.db"]
    with claimed(base) as again:
        assert again.lease.path == base


def test_two_processes_work_side_by_side(base: Path) -> None:
    with Owner() as first, Owner() as second:
        assert first.take(base) == "queue.db"
        assert second.take(base) == "queue.1.db"
        first.release()
        second.release()
    for name in ("queue.db", "queue.1.db"):
        assert ask(base.with_name(name), "SELECT count(*) FROM queue") == [(1,)]


def test_a_killed_owners_file_is_taken_by_the_next_with_what_is_in_it(base: Path) -> None:
    with Owner() as first:
        first.take(base)
        with Owner() as second:
            assert second.take(base) == "queue.1.db"
            first.kill()
            with Owner() as third:
                assert third.take(base) == "queue.db"
                third.release()
    assert ask(base, "SELECT id FROM queue") == [(1,), (2,)]


def test_a_file_of_another_destination_is_neither_taken_nor_changed(base: Path) -> None:
    for name, other in (
        ("queue.db", HERE._replace(endpoint="http://localhost")),
        ("queue.1.db", HERE._replace(wire="other")),
        ("queue.2.db", HERE._replace(key_fingerprint="other").bound()),
    ):
        base.parent.mkdir(exist_ok=True)
        schema.prepare(base.with_name(name), other)
        tell(base.with_name(name), "INSERT INTO queue VALUES (1, 1, 0, 'x')")
        tell(base.with_name(name), "PRAGMA wal_checkpoint(TRUNCATE)")
    names = ["queue.db", "queue.1.db", "queue.2.db"]
    before = [base.with_name(name).read_bytes() for name in names]
    with claimed(base) as found:
        assert found.lease.path.name == "queue.3.db"
        assert [each.path.name for each in found.others] == names
        assert [each.pending for each in found.others] == [1, 1, 1]
        assert [base.with_name(name).read_bytes() for name in names] == before
        for name in names:
            lease = ownership.acquire(base.with_name(name))
            assert lease is not None, "and it is free for its own"
            lease.release()


def test_an_empty_file_of_another_destination_is_made_ours(base: Path) -> None:
    base.parent.mkdir()
    other = HERE._replace(key_fingerprint="other")
    schema.prepare(base, other)
    with claimed(base) as found:
        assert (found.lease.path, found.others) == (base, ())
    assert ask(base, "SELECT key_fingerprint FROM state") == [(HERE.key_fingerprint,)]


def test_dead_letters_keep_a_file_with_its_destination(base: Path) -> None:
    base.parent.mkdir()
    schema.prepare(base, HERE._replace(endpoint="http://localhost"))
    tell(base, "INSERT INTO dead_letters VALUES (1, 0, 'x', 0, 3, 400, 'no')")
    with claimed(base) as found:
        assert [(each.path, each.pending) for each in found.others] == [(base, 0)]


def test_a_foreign_file_is_an_error_and_its_lock_is_let_go(base: Path) -> None:
    base.parent.mkdir()
    base.write_text("Dear diary,\n")
    for _ in range(2):
        with pytest.raises(QueueError, match="is not a causality queue"):
            claim(base, HERE)
    assert base.read_text() == "Dear diary,\n"
    lease = ownership.acquire(base)
    assert lease is not None
    lease.release()


def test_no_file_left_is_an_error_with_a_fix(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "MAX_SIBLINGS", 2)
    with (
        claimed(base),
        claimed(base),
        pytest.raises(QueueError, match=r"all 2 queue files beside .* are in use; give this"),
    ):
        claim(base, HERE)


def test_sixteen_processes_that_start_at_once_get_a_file_each(tmp_path: Path) -> None:
    with ExitStack() as stack:
        owners = [stack.enter_context(Owner()) for _ in range(16)]
        for owner in owners:
            owner.wait_until_ready()
        for number in range(5):
            base = tmp_path / f"round-{number}" / "queue.db"
            for owner in owners:
                owner.start(base)
            names = [owner.claimed() for owner in owners]
            expected = islice(ownership.siblings(base), len(owners))
            assert sorted(names) == sorted(path.name for path in expected)
            for owner in owners:
                owner.release()
            for name in names:
                path = base.with_name(name)
                assert ask(path, "PRAGMA integrity_check") == [("ok",)]
                assert ask(path, "SELECT count(*) FROM queue") == [(1,)]


def test_a_file_that_is_let_go_can_be_taken_with_its_events(base: Path) -> None:
    with claimed(base) as found, opened(found.lease.path) as queue:
        queue.append(b"x")
    with claimed(base) as found, opened(found.lease.path) as queue:
        assert queue.pending == 1


def test_a_fingerprint_tells_keys_apart_and_does_not_hold_them() -> None:
    assert fingerprint("secret-a") != fingerprint("secret-b")
    assert fingerprint("secret-a") == fingerprint("secret-a")
    assert "secret" not in fingerprint("secret-a")
    assert len(fingerprint("ключ")) == 16


class TestTakingOver:
    """The explicit act by which a file of another destination becomes ours."""

    OTHER = Destination("https://elsewhere.example.com", "causality-proto", "ffff")

    def queued(self, path: Path, destination: Destination) -> None:
        taken = claim(path, destination)
        with closing(sqlite3.connect(taken.lease.path)) as database:
            database.execute("INSERT INTO queue VALUES (1, 2, 0, x'7b7d')")
            database.commit()
        taken.lease.release()

    def test_it_takes_the_first_free_file_and_keeps_what_is_in_it(self, tmp_path: Path) -> None:
        path = tmp_path / "queue.db"
        self.queued(path, HERE)
        taken = claim(path, self.OTHER, take_over=True)
        try:
            assert (taken.lease.path, taken.others) == (path, ())
        finally:
            taken.lease.release()
        assert claim_and_release(path, self.OTHER) == path
        assert claim_and_release(path, HERE) != path

    def test_it_never_takes_a_file_that_somebody_owns(self, tmp_path: Path) -> None:
        path = tmp_path / "queue.db"
        self.queued(path, HERE)
        owned = claim(path, HERE)
        try:
            taken = claim(path, self.OTHER, take_over=True)
            assert taken.lease.path == tmp_path / "queue.1.db"
            taken.lease.release()
        finally:
            owned.lease.release()
        assert claim_and_release(path, HERE) == path


def claim_and_release(path: Path, destination: Destination) -> Path:
    taken = claim(path, destination)
    taken.lease.release()
    return taken.lease.path
