"""Which event is sent to find out whose fault it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulation import Clock, open_queue

from causality_sdk.queue import Queue
from causality_sdk.scout import LOOK, Scout
from causality_sdk.suspects import Suspects


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = open_queue(tmp_path / "queue.db", Clock())
    yield queue
    queue.close()


def add(queue: Queue, kind: str) -> int:
    return queue.append(b'{"event_type":"%s"}' % kind.encode())


def suspecting(*ids: int) -> Suspects:
    suspects = Suspects()
    for row_id in ids:
        suspects.refused(row_id, status=400, words="", witnessed=False)
    return suspects


def chosen(queue: Queue, suspects: Suspects) -> int | None:
    row = Scout(queue, suspects).choose()
    return None if row is None else row[0]


def test_it_is_the_newest_of_a_type_without_suspects(queue: Queue) -> None:
    for kind in ["view", "view", "order", "order"]:
        add(queue, kind)
    assert chosen(queue, suspecting(3)) == 2


def test_it_is_the_newest_of_all_where_every_type_is_suspected(queue: Queue) -> None:
    for kind in ["order", "order", "order"]:
        add(queue, kind)
    assert chosen(queue, suspecting(1)) == 3
    assert chosen(queue, suspecting(1, 3)) == 2


def test_there_is_none_where_all_are_suspects_or_the_queue_is_empty(queue: Queue) -> None:
    assert chosen(queue, suspecting()) is None
    add(queue, "order")
    assert chosen(queue, suspecting(1)) is None


def test_bytes_that_are_no_json_are_a_type_of_their_own(queue: Queue) -> None:
    add(queue, "order")
    queue.append(b"not json")
    queue.append(b"[1]")
    add(queue, "order")
    assert chosen(queue, suspecting(4)) == 3


def test_it_looks_at_the_newest_only(queue: Queue) -> None:
    for _ in range(LOOK + 1):
        add(queue, "order")
    assert chosen(queue, suspecting(*range(2, LOOK + 2))) is None
