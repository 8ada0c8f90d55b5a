"""The lock beside a queue file: exclusive, dropped by the kernel, signed for people."""

from __future__ import annotations

import os
import stat
import threading
import time
from itertools import islice
from pathlib import Path

import pytest
from owner import Owner

from causality_sdk import ownership
from causality_sdk.errors import QueueError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.mark.parametrize(
    ("base", "names"),
    [
        ("queue.db", ["queue.db", "queue.1.db", "queue.2.db"]),
        ("queue", ["queue", "queue.1", "queue.2"]),
        ("my.app.db", ["my.app.db", "my.app.1.db", "my.app.2.db"]),
    ],
)
def test_siblings_are_numbered_before_the_suffix(
    tmp_path: Path, base: str, names: list[str]
) -> None:
    found = list(islice(ownership.siblings(tmp_path / base), 3))
    assert found == [tmp_path / name for name in names]


def test_siblings_end_somewhere(path: Path) -> None:
    assert len(set(ownership.siblings(path))) == ownership.MAX_SIBLINGS


def test_what_is_owned_cannot_be_acquired_again_even_by_the_same_process(path: Path) -> None:
    lease = ownership.acquire(path)
    assert lease is not None
    assert lease.path == path
    assert ownership.acquire(path) is None
    other = ownership.acquire(path.with_name("queue.1.db"))
    assert other is not None
    other.release()
    lease.release()
    again = ownership.acquire(path)
    assert again is not None
    again.release()


def test_release_works_from_another_thread_and_twice(path: Path) -> None:
    lease = ownership.acquire(path)
    assert lease is not None
    thread = threading.Thread(target=lease.release)
    thread.start()
    thread.join()
    lease.release()
    again = ownership.acquire(path)
    assert again is not None
    lease.release()
    assert ownership.acquire(path) is None, "a second release takes nothing from the next owner"
    again.release()


def test_the_lock_file_stays_and_is_for_this_user_alone(path: Path) -> None:
    lock = ownership.lock_path(path)
    inodes = set()
    for _ in range(3):
        lease = ownership.acquire(path)
        assert lease is not None
        inodes.add(lock.stat().st_ino)
        lease.release()
        assert lock.exists()
    assert len(inodes) == 1
    if os.name == "posix":
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_it_is_signed_with_pid_host_and_start(path: Path) -> None:
    before = time.time_ns() // 1_000_000
    lease = ownership.acquire(path)
    assert lease is not None
    signed = ownership.owner(path)
    lease.release()
    assert signed["pid"] == os.getpid()
    assert signed["host"]
    assert before <= signed["started_ms"] <= time.time_ns() // 1_000_000
    assert ownership.owner(path) == signed, "and says who was the last"


def test_a_longer_signature_of_before_leaves_no_rest(path: Path) -> None:
    ownership.lock_path(path).write_bytes(b" " * 5000 + b"}")
    lease = ownership.acquire(path)
    assert lease is not None
    assert ownership.owner(path)["pid"] == os.getpid()
    lease.release()


@pytest.mark.parametrize("content", [b"", b"\x00", b"garbage", b" [1]", b"\xff\xff\xff"])
def test_a_signature_that_cannot_be_read_is_empty(path: Path, content: bytes) -> None:
    assert ownership.owner(path) == {}
    ownership.lock_path(path).write_bytes(content)
    assert ownership.owner(path) == {}


def test_an_attempt_that_fails_leaves_the_owners_signature(path: Path) -> None:
    with Owner() as other:
        assert other.take(path) == "queue.db"
        signed = ownership.owner(path)
        assert signed["pid"] == other.process.pid
        for _ in range(3):
            assert ownership.acquire(path) is None
        assert ownership.owner(path) == signed


def test_the_lock_of_a_killed_process_is_free_at_once(path: Path) -> None:
    with Owner() as other:
        other.take(path)
        assert ownership.acquire(path) is None
        other.kill()
        lease = ownership.acquire(path)
        assert lease is not None
        assert ownership.owner(path)["pid"] == os.getpid()
        lease.release()


def test_a_lock_file_that_cannot_be_made_is_an_error_with_a_fix(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    ownership.lock_path(path).mkdir()
    with pytest.raises(QueueError, match="give another queue_path") as caught:
        ownership.acquire(path)
    assert str(ownership.lock_path(path)) in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "queue.db", tmp_path / "victim"
    victim.write_bytes(b"precious")
    ownership.lock_path(path).symlink_to(victim)
    with pytest.raises(QueueError):
        ownership.acquire(path)
    assert victim.read_bytes() == b"precious"
