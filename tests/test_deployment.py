"""The files of examples/deploy: run where the server is a package of Python's, else read.

gunicorn, uWSGI and celery really run, their workers and children are really killed, and what a
response or the end of a task promised arrives.
"""

from __future__ import annotations

import configparser
import http.client
import importlib.util
import json
import os
import random
import re
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from queue_files import drain, payloads, queue_files

from causality_sdk import Config
from causality_sdk.testing import LoopbackCollector

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "examples" / "deploy"

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc, and servers that fork")


def environment(collector: LoopbackCollector, queue: Path, **options: str) -> dict[str, str]:
    """What the example files read, and nothing of the machine's own options."""
    environ = {name: value for name, value in os.environ.items() if "CAUSALITY" not in name}
    return {
        **environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(DEPLOY)]),
        "CAUSALITY_API_KEY": "test-key",
        "CAUSALITY_ENDPOINT": collector.endpoint,
        "CAUSALITY_QUEUE_PATH": str(queue),
        **options,
    }


@contextmanager
def server(
    arguments: list[str], environ: dict[str, str], log: Path, *, orderly: bool = True
) -> Iterator[int]:
    """Runs a server, gives its pid, and ends it as a service manager would: SIGTERM, wait.

    Not `orderly`: kills it and what it has forked.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process.pid
        if orderly:
            process.terminate()
            process.wait(60)
            assert process.returncode == 0, log.read_text()
    except BaseException as error:
        raise AssertionError(log.read_text()[-5000:]) from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def children(pid: int) -> list[int]:
    """The processes that `pid` has forked and not lost yet."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


