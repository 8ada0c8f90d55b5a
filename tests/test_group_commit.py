"""Concurrent appends share a commit: nobody waits for nobody, and each learns its own fate."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from interruption import Interruption, interrupt
from simulation import HERE

from causality_sdk import Client, group_commit, schema
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


def wait_for(group: GroupCommit, waiting: int, *, or_for: Future[Any] | None = None) -> None:
    """Until so many tickets are there, or the other is over."""
    tick = threading.Event()
    for _ in range(10_000):
        if len(group._waiting) >= waiting or (or_for is not None and or_for.done()):
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


class TestASignalHandlerAtAnyInstruction:
    """Of a leader and of a follower; see `interruption`. Nobody hangs, and nothing goes twice."""

    def test_that_raises_leaves_no_lead_held_and_no_follower_behind(self) -> None:
        for number in range(10_000):
            committed: list[bytes] = []
            followers: list[Future[int]] = []
            groups: list[GroupCommit] = []

            def commit(
                tickets: Sequence[Ticket],
                committed: list[bytes] = committed,
                followers: list[Future[int]] = followers,
                groups: list[GroupCommit] = groups,
            ) -> None:
                if not followers:
                    followers.append(pool.submit(groups[0].append, b"follower"))
                    wait_for(groups[0], 2)
                for ticket in tickets:
                    committed.append(ticket.payload)
                    ticket.row_id = len(committed)

            group = GroupCommit(commit, max_bytes=1000)
            groups.append(group)
            interruption = Interruption(number, interrupt, group_commit)
            with ThreadPoolExecutor(3) as pool:

                def lead(
                    interruption: Interruption = interruption, group: GroupCommit = group
                ) -> tuple[int | None, bool]:
                    got = interruption.run(lambda: group.append(b"leader"))
                    return got, group.is_led_here

                got, still_leads = pool.submit(lead).result(10)
                assert not still_leads, number
                later = pool.submit(group.append, b"later").result(10)
                assert committed[later - 1] == b"later"
                assert committed[followers[0].result(10) - 1] == b"follower"
            assert (got is None) == interruption.happened
            assert len(committed) == len(set(committed)), "one was committed twice"
            if not interruption.happened:
                break
        assert 50 < number < 9_999

    def test_that_raises_in_a_follower_does_not_block_whoever_waits_behind_it(self) -> None:
        for number in range(10_000):
            commit = Committer()
            group = GroupCommit(commit, max_bytes=1000)
            interruption = Interruption(number, interrupt, group_commit)
            with ThreadPoolExecutor(3) as pool:
                leader = pool.submit(group.append, b"leader")
                commit.began.acquire()
                follower = pool.submit(interruption.run, lambda group=group: group.append(b"1"))
                wait_for(group, 2, or_for=follower)
                behind = pool.submit(group.append, b"behind")
                wait_for(group, 2 if follower.done() else 3, or_for=behind)
                commit.go_on.release(3)
                assert leader.result(10) == 1
                assert behind.result(10) > 1
                assert (follower.result(10) is None) == interruption.happened
            if not interruption.happened:
                break
        assert 10 < number < 9_999

    @pytest.mark.parametrize("role", ["leader", "follower"])
    def test_that_appends_waits_for_nobody_that_waits_for_it(self, role: str) -> None:
        for number in range(10_000):
            commit = Committer()
            group = GroupCommit(commit, max_bytes=1000)
            refused: list[bool] = []

            def handler(group: GroupCommit = group, refused: list[bool] = refused) -> None:
                refused.append(group.is_led_here)
                if not refused[0]:  # as the queue does
                    group.append(b"handler")

            interruption = Interruption(number, handler, group_commit)
            with ThreadPoolExecutor(2) as pool:
                if role == "follower":
                    leader = pool.submit(group.append, b"leader")
                    commit.began.acquire()
                one = pool.submit(interruption.run, lambda group=group: group.append(b"one"))
                if role == "follower":
                    wait_for(group, 2)
                commit.go_on.release(4)
                assert one.result(10)
                if role == "follower":
                    assert leader.result(10) == 1
            payloads = [payload for round_ in commit.rounds for payload in round_]
            assert len(payloads) == len(set(payloads))
            assert (b"handler" in payloads) == (refused == [False])
            if not interruption.happened:
                break
        assert 10 < number < 9_999


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


def test_threads_of_a_client_at_power_share_commits_and_each_key_is_there(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    client = Client(
        api_key="k",
        endpoint="http://127.0.0.1:9",
        app_id="crowd",
        queue_path=path,
        durability="power",
        start=False,
        close_timeout=0,
    )
    assert client._pipeline is not None
    queue = client._pipeline.queue
    assert queue._group is not None
    original = queue._group._commit
    commits: list[int] = []

    def commit(tickets: Sequence[Ticket]) -> None:
        commits.append(len(tickets))
        original(tickets)

    queue._group._commit = commit
    begin = threading.Barrier(8)

    def work(thread: int) -> list[str | None]:
        begin.wait(30)
        return [client.track("event", {"thread": thread}) for _ in range(200)]

    with ThreadPoolExecutor(8) as pool:
        keys = [key for keys in pool.map(work, range(8)) for key in keys]
    rows = queue.peek(0, max_events=10_000, max_bytes=10**8)
    assert sorted(json.loads(payload)["idempotency_key"] for _, payload in rows) == sorted(
        key for key in keys if key is not None
    )
    assert None not in keys
    assert sum(commits) == 1600
    assert len(commits) < 1600
    client.close()
