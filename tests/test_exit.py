"""Programs that end in every way: nothing returned is lost, nothing is printed, none is slow."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_program import Program, run
from queue_files import drain, payloads

from causality_sdk.testing import LoopbackCollector

if os.name != "posix":
    pytest.skip("signals", allow_module_level=True)

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key="test-key") as collector:
        yield collector


# What a program does, the code it ends with, and the events that are on disk then, in order.
# The first line of a traceback of the program's own, where it prints one, stands last.
WAYS: dict[str, tuple[str, int, list[str], str]] = {
    "normal end": ('client = make()\nclient.track("a")', 0, ["a"], ""),
    "exception": ('client = make()\nclient.track("a")\n1 / 0', 1, ["a"], "ZeroDivisionError"),
    "sys.exit": ('client = make()\nclient.track("a")\nsys.exit(7)', 7, ["a"], ""),
    "os._exit": ('client = make()\nclient.track("a")\nos._exit(7)', 7, ["a"], ""),
    "SIGTERM with a handler": (
        """
        def handler(*_):
            assert client.track("b") is not None
            raise SystemExit(3)
        signal.signal(signal.SIGTERM, handler)
        client = make()
        client.track("a")
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
        """,
        3,
        ["a", "b"],
        "",
    ),
    "SIGTERM without a handler": (
        'client = make()\nclient.track("a")\nos.kill(os.getpid(), signal.SIGTERM)\nsignal.pause()',
        -signal.SIGTERM,
        ["a"],
        "",
    ),
    "SIGINT": (
        'client = make()\nclient.track("a")\nos.kill(os.getpid(), signal.SIGINT)\nsignal.pause()',
        1,  # as Python ends a program of -c
        ["a"],
        "KeyboardInterrupt",
    ),
    "SIGTERM while a thread tracks": (
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        client = make()
        began, n = threading.Event(), 0
        def produce():
            while True:
                client.track("a")
                began.set()
        threading.Thread(target=produce, daemon=True).start()
        began.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
        """,
        0,
        ["a", "…"],
        "",
    ),
    "atexit hooks that track, before and after the client's": (
        """
        atexit.register(lambda: client.track("last") or os._exit(9))
        client = make()
        atexit.register(lambda: client.track("first") or os._exit(9))
        """,
        0,
        ["first", "last"],
        "",
    ),
    "an atexit hook that makes a client": (
        """
        import concurrent.futures.thread  # which Python 3.11 cannot load in the hook
        def late():
            client = make()
            assert client.track("a") is not None
        atexit.register(late)
        """,
        0,
        ["a"],
        "",
    ),
    "an atexit hook that makes a client and closes it": (
        """
        import concurrent.futures.thread
        def late():
            with make(start=False) as client:
                assert client.track("a") is not None
        atexit.register(late)
        """,
        0,
        ["a"],
        "",
    ),
    "a client made by a thread while the interpreter shuts down": (
        """
        import concurrent.futures.thread
        def late():
            threading.main_thread().join()
            client = make()
            assert client.track("a") is not None
            assert client.flush(timeout=0.2).remaining == 1
        threading.Thread(target=late).start()
        """,
        0,
        ["a"],
        "",
    ),
    "a client that was forgotten": (
        'client = make()\nclient.track("a")\ndel client\nmake().track("b")\ngc.collect()',
        0,
        ["a", "b"],
        "",
    ),
    "a client in a cycle, never collected": (
        """
        gc.disable()
        class Service:
            def __init__(self):
                self.client, self.me = make(on_error=lambda _: self), self
        Service().client.track("a")
        """,
        0,
        ["a"],
        "",
    ),
    "a client that a finalizer uses": (
        """
        class Last:
            def __del__(self):
                self.client.track("a")
        last = Last()
        last.client = make()
        """,
        0,
        ["a"],
        "",
    ),
}


