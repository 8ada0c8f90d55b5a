"""The sender's loop on a simulated clock: when it sends, what it does after each kind of answer."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from simulation import Simulation

from causality_sdk.errors import QueueError, TransportError
from causality_sdk.stats import Delivered, Dropped
from causality_sdk.wire.base import Request, Response

REFUSED = TransportError("nothing listens there", reason="refused")
TIMEOUT = TransportError("no answer", reason="timeout")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


def keys_of(request: Request) -> list[str]:
    return [event["idempotency_key"] for event in json.loads(request.body)["events"]]


def requests_of(simulation: Simulation) -> list[list[str]]:
    return [keys_of(request) for request in simulation.recording.requests]


class Scripted:
    """Answers each request with what a function makes of its keys."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []

    def send(self, request: Request, timeout: float) -> Response:  # noqa: ARG002
        keys = keys_of(request)
        self.batches.append(keys)
        answer = self.answer(keys)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Response)
        return answer

    def close(self) -> None:
        """Nothing to close."""


def results(*words: str) -> Response:
    document = {"results": [{"index": i, "status": word} for i, word in enumerate(words)]}
    return Response(200, body=json.dumps(document).encode())


# ---------------------------------------------------------------------- triggers


def test_a_lone_event_goes_after_the_interval_and_not_before(path: Path) -> None:
    with Simulation(path, flush_interval=30) as simulation:
        simulation.run(100)
        keys = simulation.track()
        simulation.run(29.9)
        assert simulation.arrived == []
        simulation.run(0.2)
        assert simulation.arrived == keys


def test_batch_size_events_go_at_once(path: Path) -> None:
    with Simulation(path, batch_size=50) as simulation:
        simulation.run(1)
        simulation.track(49)
        simulation.run(1)
        assert simulation.arrived == []
        simulation.track(1)
        simulation.run(0)
        assert len(simulation.arrived) == 50


def test_who_tracks_without_a_pause_does_not_make_a_request_of_every_batch_size_events(
    path: Path,
) -> None:
    with Simulation(path, batch_size=10, max_batch_events=1000) as simulation:
        simulation.run(1)
        for _ in range(100):  # 10,000 a second, for a second
            simulation.track(100)
            simulation.run(0.01)
        simulation.run(1)
        assert len(simulation.arrived) == 10_000
        # Full ones, but for the first few, which grow.
        assert len(requests_of(simulation)) < 40


