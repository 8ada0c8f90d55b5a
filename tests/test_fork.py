"""Processes that really fork: both sides go on, each with a queue file of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_program import Program, run, unmeasured
from queue_files import drain, payloads, queue_files

from causality_sdk import ownership
from causality_sdk.event import Encoder
from causality_sdk.testing import LoopbackCollector

if not hasattr(os, "fork"):
    pytest.skip("nothing forks here", allow_module_level=True)

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc")
PROGRAMS = Path(__file__).parent / "programs"
TIMESTAMP_MS = 1_732_147_200_000  # as in programs/forks.py


# ------------------------------------------------------------------------------ under load


@pytest.mark.parametrize("durability", ["process", "power"])
def test_30_forks_under_load_neither_hang_nor_lose_nor_corrupt(
    tmp_path: Path, durability: str
) -> None:
    storm(tmp_path, forks=30, durability=durability, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("durability", ["process", "power"])
def test_500_forks_under_load_neither_hang_nor_lose_nor_corrupt(
    tmp_path: Path, durability: str
) -> None:
    storm(tmp_path, forks=500, durability=durability, seed=2)


def storm(directory: Path, *, forks: int, durability: str, seed: int) -> None:
    """Forks a process that does everything at once, and judges what all of them left."""
    queue, keys = directory / "queue", directory / "keys"
    keys.mkdir()
    with LoopbackCollector(api_key="test-key") as collector:
        program = subprocess.run(
            [
                *(sys.executable, str(PROGRAMS / "forks.py"), str(queue / "queue.db")),
                *(collector.endpoint, str(keys), str(forks), durability, str(seed)),
            ],
            capture_output=True,
            text=True,
            timeout=900,
            env=unmeasured(os.environ),
            check=False,
        )
        assert program.returncode == 0, program.stderr
        assert json.loads(program.stdout) == {"hung": 0, "failed": 0, "forks": forks}
        returned = [
            json.loads(line) for path in keys.iterdir() for line in path.read_text().splitlines()
        ]
        assert len({key for key, _, _ in returned}) == len(returned)
        assert len(list(keys.iterdir())) > forks // 2  # most children tracked
        drain(queue, "forks", collector.endpoint)
        arrived = collector.payloads
        encoder = Encoder("forks", max_event_bytes=10_000)
        for key, process, n in returned:
            _, payload = encoder.encode(
                "tick",
                {"process": process, "n": n},
                timestamp=TIMESTAMP_MS,
                idempotency_key=key,
            )
            assert arrived[key] == payload


# ------------------------------------------------------------------------------ whose is what


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    return tmp_path / "queue" / "queue.db"


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key="test-key") as collector:
        yield collector


def arrived(collector: LoopbackCollector) -> list[str]:
    """The event types that the collector has, sorted."""
    return sorted(event["event_type"] for event in collector.events)


def left(queue: Path) -> dict[str, int]:
    """How many events wait in each file that has some."""
    counts = {path.name: len(list(payloads(path))) for path in queue_files(queue.parent)}
    return {name: count for name, count in counts.items() if count}


def test_a_child_takes_a_file_and_starts_its_sender_with_its_first_event(
    queue: Path, collector: LoopbackCollector
) -> None:
    body = """
        def made():
            senders = [t.name for t in threading.enumerate() if t.name == "causality-sender"]
            return len(senders), len(list(QUEUE.parent.glob("queue*.db")))

        client = make(flush_interval=3600)
        client.track("parent")
        pid = os.fork()
        if not pid:
            before = made()
            client.track("child")
            os._exit(0 if (before, made()) == ((0, 1), (1, 2)) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """
    run(body, queue, collector.endpoint)


@linux
def test_the_child_neither_closes_nor_uses_what_the_parent_has_open(
    queue: Path, collector: LoopbackCollector
) -> None:
    body = """
        def open_files():
            found = []
            for entry in Path("/proc/self/fd").iterdir():
                try:
                    found.append((entry.name, os.readlink(entry)))
                except OSError:  # the directory's own
                    pass
            return {pair for pair in found if "/queue.db" in pair[1]}

        def positions():
            "What a read or a write by file descriptor would change."
            return [Path(f"/proc/self/fdinfo/{number}").read_text() for number, _ in sorted(held)]

        client = make(flush_interval=3600)
        client.track("parent")
        client._pipeline.queue.checkpoint()  # a third connection
        ours = open_files()
        held = {pair for pair in ours if not pair[1].endswith(".lock")}
        assert len(held) >= 6 and len(ours) == len(held) + 1, ours

        def child():
            assert open_files() == held, open_files()  # its copy of the lock is closed
            assert repr(client).endswith(" forked>") and client.stats().tracked == 0
            before = positions()
            gc.collect()
            client.track("child")
            client.track_many([Event("child"), Event("child")])
            assert name(client) == "queue.1.db"
            client.flush(timeout=20)
            client.close()
            gc.collect()
            assert open_files() == held
            assert positions() == before

        size = [(path, path.stat().st_size) for path in QUEUE.parent.glob("queue.db*")]
        assert fork(child) == 0
        assert [(path, path.stat().st_size) for path in QUEUE.parent.glob("queue.db*")] == size
        assert open_files() == ours
        client.track("parent")
        assert client.stats().pending == 2 and name(client) == "queue.db"
        client.close()
        """
    run(body, queue, collector.endpoint)
    assert arrived(collector) == ["child"] * 3 + ["parent"] * 2
    assert collector.duplicates == 0


def test_the_parents_lock_holds_while_the_child_lives_and_after_and_goes_with_the_parent(
    queue: Path, collector: LoopbackCollector
) -> None:
    body = """
        client = make(flush_interval=3600)
        client.track("parent")

        def first():
            client.track("first")
            client.close()

        assert fork(first) == 0
        print("after the first child", flush=True)
        if os.fork():
            while True:
                signal.pause()
        client.track("second")
        print("in the second child", flush=True)
        sys.stdin.readline()
        assert name(client) == "queue.1.db"
        again = make()  # the parent's file is free, but not for this process
        assert name(again) == "queue.2.db", name(again)
        again.close()
        client.track("second")
        os._exit(0)
        """
    program = Program(body, queue, collector.endpoint)
    for moment in ("after the first child", "in the second child"):
        assert program.line() == moment
        assert ownership.acquire(queue) is None, moment
    program.process.kill()
    program.process.wait()
    lease = ownership.acquire(queue)
    assert lease is not None
    lease.release()
    program.process.returncode = None  # the child still has the pipes
    program.tell("the parent is gone")
    out, err = program.process.communicate(timeout=60)
    assert (out, err) == ("", "")
    assert left(queue) == {"queue.db": 1, "queue.1.db": 2}
    drain(queue.parent, "child", collector.endpoint)
    assert arrived(collector) == ["first", "parent", "second", "second"]


def test_a_child_may_end_in_any_way(queue: Path, collector: LoopbackCollector) -> None:
    """With and without an event of its own, with and without close(); the parent goes on."""
    body = """
        def parents_end():
            print("the end of the parent")

        atexit.register(parents_end)
        client = make(flush_interval=3600)
        ways = {
            "os._exit": lambda: os._exit(0),
            "return": lambda: None,
            "sys.exit": lambda: sys.exit(0),
            "exception": lambda: 1 / 0,
        }
        pids = {}
        for way, end in ways.items():
            for tracks in (True, False):
                for closes in (True, False):
                    client.track("parent")
                    pid = os.fork()
                    if pid == 0:
                        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the traceback of 1 / 0
                        gc.collect()
                        if tracks:
                            assert client.track("child") is not None
                        if closes:
                            client.close()
                        # What ends now ends as the program would: the frames below, atexit, all.
                        atexit.unregister(parents_end)
                        end()
                        sys.exit(0)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    assert code == (way == "exception"), (way, tracks, closes, code)
        """
    assert run(body, queue, collector.endpoint) == "the end of the parent\n"
    drain(queue.parent, "child", collector.endpoint)
    assert arrived(collector) == ["child"] * 8 + ["parent"] * 16


def test_a_daemon_goes_on_where_its_parents_have_ended(
    queue: Path, collector: LoopbackCollector
) -> None:
    """The double fork of every daemon, with the client made too early."""
    body = """
        client = make(flush_interval=0.05)
        client.track("starter")
        if os.fork():
            os._exit(0)
        os.setsid()
        client.track("middle")
        if os.fork():
            os._exit(0)
        client.track("daemon")
        assert name(client) != "queue.db"
        client.track("daemon")
        sys.exit(0)  # sends what is left
        """
    run(body, queue, collector.endpoint)
    assert {"daemon"} <= set(arrived(collector))
    drain(queue.parent, "child", collector.endpoint)
    assert arrived(collector) == ["daemon", "daemon", "middle", "starter"]


# ------------------------------------------------------------------------------ odd moments


def test_a_hook_may_fork(queue: Path, collector: LoopbackCollector) -> None:
    """On the thread of the sender, in the middle of its step."""
    body = """
        parent, children, done = os.getpid(), [], threading.Event()

        def hook(_delivered):
            if os.getpid() != parent or children:
                return
            pid = os.fork()
            if pid == 0:
                assert client.track("child") is not None
                os._exit(0)
            children.append(pid)
            done.set()

        client = make(on_delivered=hook, batch_size=1)
        client.track("parent")
        assert done.wait(30)
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
        assert client.flush(timeout=30).remaining == 0
        client.track("parent")
        client.close()
        """
    run(body, queue, collector.endpoint)
    drain(queue.parent, "child", collector.endpoint)
    assert arrived(collector) == ["child", "parent", "parent"]


def test_a_hook_may_fork_where_flush_runs_it(queue: Path, collector: LoopbackCollector) -> None:
    """With start=False the child comes back from a flush() of its parent's, and goes on."""
    body = """
        parent, children = os.getpid(), []

        def hook(_delivered):
            if os.getpid() == parent and not children:
                children.append(os.fork())

        client = make(on_delivered=hook, start=False)
        client.track("parent")
        report = client.flush(timeout=30)
        if os.getpid() == parent:
            assert report.remaining == 0 and report.error is None, report
            assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
        else:
            assert client.track("child") is not None
            assert client.flush(timeout=30).delivered == 1
        """
    run(body, queue, collector.endpoint)
    assert arrived(collector) == ["child", "parent"]


def test_a_fork_while_the_sender_loads_what_it_needs_leaves_the_child_able_to_send(
    queue: Path, collector: LoopbackCollector
) -> None:
    """The sender loads its transport at the first attempt, which takes longer than most forks."""
    body = """
        class Gate:
            "Stands in for a slow disk: the sender is in the middle of the import when we fork."
            def find_spec(self, name, path=None, target=None):
                if name == "causality_sdk.transport.compression":
                    loading.set()
                    waited.wait(0.3)  # the fork must wait for us; nothing else ends this

        sys.meta_path.insert(0, Gate())
        loading, waited = threading.Event(), threading.Event()
        client = make(batch_size=1)
        client.track("parent")
        assert loading.wait(30)

        def child():
            client.track("child")
            assert client.flush(timeout=30).remaining == 0
            client.close()

        assert fork(child) == 0
        client.close()
        """
    run(body, queue, collector.endpoint)
    assert arrived(collector) == ["child", "parent"]


def test_forks_while_other_threads_make_and_close_clients(
    queue: Path, collector: LoopbackCollector
) -> None:
    body = """
        over = threading.Event()
        client = make()

        def make_and_close():
            while not over.is_set():
                other = make(close_timeout=0)
                other.track("other")
                other.close()

        threads = [threading.Thread(target=make_and_close) for _ in range(2)]
        for thread in threads:
            thread.start()

        def child():
            over.set()
            assert client.track("child") is not None
            with make(close_timeout=0) as own:
                assert own.track("own") is not None
                assert name(own) != name(client)

        assert [fork(child) for _ in range(12)] == [0] * 12
        over.set()
        for thread in threads:
            thread.join()
        client.close()
        """
    run(body, queue, collector.endpoint)
    drain(queue.parent, "child", collector.endpoint)
    counts = {kind: arrived(collector).count(kind) for kind in ("child", "own")}
    assert counts == {"child": 12, "own": 12}


# ------------------------------------------------------------------------------ signal handlers

HANDLER = """
import importlib

def interrupt(name):
    "The next call of `name` is interrupted by a signal, whose handler forks."
    module, holder, method = name.split(".")
    holder = getattr(importlib.import_module(f"causality_sdk.{module}"), holder)
    original = getattr(holder, method)

    def interrupted(*arguments, **options):
        setattr(holder, method, original)
        signal.raise_signal(signal.SIGUSR1)
        return original(*arguments, **options)

    setattr(holder, method, interrupted)

def files():
    "What is in the parent's file. No lock is lost with it: the child has none."
    names = ("queue.db", "queue.db-wal")  # -shm has notes of who reads, too
    return [QUEUE.with_name(name).read_bytes() for name in names]

def handler(*_):
    global before
    pid = os.fork()
    if pid:
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    else:
        before = files()

codes, before, parent = [], [], os.getpid()
signal.signal(signal.SIGUSR1, handler)
"""


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("durability", "moment"),
    [
        ("process", "snapshot.Snapshot.keep"),
        ("process", "transactions.Transaction.__enter__"),
        ("process", "transactions.Transaction.__exit__"),
        ("power", "transactions.Transaction.__exit__"),
        ("process", "snapshot.Snapshot.let_go"),
        ("process", "wal.Wal._restart_locked"),
        ("process", "connections.sqlite3.connect"),
    ],
)
def test_a_child_that_comes_back_into_a_call_of_its_parents_does_not_write_there(
    queue: Path, collector: LoopbackCollector, durability: str, moment: str, strict: bool
) -> None:
    """A signal handler forked in the middle of it. The parent finishes the call."""
    body = f"""
        import logging
        logging.getLogger("causality_sdk").setLevel(logging.CRITICAL)
        moment = {moment!r}
        client = make(start=False, durability={durability!r}, strict={strict})
        keys = [client.track("early")]
        client.stats()  # reads, so the next track() takes a new snapshot
        if moment.startswith(("wal", "connections")) or moment.endswith("let_go"):
            # The next track() checkpoints.
            wal = client._pipeline.queue.wal
            wal.dirty_since = wal.track_at = time.monotonic() - 10
        interrupt(moment)
        try:
            if moment.startswith("transactions") and {durability!r} == "process":
                made = client.track_many([Event("interrupted") for _ in range(20)])
            else:
                made = [client.track("interrupted")]
        except QueueError as error:
            assert os.getpid() != parent and {strict} and "forked this one" in str(error), error
        if os.getpid() != parent:
            assert files() == before
            assert client.track("child") is not None
            assert name(client) == "queue.1.db"
            client.close(timeout=0)
            assert files() == before
            os._exit(0)
        assert codes == [0], codes
        keys += made
        keys += [client.track("late") for _ in range(20)]
        client._pipeline.queue.checkpoint()
        (sound,) = client._pipeline.queue.read("PRAGMA integrity_check")
        assert sound == ("ok",), sound
        assert client.stats().pending == len(keys)
        assert client.flush(timeout=30).remaining == 0
        client.close()
        print(json.dumps(keys))
        """
    out = run(body, queue, collector.endpoint, prelude=HANDLER)
    assert set(json.loads(out)) <= set(collector.payloads)
    drain(queue.parent, "child", collector.endpoint)
    assert arrived(collector).count("child") == 1


