"""The files of examples/deploy: run where the server can be had from PyPI, else checked by hand.

gunicorn and celery really run, their workers are really killed, and what a response promised
arrives.
"""

from __future__ import annotations

import configparser
import http.client
import importlib.util
import json
import os
import random
import re
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
def server(arguments: list[str], environ: dict[str, str], log: Path) -> Iterator[int]:
    """Runs `python -m …`, gives its pid, and ends it as a service manager would: SIGTERM, wait."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process.pid
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
        self._address = address
        self._count = count
        self._every = every
        self._interfere = interfere
        self._lock = threading.Lock()  # guards keys
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
            try:
                connection.request("GET", "/page")
                response = connection.getresponse()
                body = response.read().decode()
            except (OSError, http.client.HTTPException):  # the worker was killed, or not yet there
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
) -> tuple[LoopbackCollector, list[str]]:
    """Sends requests to a server whose workers are killed at random. Gives all keys it answered."""
    rng = random.Random(7)  # noqa: S311 - whom to kill
    address = directory / "socket"
    queue = directory / "queue" / "queue.db"
    with LoopbackCollector() as collector:
        environ = environment(collector, queue, CAUSALITY_FLUSH_INTERVAL="0.2")
        arguments = [argument.replace("ADDRESS", str(address)) for argument in arguments]
        with server(arguments, environ, directory / "log") as master:
            killed: list[int] = []

            def kill() -> None:
                workers = children(master)
                if workers and len(killed) < kills:
                    killed.append(rng.choice(workers))
                    os.kill(killed[-1], signal.SIGKILL)

            visitors = Visitors(str(address), requests, requests // (kills + 1), kill)
            visitors.run()
        assert len(killed) == kills
        assert all(len(key) == 36 for key in visitors.keys)  # none was refused by the disk
        assert len(set(visitors.keys)) >= requests
        drain(queue.parent, "web", collector.endpoint)
        assert set(visitors.keys) <= set(collector.keys)
        assert len(collector.keys) == len(set(collector.keys))
        assert [
            list(payloads(path)) for path in queue_files(queue.parent) if any(payloads(path))
        ] == []
        return collector, visitors.keys


GUNICORN = [
    *("gunicorn", "-c", str(DEPLOY / "gunicorn.conf.py"), "--bind", "unix:ADDRESS"),
    *("--log-level", "warning", "--no-control-socket"),
]


@linux
def test_gunicorn_with_a_preloaded_client_and_workers_that_are_killed(tmp_path: Path) -> None:
    serve(tmp_path, [*GUNICORN, "wsgi_app:application"], requests=300, kills=5)


@linux
def test_gunicorn_without_preload_and_workers_that_are_killed(tmp_path: Path) -> None:
    conf = tmp_path / "gunicorn.conf.py"
    text = (DEPLOY / "gunicorn.conf.py").read_text()
    assert "preload_app = True" in text
    conf.write_text(text.replace("preload_app = True", "preload_app = False"))
    arguments = [str(conf) if word.endswith("gunicorn.conf.py") else word for word in GUNICORN]
    serve(tmp_path, [*arguments, "wsgi_app:application"], requests=300, kills=5)


@linux
@pytest.mark.long
@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn_2000_requests_while_workers_are_killed(tmp_path: Path, worker: str) -> None:
    serve(
        tmp_path,
        [*GUNICORN, "--worker-class", worker, "wsgi_app:application"],
        requests=2000,
        kills=40,
    )


@linux
def test_a_gunicorn_worker_that_is_told_to_stop_sends_what_it_has(tmp_path: Path) -> None:
    """Nothing but the end of the worker sends: the interval is an hour."""
    address, queue = tmp_path / "socket", tmp_path / "queue" / "queue.db"
    with LoopbackCollector() as collector:
        environ = environment(
            collector, queue, CAUSALITY_FLUSH_INTERVAL="3600", CAUSALITY_CLOSE_TIMEOUT="9"
        )
        arguments = [word.replace("ADDRESS", str(address)) for word in GUNICORN]
        with server([*arguments, "wsgi_app:application"], environ, tmp_path / "log"):
            visitors = Visitors(str(address), 20, 1000, lambda: None)
            visitors.run()
            assert collector.count == 0
        assert sorted(collector.keys) == sorted(visitors.keys)


@linux
@pytest.mark.skipif(importlib.util.find_spec("celery") is None, reason="celery is not installed")
def test_celery_children_and_threads_deliver_and_send_what_is_left(tmp_path: Path) -> None:
    """One worker with a prefork pool and one with threads, on the broker in the file system."""
    produce = "from celery_app import charge\nfor n in range(20): charge.delay(f'{n}')"
    with ExitStack() as stack:
        started = []
        for pool in ("prefork", "threads"):
            collector = stack.enter_context(LoopbackCollector())
            broker = tmp_path / pool
            broker.mkdir()
            environ = environment(
                collector,
                tmp_path / f"queue-{pool}" / "queue.db",
                BROKER_URL="filesystem://",
                BROKER_FOLDER=str(broker),
                CAUSALITY_FLUSH_INTERVAL="0.3",
                CAUSALITY_CLOSE_TIMEOUT="9",
            )
            arguments = [
                *("celery", "-A", "celery_app", "worker", "--pool", pool, "--concurrency", "2"),
                *("--loglevel", "warning", "--without-gossip", "--without-mingle"),
                "--without-heartbeat",
            ]
            stack.enter_context(server(arguments, environ, tmp_path / f"{pool}.log"))
            started.append((collector, environ))
        for _, environ in started:
            subprocess.run([sys.executable, "-c", produce], env=environ, check=True, timeout=60)
        for collector, _ in started:
            assert collector.wait_for(20, timeout=240)
            orders = {event["properties"]["order_id"] for event in collector.events}
            assert orders == {str(n) for n in range(20)}
            assert collector.duplicates == 0


@linux
@pytest.mark.skipif(shutil.which("uwsgi") is None, reason="uwsgi is not installed")
def test_uwsgi_with_the_example_file(tmp_path: Path) -> None:
    """uWSGI is no Python program, so nothing installs it here; where it is, it runs."""
    queue, address = tmp_path / "queue" / "queue.db", tmp_path / "socket"
    with LoopbackCollector() as collector:
        environ = environment(collector, queue, CAUSALITY_FLUSH_INTERVAL="0.2")
        text = (DEPLOY / "uwsgi.ini").read_text().replace("127.0.0.1:8000", str(address))
        (tmp_path / "uwsgi.ini").write_text(text)
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                ["uwsgi", "--ini", str(tmp_path / "uwsgi.ini")],  # noqa: S607
                env=environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            visitors = Visitors(str(address), 100, 1000, lambda: None)
            visitors.run()
            assert collector.wait_for(100, timeout=60), (tmp_path / "log").read_text()
            process.terminate()
            process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        drain(queue.parent, "web", collector.endpoint)
        assert set(visitors.keys) <= set(collector.keys)


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