def test_a_thread_that_cannot_be_started_is_told_once_and_tried_again_as_events_come(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = []

    def start(thread: threading.Thread) -> None:
        tries.append(thread.name)
        if len(tries) < 3:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with Simulation(path) as simulation:
        sender = simulation.sender
        sender.start()
        sender.wake()
        assert len(tries) == 1, "not with every event"
        assert "the background thread cannot be started" in str(sender.last_error)
        for _ in range(3):
            simulation.clock.now += 1
            sender.wake()
        assert tries == ["causality-sender"] * 3
        assert len(caplog.records) == 1
        sender._thread = None  # it never ran


def test_a_backlog_of_an_earlier_run_goes_at_once(path: Path) -> None:
    with Simulation(path) as first:
        keys = first.track(3)
    with Simulation(path) as second:
        second.run(0)
        assert second.arrived == keys


def test_the_interval_counts_from_the_event_and_not_from_the_last_request(path: Path) -> None:
    with Simulation(path, flush_interval=30, batch_size=10) as simulation:
        simulation.track(10)
        simulation.run(20)
        late = simulation.track(1)
        simulation.run(29)
        assert late[0] not in simulation.arrived
        simulation.run(1.1)
        assert late[0] in simulation.arrived


def test_a_backlog_goes_in_growing_batches_in_order(path: Path) -> None:
    with Simulation(path, batch_size=50, max_batch_events=400) as simulation:
        keys = simulation.track(1500)
        simulation.run(0)
        assert simulation.arrived == keys
        assert [len(batch) for batch in requests_of(simulation)] == [50, 100, 200, 400, 400, 350]


def test_batches_are_cut_by_bytes_and_one_that_is_larger_goes_alone(path: Path) -> None:
    with Simulation(path, batch_size=1, max_batch_bytes=200) as simulation:
        for number, size in enumerate([80, 80, 80, 500, 80], start=1):
            payload = b'{"idempotency_key":"k%d","p":"' % number
            simulation.queue.append(payload + b"x" * (size - len(payload) - 2) + b'"}')
        simulation.run(0)
        batches = requests_of(simulation)
        assert [key for batch in batches for key in batch] == ["k1", "k2", "k3", "k4", "k5"]
        assert ["k4"] in batches
        for request in simulation.recording.requests:
            if keys_of(request) != ["k4"]:
                assert len(request.body) <= 200 + len(b'{"events":[]}') + 2


def test_it_says_when_it_must_be_woken(path: Path) -> None:
    with Simulation(path, batch_size=50) as simulation:
        assert simulation.sender.step() is None
        assert simulation.sender.wake_at == 1
        simulation.track(1)
        simulation.sender.step()
        # The log of the first commit must be synced in 5 s, so there is a timer; no event before
        # the fiftieth has to wake it.
        assert simulation.sender.wake_at == 50


# ---------------------------------------------------------------------- answers


def test_rows_are_deleted_only_for_events_that_were_accepted(path: Path) -> None:
    def every_second(keys: list[str]) -> Response:
        return results(*("accepted" if int(key[1:]) % 2 else "rejected" for key in keys))

    with Simulation(path, transport=Scripted(every_second)) as simulation:
        simulation.track(1000)
        simulation.run(0.5)
        assert simulation.pending_ids() == list(range(2, 1001, 2))


def test_a_rejected_event_does_not_block_the_rest(path: Path) -> None:
    def refuse_first(keys: list[str]) -> Response:
        return results(*("rejected" if key == "k1" else "accepted" for key in keys))

    with Simulation(path, transport=Scripted(refuse_first), batch_size=1) as simulation:
        for _ in range(20):
            simulation.track(1)
            simulation.run(0.01)
        assert simulation.pending_ids() == [1]


def test_a_rejected_event_is_tried_again_with_growing_pauses_and_leaves_once_accepted(
    path: Path,
) -> None:
    willing = False

    def answer(keys: list[str]) -> Response:
        return results(*("accepted" if willing else "rejected" for _ in keys))

    scripted = Scripted(answer)
    with Simulation(path, transport=scripted, batch_size=1) as simulation:
        simulation.track(1)
        simulation.run(16)
        # jitter 0: after 1, 2, 4 and 8 seconds
        assert [at - simulation.attempt_times[0] for at in simulation.attempt_times] == [
            0,
            1,
            3,
            7,
            15,
        ]
        willing = True
        simulation.run(16)
        assert simulation.pending_ids() == []


def test_what_was_set_aside_is_tried_again_together_with_what_came_since(path: Path) -> None:
    refused_once: set[str] = set()

    def answer(keys: list[str]) -> Response:
        words = []
        for key in keys:
            words.append("accepted" if key in refused_once else "rejected")
            refused_once.add(key)
        return results(*words)

    with Simulation(path, transport=Scripted(answer), batch_size=5) as simulation:
        for _ in range(50):
            simulation.track(1)
            simulation.run(0.3)
        simulation.run(3600)
        assert simulation.pending_ids() == []


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Sign in to Airport WiFi</body></html>",
        b'{"events": ',
        b"OK",
        b'{"acceptedCount": 3}',
        b'{"error": "no broker"}',
    ],
)
def test_a_200_that_acknowledges_nothing_deletes_nothing(path: Path, body: bytes) -> None:
    with Simulation(path, batch_size=10) as simulation:
        simulation.recording.respond(200, body)
        simulation.track(10)
        simulation.run(60)
        assert simulation.pending_ids() == list(range(1, 11))
        assert len(simulation.errors) == len(simulation.attempt_times) > 2
        assert simulation.sender.state == "blocked"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 422, 425, 429, 500, 503])