# ------------------------------------------------------------------------------ while others open

GATE = """
class Gate:
    "Stands in for a slow disk: the thread is in the middle of the import when we fork."
    def find_spec(self, name, path=None, target=None):
        if name.endswith(LOADED) and not loading.is_set():
            loading.set()
            waited.wait(0.3)  # the fork must wait for us; nothing else ends this

sys.meta_path.insert(0, Gate())
# filelock does not know of a fork that had begun when it was loaded, and says so.
sys.unraisablehook = lambda _: None
loading, waited = threading.Event(), threading.Event()

def fork_while_a_thread_makes_the_first_client(child):
    other = threading.Thread(target=lambda: make(start=False).close(timeout=0))
    other.start()
    assert loading.wait(30)
    code = fork(child)
    other.join()
    return code
"""


def test_a_fork_while_the_first_client_loads_what_it_needs_leaves_the_child_able_to_make_one(
    queue: Path, collector: LoopbackCollector
) -> None:
    body = """
        LOADED = "filelock"

        def child():
            with make() as client:
                assert client.track("child") is not None

        assert fork_while_a_thread_makes_the_first_client(child) == 0
        """
    run(body, queue, collector.endpoint, prelude=GATE)
    assert arrived(collector) == ["child"]


def test_a_fork_does_not_wait_for_ever_for_an_import_that_waits_for_the_fork(
    queue: Path, collector: LoopbackCollector
) -> None:
    """filelock's gate for forks is there before the import of filelock is over.

    The child can never load it: it says so, and how to avoid it.
    """
    body = """
        from causality_sdk import forking
        LOADED = "._unix"
        forking.GATE_SECONDS = 0.5

        def child():
            for _ in range(2):
                try:
                    make(start=False)
                except QueueError as error:
                    assert "make the first client before the program forks" in str(error), error
                else:
                    raise AssertionError("it has a half of filelock")

        assert fork_while_a_thread_makes_the_first_client(child) == 0
        with make() as client:
            client.track("parent")
        """
    run(body, queue, collector.endpoint, prelude=GATE)
    assert arrived(collector) == ["parent"]


