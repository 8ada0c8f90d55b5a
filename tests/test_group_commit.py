"""Concurrent appends share a commit: nobody waits for nobody, and each learns its own fate."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from simulation import HERE

from causality_sdk import schema
from causality_sdk.errors import QueueError, QueueFull
from causality_sdk.group_commit import GroupCommit, Ticket
from causality_sdk.queue import Queue
from causality_sdk.queue_file import Reentered


class Committer:
    """Gives ids; the commit under way waits until it is let go on."""

    def __init__(self) -> None:
        self.rounds: list[list[bytes]] = []
        self.last_id = 0
        self.began = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.error: BaseException | None = None

    def __call__(self, tickets: Sequence[Ticket]) -> None:
        self.rounds.append([ticket.payload for ticket in tickets])
        self.began.release()
        self.go_on.acquire()
        error, self.error = self.error, None
        for ticket in tickets:
            if error is not None:
                ticket.error = QueueError("no space")
                continue
            self.last_id += 1
            ticket.row_id = self.last_id
        if error is not None and not isinstance(error, QueueError):
            raise error


def wait_for(group: GroupCommit, waiting: int) -> None:
    """Until so many tickets are there."""
    tick = threading.Event()
    for _ in range(10_000):
        if len(group._waiting) >= waiting:
            return
        tick.wait(0.001)
    raise AssertionError(f"{len(group._waiting)} threads wait, not {waiting}")


def test_those_who_come_during_a_commit_share_the_next_in_order() -> None:
    commit = Committer()
    group = GroupCommit(commit, max_bytes=1000)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(group.append, b"0")
        commit.began.acquire()
        others = []
        for number in range(1, 6):
            others.append(pool.submit(group.append, b"%d" % number))
            wait_for(group, number + 1)
        commit.go_on.release(2)
        assert [first.result(10), *(other.result(10) for other in others)] == [1, 2, 3, 4, 5, 6]
    assert commit.rounds == [[b"0"], [b"1", b"2", b"3", b"4", b"5"]]


def test_a_round_takes_no_more_than_its_bytes_but_at_least_one() -> None:
    commit = Committer()
    commit.go_on.release(10)
    group = GroupCommit(commit, max_bytes=10)
    assert group.append(b"x" * 50) == 1
    held = Committer()
    group = GroupCommit(held, max_bytes=10)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(group.append, b"0")]
        held.began.acquire()
        for number in range(1, 5):
            futures.append(pool.submit(group.append, b"%d" % number * 5))
            wait_for(group, number + 1)
        held.go_on.release(10)
        assert sorted(future.result(10) for future in futures) == [1, 2, 3, 4, 5]
    assert [len(round_) for round_ in held.rounds] == [1, 2, 2]


def test_a_failed_commit_is_an_error_of_its_own_for_each_and_the_next_goes_on() -> None:
    commit = Committer()
    group = GroupCommit(commit, max_bytes=1000)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(group.append, b"0")
        commit.began.acquire()
        others = []
        for number in (1, 2):
            others.append(pool.submit(group.append, b"%d" % number))
            wait_for(group, number + 1)
        commit.go_on.release()
        assert first.result(10) == 1
        commit.began.acquire()
        commit.error = QueueError("no space")
        commit.go_on.release()
        errors = [other.exception(10) for other in others]
        assert all(isinstance(error, QueueError) for error in errors)
        assert errors[0] is not errors[1]
        commit.go_on.release()
        assert group.append(b"3") == 2


def test_nobody_hangs_when_an_exception_ends_the_leader() -> None:
    commit = Committer()
    group = GroupCommit(commit, max_bytes=1000)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(group.append, b"0")
        commit.began.acquire()
        second = pool.submit(group.append, b"1")
        wait_for(group, 2)
        commit.error = KeyboardInterrupt()
        commit.go_on.release(2)
        assert isinstance(first.exception(10), KeyboardInterrupt)
        assert second.result(10) == 1


class TestAQueueThatIsSafeAgainstPowerLoss:
    def test_many_threads_get_dense_ids_and_all_is_there(self, tmp_path: Path) -> None:
        path = tmp_path / "queue.db"
        schema.prepare(path, HERE)
        queue = Queue(path, max_events=10_000, max_bytes=10**8, power_safe=True)
        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(queue.append, (b"%d" % number for number in range(2000))))
        assert sorted(ids) == list(range(1, 2001))
        rows = dict(queue.peek(0, max_events=10_000, max_bytes=10**8))
        assert all(rows[row_id] == b"%d" % number for number, row_id in enumerate(ids))
        assert queue.pending == 2000
        queue.close()

    def test_those_who_no_longer_fit_are_refused_one_by_one(self, tmp_path: Path) -> None:
        path = tmp_path / "queue.db"
        schema.prepare(path, HERE)
        queue = Queue(path, max_events=50, max_bytes=10**8, reject=True, power_safe=True)

        def append(number: int) -> int | None:
            try:
                return queue.append(b"%d" % number)
            except QueueFull:
                return None

        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(append, range(200)))
        assert sorted(row_id for row_id in ids if row_id) == list(range(1, 51))
        assert queue.pending == 50
        queue.close()

    def test_a_second_write_in_the_middle_of_the_first_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "queue.db"
        schema.prepare(path, HERE)
        queue = Queue(path, max_events=50, max_bytes=10**8, power_safe=True)
        raised: list[BaseException] = []

        def within(_tickets: Sequence[Ticket]) -> None:
            with pytest.raises(Reentered) as caught:
                queue.append(b"from a signal handler")
            raised.append(caught.value)
            original(_tickets)

        assert queue._group is not None
        original = queue._group._commit
        queue._group._commit = within
        assert queue.append(b"x") == 1
        assert len(raised) == 1
        queue.close()