def test_a_refusal_keeps_everything_and_it_recovers_by_itself(path: Path, status: int) -> None:
    with Simulation(path, batch_size=10, backoff_max=60) as simulation:
        simulation.recording.respond(status, b'{"error":"no"}')
        keys = simulation.track(25)
        simulation.run(600)
        assert simulation.queue.pending == 25
        simulation.recording.respond_normally()
        simulation.run(61)
        assert sorted(simulation.arrived) == sorted(keys)
        # Single ones are sent to find out whose fault it is.
        alone = {batch[0] for batch in requests_of(simulation) if len(batch) == 1}
        in_order = [key for key in simulation.arrived if key not in alone]
        assert in_order == [key for key in keys if key not in alone]
        assert simulation.queue.pending == 0
        assert simulation.sender.state == "idle"


def test_a_refused_key_is_tried_at_a_slow_pace(path: Path) -> None:
    with Simulation(path, batch_size=10, backoff_max=300) as simulation:
        simulation.recording.respond(401, b"")
        simulation.track(10)
        simulation.run(3600)
        times = [at - simulation.attempt_times[0] for at in simulation.attempt_times]
        # The batch, a scout to make sure, two more in case it passes soon; then every 300 s.
        assert times[:5] == [0, 0, 1, 3, 303]
        assert len(times) == 15


def test_attempts_double_their_distance_while_the_server_fails(path: Path) -> None:
    with Simulation(path, batch_size=1, backoff_max=300) as simulation:
        simulation.recording.respond(503, b"")
        simulation.track(1)
        simulation.run(700)
        times = [at - simulation.attempt_times[0] for at in simulation.attempt_times]
        assert times == [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]


def test_offline_no_pause_is_longer_than_30_seconds(path: Path) -> None:
    with Simulation(path, batch_size=1, backoff_max=300) as simulation:
        simulation.recording.fail(REFUSED)
        simulation.track(1)
        simulation.run(3600)
        times = simulation.attempt_times
        assert max(later - at for at, later in pairwise(times)) == 30
        assert simulation.sender.state == "offline"


def test_retry_after_in_seconds_is_obeyed(path: Path) -> None:
    with Simulation(path, batch_size=1) as simulation:
        simulation.recording.respond(429, b"", {"retry-after": "120"})
        simulation.track(1)
        simulation.run(0)
        simulation.recording.respond_normally()
        simulation.run(119)
        assert simulation.queue.pending == 1
        simulation.run(2)
        assert simulation.queue.pending == 0


def test_retry_after_as_a_date_is_obeyed(path: Path) -> None:
    with Simulation(path, batch_size=1, wall_clock=1_700_000_000 - 1000) as simulation:
        # the simulated wall clock stands at 1,700,000,000 = 14 Nov 2023 22:13:20 GMT
        date = "Tue, 14 Nov 2023 22:15:20 GMT"
        simulation.recording.respond(503, b"", {"retry-after": date})
        simulation.track(1)
        simulation.run(0)
        simulation.recording.respond_normally()
        simulation.run(119)
        assert simulation.queue.pending == 1
        simulation.run(2)
        assert simulation.queue.pending == 0


def test_a_batch_without_an_answer_goes_again_first_and_unchanged(path: Path) -> None:
    with Simulation(path, batch_size=5, max_batch_events=5) as simulation:
        simulation.recording.fail(TIMEOUT, times=1)
        simulation.track(5)
        simulation.run(0)
        simulation.track(20)
        simulation.run(10)
        first, second, *rest = requests_of(simulation)
        assert first == second == ["k1", "k2", "k3", "k4", "k5"]
        assert [key for batch in rest for key in batch] == [f"k{n}" for n in range(6, 26)]


