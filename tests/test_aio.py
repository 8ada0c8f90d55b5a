"""AsyncClient: the verbs on an event loop, which is never held up by the disk, the network, an end.

`longest_stall` measures the loop: how late its timer was at worst. `STALL` is above what a busy
machine does to a loop that is not held up, and below the 2 seconds and more of what is tested.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from causality_sdk import (
    Client,
    ClientClosed,
    ConfigError,
    Event,
    EventError,
    QueueError,
    QueueFull,
    TransportError,
)
from causality_sdk.aio import AsyncClient
from causality_sdk.committer import Committer
from causality_sdk.replies import Reply
from causality_sdk.testing import LoopbackCollector

KEY = "secret-key-7f3a"
STALL = 1.0  # seconds
T = TypeVar("T")


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as running:
        yield running


@pytest.fixture
def queue_path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "queue.db"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """What a client began ends with it, in every test here."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("causality-")]
    for thread in set(ours) - before:
        thread.join(20)
        assert not thread.is_alive(), f"{thread.name} is left"


def make(endpoint: str, queue_path: Path, **options: Any) -> AsyncClient:
    defaults: dict[str, Any] = {
        "api_key": KEY,
        "endpoint": endpoint,
        "app_id": "tests",
        "queue_path": queue_path,
        "backoff_initial": 0.01,
        "backoff_max": 0.05,
    }
    return AsyncClient(**{**defaults, **options})


def nowhere() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


def rows_in(path: Path) -> list[str]:
    """The event types in the queue, in order."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT json_extract(CAST(payload AS TEXT), '$.event_type') FROM queue ORDER BY id"
        return [row[0] for row in connection.execute(query)]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program holds the file's write lock."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


class Watch:
    """Wakes every 5 ms and remembers by how much it was late at worst."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        while True:
            due = time.perf_counter() + 0.005
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, time.perf_counter() - due)


