"""Dead letters of a queue in use: to look at, to put back, to delete; always counted."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_server import ModelServer, fine_by_result
from simulation import Clock, Simulation, open_queue

from causality_sdk import dead_letters
from causality_sdk.dead_letters import DeadLetter, DeadLetters, bury
from causality_sdk.queue import Queue


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def queue(path: Path) -> Iterator[Queue]:
    queue = open_queue(path, Clock())
    yield queue
    queue.close()


def add(queue: Queue, count: int, size: int = 0) -> list[int]:
    ids = []
    for _ in range(count):
        number = queue.last_id + 1
        payload = b'{"idempotency_key":"k%d","p":"%s"}' % (number, b"x" * size)
        ids.append(queue.append(payload))
    return ids


def bury_all(queue: Queue, ids: list[int]) -> None:
    for row_id in ids:
        assert bury(queue, row_id, attempts=3, status=400, reason="no such type") is not None


def balanced(queue: Queue) -> tuple[int, int, int, int]:
    """tracked, acknowledged, buried, pending; checks that they agree, with the file too."""
    counters, tracked, pending, pending_bytes = queue.snapshot()
    assert tracked == counters.acknowledged + counters.buried + pending
    ((rows, size),) = queue.read("SELECT count(*), total(length(payload)) FROM queue")
    assert (rows, size) == (pending, pending_bytes)
    return tracked, counters.acknowledged, counters.buried, pending


def test_a_letter_tells_what_and_why(queue: Queue) -> None:
    add(queue, 2)
    bury(queue, 2, attempts=5, status=422, reason="w" * 10_000)
    (letter,) = DeadLetters(queue)
    assert letter.event == {"idempotency_key": "k2", "p": ""}
    assert letter.idempotency_key == "k2"
    assert (letter.attempts, letter.status, letter.reason) == (5, 422, "w" * 500)
    assert letter.buried_ms > 1_600_000_000_000
    assert "k2" not in repr(letter)
    assert balanced(queue) == (2, 0, 1, 1)


@pytest.mark.parametrize("payload", [b"not json", b"[1]", b'{"idempotency_key":5}', b"\xff"])
def test_bytes_that_are_no_event_are_shown_as_they_are(queue: Queue, payload: bytes) -> None:
    queue.append(payload)
    bury_all(queue, [1])
    (letter,) = DeadLetters(queue)
    assert letter.payload == payload
    assert letter.idempotency_key is None
    assert letter.event in ({}, {"idempotency_key": 5})


def test_a_row_that_is_gone_is_not_buried(queue: Queue) -> None:
    add(queue, 1)
    bury_all(queue, [1])
    assert bury(queue, 1, attempts=3, status=400, reason="") is None
    assert balanced(queue) == (1, 0, 1, 0)


def test_they_come_in_pages_and_one_by_one(queue: Queue) -> None:
    bury_all(queue, add(queue, 250))
    letters = DeadLetters(queue)
    assert len(letters) == 250
    first = letters.page(limit=10)
    second = letters.page(limit=10, after=first[-1].id)
    assert [letter.idempotency_key for letter in first + second] == [f"k{n}" for n in range(1, 21)]
    assert [letter.idempotency_key for letter in letters] == [f"k{n}" for n in range(1, 251)]
    assert letters.page(after=10**9) == []


def test_letters_buried_while_one_looks_are_seen_and_deleted_ones_do_no_harm(queue: Queue) -> None:
    ids = add(queue, 120)
    bury_all(queue, ids[:110])
    letters = DeadLetters(queue)
    seen: list[DeadLetter] = []
    for letter in letters:
        if len(seen) == 50:
            bury_all(queue, ids[110:])
            letters.delete(seen)
        seen.append(letter)
    assert len(seen) == 120


def test_one_that_is_put_back_goes_to_the_tail_as_it_was(queue: Queue) -> None:
    ids = add(queue, 3)
    before = dict(queue.peek(0, max_events=10, max_bytes=10**6))
    bury_all(queue, [ids[0]])
    add(queue, 1)
    letters = DeadLetters(queue)
    assert letters.requeue() == 1
    rows = queue.peek(0, max_events=10, max_bytes=10**6)
    assert [row_id for row_id, _ in rows] == [2, 3, 4, 5]
    assert rows[-1][1] == before[1]
    assert len(letters) == 0
    assert balanced(queue) == (4, 0, 0, 4)


def test_some_are_put_back_by_id_or_letter_and_each_once(queue: Queue) -> None:
    bury_all(queue, add(queue, 5))
    letters = DeadLetters(queue)
    one, two, three, *_ = letters
    assert letters.requeue([one, two.id, two, one.id, 999]) == 2
    assert letters.requeue([one]) == 0
    assert letters.delete([one.id, three]) == 1
    assert len(letters) == 2
    assert balanced(queue) == (5, 0, 3, 2)


def test_one_that_is_deleted_stays_buried_in_the_count(queue: Queue) -> None:
    bury_all(queue, add(queue, 3))
    letters = DeadLetters(queue)
    assert letters.delete() == 3
    assert letters.delete() == 0
    assert list(letters) == []
    assert balanced(queue) == (3, 0, 3, 0)


def test_no_letters_at_all(queue: Queue) -> None:
    letters = DeadLetters(queue)
    assert (len(letters), list(letters), letters.requeue(), letters.delete([])) == (0, [], 0, 0)


def test_the_oldest_go_when_there_are_too_many(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "MAX_LETTERS", 5)
    bury_all(queue, add(queue, 8))
    assert [letter.idempotency_key for letter in DeadLetters(queue)] == [
        "k4",
        "k5",
        "k6",
        "k7",
        "k8",
    ]
    assert balanced(queue) == (8, 0, 8, 0)


def test_the_oldest_go_when_they_are_too_large_but_the_newest_stays(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "MAX_BYTES", 1000)
    bury_all(queue, add(queue, 5, size=300))
    assert [letter.idempotency_key for letter in DeadLetters(queue)] == ["k4", "k5"][-3:] or len(
        DeadLetters(queue)
    ) in (2, 3)
    bury_all(queue, add(queue, 1, size=5000))
    assert [letter.idempotency_key for letter in DeadLetters(queue)] == ["k6"]
    assert balanced(queue) == (6, 0, 6, 0)


def test_the_counts_survive_a_restart(path: Path) -> None:
    first = open_queue(path, Clock())
    bury_all(first, add(first, 5))
    letters = DeadLetters(first)
    letters.delete([1])
    letters.requeue([2])
    before = balanced(first)
    first.close()
    second = open_queue(path, Clock())
    assert balanced(second) == before == (5, 0, 4, 1)
    assert len(DeadLetters(second)) == 3
    second.close()


def test_they_are_put_back_while_others_track(queue: Queue) -> None:
    bury_all(queue, add(queue, 300))
    stop = threading.Event()

    def track() -> None:
        for _ in range(500):
            add(queue, 1)
        stop.set()

    thread = threading.Thread(target=track)
    thread.start()
    letters = DeadLetters(queue)
    assert letters.requeue() == 300
    thread.join()
    assert stop.is_set()
    assert balanced(queue) == (800, 0, 0, 800)


def test_one_that_is_put_back_is_delivered_and_may_be_buried_again(path: Path) -> None:
    server = ModelServer()
    server.phase = fine_by_result
    server.bad = {"k1", "k2"}
    with Simulation(path, transport=server, batch_size=3) as simulation:
        simulation.track(3)
        for _ in range(10):
            simulation.run(30)
            simulation.track(3)
        letters = DeadLetters(simulation.queue)
        assert [letter.idempotency_key for letter in letters] == ["k1", "k2"]
        server.bad = {"k2"}
        assert letters.requeue() == 2
        for _ in range(10):
            simulation.run(30)
            simulation.track(3)
        simulation.run(60)
        assert "k1" in server.acknowledged
        (letter,) = letters
        assert letter.idempotency_key == "k2"
        assert letter.attempts >= 3
        tracked, acknowledged, buried, pending = balanced(simulation.queue)
        assert (tracked, acknowledged, buried, pending) == (63, 62, 1, 0)
        assert server.violations == []


def test_an_operator_sees_them_with_any_tool(queue: Queue, path: Path) -> None:
    bury_all(queue, add(queue, 1))
    other = sqlite3.connect(path)
    rows = other.execute("SELECT attempts, status, reason FROM dead_letters").fetchall()
    other.close()
    assert rows == [(3, 400, "no such type")]
