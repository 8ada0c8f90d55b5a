"""What a dead process left is delivered, counted once and removed by a process that lives."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from simulation import HERE, Simulation

from causality_sdk import inheritance, ownership, schema
from causality_sdk.adoption import LOOK_SECONDS, PUT_OFF_SECONDS, REST_EVENTS, Adoption
from causality_sdk.claim import claim
from causality_sdk.dead_letters import DeadLetters, bury
from causality_sdk.errors import QueueError, TransportError
from causality_sdk.queue import Queue
from causality_sdk.schema import Destination


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


def leave(path: Path, payloads: Sequence[bytes], destination: Destination = HERE) -> None:
    """What a process leaves that was killed."""
    schema.prepare(path, destination)
    queue = Queue(path, max_events=1000, max_bytes=10**8)
    queue.append_many(payloads)
    queue.close()


def simulate(base: Path, **options: object) -> Simulation:
    """A sender that adopts, on a simulated clock."""
    simulation = Simulation(base, **options)  # type: ignore[arg-type]
    clock = simulation.clock
    simulation.sender.adoption = Adoption(
        simulation.queue,
        base,
        HERE,
        open_queue=lambda path: Queue(path, max_events=1000, max_bytes=10**8, clock=clock),
        open_drain=lambda orphan: simulation.sender_for(orphan, tells=False),
        clock=clock,
        logger=logging.getLogger("test.adoption"),
    )
    return simulation


def residual(queue: Queue) -> int:
    counters, tracked, pending, _ = queue.snapshot()
    evicted = sum(counters.evicted.values())
    return tracked - counters.acknowledged - evicted - counters.buried - pending


def event(number: int) -> bytes:
    return b'{"idempotency_key":"%d","event_type":"tick"}' % number


def files(base: Path) -> list[str]:
    return [path.name for path in ownership.existing(base)]


def test_an_orphan_is_delivered_in_order_counted_and_removed(base: Path) -> None:
    leave(base.with_name("queue.1.db"), [event(number) for number in range(250)])
    with simulate(base) as simulation:
        simulation.track(2)
        simulation.run(40)
        adopted = [key for key in simulation.arrived if not key.startswith("k")]
        assert adopted == [str(number) for number in range(250)]
        counters, tracked, pending, size = simulation.queue.snapshot()
        assert (tracked, counters.acknowledged, pending, size) == (252, 252, 0, 0)
        assert residual(simulation.queue) == 0
    assert files(base) == ["queue.db"]
    assert not list(base.parent.glob("queue.1.db-*"))
    assert (base.parent / "queue.1.db.lock").exists(), "a lock file is never unlinked"


def test_its_counters_outlive_a_restart_and_ids_are_never_used_twice(base: Path) -> None:
    leave(base.with_name("queue.1.db"), [event(number) for number in range(10)])
    with simulate(base) as simulation:
        simulation.run(1)
        before = simulation.queue.last_id
        assert before == 10
    with simulate(base) as simulation:
        simulation.track(1)
        assert simulation.queue.last_id == before + 1
        simulation.run(31)
        counters, tracked, pending, _ = simulation.queue.snapshot()
        assert (tracked, counters.acknowledged, pending) == (11, 11, 0)


def test_an_orphan_that_was_never_used_is_removed_too(base: Path) -> None:
    leave(base.with_name("queue.3.db"), [])
    with simulate(base) as simulation:
        simulation.run(1)
        assert simulation.attempt_times == []
    assert files(base) == ["queue.db"]


def test_several_orphans_go_one_after_the_other_and_own_events_in_between(base: Path) -> None:
    for number in (1, 2):
        leave(base.with_name(f"queue.{number}.db"), [event(100 * number + n) for n in range(90)])
    with simulate(base, batch_size=10, max_batch_events=10) as simulation:
        simulation.track(90)
        simulation.run(5)
        assert simulation.queue.snapshot()[1:3] == (270, 0)
        own = [index for index, key in enumerate(simulation.arrived) if key.startswith("k")]
        assert own[-1] < 190, "own events waited for the orphans"
        assert own[-1] > 95, "orphans waited for the own events"
    assert files(base) == ["queue.db"]


def test_a_file_that_somebody_owns_is_left_alone_until_he_dies(base: Path) -> None:
    orphan = base.with_name("queue.1.db")
    leave(orphan, [event(1)])
    lease = ownership.acquire(orphan)
    assert lease is not None
    with simulate(base) as simulation:
        simulation.run(LOOK_SECONDS * 3)
        assert simulation.arrived == []
        lease.release()
        simulation.run(LOOK_SECONDS)
        assert simulation.arrived == ["1"]
    assert files(base) == ["queue.db"]


@pytest.mark.parametrize("payloads", [[], [event(1)]])
def test_a_file_of_another_destination_is_left_as_it_is(base: Path, payloads: list[bytes]) -> None:
    orphan = base.with_name("queue.1.db")
    leave(orphan, payloads, Destination("http://elsewhere", "causality", "other"))
    before = orphan.read_bytes()
    with simulate(base) as simulation:
        simulation.run(PUT_OFF_SECONDS * 2)
        assert simulation.arrived == []
    assert orphan.read_bytes() == before


def test_a_copy_of_a_file_that_was_adopted_here_is_delivered_too(base: Path) -> None:
    """Machines cloned with a queue in the image: the file of one is put beside that of another."""
    first, copy, other = (base.with_name(f"queue.{number}.db") for number in (1, 2, 9))
    leave(first, [])
    image = first.read_bytes()
    leave(other, [])
    lease = ownership.acquire(other)  # of a process that lives: notes are kept as long as it does
    assert lease is not None
    with simulate(base) as simulation:
        simulation.run(60)
        assert files(base) == ["queue.db", "queue.9.db"]
        copy.write_bytes(image)
        leave(copy, [event(number) for number in range(50)])
        simulation.run(60)
        assert not copy.exists()
        assert len(simulation.arrived) == 50
        assert residual(simulation.queue) == 0
        assert simulation.queue.snapshot()[0].acknowledged == 50
    lease.release()


def test_a_copy_of_our_own_file_is_delivered_and_counted(base: Path) -> None:
    copy = base.with_name("queue.1.db")
    with simulate(base) as simulation:
        simulation.queue.checkpoint()
        copy.write_bytes(base.read_bytes())
        leave(copy, [event(number) for number in range(5)])
        simulation.run(60)
        assert not copy.exists()
        assert simulation.queue.snapshot()[0].acknowledged == 5
        assert residual(simulation.queue) == 0


def test_on_a_full_disk_no_orphan_is_opened(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log would need room: to be mended, and to be mapped into memory."""
    leave(base.with_name("queue.1.db"), [event(1)])
    monkeypatch.setattr("causality_sdk.place.is_nearly_full", lambda _directory: True)
    with simulate(base) as simulation:
        assert simulation.sender.adoption is not None
        simulation.sender.adoption.step()
        assert simulation.sender.adoption.due_at > simulation.clock()
    assert files(base) == ["queue.db", "queue.1.db"]


