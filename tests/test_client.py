"""The client as a program uses it, against a real server on loopback."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from causality_sdk import (
    Client,
    ClientClosed,
    Config,
    ConfigError,
    DeliveryError,
    Event,
    EventError,
    QueueError,
    QueueFull,
    TransportError,
)
from causality_sdk.testing import LoopbackCollector

KEY = "secret-key-7f3a"


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as running:
        yield running


@pytest.fixture
def queue_path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "queue.db"


def make(endpoint: str, queue_path: Path, **options: Any) -> Client:
    defaults: dict[str, Any] = {
        "api_key": KEY,
        "endpoint": endpoint,
        "app_id": "tests",
        "queue_path": queue_path,
        "backoff_initial": 0.01,
        "backoff_max": 0.05,
    }
    return Client(**{**defaults, **options})


def closed_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


def rows_in(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM queue").fetchone()[0])
    finally:
        connection.close()


# ---------------------------------------------------------------------- track


def test_an_event_arrives_with_everything_it_was_given(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    with make(collector.endpoint, queue_path) as client:
        key = client.track(
            "purchase_complete",
            {"order_id": "A-1", "total_cents": 1299},
            user_id="u-42",
            session_id="s-1",
            device_id="d-1",
            timestamp=1_732_147_200_000,
        )
        assert client.flush(timeout=10).error is None
    (event,) = collector.events
    server = event["properties"].pop("_server")
    assert event == {
        "app_id": "tests",
        "event_type": "purchase_complete",
        "idempotency_key": key,
        "timestamp_ms": 1_732_147_200_000,
        "device_id": "d-1",
        "user_id": "u-42",
        "session_id": "s-1",
        "properties": {"order_id": "A-1", "total_cents": 1299},
    }
    assert set(server) == {"hostname", "python_version", "sdk_version", "os", "arch"}
    request = collector.requests[0]
    assert request.headers["x-api-key"] == KEY
    assert request.headers["user-agent"].startswith("causality-sdk/")


def test_an_event_object_is_tracked_like_its_arguments(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    with make(collector.endpoint, queue_path) as client:
        key = client.track(Event("screen_view", {"screen_name": "home"}, user_id="u"))
        client.flush(timeout=10)
    (event,) = collector.events
    assert (event["idempotency_key"], event["user_id"]) == (key, "u")


def test_a_returned_key_means_committed(queue_path: Path) -> None:
    with make(closed_port(), queue_path, start=False) as client:
        for count in range(1, 4):
            assert client.track("x") is not None
            assert rows_in(queue_path) == count


def test_track_many_keeps_the_order_and_is_one_transaction(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    with make(collector.endpoint, queue_path, start=False) as client:
        keys = client.track_many(Event("tick", {"n": n}) for n in range(500))
        assert keys is not None
        client.flush()
    assert collector.keys == keys


def test_track_many_with_a_bad_event_queues_none_and_names_it(queue_path: Path) -> None:
    with make(closed_port(), queue_path, start=False) as client:
        events = [Event("a"), Event("b", {"price": float("nan")}), Event("c")]
        with pytest.raises(EventError, match=r"event 1: properties\.price is nan"):
            client.track_many(events)
        with pytest.raises(EventError, match="item 0 is a str"):
            client.track_many(["a"])  # type: ignore[list-item]
        assert client.track_many([]) == []
        assert client.stats().tracked == 0


def test_a_bad_event_raises_and_queues_nothing(queue_path: Path) -> None:
    with make(closed_port(), queue_path, start=False, max_event_bytes=2000) as client:
        cases: list[tuple[tuple[Any, ...], str]] = [
            (("",), "event_type must not be empty"),
            ((None,), "event_type must be a string, got NoneType None"),
            ((b"click",), "event_type must be a string, got bytes"),
            (("x", {"a": object()}), r"properties\.a \(object"),
            (("x", ["a"]), "properties must be a mapping"),
            (("x", {"a": "y" * 3000}), "above max_event_bytes"),
        ]
        for arguments, message in cases:
            with pytest.raises(EventError, match=message):
                client.track(*arguments)
        assert client.stats().tracked == 0


def test_properties_beside_an_event_object_are_refused(queue_path: Path) -> None:
    with (
        make(closed_port(), queue_path, start=False) as client,
        pytest.raises(EventError, match="inside the Event"),
    ):
        client.track(Event("x"), {"a": 1})


def test_arguments_beside_an_event_object_are_refused_and_not_ignored(queue_path: Path) -> None:
    with (
        make(closed_port(), queue_path, start=False) as client,
        pytest.raises(EventError, match="user_id"),
    ):
        client.track(Event("x"), user_id="u")


def test_many_threads_track_and_nothing_is_lost(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    keys: list[str] = []
    with make(collector.endpoint, queue_path) as client:

        def work(thread: int) -> None:
            for number in range(250):
                key = client.track("tick", {"thread": thread, "n": number})
                assert key is not None
                keys.append(key)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report = client.flush(timeout=30)
        assert (report.remaining, report.error) == (0, None)
        stats = client.stats()
    assert sorted(keys) == sorted(collector.keys)
    assert (stats.tracked, stats.acknowledged, stats.pending) == (2000, 2000, 0)
    for thread_number in range(8):
        numbers = [
            event["properties"]["n"]
            for event in collector.events
            if event["properties"]["thread"] == thread_number
        ]
        assert numbers == list(range(250))


def test_a_stuck_server_does_not_hold_up_track(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    collector.pause()
    client = make(collector.endpoint, queue_path, batch_size=1, timeout=5)
    client.track("first")
    assert collector.wait_for_held()
    for _ in range(100):
        assert client.track("more") is not None
    assert rows_in(queue_path) == 101
    assert client.stats().state == "sending"
    collector.resume()
    assert client.flush(timeout=10).remaining == 0
    client.close()
    assert collector.count == 101


def test_a_hook_that_takes_long_does_not_hold_up_track(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    called, go_on = threading.Event(), threading.Event()

    def hook(_details: object) -> None:
        called.set()
        go_on.wait(30)

    with make(collector.endpoint, queue_path, batch_size=1, on_delivered=hook) as client:
        client.track("first")
        assert called.wait(10)
        for _ in range(100):
            assert client.track("more") is not None
        assert rows_in(queue_path) == 100, "it waited until the hook was over"
        assert collector.count == 1
        go_on.set()
        assert client.flush(timeout=10).remaining == 0


def test_a_flush_in_progress_does_not_hold_up_track(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    collector.pause()
    with make(collector.endpoint, queue_path, timeout=30) as client:
        client.track("first")
        flushing = threading.Thread(target=client.flush, args=(30,))
        flushing.start()
        assert collector.wait_for_held()
        for _ in range(100):
            assert client.track("more") is not None
        assert flushing.is_alive(), "the events waited until the flush was over"
        assert rows_in(queue_path) == 101
        collector.resume()
        flushing.join(10)
        assert not flushing.is_alive()


# ---------------------------------------------------------------------- the background


def test_it_delivers_by_itself_when_a_batch_is_full(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    with make(collector.endpoint, queue_path, batch_size=10, flush_interval=3600) as client:
        for _ in range(10):
            client.track("tick")
        assert collector.wait_for(10)


def test_it_delivers_by_itself_when_the_interval_is_over(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    with make(collector.endpoint, queue_path, flush_interval=0.05) as client:
        client.track("tick")
        assert collector.wait_for(1)


def test_it_delivers_by_itself_once_the_server_is_back(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    errors: list[Exception] = []
    failed = threading.Event()

    def on_error(error: Exception) -> None:
        errors.append(error)
        failed.set()

    collector.down()
    with make(collector.endpoint, queue_path, batch_size=1, on_error=on_error) as client:
        client.track("tick")
        assert failed.wait(10)
        collector.up()
        assert collector.wait_for(1)
    assert isinstance(errors[0], TransportError)
    assert errors[0].reason == "refused"


def test_what_an_earlier_run_left_is_delivered_by_the_next(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    collector.down()
    with make(collector.endpoint, queue_path) as client:
        keys = [client.track("tick") for _ in range(5)]
    collector.up()
    with make(collector.endpoint, queue_path) as client:
        assert collector.wait_for(5)
        assert client.flush(timeout=10).remaining == 0
        assert client.stats().acknowledged == 5
    assert collector.keys == keys


def test_only_what_the_server_accepted_is_deleted(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    collector.accept_only(lambda _index, event: event["properties"]["n"] % 2 == 0)
    # With a short backoff the refused ones could come round again within this very flush.
    options: dict[str, Any] = {
        "start": False,
        "backoff_initial": 60,
        "backoff_max": 60,
        "jitter": 0,
    }
    with make(collector.endpoint, queue_path, max_retries=0, **options) as client:
        keys = client.track_many(Event("tick", {"n": n}) for n in range(100))
        assert keys is not None
        report = client.flush()
        assert isinstance(report.error, DeliveryError)
        assert report.delivered == report.remaining == report.rejected == 50
        with pytest.raises(DeliveryError):
            report.raise_for_error()
    assert collector.keys == keys[0::2]
    connection = sqlite3.connect(queue_path)
    left = connection.execute("SELECT idempotency_key FROM queued_events ORDER BY id").fetchall()
    connection.close()
    assert [row[0] for row in left] == keys[1::2]


def test_a_lost_acknowledgement_costs_a_duplicate_and_no_event(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    collector.drop_next(1, store=True)
    with make(collector.endpoint, queue_path, start=False) as client:
        keys = client.track_many(Event("tick") for _ in range(10))
        assert client.flush(timeout=10).remaining == 0
    assert collector.keys == keys
    assert collector.duplicates == 10


# ---------------------------------------------------------------------- close


def test_close_delivers_what_it_can(collector: LoopbackCollector, queue_path: Path) -> None:
    client = make(collector.endpoint, queue_path)
    client.track("tick")
    client.close(timeout=10)
    assert collector.count == 1


def test_close_is_idempotent_and_ends_every_verb(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    client = make(collector.endpoint, queue_path)
    client.track("tick")
    client.close()
    client.close()
    for verb in (
        lambda: client.track("late"),
        lambda: client.track_many([Event("late")]),
        client.flush,
        client.health,
    ):
        with pytest.raises(ClientClosed, match="was closed"):
            verb()
    assert client.stats().acknowledged == 1


def test_close_without_a_server_is_quick_and_loses_nothing(queue_path: Path) -> None:
    client = make(closed_port(), queue_path, backoff_initial=60, backoff_max=60)
    for _ in range(100):
        client.track("tick")
    began = time.monotonic()
    client.close(timeout=2)
    assert time.monotonic() - began < 2.1
    assert rows_in(queue_path) == 100


def test_close_leaves_a_stuck_attempt_behind_and_the_file_stays_owned_until_it_ends(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    collector.pause()
    client = make(collector.endpoint, queue_path, batch_size=1, timeout=60)
    client.track("tick")
    assert collector.wait_for_held()
    began = time.monotonic()
    client.close(timeout=0.1)
    assert time.monotonic() - began < 1
    with make(collector.endpoint, queue_path, start=False) as second:
        assert second.stats().queue_path.endswith("queue.1.db")
    collector.resume()
    assert client._ended is not None
    assert client._ended.sender.wait_until_ended(10)
    with make(collector.endpoint, queue_path, start=False) as third:
        assert third.stats().queue_path == str(queue_path)
        assert third.stats().pending == 0  # the answer was still heard
    assert collector.duplicates == 0


def test_a_flush_in_another_thread_ends_when_the_client_closes(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    collector.respond(503, b"", {"Retry-After": "3000"})
    client = make(collector.endpoint, queue_path, max_retries=100, backoff_max=300)
    client.track("tick")
    reports = []
    flushing = threading.Thread(target=lambda: reports.append(client.flush()))
    flushing.start()
    assert collector.wait_for_requests(1)
    client.close(timeout=1)
    flushing.join(timeout=10)
    assert not flushing.is_alive()
    assert reports[0].remaining == 1


def test_a_forgotten_client_lets_go_of_its_file_and_thread(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    collector.down()
    client = make(collector.endpoint, queue_path)
    client.track("tick")
    assert client._pipeline is not None
    sender = client._pipeline.sender
    del client
    gc.collect()
    assert sender.wait_until_ended(10)
    collector.up()
    with make(collector.endpoint, queue_path) as second:
        assert second.stats().queue_path == str(queue_path)
        assert collector.wait_for(1)


def test_without_a_thread_nothing_is_sent_until_flush(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    before = threading.active_count()
    with make(collector.endpoint, queue_path, start=False, batch_size=1) as client:
        for _ in range(10):
            client.track("tick")
        assert threading.active_count() == before
        assert collector.received == 0
        assert client.flush().delivered == 10


def test_two_threads_may_flush_at_once_with_and_without_a_sender_thread(
    collector: LoopbackCollector, tmp_path: Path
) -> None:
    for start in (True, False):
        with make(collector.endpoint, tmp_path / str(start) / "queue.db", start=start) as client:
            client.track_many(Event("tick") for _ in range(300))
            reports = []
            threads = [
                threading.Thread(target=lambda: reports.append(client.flush(timeout=20)))  # noqa: B023 - joined below
                for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [report.remaining for report in reports] == [0, 0]
            assert [report.error for report in reports] == [None, None]
    assert collector.duplicates == 0
    assert collector.count == 600


# ---------------------------------------------------------------------- options


def test_disabled_accepts_every_call_and_does_nothing(tmp_path: Path) -> None:
    with Client(enabled=False, queue_path=tmp_path / "no" / "queue.db") as client:
        assert client.track("x", {"a": object()}) is None
        assert client.track_many([Event("x")]) is None
        assert client.flush().remaining == 0
        assert client.stats().tracked == 0
        assert client.health().ok
        assert repr(client) == "<Client disabled>"
    assert not (tmp_path / "no").exists()


def test_config_and_single_options_do_not_mix() -> None:
    config = Config(api_key="k", endpoint="http://127.0.0.1", app_id="a")
    with pytest.raises(ConfigError, match="not both"):
        Client(config=config, batch_size=1)


def test_a_config_object_is_used_as_it_is(collector: LoopbackCollector, queue_path: Path) -> None:
    config = Config(api_key=KEY, endpoint=collector.endpoint, app_id="a", queue_path=queue_path)
    with Client(config=config) as client:
        assert client.config is config


def test_the_environment_gives_what_arguments_do_not(
    collector: LoopbackCollector, queue_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSALITY_API_KEY", KEY)
    monkeypatch.setenv("CAUSALITY_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("CAUSALITY_APP_ID", "from-environment")
    monkeypatch.setenv("CAUSALITY_QUEUE_PATH", str(queue_path))
    with Client() as client:
        client.track("tick")
        client.flush(timeout=10)
    assert collector.events[0]["app_id"] == "from-environment"
    assert queue_path.exists()


def test_reject_raises_at_the_cap_and_queues_nothing(queue_path: Path) -> None:
    options: dict[str, Any] = {"start": False, "overflow": "reject", "max_queue_events": 3}
    with make(closed_port(), queue_path, **options) as client:
        for _ in range(3):
            client.track("tick")
        with pytest.raises(QueueFull, match="max_queue_events is 3"):
            client.track("one too many")
        with pytest.raises(QueueFull):
            client.track_many([Event("one too many")])
        assert client.stats().pending == 3


def test_drop_oldest_keeps_the_newest_and_counts(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    with make(collector.endpoint, queue_path, start=False, max_queue_events=3) as client:
        keys = [client.track("tick") for _ in range(10)]
        stats = client.stats()
        assert stats.evicted is not None
        assert stats.evicted["max_queue_events"] == 7
        assert stats.tracked == 10 == 7 + stats.pending
        client.flush()
    assert collector.keys == keys[-3:]


def test_memory_fallback_is_loud_and_delivers(
    collector: LoopbackCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "queue.db").write_text("not a database at all, but somebody's text")
    errors: list[Exception] = []
    with pytest.raises(QueueError, match="not a causality queue"):
        make(collector.endpoint, tmp_path / "queue.db")
    with make(
        collector.endpoint, tmp_path / "queue.db", fallback="memory", on_error=errors.append
    ) as client:
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert "MEMORY ONLY" in caplog.text
        assert isinstance(errors[0], QueueError)
        key = client.track("tick")
        assert client.flush(timeout=10).delivered == 1
    assert collector.keys == [key]
    assert (tmp_path / "queue.db").read_text().startswith("not a database")


def test_the_queue_of_another_destination_is_left_alone_and_named(
    collector: LoopbackCollector, queue_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with make(closed_port(), queue_path, api_key="production") as production:
        production.track("precious")
    with make(collector.endpoint, queue_path) as trial:
        assert trial.stats().pending == 0
        assert trial.stats().queue_path.endswith("queue.1.db")
        trial.flush(timeout=10)
    assert collector.count == 0
    assert rows_in(queue_path) == 1
    assert str(queue_path) in caplog.text


def test_two_clients_of_one_app_work_side_by_side(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    with (
        make(collector.endpoint, queue_path) as first,
        make(collector.endpoint, queue_path) as second,
    ):
        keys = [client.track("tick") for client in (first, second)]
        assert first.flush(timeout=10).remaining == second.flush(timeout=10).remaining == 0
        assert first.stats().queue_path != second.stats().queue_path
    assert sorted(collector.keys) == sorted(key for key in keys if key)


def test_trouble_of_the_machine_gives_none_and_is_written_before_anything_newer(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    errors: list[Exception] = []
    told = threading.Event()

    def on_error(error: Exception) -> None:
        errors.append(error)
        told.set()

    with make(collector.endpoint, queue_path, on_error=on_error) as client:
        locker = sqlite3.connect(queue_path, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")  # another program holds the file, as a full disk would
        assert client.track("buffered") is None
        assert client.stats().buffered == 1
        locker.execute("ROLLBACK")
        locker.close()
        assert client.track("after") is not None
        assert client.stats().buffered == 0
        assert client.flush(timeout=10).remaining == 0
        assert told.wait(10)
    assert [event["event_type"] for event in collector.events] == ["buffered", "after"]
    assert isinstance(errors[0], QueueError)
    assert str(queue_path) in str(errors[0])


def test_strict_raises_the_trouble_of_the_machine(queue_path: Path) -> None:
    with make(closed_port(), queue_path, strict=True, start=False) as client:
        locker = sqlite3.connect(queue_path, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueError, match="cannot be written"):
            client.track("tick")
        locker.execute("ROLLBACK")
        locker.close()
        assert client.track("tick") is not None


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_directory_and_file_are_for_this_user_alone(queue_path: Path) -> None:
    with make(closed_port(), queue_path, start=False) as client:
        client.track("tick")
        assert queue_path.parent.stat().st_mode & 0o777 == 0o700
        for file in queue_path.parent.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600, file


def test_health_tells_how_the_server_is(collector: LoopbackCollector, queue_path: Path) -> None:
    with make(collector.endpoint, queue_path) as client:
        health = client.health(timeout=10)
        assert (health.ok, health.status, health.error) == (True, 200, None)
        collector.down()
        health = client.health(timeout=10)
        assert not health.ok
        assert isinstance(health.error, TransportError)


def test_the_api_key_is_in_nothing_that_is_printed(
    collector: LoopbackCollector, queue_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    errors: list[Exception] = []
    collector.respond(401, b"bad key")
    with make(
        collector.endpoint, queue_path, batch_size=1, on_error=errors.append, max_retries=0
    ) as client:
        client.track("tick")
        report = client.flush(timeout=10)
        said = [repr(client), repr(client.config), repr(client.stats()), repr(report)]
    said += [repr(error) + str(error) for error in errors] + [caplog.text]
    for name in ("queue.db", "queue.db.lock", "queue.db-wal"):
        file = queue_path.with_name(name)
        said.append(file.read_bytes().decode("latin-1") if file.exists() else "")
    assert "401" in str(report.error)
    assert KEY not in "\n".join(said)


def test_close_writes_what_the_disk_did_not_take_before(queue_path: Path) -> None:
    client = make(closed_port(), queue_path, start=False)
    locker = sqlite3.connect(queue_path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    assert client.track("buffered") is None
    locker.execute("ROLLBACK")
    locker.close()
    client.close()
    assert rows_in(queue_path) == 1
    assert client.stats().buffer_dropped == 0


def test_the_sender_writes_the_buffer_by_itself_once_the_disk_is_back(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    with make(collector.endpoint, queue_path, flush_interval=0.05) as client:
        locker = sqlite3.connect(queue_path, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        assert client.track("buffered") is None
        locker.execute("ROLLBACK")
        locker.close()
        assert collector.wait_for(1)


@pytest.mark.parametrize("start", [True, False])
def test_close_is_in_time_while_another_program_has_the_file_locked(
    queue_path: Path, start: bool
) -> None:
    """A write waits two seconds for another program; close() has no more than it was given."""
    client = make("http://127.0.0.1:9", queue_path, start=start)
    client.track("first")
    assert client._pipeline is not None
    with closing(sqlite3.connect(queue_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        client._pipeline.buffer.keep([b"{}"])
        client._pipeline.sender.wake()  # it may be waiting for the file itself
        began = time.monotonic()
        client.close(timeout=0.2)
        assert time.monotonic() - began < 1.5
        assert client.stats().buffer_dropped == 1


def test_what_the_disk_never_took_is_counted_and_logged_at_the_end(
    queue_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = make(closed_port(), queue_path, start=False)
    locker = sqlite3.connect(queue_path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    assert client.track("buffered") is None
    client.close(timeout=0)
    assert client.stats().buffer_dropped == 1
    assert client.stats().buffered == 0
    assert "1 events are lost" in caplog.text
    locker.execute("ROLLBACK")
    locker.close()


def test_an_empty_queue_follows_a_new_api_key(
    collector: LoopbackCollector, queue_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with make(collector.endpoint, queue_path) as client:
        client.track("tick")
        client.flush(timeout=10)
    with make(collector.endpoint, queue_path, api_key="the-next-key", start=False) as client:
        assert client.stats().queue_path == str(queue_path)
        assert client.stats().acknowledged == 1
    assert caplog.text == ""


def test_a_program_that_delivers_a_backlog_and_ends_at_once_leaves_a_small_file(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    with make(collector.endpoint, queue_path, start=False) as client:
        client.track_many(Event("tick", {"text": "x" * 500}) for _ in range(20_000))
        grown = queue_path.stat().st_size
        assert client.flush(timeout=60).remaining == 0
    assert grown > 5_000_000
    assert queue_path.stat().st_size < 2_000_000


@pytest.mark.parametrize("start", [True, False])
def test_a_hook_that_flushes_or_asks_for_health_does_not_wait_for_itself(
    collector: LoopbackCollector, queue_path: Path, start: bool
) -> None:
    said: list[Any] = []

    def on_delivered(_details: object) -> None:
        said.append(client.flush().error)
        said.append(client.health().error)

    with make(collector.endpoint, queue_path, start=start, on_delivered=on_delivered) as client:
        client.track("tick")
        assert client.flush(timeout=10).remaining == 0
    assert "wait for itself" in str(said[0])
    assert isinstance(said[1], TransportError)