def test_a_fork_while_a_file_is_taken_over_waits_for_the_end_of_it(
    queue: Path, collector: LoopbackCollector
) -> None:
    """Inside SQLite another thread holds mutexes, which the child would never get."""
    body = """
        from causality_sdk import schema

        inside, waited, over = threading.Event(), threading.Event(), []
        connect = schema.connect

        def slow(path):
            connection = connect(path)
            connection.set_trace_callback(trace)
            return connection

        def trace(_statement):  # called by SQLite
            inside.set()
            waited.wait(0.3)  # nothing else ends this
            over.append(True)

        there = schema.Destination(ENDPOINT, "causality", "key")
        QUEUE.parent.mkdir(parents=True)
        schema.prepare(QUEUE, there)
        schema.connect = slow
        thread = threading.Thread(target=schema.take_over, args=(QUEUE, there))
        thread.start()
        assert inside.wait(30)

        def child():
            assert over

        assert fork(child) == 0
        thread.join()
        """
    run(body, queue, collector.endpoint)


def test_a_fork_while_a_deleted_file_is_replaced_neither_hangs_nor_loses(
    queue: Path, collector: LoopbackCollector
) -> None:
    """The sender gives the lock file of the old place back, at which a fork may have a gate."""
    body = """
        from causality_sdk import mending
        import logging
        logging.getLogger("causality_sdk").setLevel(logging.CRITICAL)
        inside, waited = threading.Event(), threading.Event()
        copy = mending._copy

        def slow(*arguments):
            copy(*arguments)
            inside.set()
            waited.wait(0.3)  # the fork waits for us; nothing else ends this

        mending._copy = slow
        client = make(batch_size=1)
        client.track("parent")
        other = QUEUE.with_name("other")
        other.write_bytes(b"somebody else's")
        other.replace(QUEUE)  # at once: where nothing lies, the sender would stay
        client.track("parent")
        assert inside.wait(30)
        QUEUE.unlink()

        def child():
            assert client.track("child") is not None

        assert fork(child) == 0
        assert name(client) == "queue.1.db"
        client.close()
        """
    run(body, queue, collector.endpoint)
    drain(queue.parent, "child", collector.endpoint)
    assert set(arrived(collector)) == {"child", "parent"}