def test_every_way_to_end_keeps_the_events_and_prints_nothing_of_ours(tmp_path: Path) -> None:
    """The server is away. All of them run at once, since each waits for something."""
    prelude = (
        "import logging\nlogging.getLogger('causality_sdk').setLevel(logging.CRITICAL)\n"
        "defaults, first = make, {'close_timeout': 0.5}\n"
        "def make(**options): return defaults(**{**first, **options})\n"
    )
    programs = {}
    for number, (way, (body, _, _, _)) in enumerate(WAYS.items()):
        queue = tmp_path / str(number) / "queue.db"
        programs[way] = queue, Program(body, queue, NOWHERE, "-X", "dev", prelude=prelude)
    for way, (queue, program) in programs.items():
        _, code, kept, traceback = WAYS[way]
        ended = program.wait()
        assert ended.code in (code, -signal.SIGINT if way == "SIGINT" else code), (way, ended)
        if traceback:
            assert ended.err.count("Traceback") == 1, (way, ended)
            assert traceback in ended.err.splitlines()[-1], (way, ended)
            assert "causality_sdk" not in ended.err, (way, ended)
        else:
            assert ended.err == "", (way, ended)
        found: list[str] = []
        for path in sorted(queue.parent.glob("queue*.db"), reverse=True):
            found[:0] = [json.loads(payload)["event_type"] for payload in payloads(path)]
        if kept[-1] == "…":
            assert set(found) == {"a"}, way
        else:
            assert sorted(found) == sorted(kept), (way, found)


def test_a_key_that_a_daemon_thread_got_while_the_program_ended_is_on_disk(tmp_path: Path) -> None:
    """Each key is written to the pipe as soon as it is returned, until the interpreter is gone."""
    body = """
        client = make(flush_interval=3600, close_timeout=0.1)
        began = threading.Event()
        def produce():
            while True:
                os.write(1, client.track("tick").encode() + b"\\n")
                began.set()
        for _ in range(3):
            threading.Thread(target=produce, daemon=True).start()
        began.wait()
        """
    ended = Program(body, tmp_path / "queue.db", NOWHERE).wait()
    assert ended.code == 0, ended
    # One line of the log may say that the server is away.
    assert all(line.startswith("causality: delivery failed") for line in ended.err.splitlines())
    returned = {line for line in ended.out.splitlines() if len(line) == 36}
    kept = {json.loads(payload)["idempotency_key"] for payload in payloads(tmp_path / "queue.db")}
    assert returned
    assert returned <= kept


# ------------------------------------------------------------------------------ how long it takes


@pytest.mark.parametrize("server", ["hangs", "is away"])
def test_several_clients_together_take_one_close_timeout_at_exit(
    tmp_path: Path, collector: LoopbackCollector, server: str
) -> None:
    """One after the other would take four. All servers are waited for at the same time."""
    body = """
        atexit.register(lambda: print(time.monotonic() - began))
        import logging
        logging.getLogger("causality_sdk").setLevel(logging.CRITICAL)
        clients = [
            make(queue_path=QUEUE.with_name(f"{n}.db"), app_id=f"app-{n}", close_timeout=1.0)
            for n in range(4)
        ]
        for client in clients:
            client.track("tick")
        began = time.monotonic()
        """
    collector.pause()
    if server == "is away":
        collector.down()
    seconds = float(run(body, tmp_path / "queue.db", collector.endpoint))
    # 1.0 at best with a server that hangs; the rest is a busy machine's.
    assert (0.9 if server == "hangs" else 0.0) <= seconds < 2.5
    for number in range(4):
        assert len(list(payloads(tmp_path / f"{number}.db"))) == 1


def test_a_server_that_hangs_takes_nothing_from_a_client_whose_server_answers(
    tmp_path: Path, collector: LoopbackCollector
) -> None:
    """Its hook runs after that of the client which used up all the time."""
    with LoopbackCollector() as hanging:
        hanging.pause()
        body = f"""
            good = [make(queue_path=QUEUE.with_name(f"{{n}}.db"), close_timeout=1.5) for n in "abc"]
            bad = make(endpoint={hanging.endpoint!r}, close_timeout=1.5)
            for client in (*good, bad):
                client.track("tick")
            """
        run(body, tmp_path / "queue.db", collector.endpoint, prelude=SEVERAL_ENDPOINTS)
    assert collector.count == 3
    assert len(list(payloads(tmp_path / "queue.db"))) == 1


SEVERAL_ENDPOINTS = """
def make(**options):
    options = {"queue_path": QUEUE, "app_id": "child", "endpoint": ENDPOINT, **options}
    return Client(api_key="test-key", **options)
"""