def test_a_damaged_orphan_is_left_alone_and_told_of_once(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    orphan = base.with_name("queue.1.db")
    orphan.write_bytes(b"nothing of ours")
    leave(base.with_name("queue.2.db"), [event(1)])
    with simulate(base) as simulation:
        simulation.run(PUT_OFF_SECONDS * 2)
        assert simulation.arrived == ["1"]
    assert orphan.read_bytes() == b"nothing of ours"
    assert len([record for record in caplog.records if "queue.1.db" in record.message]) == 1


def test_while_the_server_is_away_the_orphan_is_let_go(base: Path) -> None:
    orphan = base.with_name("queue.1.db")
    leave(orphan, [event(1)])
    with simulate(base) as simulation:
        simulation.recording.fail(TransportError("no route", reason="unreachable"))
        simulation.run(1)
        assert simulation.sender.state == "offline"
        lease = ownership.acquire(orphan)
        assert lease is not None, "it is held while nothing can be delivered"
        lease.release()
        simulation.run(600)
        times = simulation.attempt_times
        pauses = [later - earlier for earlier, later in pairwise(times[5:])]
        assert min(pauses) >= 20, "the outage is not the adoption's to end"
        simulation.recording.respond_normally()
        simulation.run(60)
        assert simulation.arrived == ["1"]
        assert str(simulation.sender.state) == "idle"
    assert files(base) == ["queue.db"]


def test_with_events_of_our_own_it_is_they_that_ask_whether_the_server_is_back(
    base: Path,
) -> None:
    with simulate(base) as simulation:
        simulation.track(1)
        simulation.recording.respond(503)
        simulation.run(40)
        leave(base.with_name("queue.1.db"), [event(1)])
        attempts = len(simulation.attempt_times)
        simulation.run(600)
        assert all(b"k1" in request.body for request in simulation.recording.requests)
        assert len(simulation.attempt_times) > attempts
        simulation.recording.respond_normally()
        simulation.run(700)
        assert simulation.arrived == ["k1", "1"]


def test_a_flush_comes_first(base: Path) -> None:
    leave(base.with_name("queue.1.db"), [event(number) for number in range(100)])
    with simulate(base, batch_size=10, max_batch_events=10) as simulation:
        simulation.track(50)
        simulation.sender.flush(timeout=10, retries=0)
        assert simulation.arrived == [f"k{number}" for number in range(1, 51)]


def test_dead_letters_and_corrupt_rows_move_along(base: Path) -> None:
    orphan = base.with_name("queue.1.db")
    schema.prepare(orphan, HERE)
    queue = Queue(orphan, max_events=1000, max_bytes=10**8)
    queue.append_many([event(number) for number in range(4)])
    bury(queue, 2, attempts=3, status=422, reason="no such type")
    queue.close()
    with closing(sqlite3.connect(orphan)) as connection:
        connection.execute("UPDATE queue SET crc = crc + 1 WHERE id = 3")
        connection.commit()
    with simulate(base) as simulation:
        simulation.run(1)
        assert simulation.arrived == ["0", "3"]
        counters, tracked, pending, _ = simulation.queue.snapshot()
        assert (tracked, counters.acknowledged, counters.buried, pending) == (4, 2, 1, 0)
        assert counters.evicted["corrupt"] == 1
        assert residual(simulation.queue) == 0
        (letter,) = DeadLetters(simulation.queue)
        assert (letter.idempotency_key, letter.attempts, letter.status) == ("1", 3, 422)
        assert letter.reason == "no such type"
        assert simulation.queue.read("SELECT count(*) FROM corrupt_rows") == [(1,)]
        assert DeadLetters(simulation.queue).requeue() == 1
        simulation.run(31)
        assert simulation.arrived == ["0", "3", "1"]
        assert residual(simulation.queue) == 0
    assert files(base) == ["queue.db"]


def test_the_few_events_that_a_server_refuses_join_our_own(base: Path) -> None:
    leave(base.with_name("queue.1.db"), [event(1), event(2)])
    with simulate(base) as simulation:
        simulation.recording.respond(400)
        simulation.run(120)
        assert files(base) == ["queue.db"]
        counters, tracked, pending, _ = simulation.queue.snapshot()
        assert (tracked, counters.acknowledged, pending) == (2, 0, 2)
        simulation.recording.respond_normally()
        simulation.run(600)
        assert sorted(simulation.arrived) == ["1", "2"]
        assert simulation.queue.snapshot()[1:3] == (2, 0)
        assert residual(simulation.queue) == 0


def test_many_refused_events_stay_in_their_file_and_hold_up_no_other(base: Path) -> None:
    refused = base.with_name("queue.1.db")
    leave(refused, [event(number) for number in range(REST_EVENTS + 1)])
    leave(base.with_name("queue.2.db"), [event(1000)])
    with simulate(base) as simulation:
        simulation.recording.respond(400)
        simulation.run(PUT_OFF_SECONDS / 2)
        assert files(base) == ["queue.db", "queue.1.db"]
        lease = ownership.acquire(refused)
        assert lease is not None
        lease.release()
        simulation.recording.respond_normally()
        simulation.run(PUT_OFF_SECONDS * 2)
        assert len(simulation.arrived) == REST_EVENTS + 2
    assert files(base) == ["queue.db"]


class TestACrashInTheMiddle:
    """Whatever instant it comes at, the counters are counted once."""

    @pytest.fixture(params=["appointed", "carried"])
    def carried(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param == "carried")

    def crash(self, base: Path, carried: bool) -> Path:
        """It comes after the heir was appointed, or after all was carried; the file is there."""
        orphan = base.with_name("queue.1.db")
        leave(orphan, [event(1), event(2)])
        with simulate(base) as simulation:
            queue = Queue(orphan, max_events=10, max_bytes=10**6)
            queue.settle(queue.peek(0, max_events=10, max_bytes=10**6))
            if carried:
                inheritance.carry(queue, simulation.queue)
            else:
                inheritance._appoint(queue, inheritance._uuid(simulation.queue))
            queue.close()
            assert simulation.queue.snapshot()[1] == (2 if carried else 0)
        return orphan

    def test_the_heir_finishes(self, base: Path, carried: bool) -> None:
        self.crash(base, carried)
        with simulate(base) as simulation:
            simulation.run(1)
            assert simulation.queue.snapshot()[1] == 2
            assert files(base) == ["queue.db"]
            simulation.run(LOOK_SECONDS)
            assert simulation.queue.read("SELECT * FROM adopted") == [], "notes stay for ever"

    def test_nobody_else_does_while_the_heir_lives(self, base: Path, carried: bool) -> None:
        self.crash(base, carried)
        owner = ownership.acquire(base)
        assert owner is not None
        other = base.with_name("queue.2.db")
        with simulate(other) as simulation:
            assert simulation.sender.adoption is not None
            simulation.sender.adoption._base = base
            simulation.run(PUT_OFF_SECONDS * 2)
            assert simulation.queue.snapshot()[1] == 0
        assert files(base) == ["queue.db", "queue.1.db", "queue.2.db"]
        owner.release()

    def test_whoever_takes_over_the_heir_does(self, base: Path, carried: bool) -> None:
        orphan = self.crash(base, carried)
        last = base.with_name("last.db")
        with simulate(last) as simulation:
            assert simulation.sender.adoption is not None
            simulation.sender.adoption._base = base
            simulation.run(LOOK_SECONDS * 2)
            assert simulation.queue.snapshot()[1] == 2
            assert residual(simulation.queue) == 0
        assert not base.exists()
        assert not orphan.exists()

    def test_a_process_that_starts_does_not_track_into_it(self, base: Path, carried: bool) -> None:
        self.crash(base, carried)
        owner = ownership.acquire(base)
        assert owner is not None
        claimed = claim(base, HERE)
        assert claimed.lease.path.name == "queue.2.db"
        claimed.lease.release()
        owner.release()


def test_a_file_that_a_person_reads_is_removed_when_he_has_finished(base: Path) -> None:
    orphan = base.with_name("queue.1.db")
    leave(orphan, [event(1)])
    with simulate(base) as simulation, closing(sqlite3.connect(orphan)) as person:
        person.execute("BEGIN")
        person.execute("SELECT count(*) FROM queue").fetchone()
        simulation.run(1)
        assert simulation.arrived == ["1"]
        assert orphan.exists()
        assert person.execute("SELECT count(*) FROM queue").fetchone() == (1,)
        person.execute("ROLLBACK")
        simulation.run(PUT_OFF_SECONDS * 2)
        assert simulation.arrived == ["1"]
        assert simulation.queue.snapshot()[1] == 1
    assert files(base) == ["queue.db"]


def test_the_end_of_the_sender_lets_go(base: Path) -> None:
    orphan = base.with_name("queue.1.db")
    leave(orphan, [event(number) for number in range(100)])
    with simulate(base, batch_size=10, max_batch_events=10) as simulation:
        simulation.sender.step()
        simulation.sender.step()
        assert ownership.acquire(orphan) is None
    lease = ownership.acquire(orphan)
    assert lease is not None
    lease.release()


def test_a_file_that_cannot_be_carried_keeps_its_events(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = base.with_name("queue.1.db")
    leave(orphan, [event(1)])

    def refuse(*_arguments: object) -> None:
        raise QueueError("the disk is full")

    monkeypatch.setattr(inheritance, "carry", refuse)
    with simulate(base) as simulation:
        simulation.run(5)
        assert orphan.exists()
        assert simulation.queue.snapshot()[1] == 0
        monkeypatch.undo()
        simulation.run(PUT_OFF_SECONDS * 2)
        assert simulation.queue.snapshot()[1] == 1
    assert files(base) == ["queue.db"]