def test_a_child_may_use_the_file_of_a_client_that_was_closed_before_the_fork(
    queue: Path, collector: LoopbackCollector
) -> None:
    body = """
        client = make(start=False)
        client.track("left")
        client.close(timeout=0)

        def child():
            with make() as own:
                assert name(own) == "queue.db"

        assert fork(child) == 0
        assert name(make()) == "queue.db"
        """
    run(body, queue, collector.endpoint)
    assert arrived(collector) == ["left"]


# ------------------------------------------------------------------------------ options


def test_each_of_several_clients_begins_anew(queue: Path, collector: LoopbackCollector) -> None:
    body = """
        clients = [make(queue_path=QUEUE.with_name(f"{n}.db"), app_id=f"app-{n}") for n in "abc"]
        clients.append(make(start=False))
        off = make(enabled=False)
        for client in clients:
            client.track("parent")

        def child():
            for client in clients:
                client.track("child")
                assert client.stats().tracked == 1
                assert name(client).endswith(".1.db")
                assert client.flush(timeout=30).remaining == 0
            assert off.track("nothing") is None and off.stats().tracked == 0
            off.close()

        assert fork(child) == 0
        for client in clients:
            assert client.stats().tracked == 1
            client.close()
        """
    run(body, queue, collector.endpoint)
    assert arrived(collector) == ["child"] * 4 + ["parent"] * 4