@asynccontextmanager
async def longest_stall() -> AsyncIterator[Watch]:
    watch = Watch()
    task = asyncio.create_task(watch.run())
    try:
        yield watch
        await asyncio.sleep(0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def seconds(work: Awaitable[T]) -> tuple[float, T]:
    started = time.monotonic()
    result = await work
    return time.monotonic() - started, result


# ---------------------------------------------------------------------- the verbs


def test_the_verbs_are_those_of_a_client(collector: LoopbackCollector, queue_path: Path) -> None:
    async def program() -> None:
        async with make(collector.endpoint, queue_path, batch_size=1000) as client:
            one = await client.track("one", {"n": 1}, user_id="u-1")
            two = await client.track(Event("two", {"n": 2}))
            many = await client.track_many([Event(f"many-{n}") for n in range(120)])
            assert many is not None
            report = await client.flush(timeout=10)
            assert (report.delivered, report.remaining, report.error) == (122, 0, None)
            assert collector.keys == [one, two, *many]
            assert (await client.health(timeout=5)).ok
            assert await client.dead_letters.count() == 0
            stats = await client.stats()
            assert (stats.tracked, stats.acknowledged, stats.pending) == (122, 122, 0)
            assert "open" in repr(client)
            assert KEY not in repr(client)
        assert (await client.stats()).acknowledged == 122

    asyncio.run(program())


def test_the_background_delivers(collector: LoopbackCollector, queue_path: Path) -> None:
    async def program() -> None:
        async with make(collector.endpoint, queue_path, batch_size=3) as client:
            await asyncio.gather(*[client.track("x") for _ in range(3)])
            waiting = asyncio.get_running_loop().run_in_executor(None, collector.wait_for, 3)
            assert await asyncio.wait_for(waiting, 10)

    asyncio.run(program())


def test_a_returned_key_means_committed(queue_path: Path) -> None:
    async def program() -> None:
        async with make(nowhere(), queue_path, start=False) as client:
            for count in range(1, 4):
                assert await client.track("x") is not None
                assert len(rows_in(queue_path)) == count

    asyncio.run(program())


def test_it_needs_no_event_loop_and_no_file_until_it_is_used(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    client = make(collector.endpoint, queue_path)
    assert not queue_path.exists()
    assert "not open yet" in repr(client)

    async def program() -> None:
        assert await client.track("first") is not None
        await client.close()

    asyncio.run(program())
    assert collector.count == 1


def test_one_client_serves_one_event_loop_after_the_other(queue_path: Path) -> None:
    client = make(nowhere(), queue_path, start=False)

    async def program(name: str) -> None:
        assert await client.track(name) is not None

    asyncio.run(program("one"))
    asyncio.run(program("two"))
    asyncio.run(client.close(timeout=0))
    assert rows_in(queue_path) == ["one", "two"]


def test_several_event_loops_in_several_threads_share_a_client(queue_path: Path) -> None:
    client = make(nowhere(), queue_path, start=False)

    async def program(name: str) -> None:
        for _ in range(50):
            assert await client.track(name) is not None

    threads = [
        threading.Thread(target=lambda n=n: asyncio.run(program(f"loop-{n}"))) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    asyncio.run(client.close(timeout=0))
    assert sorted(rows_in(queue_path)) == sorted(f"loop-{n}" for n in range(3) for _ in range(50))


def test_a_disabled_client_accepts_everything_and_does_nothing(queue_path: Path) -> None:
    async def program() -> None:
        async with make(nowhere(), queue_path, enabled=False) as client:
            assert await client.track("x") is None
            assert await client.track_many([Event("x")]) is None
            assert (await client.flush()).delivered == 0
            assert (await client.stats()).tracked == 0
            assert (await client.health()).ok
            assert await client.dead_letters.count() == 0
            assert "disabled" in repr(client)
        assert not queue_path.exists()

    asyncio.run(program())


def test_dead_letters_are_read_put_back_and_deleted(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    async def program() -> None:
        collector.accept_only(lambda _, event: event["event_type"] != "bad")
        async with make(collector.endpoint, queue_path) as client:
            for _ in range(5):
                await client.track("bad")
                await client.track("good")
                await client.flush(timeout=5)
                if await client.dead_letters.count() >= 2:
                    break
            letters = [letter async for letter in client.dead_letters]
            assert len(letters) >= 2
            assert {letter.event["event_type"] for letter in letters} == {"bad"}
            assert await client.dead_letters.page(limit=1) == letters[:1]
            assert await client.dead_letters.delete(letters[:1]) == 1
            collector.respond_normally()
            assert await client.dead_letters.requeue() == len(letters) - 1
            await client.flush(timeout=5)
            assert letters[1].idempotency_key in collector.keys

    asyncio.run(program())


# ---------------------------------------------------------------------- order, and sharing a commit


def test_events_are_queued_in_the_order_of_the_calls(queue_path: Path) -> None:
    async def program() -> None:
        async with make(nowhere(), queue_path, start=False, close_timeout=0) as client:
            await asyncio.gather(*[client.track(f"e-{n:04}") for n in range(1000)])
            await client.track("after")
        assert rows_in(queue_path) == [*(f"e-{n:04}" for n in range(1000)), "after"]

    asyncio.run(program())


class Counting(Client):
    """Counts the events of each commit, and begins none before it may."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begun = threading.Event()
        self.may_commit = threading.Event()
        self.commits: list[int] = []

    def _commit(self, payloads: list[bytes]) -> bool:
        self.begun.set()
        assert self.may_commit.wait(10)
        self.commits.append(len(payloads))
        return super()._commit(payloads)


def test_what_waits_shares_a_commit_and_a_megabyte_ends_it(queue_path: Path) -> None:
    config = make(nowhere(), queue_path, start=False, close_timeout=0).config
    counting = Counting(config=config)
    committer = Committer(lambda: counting)

    async def program() -> None:
        replies = [Reply() for _ in range(104)]
        committer.commit([b"{}"], replies[0])
        await asyncio.to_thread(counting.begun.wait, 10)
        for reply in replies[1:101]:
            committer.commit([b"{}"], reply)
        for reply, size in zip(replies[101:], (600_000, 600_000, 2_000_000), strict=True):
            committer.commit([b"x" * size], reply)
        end = Reply()
        committer.close(0, end)
        counting.may_commit.set()
        assert all(await asyncio.gather(*[reply.future for reply in replies]))
        await end.future

    asyncio.run(program())
    assert counting.commits == [1, 101, 1, 1]


def test_an_event_that_does_not_fit_into_the_group_follows_in_the_next(queue_path: Path) -> None:
    """Groups are cut at 1 MiB; what is larger goes alone, and nothing is lost at the cut."""

    async def program() -> None:
        async with make(
            nowhere(), queue_path, start=False, close_timeout=0, max_event_bytes=2**22
        ) as client:
            sizes = [600_000, 600_000, 10, 2_000_000, 10, 600_000]
            events = [client.track(f"e{n}", {"x": "x" * size}) for n, size in enumerate(sizes)]
            await asyncio.gather(*events, client.track_many([Event("m1"), Event("m2")]))
        assert rows_in(queue_path) == ["e0", "e1", "e2", "e3", "e4", "e5", "m1", "m2"]

    asyncio.run(program())


# ---------------------------------------------------------------------- errors


def test_a_wrong_option_raises_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        make(nowhere(), tmp_path, batch_size=0)
    with pytest.raises(ConfigError, match="not both"):
        AsyncClient(config=make(nowhere(), tmp_path).config, batch_size=1)


def test_a_bad_event_raises_where_it_is_tracked_and_the_others_go_on(queue_path: Path) -> None:
    async def program() -> None:
        async with make(nowhere(), queue_path, start=False, close_timeout=0) as client:
            results = await asyncio.gather(
                client.track("good"),
                client.track("bad", {"price": object()}),
                client.track(""),
                client.track(Event("x"), {"beside": 1}),
                client.track("good"),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [str, *[EventError] * 3, str]
            with pytest.raises(EventError, match="event 1: "):
                await client.track_many([Event("good"), Event("bad", {"x": object()})])
            with pytest.raises(EventError, match="for one event use track"):
                await client.track_many(Event("good"))  # type: ignore[arg-type]
            with pytest.raises(EventError, match="multiply it by 1000"):
                await client.track("good", timestamp=1_700_000_000)
            with pytest.raises(EventError, match="item 0 is a str"):
                await client.track_many(["good"])  # type: ignore[list-item]
        assert rows_in(queue_path) == ["good", "good"]

    asyncio.run(program())


def test_at_the_cap_under_reject_the_first_ones_fit_and_the_rest_raise(queue_path: Path) -> None:
    async def program() -> None:
        async with make(
            nowhere(),
            queue_path,
            start=False,
            close_timeout=0,
            overflow="reject",
            max_queue_events=5,
        ) as client:
            results = await asyncio.gather(
                *[client.track(f"e{n}") for n in range(8)], return_exceptions=True
            )
            assert [type(result) for result in results] == [*[str] * 5, *[QueueFull] * 3]
        assert rows_in(queue_path) == ["e0", "e1", "e2", "e3", "e4"]

    asyncio.run(program())


def test_a_queue_that_cannot_be_opened_raises_until_it_can(tmp_path: Path) -> None:
    blocker = tmp_path / "state"
    blocker.write_text("a file where a directory should be")

    async def program() -> None:
        client = make(nowhere(), blocker / "queue.db", start=False)
        with pytest.raises(QueueError, match="state"):
            async with client:
                pytest.fail("it must not get here")
        with pytest.raises(QueueError):
            await client.track("x")
        blocker.unlink()
        assert await client.track("x") is not None
        await client.close(timeout=0)

    asyncio.run(program())


def test_a_disk_that_refuses_is_none_or_under_strict_an_error_for_each(queue_path: Path) -> None:
    async def program(client: AsyncClient, events: int) -> list[Any]:
        async with client:
            with locked(queue_path):
                tasks = [client.track(f"e{n}") for n in range(events)]
                return list(await asyncio.gather(*tasks, return_exceptions=True))

    strict = make(nowhere(), queue_path, start=False, strict=True, close_timeout=0)
    errors = asyncio.run(program(strict, 3))
    assert [type(error) for error in errors] == [QueueError] * 3
    assert len({id(error) for error in errors}) == 3
    assert all("locked" in str(error) for error in errors)
    assert rows_in(queue_path) == []
    kept = make(nowhere(), queue_path, start=False, close_timeout=0.5)
    assert asyncio.run(program(kept, 1)) == [None]
    assert rows_in(queue_path) == ["e0"]  # from memory, as soon as the disk took it


def test_a_closed_client_raises(queue_path: Path) -> None:
    async def program() -> None:
        client = make(nowhere(), queue_path, start=False)
        async with client:
            pass
        await client.close()
        verbs: list[Callable[[], Awaitable[object]]] = [
            lambda: client.track("x"),
            lambda: client.track_many([Event("x")]),
            client.flush,
            client.health,
            client.open,
            client.dead_letters.count,
        ]
        for verb in verbs:
            with pytest.raises(ClientClosed):
                await verb()

    asyncio.run(program())


def test_a_client_that_was_never_opened_closes_without_a_file(queue_path: Path) -> None:
    async def program() -> None:
        client = make(nowhere(), queue_path)
        await client.close()
        with pytest.raises(ClientClosed):
            await client.stats()

    asyncio.run(program())
    assert not queue_path.exists()


# ---------------------------------------------------------------------- cancelling


def test_a_cancelled_track_is_committed_once_and_the_order_stays(queue_path: Path) -> None:
    async def program() -> None:
        async with make(nowhere(), queue_path, start=False, close_timeout=0) as client:
            await client.open()
            with locked(queue_path):
                tasks = [asyncio.create_task(client.track(f"e{n}")) for n in range(10)]
                await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                cancelled = await asyncio.gather(*tasks[::2], return_exceptions=True)
                assert all(isinstance(each, asyncio.CancelledError) for each in cancelled)
            assert all(await asyncio.gather(*tasks[1::2]))
        assert rows_in(queue_path) == [f"e{n}" for n in range(10)]

    asyncio.run(program())


def test_a_track_with_a_timeout_gives_up_in_time_while_the_disk_is_stuck(queue_path: Path) -> None:
    async def program() -> None:
        async with make(nowhere(), queue_path, start=False, close_timeout=0) as client:
            await client.open()
            with locked(queue_path):
                started = time.monotonic()
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(client.track("x"), 0.05)
                assert time.monotonic() - started < 0.05 + STALL
            assert (await client.track("y")) is not None
        assert rows_in(queue_path) == ["x", "y"]

    asyncio.run(program())


def test_cancelled_while_it_encodes_track_many_queues_nothing(queue_path: Path) -> None:
    async def program() -> None:
        async with make(nowhere(), queue_path, start=False, close_timeout=0) as client:
            many = client.track_many([Event("x") for _ in range(1000)])
            task = asyncio.create_task(many)
            await asyncio.sleep(0)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(result, asyncio.CancelledError)
            await client.track("after")
        assert rows_in(queue_path) == ["after"]

    asyncio.run(program())


def test_a_program_that_ends_with_a_cancelled_track_under_way_has_committed_it(
    queue_path: Path,
) -> None:
    """Nothing awaits it, nothing closes the client: the exit waits for the disk."""
    script = (
        "import asyncio, sys\n"
        "from causality_sdk.aio import AsyncClient\n"
        f"client = AsyncClient(api_key='k', endpoint={nowhere()!r}, app_id='tests',\n"
        f"    queue_path={str(queue_path)!r}, start=False)\n"
        "async def main():\n"
        "    await client.open()\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    asyncio.ensure_future(client.track('last'))\n"
        "    await asyncio.sleep(0)\n"
        "asyncio.run(main())\n"
        "print('over', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline() == "open\n"
        with locked(queue_path):
            program.stdin.write("\n")
            program.stdin.flush()
            assert program.stdout.readline() == "over\n"
        assert "Traceback" not in program.stderr.read()
    assert program.returncode == 0
    assert rows_in(queue_path) == ["last"]


# ---------------------------------------------------------------------- the loop is never held up


def test_a_hung_server_does_not_hold_up_the_loop(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    async def program() -> float:
        collector.pause()
        options = {"timeout": 10, "batch_size": 1, "close_timeout": 2}
        client = make(collector.endpoint, queue_path, **options)
        async with longest_stall() as watch, client:
            assert await client.track("first")
            flush = asyncio.create_task(client.flush(timeout=2))
            health = asyncio.create_task(client.health(timeout=2))
            assert all([await client.track("x") for _ in range(299)])
            assert not flush.done(), "track() waited for the flush"
            assert (await flush).remaining == 300
            assert isinstance((await health).error, TransportError)
        return watch.worst

    assert asyncio.run(program()) < STALL


def test_a_locked_disk_does_not_hold_up_the_loop(queue_path: Path) -> None:
    """Opening, committing, counting and closing while another program holds the file."""

    async def program() -> tuple[float, float]:
        async with longest_stall() as watch:
            client = make(nowhere(), queue_path, close_timeout=0.3)
            await client.open()
            with locked(queue_path):
                verbs: list[Awaitable[Any]] = [
                    client.track("x"),
                    client.track_many([Event("y"), Event("z")]),
                    client.stats(),
                    client.dead_letters.count(),
                    client.flush(timeout=0.2),
                ]
                await asyncio.gather(*verbs)
                took, _ = await seconds(client.close())
        return watch.worst, took

    stall, took = asyncio.run(program())
    assert stall < STALL
    assert took < 0.3 + STALL


def test_opening_does_not_hold_up_the_loop(queue_path: Path) -> None:
    """It takes until another task has run; on the loop that would be for ever."""
    ran = threading.Event()
    config = make(nowhere(), queue_path, start=False).config

    def open_client() -> Client:
        assert ran.wait(10), "the loop was held up"
        return Client(config=config)

    async def program() -> None:
        committer = Committer(open_client)
        opened, end = Reply(), Reply()
        committer.commit([], opened)
        asyncio.get_running_loop().call_later(0.01, ran.set)
        assert await opened.future
        committer.close(0, end)
        await end.future

    asyncio.run(program())


def test_encoding_many_events_gives_way_to_other_tasks(queue_path: Path) -> None:
    async def program() -> int:
        async with make(nowhere(), queue_path, start=False, close_timeout=0) as client:
            tracking = client.track_many([Event("x") for _ in range(2000)])
            many = asyncio.create_task(tracking)
            turns = 0
            while not many.done():
                await asyncio.sleep(0)
                turns += 1
            assert await many is not None
            return turns

    assert asyncio.run(program()) >= 2000 // 50


# ---------------------------------------------------------------------- closing


def test_closing_with_the_server_away_is_bounded_and_keeps_the_events(queue_path: Path) -> None:
    async def program() -> tuple[float, float]:
        client = make(nowhere(), queue_path, close_timeout=5, backoff_initial=30, backoff_max=60)
        await client.track("kept")
        async with longest_stall() as watch:
            took, _ = await seconds(client.close(timeout=0.5))
        return watch.worst, took

    stall, took = asyncio.run(program())
    assert stall < STALL
    assert took < 0.5 + STALL
    assert rows_in(queue_path) == ["kept"]


def test_closing_with_a_hung_server_is_bounded(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    async def program() -> tuple[float, float]:
        collector.pause()
        client = make(collector.endpoint, queue_path, timeout=10, batch_size=1)
        await client.track("kept")
        assert await asyncio.to_thread(collector.wait_for_held, 1, timeout=10)
        async with longest_stall() as watch:
            took, _ = await seconds(client.close(timeout=2))
        collector.resume()
        return watch.worst, took

    stall, took = asyncio.run(program())
    assert stall < STALL
    assert took < 2 + STALL


def test_closing_commits_what_was_handed_over(queue_path: Path) -> None:
    async def program() -> None:
        client = make(nowhere(), queue_path, start=False)
        tasks = [asyncio.create_task(client.track(f"e{n}")) for n in range(20)]
        await asyncio.sleep(0)
        await client.close(timeout=0)
        assert all(await asyncio.gather(*tasks))
        assert rows_in(queue_path) == [f"e{n}" for n in range(20)]

    asyncio.run(program())


def test_a_cancelled_close_closes_all_the_same(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    async def program() -> None:
        client = make(collector.endpoint, queue_path)
        await client.track("x")
        closing_task = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        closing_task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing_task
        assert await asyncio.to_thread(collector.wait_for, 1)
        with pytest.raises(ClientClosed):
            await client.track("y")

    asyncio.run(program())


def test_an_exception_leaves_the_block_and_the_client_is_closed(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    async def program() -> None:
        async with make(collector.endpoint, queue_path) as client:
            await client.track("x")
            raise KeyError("of the program")

    with pytest.raises(KeyError, match="of the program"):
        asyncio.run(program())
    assert collector.count == 1


def test_a_forgotten_client_lets_go_of_its_file(queue_path: Path) -> None:
    endpoint = nowhere()

    async def program() -> None:
        await make(endpoint, queue_path, start=False).track("kept")

    asyncio.run(program())
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "causality-committer":
            thread.join(10)
    gc.collect()

    async def heir() -> str | None:
        async with make(endpoint, queue_path, start=False, close_timeout=0) as client:
            return (await client.stats()).queue_path

    assert asyncio.run(heir()) == str(queue_path)


def test_a_program_that_ends_without_a_close_delivers(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    script = (
        "import asyncio\n"
        "from causality_sdk.aio import AsyncClient\n"
        f"client = AsyncClient(api_key={KEY!r}, endpoint={collector.endpoint!r}, app_id='tests',\n"
        f"    queue_path={str(queue_path)!r})\n"
        "asyncio.run(client.track('x'))\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Not empty on a busy machine: in development mode asyncio tells of slow steps.
    assert "Traceback" not in result.stderr
    assert result.returncode == 0
    assert collector.count == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_client_that_was_made_and_not_used_before_a_fork_works_in_the_child(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    """A web server that loads the application before it forks its workers."""
    script = (
        "import asyncio, os, sys\n"
        "from causality_sdk.aio import AsyncClient\n"
        f"client = AsyncClient(api_key={KEY!r}, endpoint={collector.endpoint!r}, app_id='tests',\n"
        f"    queue_path={str(queue_path)!r})\n"
        "async def main(name):\n"
        "    async with client:\n"
        "        await client.track(name)\n"
        "child = os.fork()\n"
        "asyncio.run(main('parent' if child else 'child'))\n"
        "if child:\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)
    assert sorted(event["event_type"] for event in collector.events) == ["child", "parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_client_that_is_open_goes_on_in_parent_and_child_after_a_fork(
    collector: LoopbackCollector, queue_path: Path
) -> None:
    """The committer's thread does not come along; the child gets one, and a file, of its own."""
    script = (
        "import asyncio, os, sys\n"
        "from causality_sdk.aio import AsyncClient\n"
        f"client = AsyncClient(api_key={KEY!r}, endpoint={collector.endpoint!r}, app_id='tests',\n"
        f"    queue_path={str(queue_path)!r})\n"
        "async def end(name):\n"
        "    assert await client.track(name)\n"
        "    await client.close()\n"
        "asyncio.run(client.track('before'))\n"
        "child = os.fork()\n"
        "asyncio.run(end('parent' if child else 'child'))\n"
        "if child:\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    # Python 3.12 and later warn of a fork beside threads, which is what this is about.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    subprocess.run(command, check=True, timeout=60)
    assert sorted(event["event_type"] for event in collector.events) == [
        "before",
        "child",
        "parent",
    ]