@pytest.mark.parametrize("clients", [1, 3])
def test_the_exit_takes_close_timeout_and_hardly_more_than_that_of_a_program_without_us(
    tmp_path: Path, collector: LoopbackCollector, clients: int
) -> None:
    """From the last line of the program to its end, as the one who waits for it sees it."""
    collector.pause()
    body = f"""
        clients = [make(close_timeout=1.0) for _ in range({clients})]
        for client in clients:
            client.track("tick")
        print(time.monotonic(), flush=True)
        """
    without = "print(time.monotonic(), flush=True)"
    taken = []
    for number in range(5):  # a machine that is busy for a moment is not what is meant
        baseline = seconds_to_end(without, tmp_path / "0.db", NOWHERE)
        with_us = seconds_to_end(body, tmp_path / f"{number}" / "queue.db", collector.endpoint)
        assert with_us > 0.9, "it gave up before its time"
        taken.append(with_us - baseline)
        if taken[-1] <= 1.0 + 0.2:
            return
    pytest.fail(f"close_timeout is 1 s, and the exit took {taken} s")


def seconds_to_end(body: str, queue: Path, endpoint: str) -> float:
    """From what the program prints as its last line, a time of the monotonic clock, to its end."""
    program = Program(body, queue, endpoint)
    last = float(program.line())
    program.process.wait(60)
    seconds = time.monotonic() - last
    assert program.wait().err == ""
    return seconds


# ------------------------------------------------------------------------------ signals


@pytest.mark.parametrize("durability", ["process", "power"])
def test_1000_signals_whose_handler_does_everything_neither_block_nor_lose(
    tmp_path: Path, collector: LoopbackCollector, durability: str
) -> None:
    """In the middle of a loop that tracks flat out; the last handler closes the client."""
    body = f"""
        from causality_sdk import ClientClosed
        import logging
        logging.getLogger("causality_sdk").setLevel(logging.CRITICAL)
        client = make(batch_size=50, close_timeout=5, durability={durability!r})
        keys, handled, closed = [], 0, False

        def handler(*_):
            global handled, closed
            handled += 1
            what = handled % 4
            if handled == 1000:
                client.close()
                closed = True
            elif what == 0:
                keys.append(client.track("handler"))
            elif what == 1:
                keys.extend(client.track_many([Event("handler"), Event("handler")]) or ())
            elif what == 2:
                client.flush(timeout=0.001)
                client.stats()
            else:
                client.flush(timeout=0)
            if not closed:  # no handler inside a handler, and again
                signal.setitimer(signal.ITIMER_REAL, 0.0003)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
        try:
            while True:
                keys.append(client.track("loop"))
                keys.extend(client.track_many([Event("loop"), Event("loop")]) or ())
        except ClientClosed:
            pass
        assert (handled, closed) == (1000, True)
        assert client.stats().buffer_dropped == 0
        print("\\n".join(key for key in keys if key is not None))
        """
    returned = run(body, tmp_path / "queue.db", collector.endpoint).split()
    assert len(returned) > 1000
    drain(tmp_path, "child", collector.endpoint)
    assert set(returned) <= set(collector.keys)


def test_a_flush_without_a_timeout_in_a_signal_handler_does_not_wait_for_itself(
    tmp_path: Path, collector: LoopbackCollector
) -> None:
    """Where it interrupted a write it says so at once; elsewhere it delivers."""
    body = """
        client = make(flush_interval=3600, batch_size=10**6)
        reports, began = [], threading.Event()

        def handler(*_):
            reports.append(client.flush())
            if len(reports) < 300:
                signal.setitimer(signal.ITIMER_REAL, 0.001)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        while len(reports) < 300:
            client.track("tick")
        assert any(report.error for report in reports)
        assert any(report.delivered for report in reports)
        for report in reports:
            if report.error is not None:
                assert "would wait for itself" in str(report.error), report
        client.close()
        assert client.stats().pending == 0
        """
    run(body, tmp_path / "queue.db", collector.endpoint)


def test_a_handler_that_raises_in_the_middle_of_track_loses_no_key(
    tmp_path: Path, collector: LoopbackCollector
) -> None:
    body = """
        class Interrupt(BaseException):
            pass

        def handler(*_):
            raise Interrupt

        client = make()
        keys, interrupted = [], 0
        signal.signal(signal.SIGALRM, handler)
        while interrupted < 300:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.001)
                while True:
                    key = client.track("tick")
                    keys.append(key)
                    keys.extend(client.track_many([Event("tick"), Event("tick")]) or ())
            except Interrupt:
                interrupted += 1
        client.close()
        print("\\n".join(key for key in keys if key is not None))
        """
    returned = run(body, tmp_path / "queue.db", collector.endpoint).split()
    drain(tmp_path, "child", collector.endpoint)
    assert returned
    assert set(returned) <= set(collector.keys)