def test_a_queue_in_memory_is_not_sent_by_parent_and_child(
    tmp_path: Path, collector: LoopbackCollector
) -> None:
    (tmp_path / "file").touch()
    body = """
        import logging
        logging.getLogger("causality_sdk").setLevel(logging.CRITICAL)
        client = make(queue_path=QUEUE / "queue.db", fallback="memory", flush_interval=3600)
        client.track("parent")

        def child():
            client.track("child")
            assert client.stats().tracked == 1
            assert client.flush(timeout=30).delivered == 1

        assert fork(child) == 0
        assert client.flush(timeout=30).delivered == 1
        client.close()
        """
    run(body, tmp_path / "file", collector.endpoint)
    assert arrived(collector) == ["child", "parent"]
    assert collector.duplicates == 0


@linux
def test_the_child_does_not_use_the_sockets_of_an_injected_session(
    queue: Path, collector: LoopbackCollector
) -> None:
    body = """
        import requests, socket, stat, struct

        client = make(session=requests.Session(), flush_interval=3600)
        client.track("parent")
        assert client.flush(timeout=30).remaining == 0  # and the connection stays open

        def sockets():
            numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
            return [n for n in numbers if is_socket(n)]

        def is_socket(number):
            try:
                return stat.S_ISSOCK(os.fstat(number).st_mode)
            except OSError:
                return False

        (connection,) = sockets()

        def traffic():
            "Bytes acknowledged by the server, and received, of struct tcp_info."
            with socket.socket(fileno=os.dup(connection)) as copy:
                info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
            return struct.unpack_from("QQ", info, 120)

        def child():
            client.track("child")
            assert client.flush(timeout=30).delivered == 1
            client.close()

        before = traffic()
        assert fork(child) == 0
        assert traffic() == before
        client.track("parent")
        assert client.flush(timeout=30).delivered == 1
        assert traffic() > before and sockets() == [connection]  # the same, as it was
        client.close()
        """
    run(body, queue, collector.endpoint)
    assert arrived(collector) == ["child", "parent", "parent"]


