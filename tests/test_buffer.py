"""Events that the disk did not take: kept in order, bounded, written before anything newer."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from causality_sdk import buffer as buffer_module
from causality_sdk.buffer import Buffer
from causality_sdk.errors import QueueError, QueueFull


class Disk:
    """A list that refuses while `broken`, after taking the first `takes` of a call."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.error: Exception | None = None
        self.takes = 0

    def __call__(self, payloads: Sequence[bytes]) -> int:
        if self.error is not None:
            self.events.extend(payloads[: self.takes])
            raise self.error
        self.events.extend(payloads)
        return len(self.events)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_a_working_disk_gets_the_events_and_nothing_is_kept(disk: Disk) -> None:
    buffer = Buffer(disk)
    assert buffer.write([b"a", b"b"])
    assert (disk.events, len(buffer), buffer.dropped) == ([b"a", b"b"], 0, 0)


def test_what_was_refused_is_written_before_anything_newer(disk: Disk) -> None:
    buffer = Buffer(disk)
    disk.error = QueueError("full")
    assert not buffer.write([b"a"])
    assert not buffer.write([b"b", b"c"])
    assert len(buffer) == 3
    disk.error = None
    assert buffer.write([b"d"])
    assert disk.events == [b"a", b"b", b"c", b"d"]
    assert len(buffer) == 0


def test_a_refusal_half_way_keeps_only_what_was_not_written(disk: Disk) -> None:
    """Else an event would be in the queue twice."""
    buffer = Buffer(disk)
    disk.error = QueueError("full")
    buffer.write([b"a", b"b"])
    partly = QueueError("full")
    partly.written = disk.takes = 3
    disk.error = partly
    assert not buffer.write([b"c", b"d"])
    assert len(buffer) == 1
    disk.error = None
    assert buffer.write()
    assert disk.events == [b"a", b"b", b"c", b"d"]


def test_it_is_bounded_by_events_and_drops_the_oldest_counted(disk: Disk) -> None:
    buffer = Buffer(disk)
    disk.error = QueueError("full")
    for number in range(buffer_module.MAX_EVENTS + 5):
        buffer.write([b"%d" % number])
    assert len(buffer) == buffer_module.MAX_EVENTS
    assert buffer.dropped == 5
    disk.error = None
    buffer.write()
    assert disk.events[0] == b"5"


def test_it_is_bounded_by_bytes(disk: Disk) -> None:
    buffer = Buffer(disk)
    disk.error = QueueError("full")
    quarter = bytes(buffer_module.MAX_BYTES // 4)
    buffer.write([b"first"])
    buffer.write([quarter] * 4)
    assert (len(buffer), buffer.dropped) == (4, 1)
    buffer.write([bytes(buffer_module.MAX_BYTES + 1)])
    assert (len(buffer), buffer.dropped) == (0, 6)
    buffer.write([b"small"])
    disk.error = None
    assert buffer.write()
    assert disk.events == [b"small"]


def test_its_size_is_counted_anew_after_it_was_written(disk: Disk) -> None:
    buffer = Buffer(disk)
    for _ in range(3):
        disk.error = QueueError("full")
        buffer.write([bytes(buffer_module.MAX_BYTES)])
        disk.error = None
        buffer.write()
    assert buffer.dropped == 0


def test_a_full_queue_is_told_to_the_caller_and_his_event_is_not_kept(disk: Disk) -> None:
    buffer = Buffer(disk)
    disk.error = QueueError("disk full")
    buffer.write([b"a"])
    disk.error = QueueFull("at its cap")
    with pytest.raises(QueueFull):
        buffer.write([b"b"])
    assert not buffer.write()
    assert len(buffer) == 1
    disk.error = None
    buffer.write([b"c"])
    assert disk.events == [b"a", b"c"]


def test_an_error_that_is_not_the_disks_is_not_hidden(disk: Disk) -> None:
    buffer = Buffer(disk)
    disk.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        buffer.write([b"a"])
    assert len(buffer) == 0


def test_threads_do_not_overtake_each_other(disk: Disk) -> None:
    buffer = Buffer(disk)
    disk.error = QueueError("full")

    def work(name: int) -> None:
        for number in range(50):
            buffer.write([b"%d-%02d" % (name, number)])

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    disk.error = None
    buffer.write()
    for name in range(4):
        own = [event for event in disk.events if event.startswith(b"%d-" % name)]
        assert own == sorted(own)
        assert len(own) == 50


def test_what_is_given_up_at_the_end_counts_as_dropped(disk: Disk) -> None:
    buffer = Buffer(disk)
    disk.error = QueueError("full")
    buffer.write([b"a", b"b"])
    assert buffer.give_up() == 2
    assert (len(buffer), buffer.dropped) == (0, 2)
    disk.error = None
    assert buffer.write([b"c"])
    assert disk.events == [b"c"]