def test_after_an_outage_the_first_batch_is_small(path: Path) -> None:
    with Simulation(path, batch_size=10, max_batch_events=1000) as simulation:
        simulation.track(500)
        simulation.run(0)
        simulation.recording.clear()
        simulation.recording.fail(REFUSED)
        simulation.track(2000)
        simulation.run(300)
        simulation.recording.respond_normally()
        simulation.recording.clear()
        simulation.run(31)
        sizes = [len(batch) for batch in requests_of(simulation)]
        assert sizes[:4] == [10, 20, 40, 80]
        assert sum(sizes) == 2000


def test_a_connection_closed_while_idle_is_tried_again_at_once(path: Path) -> None:
    with Simulation(path, batch_size=1) as simulation:
        stale = TransportError("closed", reason="closed", stale=True)
        simulation.recording.fail(stale, times=1)
        simulation.track(1)
        simulation.run(0)
        assert simulation.queue.pending == 0
        assert simulation.errors == []


# ---------------------------------------------------------------------- what is told


def test_an_outage_is_logged_once_and_its_end_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="test.simulation")
    with Simulation(path, batch_size=1) as simulation:
        simulation.recording.fail(REFUSED)
        simulation.track(3)
        simulation.run(120)
        simulation.recording.respond_normally()
        simulation.run(60)
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        assert "nothing listens there" in lines[0]
        assert "3 events wait" in lines[0]
        assert "works again after" in lines[1]
        assert len(simulation.errors) == len(simulation.attempt_times) - 2  # batches of 1 and 2


def test_hooks_get_what_was_delivered_and_dropped(path: Path) -> None:
    with Simulation(path, batch_size=5, max_events=10) as simulation:
        simulation.recording.fail(REFUSED)
        simulation.track(14)
        simulation.run(0)
        assert simulation.dropped == [Dropped(events=4, reason="max_queue_events")]
        simulation.recording.respond_normally()
        simulation.run(60)
        assert sum(delivered.events for delivered in simulation.delivered) == 10
        assert isinstance(simulation.delivered[0], Delivered)
        assert simulation.delivered[0].status == 200


def test_dropping_is_logged_once_an_outage(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Simulation(path, batch_size=1, max_events=10) as simulation:
        simulation.recording.fail(REFUSED)
        for _ in range(50):
            simulation.track(1)
            simulation.run(1)
        assert sum("drops the oldest" in r.getMessage() for r in caplog.records) == 1
        assert sum(dropped.events for dropped in simulation.dropped) == 40


def test_a_hook_that_raises_is_logged_and_delivery_goes_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_details: object) -> None:
        raise RuntimeError("my hook")

    with Simulation(path, batch_size=1) as simulation:
        simulation.sender._hooks._on_delivered = broken
        keys = simulation.track(3)
        simulation.run(1)
        assert simulation.arrived == keys
        assert simulation.queue.pending == 0
        assert any("hook raised" in record.getMessage() for record in caplog.records)


def test_a_wire_that_raises_ends_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = Scripted(lambda _keys: ZeroDivisionError("a transport of the user's"))
    with Simulation(path, batch_size=1, transport=broken) as simulation:
        simulation.track(1)
        simulation.run(60)
        assert simulation.queue.pending == 1
        assert 4 < len(simulation.attempt_times) < 10
        assert any("goes on" in record.getMessage() for record in caplog.records)


# ---------------------------------------------------------------------- the disk


@pytest.fixture
def refusing_disk(path: Path) -> Iterator[tuple[Simulation, list[bool]]]:
    """A queue whose settle fails while the switch is on, as on a full disk."""
    refuse = [True]
    with Simulation(path, batch_size=5) as simulation:
        settle = simulation.queue.settle

        def refusing(rows: Any) -> int:
            if refuse[0]:
                raise QueueError("queue cannot be written (disk is full)")
            return settle(rows)

        simulation.queue.settle = refusing  # type: ignore[method-assign]
        yield simulation, refuse