# ------------------------------------------------------------------------------ no queue to be had


def test_a_child_that_finds_no_queue_keeps_events_in_memory_until_it_does(
    queue: Path, collector: LoopbackCollector
) -> None:
    body = """
        from causality_sdk import ownership
        import logging
        logging.getLogger("causality_sdk").setLevel(logging.CRITICAL)
        client, strict = make(), make(queue_path=QUEUE.with_name("strict.db"), strict=True)
        client.track("parent")

        def child():
            most, ownership.MAX_SIBLINGS = ownership.MAX_SIBLINGS, 1
            assert client.track("first") is None
            assert client.track_many([Event("second"), Event("third")]) is None
            stats = client.stats()
            assert (stats.buffered, stats.tracked) == (3, 0), stats
            report = client.flush(timeout=1)
            assert report.remaining == 3 and "are in use" in str(report.error), report
            try:
                strict.track("refused")
            except QueueError as error:
                assert "are in use" in str(error)
            else:
                raise AssertionError("strict did not raise")
            ownership.MAX_SIBLINGS = most
            assert client.track("too soon") is None  # it does not try each time
            client._retry_at = 0.0
            assert client.track("fourth") is not None
            assert client.stats().tracked == 5 and client.stats().buffered == 0
            client.close()

        def at_its_end():
            most, ownership.MAX_SIBLINGS = ownership.MAX_SIBLINGS, 1
            assert client.track("late") is None
            ownership.MAX_SIBLINGS = most
            client.close()  # the last chance
            stats = client.stats()
            assert (stats.pending, stats.buffered, stats.buffer_dropped) == (0, 0, 0), stats

        def never():
            ownership.MAX_SIBLINGS = 1
            assert client.track("lost") is None
            client.close()
            assert client.stats().buffer_dropped == 1

        assert [fork(work) for work in (child, at_its_end, never)] == [0, 0, 0]
        client.close()
        strict.close()
        """
    run(body, queue, collector.endpoint)
    types = [event["event_type"] for event in collector.events if event["event_type"] != "parent"]
    assert types == ["first", "second", "third", "too soon", "fourth", "late"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="not root")
def test_a_child_that_gave_up_its_rights_goes_on_once_the_directory_is_its_own(
    collector: LoopbackCollector,
) -> None:
    body = """
        import logging
        logging.getLogger("causality_sdk").setLevel(logging.CRITICAL)
        import requests, causality_sdk.transport.http  # while it may still read them
        client = make()
        client.track("parent")
        ours, theirs = os.pipe(), os.pipe()

        def child():
            os.setgid(65534)
            os.setuid(65534)
            assert client.track("first") is None
            os.write(theirs[1], b"x")
            os.read(ours[0], 1)
            client._retry_at = 0.0
            assert client.track("second") is not None
            client.close()

        def let_in():
            os.read(theirs[0], 1)
            os.chown(QUEUE.parent, 65534, 65534)
            os.write(ours[1], b"x")

        thread = threading.Thread(target=let_in)
        thread.start()
        assert fork(child) == 0
        thread.join()
        client.close()
        """
    directory = Path(tempfile.mkdtemp())
    try:
        directory.chmod(0o755)
        run(body, directory / "queue" / "queue.db", collector.endpoint)
    finally:
        shutil.rmtree(directory)
    assert arrived(collector) == ["first", "parent", "second"]