# ------------------------------------------------------------------------------ web servers


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system: no port that somebody else could have."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Visitors:
    """Threads that ask for a page until `count` answers came, and remember them.

    After each `every` answers `interfere` is called, until there were as many as that.
    """

    def __init__(self, address: str, count: int, every: int, interfere: Callable[[], None]) -> None:
        self.keys: list[str] = []
        self.unanswered = 0
        """Requests that may have come to a worker which was killed before it answered."""
        self._address = address
        self._count = count
        self._every = every
        self._interfere = interfere
        self._lock = threading.Lock()  # guards keys and unanswered
        self._deadline = time.monotonic() + 120

    def run(self) -> None:
        threads = [threading.Thread(target=self._visit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(self.keys) >= self._count, "the server does not answer"

    def _visit(self) -> None:
        while len(self.keys) < self._count and time.monotonic() < self._deadline:
            connection = UnixConnection(self._address)
            connected = False
            try:
                connection.connect()
                connected = True
                connection.request("GET", "/page")
                response = connection.getresponse()
                body = response.read().decode()
            except (OSError, http.client.HTTPException):  # the worker was killed, or not yet there
                with self._lock:
                    self.unanswered += connected
                threading.Event().wait(0.01)
                continue
            finally:
                connection.close()
            assert response.status == 200
            with self._lock:
                self.keys.append(body)
                due = len(self.keys) % self._every == 0
            if due:
                self._interfere()


def serve(
    directory: Path,
    arguments: list[str],
    *,
    requests: int,
    kills: int,
    says: str,
) -> None:
    """Sends requests to a server whose workers are killed at random.

    `says` is what its log must have: that it is the server which is meant.
    """
    rng = random.Random(7)  # noqa: S311 - whom to kill
    address = directory / "socket"
    queue = directory / "queue" / "queue.db"
    with LoopbackCollector() as collector:
        environ = environment(collector, queue, CAUSALITY_FLUSH_INTERVAL="0.2")
        arguments = [argument.replace("ADDRESS", str(address)) for argument in arguments]
        with server(arguments, environ, directory / "log") as master:
            killed: list[int] = []

            def kill() -> None:
                workers = [pid for pid in children(master) if pid not in killed]
                if workers and len(killed) < kills:
                    killed.append(rng.choice(workers))
                    os.kill(killed[-1], signal.SIGKILL)

            visitors = Visitors(str(address), requests, requests // (kills + 1), kill)
            visitors.run()
        assert says in (directory / "log").read_text()
        assert len(killed) == kills
        assert all(len(key) == 36 for key in visitors.keys)  # none was refused by the disk
        assert len(set(visitors.keys)) == len(visitors.keys) >= requests
        drain(queue.parent, "web", collector.endpoint)
        assert_each_promise_was_kept(visitors, collector, kills)
        assert [
            list(payloads(path)) for path in queue_files(queue.parent) if any(payloads(path))
        ] == []


def assert_each_promise_was_kept(
    visitors: Visitors, collector: LoopbackCollector, kills: int
) -> None:
    """Each event whose response came has arrived; what else arrived, and how often, has a cause."""
    assert set(visitors.keys) - set(collector.keys) == set()
    # One that nobody was told of is of a request whose worker was killed before it answered.
    assert len(set(collector.keys) - set(visitors.keys)) <= visitors.unanswered
    # On the wire an event comes again only if its acknowledgement was lost: with the worker that
    # waited for it, and a worker waits for one batch at a time.
    assert collector.duplicates <= kills * Config.batch_size
    assert collector.received == collector.count + collector.duplicates  # none was refused


def gunicorn(conf: Path, *arguments: str) -> list[str]:
    """The command, with the name of the worker class in its log."""
    return [
        *(sys.executable, "-m", "gunicorn", "-c", str(conf), "--bind", "unix:ADDRESS"),
        *("--log-level", "info", *arguments, "wsgi_app:application"),
    ]


# gunicorn loses the SIGTERM of a worker that is just starting in place of a killed one, and waits
# for it in vain; so not for 10 s.
IMPATIENT = ("--graceful-timeout", "3")

SYNC = ["--worker-class", "sync", "--threads", "1"]  # more threads would make it a gthread
of_both_classes = pytest.mark.parametrize(
    ("worker", "options"), [("gthread", []), ("sync", SYNC)], ids=["gthread", "sync"]
)


def without_preload(conf: Path, directory: Path) -> Path:
    """A copy of an example file whose workers import the application themselves."""
    text = conf.read_text()
    assert "preload_app = True" in text
    copy = directory / conf.name
    copy.write_text(text.replace("preload_app = True", "preload_app = False"))
    return copy


@linux
@of_both_classes
def test_gunicorn_with_a_preloaded_client_and_workers_that_are_killed(
    tmp_path: Path, worker: str, options: list[str]
) -> None:
    command = gunicorn(DEPLOY / "gunicorn.conf.py", *IMPATIENT, *options)
    serve(tmp_path, command, requests=300, kills=5, says=f"Using worker: {worker}\n")
    assert "Control socket" not in (tmp_path / "log").read_text()  # it would be in somebody's home


@linux
def test_gunicorn_without_preload_and_workers_that_are_killed(tmp_path: Path) -> None:
    conf = without_preload(DEPLOY / "gunicorn.conf.py", tmp_path)
    command = gunicorn(conf, *IMPATIENT)
    serve(tmp_path, command, requests=300, kills=5, says="Using worker: gthread\n")


@linux
@pytest.mark.parametrize("preload", [True, False], ids=["preloaded", "not preloaded"])
def test_gunicorn_with_gevent_and_workers_that_are_killed(tmp_path: Path, preload: bool) -> None:
    conf = DEPLOY / "gunicorn_gevent.conf.py"
    command = gunicorn(conf if preload else without_preload(conf, tmp_path), *IMPATIENT)
    serve(tmp_path, command, requests=300, kills=5, says="Using worker: gevent\n")
    assert "Warning" not in (tmp_path / "log").read_text()  # gevent's, of a patch that came late


@linux
@pytest.mark.long
@of_both_classes
def test_gunicorn_2000_requests_while_workers_are_killed(
    tmp_path: Path, worker: str, options: list[str]
) -> None:
    command = gunicorn(DEPLOY / "gunicorn.conf.py", *options)
    serve(tmp_path, command, requests=2000, kills=40, says=f"Using worker: {worker}\n")


@linux
def test_a_gunicorn_worker_that_is_told_to_stop_sends_what_it_has(tmp_path: Path) -> None:
    """Nothing but the end of the worker sends: the interval is an hour."""
    address, queue = tmp_path / "socket", tmp_path / "queue" / "queue.db"
    with LoopbackCollector() as collector:
        environ = environment(
            collector, queue, CAUSALITY_FLUSH_INTERVAL="3600", CAUSALITY_CLOSE_TIMEOUT="9"
        )
        command = gunicorn(DEPLOY / "gunicorn.conf.py")
        command = [word.replace("ADDRESS", str(address)) for word in command]
        with server(command, environ, tmp_path / "log"):
            visitors = Visitors(str(address), 20, 1000, lambda: None)
            visitors.run()
            assert collector.count == 0
        assert sorted(collector.keys) == sorted(visitors.keys)
        assert collector.duplicates == 0  # nobody was killed


# ------------------------------------------------------------------------------ celery

needs_celery = pytest.mark.skipif(
    importlib.util.find_spec("celery") is None, reason="celery is not installed"
)


def worker(pool: str, *arguments: str) -> list[str]:
    """The command of a celery worker that talks to nobody but its broker."""
    return [
        *(sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", pool),
        *("--concurrency", "2", "--loglevel", "warning"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat", *arguments),
    ]


def with_broker(environ: dict[str, str], folder: Path, *path: Path) -> dict[str, str]:
    """The broker in the file system, and `path` in front of what is imported."""
    folder.mkdir()
    imported = os.pathsep.join([*map(str, path), environ["PYTHONPATH"]])
    return {
        **environ,
        "BROKER_URL": "filesystem://",
        "BROKER_FOLDER": str(folder),
        "PYTHONPATH": imported,
    }


def order(numbers: range, environ: dict[str, str]) -> None:
    """Gives celery a task for each number."""
    produce = f"from celery_app import charge\nfor n in {numbers}: charge.delay(str(n))"
    subprocess.run([sys.executable, "-c", produce], env=environ, check=True, timeout=60)


def orders(collector: LoopbackCollector) -> list[int]:
    """The numbers whose events arrived."""
    return sorted(int(event["properties"]["order_id"]) for event in collector.events)


@linux
@needs_celery
def test_celery_children_threads_and_greenlets_deliver_and_send_what_is_left(
    tmp_path: Path,
) -> None:
    """One worker of each kind of pool, side by side: the end of each takes seconds."""

    def run(pool: str, module: str) -> None:
        queue, log = tmp_path / f"queue-{pool}" / "queue.db", tmp_path / f"{pool}.log"
        with LoopbackCollector() as collector:
            options = {"CAUSALITY_FLUSH_INTERVAL": "0.3", "CAUSALITY_CLOSE_TIMEOUT": "9"}
            environ = with_broker(environment(collector, queue, **options), tmp_path / pool)
            with server(worker(pool), environ, log):
                order(range(20), environ)
                assert collector.wait_for(20, timeout=240)
            assert orders(collector) == list(range(20))
            assert collector.duplicates == 0
            assert f"concurrency: 2 ({module})" in log.read_text()

    pools = {"prefork": "prefork", "threads": "thread", "gevent": "gevent"}
    with ThreadPoolExecutor(len(pools)) as executor:
        list(executor.map(run, pools, pools.values()))


# Part of the worker of the next test: tells through a pipe which child has ended which task. From
# 18 to 19 the child goes no further: one that is killed as it waits for a task has a lock of the
# pool, and the pool stands still for ever.
RECEIPTS = """
import os, signal
from celery.signals import task_postrun

@task_postrun.connect(weak=False)
def tell(args, **_):
    with open(os.environ["RECEIPTS"], "w") as pipe:
        pipe.write(f"{os.getpid()} {args[0]}\\n")
    if args[0] in ("18", "19"):
        signal.pause()
"""


class Receipts:
    """The reading end of that pipe."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        # For writing, too: it is never at its end, however many writers come and go.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._read = b""

    def take(self, count: int, seconds: float = 120) -> list[tuple[int, int]]:
        """The next receipts: the pid of a child and the number of its task."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while self._read.count(b"\n") < count:
                assert selector.select(deadline - time.monotonic()), self._read
                self._read += os.read(self._pipe, 65536)
        *lines, self._read = self._read.split(b"\n", count)
        receipts = [line.split() for line in lines]
        return [(int(pid), int(number)) for pid, number in receipts]

    def close(self) -> None:
        os.close(self._pipe)


@linux
@needs_celery
def test_what_a_killed_celery_child_had_tracked_is_delivered_by_the_next_one(
    tmp_path: Path,
) -> None:
    """The server is away, so all is still on disk when each child that ended a task is killed."""
    (tmp_path / "receipts.py").write_text(RECEIPTS)
    queue = tmp_path / "queue" / "queue.db"
    with LoopbackCollector() as collector, ExitStack() as stack:
        receipts = Receipts(tmp_path / "receipts")
        stack.callback(receipts.close)
        environ = with_broker(
            environment(collector, queue, CAUSALITY_FLUSH_INTERVAL="0.3"),
            tmp_path / "broker",
            tmp_path,
        )
        environ["RECEIPTS"] = str(tmp_path / "receipts")
        command = worker("prefork", "--include", "receipts")
        # Its orderly end would wait 10 s for the tasks of the killed ones.
        with server(command, environ, tmp_path / "log", orderly=False) as parent:
            collector.down()
            order(range(18), environ)
            ended = receipts.take(18)
            order(range(18, 20), environ)
            ended += receipts.take(2)
            assert {number for _, number in ended} == set(range(20))
            killed = {pid for pid, _ in ended}
            assert len(killed) == 2
            assert killed <= set(children(parent))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            collector.up()
            order(range(20, 30), environ)
            survivors = receipts.take(10)
            assert killed.isdisjoint(pid for pid, _ in survivors)
            assert collector.wait_for(30, timeout=60), orders(collector)
        assert orders(collector) == list(range(30))
        assert collector.duplicates == 0  # no acknowledgement was lost
        drain(queue.parent, "orders", collector.endpoint)
        assert orders(collector) == list(range(30))


# ------------------------------------------------------------------------------ uWSGI

# Beside this Python, if it is the one of the development extras.
UWSGI = shutil.which("uwsgi", path=Path(sys.executable).parent) or shutil.which("uwsgi")


@linux
@pytest.mark.skipif(UWSGI is None, reason="uwsgi is not installed")
def test_uwsgi_with_the_example_file_and_workers_that_are_killed(tmp_path: Path) -> None:
    assert UWSGI is not None
    text = (DEPLOY / "uwsgi.ini").read_text()
    replaced = {
        "127.0.0.1:8000": str(tmp_path / "socket"),
        "mercy = 10": "mercy = 3",  # for a worker that is just starting, as with gunicorn
    }
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "uwsgi.ini").write_text(text)
    command = [UWSGI, "--ini", str(tmp_path / "uwsgi.ini")]
    serve(tmp_path, command, requests=300, kills=5, says="Starting uWSGI")


# ------------------------------------------------------------------------------ files of others


def test_the_uwsgi_file_asks_for_threads_and_for_clients_after_the_fork() -> None:
    parser = configparser.ConfigParser(comment_prefixes=(";", "#"))
    parser.read_string((DEPLOY / "uwsgi.ini").read_text())
    options = parser["uwsgi"]
    assert options.getboolean("enable-threads")
    assert options.getboolean("lazy-apps")
    assert options["module"] == "wsgi_app:application"
    assert options.getint("worker-reload-mercy", 0) > Config.close_timeout


@linux
def test_the_systemd_unit_is_a_valid_one_and_leaves_time_to_close() -> None:
    unit = DEPLOY / "causality.service"
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(unit.read_text())
    service = parser["Service"]
    assert service.getint("TimeoutStopSec", 0) > Config.close_timeout
    assert service["StateDirectory"] in re.findall(
        r"^Environment=CAUSALITY_QUEUE_PATH=/var/lib/(\w+)/", unit.read_text(), re.MULTILINE
    )
    if shutil.which("systemd-analyze") is None:
        return
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in result.stderr.splitlines() if "causality.service" in line]
    assert complaints == []


def test_the_container_keeps_its_queue_on_a_volume_and_hears_sigterm() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    said = dict(line.split(None, 1) for line in lines if line and line[0] != "#")
    environ = dict(word.split("=", 1) for word in shlex.split(said["ENV"]))
    assert environ["CAUSALITY_QUEUE_PATH"].startswith(said["VOLUME"] + "/")
    assert json.loads(said["ENTRYPOINT"])[0] == "gunicorn"  # no shell that keeps SIGTERM
    assert said["USER"] == "10001:0"
    copied = said["COPY"].split()[:-1]
    assert all((DEPLOY / name).is_file() for name in copied)
    compose = (DEPLOY / "compose.yaml").read_text()
    assert f"- queue:{said['VOLUME']}\n" in compose
    grace = re.search(r"stop_grace_period: (\d+)s", compose)
    graceful = re.search(r"graceful_timeout = (\d+)", (DEPLOY / "gunicorn.conf.py").read_text())
    assert grace is not None
    assert graceful is not None
    assert float(grace[1]) > float(graceful[1]) > Config.close_timeout


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="not root")
def test_a_random_uid_without_a_home_can_use_the_volume_of_the_container(
    tmp_path: Path,
) -> None:
    """What the Dockerfile does to /data, and then a uid nobody has heard of, in group 0."""
    program = (
        "import os, sys\nfrom causality_sdk import Client\n"
        # Loads all that is needed, while this Python may still be read: a codec of stats(), too.
        "import encodings.ascii\n"
        "Client(api_key='k', endpoint='http://127.0.0.1:9', app_id='web', queue_path='first.db',"
        " start=False, close_timeout=0).close()\n"
        "os.setgroups([0]); os.setgid(0); os.setuid(123456)\n"
        "client = Client(api_key='k', endpoint='http://127.0.0.1:9', app_id='web', start=False,"
        " close_timeout=0)\n"
        "assert client.track('tick') is not None\nprint(client.stats().queue_path)"
    )
    directory = Path(tempfile.mkdtemp())
    try:
        directory.chmod(0o755)
        data = directory / "data"
        data.mkdir()
        os.chown(data, 10001, 0)
        data.chmod(0o2770)
        environ = {
            "CAUSALITY_QUEUE_PATH": str(data / "queue" / "queue.db"),
            "PYTHONPATH": str(ROOT),
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
        }
        result = subprocess.run(
            [sys.executable, "-c", program],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        shutil.rmtree(directory)
    assert result.stdout.strip() == str(data / "queue" / "queue.db"), result.stderr


def test_the_job_of_cron_sends_and_leaves_the_rest_to_the_next_run(tmp_path: Path) -> None:
    with LoopbackCollector() as collector:
        collector.down()
        for line in (
            "0 delivered, 2 wait for the next run",
            "4 delivered, 0 wait for the next run",
        ):
            result = subprocess.run(
                [sys.executable, "-W", "error", str(DEPLOY / "nightly.py")],
                env=environment(
                    collector,
                    tmp_path / "queue.db",
                    CAUSALITY_MAX_RETRIES="0",
                ),
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            assert result.stdout.strip() == line, result.stderr
            collector.up()