def test_acknowledged_rows_that_cannot_be_deleted_are_not_sent_again(
    refusing_disk: tuple[Simulation, list[bool]],
) -> None:
    simulation, refuse = refusing_disk
    simulation.track(5)
    simulation.run(60)
    simulation.track(5)
    simulation.run(60)
    # What came later is delivered all the same: that is often what makes the room.
    assert [len(batch) for batch in requests_of(simulation)] == [5, 5]
    assert simulation.queue.pending == 10
    flush = simulation.sender.flush(timeout=30, retries=0)
    assert isinstance(flush.error, QueueError)  # they are delivered, and not off the queue
    assert len(requests_of(simulation)) == 2
    refuse[0] = False
    simulation.run(60)
    assert simulation.queue.pending == 0
    assert simulation.arrived == [f"k{n}" for n in range(1, 11)]
    assert len(requests_of(simulation)) == 2


def test_what_the_disk_keeps_in_the_queue_is_bounded(
    refusing_disk: tuple[Simulation, list[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation, refuse = refusing_disk
    monkeypatch.setattr("causality_sdk.steps.UNSETTLED_MOST", 30)
    simulation.track(200)
    simulation.run(600)
    sent = sum(len(batch) for batch in requests_of(simulation))
    assert 30 <= sent < 200
    refuse[0] = False
    simulation.run(60)
    assert simulation.queue.pending == 0
    assert simulation.arrived == [f"k{n}" for n in range(1, 201)]


def test_a_failing_disk_is_logged_once_until_it_works(
    refusing_disk: tuple[Simulation, list[bool]], caplog: pytest.LogCaptureFixture
) -> None:
    simulation, _ = refusing_disk
    simulation.track(5)
    simulation.run(60)
    full = [record for record in caplog.records if "disk is full" in record.getMessage()]
    assert len(full) == 1
    assert len(simulation.errors) > 10


def test_the_log_is_synced_5_seconds_after_a_commit(path: Path) -> None:
    with Simulation(path) as simulation:
        simulation.recording.fail(REFUSED)
        simulation.track(1)
        simulation.run(4.9)
        assert simulation.queue.wal.dirty_since is not None
        simulation.run(0.2)
        assert simulation.queue.wal.dirty_since is None


# ---------------------------------------------------------------------- flush


def test_flush_without_a_thread_takes_the_steps_itself(path: Path) -> None:
    with Simulation(path, batch_size=50) as simulation:
        keys = simulation.track(7)
        flush = simulation.sender.flush(timeout=None, retries=3)
        assert (flush.delivered, flush.error) == (7, None)
        assert simulation.arrived == keys


def test_flush_of_an_empty_queue_returns_at_once(path: Path) -> None:
    with Simulation(path) as simulation:
        flush = simulation.sender.flush(timeout=None, retries=3)
        assert (flush.delivered, flush.error) == (0, None)
        simulation.track(3)
        simulation.sender.flush(timeout=None, retries=3)
        flush = simulation.sender.flush(timeout=None, retries=3)
        assert (flush.delivered, flush.error) == (0, None)
        assert len(simulation.recording.requests) == 1


def test_flush_gives_up_after_its_retries(path: Path) -> None:
    with Simulation(path) as simulation:
        simulation.recording.fail(REFUSED)
        simulation.track(3)
        flush = simulation.sender.flush(timeout=None, retries=2)
        assert flush.error is REFUSED
        assert [at - simulation.attempt_times[0] for at in simulation.attempt_times] == [0, 1, 3]


def test_flush_ends_at_its_timeout_with_the_last_error(path: Path) -> None:
    with Simulation(path) as simulation:
        simulation.recording.fail(REFUSED)
        simulation.track(3)
        began = simulation.clock.now
        flush = simulation.sender.flush(timeout=2.5, retries=100)
        assert simulation.clock.now == began + 2.5
        assert flush.error is REFUSED


def test_an_attempt_for_a_flush_takes_no_longer_than_the_flush_may(path: Path) -> None:
    timeouts = []

    class Slow:
        def send(self, request: Request, timeout: float) -> Response:  # noqa: ARG002
            timeouts.append(timeout)
            return Response(200)

        def close(self) -> None:
            """Nothing to close."""

    with Simulation(path, transport=Slow()) as simulation:
        simulation.track(1)
        simulation.sender.flush(timeout=1.5, retries=0)
        simulation.track(50)
        simulation.run(0)
        assert timeouts == [1.5, 10.0]


def test_flush_does_not_retry_what_retrying_cannot_mend(path: Path) -> None:
    with Simulation(path) as simulation:
        simulation.recording.respond(401, b"")
        simulation.track(3)
        flush = simulation.sender.flush(timeout=None, retries=5)
        assert "api key" in str(flush.error)
        # Another one made sure that it is not for the sake of the first.
        assert len(simulation.recording.requests) == 2


def test_flush_interrupts_a_backoff(path: Path) -> None:
    with Simulation(path, batch_size=1) as simulation:
        simulation.recording.respond(503, b"", {"retry-after": "3000"})
        simulation.track(1)
        simulation.run(1)
        simulation.recording.respond_normally()
        flush = simulation.sender.flush(timeout=None, retries=0)
        assert (flush.delivered, flush.error) == (1, None)


def test_flush_reports_what_was_refused_and_why(path: Path) -> None:
    def answer(keys: list[str]) -> Response:
        return results(*("rejected" if key == "k2" else "accepted" for key in keys))

    with Simulation(path, transport=Scripted(answer)) as simulation:
        simulation.track(3)
        flush = simulation.sender.flush(timeout=None, retries=0)
        assert (flush.delivered, flush.rejected) == (2, 1)
        assert "refused 1 of 3" in str(flush.error) or "accepted 2 of 3" in str(flush.error)
        assert simulation.pending_ids() == [2]


def test_flush_goes_back_for_what_was_set_aside_before_it(path: Path) -> None:
    willing = False

    def answer(keys: list[str]) -> Response:
        return results(*("accepted" if willing else "rejected" for _ in keys))

    with Simulation(path, transport=Scripted(answer), batch_size=1) as simulation:
        simulation.track(3)
        simulation.run(0)
        assert simulation.queue.pending == 3
        willing = True
        flush = simulation.sender.flush(timeout=None, retries=0)
        assert (flush.delivered, flush.error) == (3, None)


def test_flush_begins_with_what_was_set_aside_even_when_newer_events_wait(path: Path) -> None:
    with Simulation(path, transport=Scripted(lambda keys: refuse_one(keys, "k1"))) as simulation:
        simulation.track(1)
        simulation.sender.flush(timeout=None, retries=0)
        simulation.track(5)
        flush = simulation.sender.flush(timeout=None, retries=0)
        assert (flush.delivered, flush.rejected) == (5, 1)
        assert flush.error is not None
        assert simulation.pending_ids() == [1]


def test_a_fresh_event_does_not_wait_out_the_backoff_of_a_refused_one(path: Path) -> None:
    transport = Scripted(lambda keys: refuse_one(keys, "k1"))
    with Simulation(path, transport=transport, flush_interval=30, backoff_max=300) as simulation:
        simulation.track(1)
        simulation.run(2000)
        assert simulation.sender.state == "blocked"
        simulation.track(1)
        simulation.run(31)
        assert simulation.pending_ids() in ([1], [])
        assert ["k2"] in transport.batches


def refuse_one(keys: list[str], bad: str) -> Response:
    """Each event by itself: all accepted but `bad`."""
    return results(*("rejected" if key == bad else "accepted" for key in keys))
