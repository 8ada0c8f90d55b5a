"""`causality queue` and `causality dead-letters`: surgery on live queues and on dead ones."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from owner import Owner
from shell import KEY, NOWHERE, ROOT, Shell, ndjson

from causality_sdk import Event, ownership
from causality_sdk.cli.exits import InputError
from causality_sdk.cli.queue._check_disk import NEEDED_BYTES, free_space
from causality_sdk.cli.queue._check_server import clock_finding, key_finding
from causality_sdk.cli.queue_reader import QueueReader
from causality_sdk.holders import holder
from causality_sdk.testing import LoopbackCollector

NEEDS_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and users of POSIX")
NEEDS_ROOT = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be somebody else"
)
NOBODY = 65534


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, collector: LoopbackCollector) -> Shell:
    return Shell(tmp_path, collector.endpoint)


def fill(shell: Shell, count: int = 5) -> list[str]:
    """A queue that nobody owns, with so many events; gives their keys."""
    with shell.client() as client:
        base = 1_700_000_000_000
        keys = client.track_many(
            Event(("even", "odd")[n % 2], {"n": n}, timestamp=base + n * 1000) for n in range(count)
        )
    assert keys is not None
    return keys


def bury(shell: Shell, collector: LoopbackCollector) -> str:
    """A dead letter in a queue that nobody owns; gives its key."""
    collector.accept_only(lambda _index, event: event["event_type"] != "bad")
    with shell.client() as client:
        key = client.track("bad", {"n": -1})
        while not client.stats().buried:
            client.track("good")
            client.flush(timeout=10)
    collector.respond_normally()
    assert key is not None
    return key


class TestStatus:
    def test_of_a_queue_that_a_service_has_open(self, shell: Shell) -> None:
        with shell.client() as client:
            client.track_many([Event("a", {"n": n}) for n in range(3)])
            (found,) = shell("queue", "status", "--json").json["files"]
            assert found["owner"]["state"] == "owned"
            assert found["owner"]["pid"] == os.getpid()
            assert (found["pending"], found["tracked"]) == (3, 3)
            assert found["pending_bytes"] == client.stats().pending_bytes
            assert found["oldest_seconds"] < 60
            text = shell("queue", "status").out
            assert f"process {os.getpid()}" in text
            assert "waiting       3 (" in text
            client.track("still works")
            assert client.stats().pending == 4

    def test_the_counters_are_those_of_the_client(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        bury(shell, collector)
        with shell.client(max_queue_events=2) as client:
            client.flush()
            client.track_many([Event("a", {"n": n}) for n in range(5)])
            stats = client.stats()
            found = shell("queue", "status", "--json").json["files"][0]
        assert stats.pending == 2
        for name in ("tracked", "acknowledged", "evicted", "buried", "pending", "pending_bytes"):
            assert found[name] == getattr(stats, name), name
        assert found["dead_letters"] == 1
        assert found["last_error"]["status"] == 200
        assert "last error    200: " in shell("queue", "status").out

    def test_every_file_of_the_app_and_who_owns_it(self, shell: Shell) -> None:
        with shell.client() as first:
            with shell.client() as second:
                second.track("a")
            first.track("b")
            files = shell("queue", "status", "--json").json["files"]
            assert [Path(found["path"]).name for found in files] == ["queue.db", "queue.1.db"]
            assert [found["owner"]["state"] for found in files] == ["owned", "free"]
            assert len(shell("queue", "status", "--single", "--json").json["files"]) == 1

    def test_a_damaged_file_is_named_beside_a_good_one_and_exits_with_4(self, shell: Shell) -> None:
        fill(shell)
        (shell.queue.with_name("queue.1.db")).write_bytes(b"x" * 5000)
        result = shell("queue", "status", "--json", code=4)
        good, bad = result.json["files"]
        assert (good["pending"], good["error"]) == (5, None)
        assert "queue.1.db cannot be read" in bad["error"]

    def test_no_queue_yet_is_nothing_to_tell_of(self, shell: Shell) -> None:
        result = shell("queue", "status")
        assert result.out == ""
        assert f"there is no queue file {shell.queue}: nothing was tracked here yet" in result.err
        assert shell("queue", "status", "--json").json["files"] == []

    def test_4_a_directory_in_place_of_the_file(self, shell: Shell) -> None:
        result = shell("queue", "status", "--queue-path", shell.home, code=4)
        assert f"{shell.home} is a directory; name the file in it: " in result.err

    def test_1_nobody_said_which(self, shell: Shell) -> None:
        result = shell("queue", "status", code=1, CAUSALITY_APP_ID="", CAUSALITY_QUEUE_PATH="")
        assert "which queue? Give --queue-path FILE or --app-id NAME" in result.err

    def test_a_look_at_the_owner_turns_nobody_away(self, shell: Shell) -> None:
        """While one looks again and again, another can take the file, and it stays its own."""
        fill(shell)
        stop = threading.Event()
        seen = set()

        def look() -> None:
            while not stop.is_set():
                seen.add(holder(shell.queue).held)

        looker = threading.Thread(target=look)
        with Owner() as owner:
            owner.wait_until_ready()
            looker.start()
            owner.start(shell.queue.with_name("other.db"))
            assert owner.claimed() == "other.db"
            with shell.client() as client:
                assert client.stats().queue_path in (
                    str(shell.queue), str(shell.queue.with_name("queue.1.db")),
                )  # fmt: skip
            stop.set()
            looker.join()
        assert ownership.owner(shell.queue)["pid"] == os.getpid()


@NEEDS_POSIX
class TestOwners:
    def test_a_stopped_owner_is_seen(self, shell: Shell) -> None:
        fill(shell)
        base = shell.queue.with_name("held.db")
        with Owner() as owner:
            owner.take(base)
            assert holder(base).state == "owned"
            owner.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, owner.process.pid, os.WSTOPPED | os.WNOWAIT)
            assert holder(base).state == "stopped"
            result = shell("queue", "status", "--queue-path", base)
            assert "STOPPED" in result.out
            found = shell("queue", "doctor", "--queue-path", base, "--offline", "--json", code=1)
            problem, *_elsewhere = [
                each for each in found.json["findings"] if each["level"] == "problem"
            ]
            assert "is stopped and delivers nothing" in problem["text"]
            assert f"kill -CONT {owner.process.pid}" in problem["fix"]
            owner.process.send_signal(signal.SIGCONT)
            owner.kill()
        assert holder(base).state == "free"

    @pytest.mark.parametrize(
        ("arguments", "verb"),
        [
            (("queue", "purge", "--yes"), "purged"),
            (("dead-letters", "requeue", "--all"), "changed (requeued)"),
            (("dead-letters", "delete", "--all", "--yes"), "changed (deleted)"),
        ],
    )
    def test_what_changes_a_live_queue_is_refused_and_the_owner_named(
        self, shell: Shell, arguments: tuple[str, ...], verb: str
    ) -> None:
        with shell.client() as client:
            client.track("a")
            result = shell(*arguments, code=1)
            assert f"queue.db cannot be {verb}: process {os.getpid()}" in result.err
            assert client.stats().pending == 1

    @NEEDS_ROOT
    def test_a_lock_that_proc_does_not_show_is_found_by_trying(self, shell: Shell) -> None:
        from causality_sdk import holders

        fill(shell)
        lock = ownership.lock_path(shell.queue)
        assert not holders._is_locked(lock)
        with shell.client():
            assert holders._is_locked(lock)
        assert not holders._is_locked(lock.with_name("nowhere"))


class TestListAndExport:
    def test_a_table_with_filters(self, shell: Shell) -> None:
        keys = fill(shell, 6)
        lines = shell("queue", "list").out.splitlines()
        assert lines[0].split() == ["id", "time", "event_type", "idempotency_key", "bytes", "file"]
        assert lines[1].split()[:4] == ["1", "2023-11-14T22:13:20.000Z", "even", keys[0]]
        assert len(lines) == 7

        def ids(*options: str) -> list[int]:
            return [row["id"] for row in shell("queue", "list", "--json", *options).lines]

        assert ids("--type", "odd") == [2, 4, 6]
        assert ids("--key", keys[2], "--key", keys[4]) == [3, 5]
        assert ids("--since", "2023-11-14T22:13:22Z", "--until", "1700000004000") == [3, 4]
        assert ids("--until", "2h") == [1, 2, 3, 4, 5, 6]
        assert ids("--since", "2h") == []
        assert ids("--limit", "2") == [1, 2]
        assert "there is more" in shell("queue", "list", "--limit", "2").err
        assert "is no time" in shell("queue", "list", "--since", "soon", code=1).err

    def test_show_finds_one_event(self, shell: Shell, collector: LoopbackCollector) -> None:
        dead = bury(shell, collector)
        keys = fill(shell, 3)
        found = shell("queue", "show", keys[1], "--json").json
        assert (found["state"], found["event"]["properties"]["n"]) == ("waiting", 1)
        assert shell("queue", "show", dead, "--json").json["state"] == "dead letter"
        assert json.loads(shell("queue", "show", keys[1]).out)["idempotency_key"] == keys[1]
        assert "no event with the key k" in shell("queue", "show", "k", code=1).err

    def test_an_export_is_the_very_bytes(self, shell: Shell) -> None:
        keys = fill(shell)
        with closing(sqlite3.connect(shell.queue)) as connection:
            rows = connection.execute("SELECT payload FROM queue ORDER BY id").fetchall()
        assert shell("queue", "export").out == "".join(row[0].decode() + "\n" for row in rows)
        table = list(csv.DictReader(shell("queue", "export", "--format", "csv").out.splitlines()))
        assert [row["idempotency_key"] for row in table] == keys
        assert json.loads(table[3]["properties"])["n"] == 3

    def test_an_export_to_a_file(self, shell: Shell) -> None:
        fill(shell)
        target = shell.home / "out.ndjson.gz"
        result = shell("queue", "export", "--output", target, "--type", "odd", "--json")
        assert result.json == {"exported": 2, "damaged": 0, "lost": 0, "file": str(target)}
        assert len(gzip.decompress(target.read_bytes()).splitlines()) == 2
        assert "is there already" in shell("queue", "export", "--output", target, code=1).err
        shell("queue", "export", "--output", target, "--force")
        assert len(gzip.decompress(target.read_bytes()).splitlines()) == 5
        assert "cannot be written" in shell("queue", "export", "--output", "/nowhere/x", code=1).err
        assert [path.name for path in shell.home.iterdir() if "part" in path.name] == []

    def test_a_row_with_a_wrong_checksum_is_left_out_and_said(self, shell: Shell) -> None:
        fill(shell)
        with closing(sqlite3.connect(shell.queue)) as connection, connection:
            connection.execute("UPDATE queue SET crc = crc + 1 WHERE id = 2")
        result = shell("queue", "export")
        assert len(result.lines) == 4
        assert "1 event with a wrong checksum left out" in result.err
        problem = shell("queue", "doctor", "--offline", code=1).out
        assert "1 event with a wrong checksum" in problem

    @NEEDS_POSIX
    def test_a_closed_pipe_ends_it_with_141(self, shell: Shell) -> None:
        fill(shell, 5000)
        result = shell.line('causality queue export | head -n 1; echo "${PIPESTATUS[0]}"')
        assert result.out.splitlines()[1] == "141"
        assert result.err == ""

    def test_while_it_prints_no_transaction_is_open_and_the_log_can_start_over(
        self, shell: Shell
    ) -> None:
        """A reader that stops in the middle does not keep the owner from its checkpoint."""
        with shell.client() as client:
            client.track_many([Event("a", {"n": n}) for n in range(2000)])
            process = shell.start("queue", "export", stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()  # and no more: its pipe is full, and it waits
            client.track_many([Event("b", {"n": n}) for n in range(100)])
            assert client._pipeline is not None
            assert client._pipeline.queue.checkpoint()
            rest = process.stdout.read().splitlines()
            process.stdout.close()
            assert process.wait(60) == 0
            assert len(rest) == 2099


class TestADeadDisk:
    """A kiosk's file, copied from its disk: perhaps without lock, with its log, read-only."""

    @pytest.fixture
    def copied(self, shell: Shell, tmp_path: Path) -> Path:
        """Killed in the middle: the newest events are in the log alone."""
        script = (
            "import os, signal, sys; from causality_sdk import Client\n"
            "c = Client(api_key='k', endpoint='http://127.0.0.1:9', app_id='kiosk', start=False,"
            " queue_path=sys.argv[1])\n"
            "for n in range(50): c.track('a', {'n': n})\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        subprocess.run(
            [sys.executable, "-c", script, str(shell.queue)], env=shell.environ, check=False
        )
        place = tmp_path / "disk"
        place.mkdir()
        for name in ("queue.db", "queue.db-wal"):
            shutil.copyfile(shell.queue.with_name(name), place / name)
        return place / "queue.db"

    @NEEDS_POSIX
    def test_it_can_be_read(self, shell: Shell, copied: Path) -> None:
        found = shell("queue", "status", "--queue-path", copied, "--json").json
        assert found["pending"] == 50
        assert found["files"][0]["owner"]["state"] == "free"
        assert len(shell("queue", "export", "--queue-path", copied).lines) == 50

    @NEEDS_POSIX
    @NEEDS_ROOT
    def test_also_where_nothing_can_be_written(self, shell: Shell, copied: Path) -> None:
        """By a user who may only read, as from a medium that is write-protected."""
        for path in (copied.parent, *copied.parent.iterdir()):
            path.chmod(0o555 if path.is_dir() else 0o444)
        for path in (copied.parents[1], *copied.parents[1].parents):
            if path != Path("/") and path.stat().st_mode & 0o005 != 0o005:
                path.chmod(path.stat().st_mode | 0o055)
        before = sorted(path.name for path in copied.parent.iterdir())
        script = (
            # Loaded beforehand: nobody may not read this Python's own directory.
            "import os, sys, filelock, platformdirs, encodings.idna\n"
            "from causality_sdk.cli import main\n"
            "from causality_sdk.cli.queue import doctor, export, replay\n"
            f"os.setuid({NOBODY})\n"
            "main(sys.argv[1:], prog_name='causality')"
        )

        def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-c", script, *arguments, "--queue-path", str(copied)],
                env=shell.environ, cwd=ROOT,
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip

        result = as_nobody("queue", "export")
        assert result.returncode == 0, result.stderr
        assert len(result.stdout.splitlines()) == 50
        assert sorted(path.name for path in copied.parent.iterdir()) == before
        refused = as_nobody("queue", "replay", "--endpoint", NOWHERE)
        assert refused.returncode == 1
        assert "make its directory writable" in refused.stderr
        sick = as_nobody("queue", "doctor", "--offline")
        assert sick.returncode == 1
        assert "is not writable for this user" in sick.stdout

    @NEEDS_POSIX
    def test_it_is_replayed_to_another_server(
        self, shell: Shell, copied: Path, collector: LoopbackCollector
    ) -> None:
        options = ("--queue-path", str(copied))
        result = shell("queue", "replay", *options, code=2)
        assert f"wait for {NOWHERE}" in result.err
        assert collector.count == 0
        result = shell("queue", "replay", *options, "--endpoint", collector.endpoint, "--json")
        assert (result.summary["delivered"], result.summary["pending"]) == (50, 0)
        assert collector.count == 50
        found = shell("queue", "status", *options, "--json").json["files"][0]
        assert (found["tracked"], found["acknowledged"]) == (50, 50)
        assert found["destination"]["endpoint"] == NOWHERE

    def test_what_is_no_queue_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE t (x)")
        with pytest.raises(InputError, match="is not a causality queue"):
            QueueReader(path)
        with pytest.raises(InputError, match="there is no queue file"):
            QueueReader(tmp_path / "nowhere.db")


class TestImport:
    def test_keys_and_times_stay_and_the_server_can_drop_what_it_has(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        keys = fill(shell)
        exported = shell("queue", "export").out
        shell("queue", "replay")
        shell("queue", "import", "-", stdin=exported)
        assert shell("queue", "export").out == exported
        shell("queue", "replay")
        assert collector.keys == keys
        assert collector.received == 10

    def test_beside_a_live_queue_it_fills_a_file_of_its_own(self, shell: Shell) -> None:
        fill(shell)
        exported = shell("queue", "export").out
        with shell.client() as client:
            result = shell("queue", "import", "-", "--json", stdin=exported)
            assert result.summary["imported"] == 5
            assert Path(result.summary["queue_path"]).name == "queue.1.db"
            assert client.stats().pending == 5

    def test_1_an_event_without_a_key_is_no_export(self, shell: Shell) -> None:
        result = shell("queue", "import", "-", stdin=ndjson(1), code=1)
        assert "line 1: idempotency_key is missing; this is no export" in result.err

    def test_4_a_file_that_is_not_there(self, shell: Shell) -> None:
        shell("queue", "import", "/nowhere", code=4)

    def test_a_dry_run_changes_nothing(self, shell: Shell) -> None:
        line = (
            '{"event_type":"a","idempotency_key":"k","timestamp_ms":1,"app_id":"x",'
            '"properties":{"_server":{}}}'
        )
        result = shell("queue", "import", "-", "--dry-run", stdin=line)
        assert json.loads(result.out) == json.loads(line)
        assert not shell.queue.exists()


class TestReplay:
    def test_all_files_that_nobody_owns_and_the_live_one_is_left_to_its_owner(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        with shell.client() as first:
            first.track("mine")
            with shell.client() as second:
                second.track_many([Event("left", {"n": n}) for n in range(3)])
            result = shell("queue", "replay", "--json")
            assert result.summary["delivered"] == 3
            assert f"queue.db is delivered by process {os.getpid()}" in result.err
            assert first.stats().pending == 1
            again = shell("queue", "replay")
            assert "which has it open: nothing to do here" in again.err
        assert collector.count == 3

    def test_the_rate_is_kept(self, shell: Shell, collector: LoopbackCollector) -> None:
        fill(shell, 60)
        started = time.monotonic()
        result = shell("queue", "replay", "--rate", "40", "--json")
        assert result.summary["delivered"] == 60
        # The first 40 go at once, the others when their second has come.
        assert time.monotonic() - started >= 1.0
        assert max(request.count for request in collector.requests) <= 40

    def test_a_dry_run_says_what_would_go_where(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        fill(shell)
        result = shell("queue", "replay", "--dry-run", "--json")
        assert result.json["files"] == [{"path": str(shell.queue), "pending": 5}]
        assert collector.requests == []

    def test_3_and_what_is_left_stays(self, shell: Shell, collector: LoopbackCollector) -> None:
        fill(shell)
        collector.down()
        result = shell("queue", "replay", "--max-retries", "1", "--json", code=3)
        assert result.summary["pending"] == 5
        assert "5 events left: " in result.err
        collector.up()
        assert shell("queue", "replay").out.startswith("5 events delivered in ")

    def test_2_when_the_key_is_refused(self, shell: Shell, collector: LoopbackCollector) -> None:
        fill(shell)
        collector.api_key = "another"
        assert "check api_key" in shell("queue", "replay", code=2).err

    def test_2_when_events_are_refused_by_name(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        fill(shell)
        collector.accept_only(lambda _index, event: event["event_type"] == "even")
        result = shell("queue", "replay", "--json", code=2)
        assert (result.summary["delivered"], result.summary["pending"]) == (3, 2)

    def test_nothing_to_do_is_success(self, shell: Shell) -> None:
        result = shell("queue", "replay")
        assert result.out == ""
        assert "nothing was tracked here yet" in result.err
        assert shell("queue", "replay", "--quiet").err == ""
        assert shell("queue", "replay", "--json").summary["files"] == []

    def test_quietly_it_says_nothing_of_what_the_next_run_may_mend(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        fill(shell)
        collector.down()
        result = shell("queue", "replay", "--quiet", "--max-retries", "0", code=3)
        assert (result.out, result.err) == ("", "")
        collector.up()
        collector.api_key = "another"
        assert "check api_key" in shell("queue", "replay", "--quiet", code=2).err

    def test_a_long_replay_outlives_a_server_that_stumbles(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        """More failures than --max-retries, but something gets through in between."""
        fill(shell, 200)
        served = []

        def every_other(request: Any) -> Any:
            from causality_sdk.testing import ScriptedAnswer

            served.append(request.count)
            return ScriptedAnswer(status=503) if len(served) % 2 else None

        collector.answer_with(every_other)
        options = ("--max-retries", "2", "--max-batch-events", "10", "--json")
        result = shell("queue", "replay", *options)
        assert result.summary["delivered"] == 200
        assert len(served) > 20

    def test_the_books_balance_afterwards(self, shell: Shell, collector: LoopbackCollector) -> None:
        fill(shell, 500)
        collector.respond(500, times=1)
        shell("queue", "replay")
        found = shell("queue", "status", "--json").json["files"][0]
        assert (found["tracked"], found["acknowledged"], found["pending"]) == (500, 500, 0)


class TestPurge:
    def test_without_a_terminal_it_must_be_said(self, shell: Shell) -> None:
        fill(shell)
        result = shell("queue", "purge", code=1)
        assert "Nobody is there to ask; say so with --yes" in result.err
        assert shell("queue", "purge", "--dry-run").out == "5 events would be deleted\n"
        assert shell("queue", "status", "--json").json["pending"] == 5

    def test_what_is_deleted_is_counted_as_purged(self, shell: Shell) -> None:
        keys = fill(shell, 1201)
        result = shell("queue", "purge", "--type", "odd", "--yes", "--json")
        assert result.json["purged"] == 600
        found = shell("queue", "status", "--json").json["files"][0]
        assert (found["tracked"], found["pending"]) == (1201, 601)
        assert found["evicted"]["purged"] == 600
        left = [row["idempotency_key"] for row in shell("queue", "export").lines]
        assert left == keys[::2]
        with shell.client() as client:  # and the file is in order
            stats = client.stats()
            assert stats.evicted is not None
            assert (stats.pending, stats.evicted["purged"]) == (601, 600)

    def test_nothing_to_do_is_no_error(self, shell: Shell) -> None:
        fill(shell)
        assert shell("queue", "purge", "--type", "x", "--json").json["purged"] == 0


class TestDeadLetters:
    def test_list_and_show(self, shell: Shell, collector: LoopbackCollector) -> None:
        key = bury(shell, collector)
        (row,) = shell("dead-letters", "list", "--json").lines
        assert (row["idempotency_key"], row["event_type"], row["status"]) == (key, "bad", 200)
        assert key in shell("dead-letters", "list").out
        assert (
            shell("dead-letters", "show", row["id"], "--json").json["event"]["event_type"] == "bad"
        )
        assert json.loads(shell("dead-letters", "show", key).out)["properties"]["n"] == -1
        assert "no dead letter 99" in shell("dead-letters", "show", "99", code=1).err
        exported = shell("queue", "export", "--dead-letters").json
        assert exported["idempotency_key"] == key

    def test_requeue_puts_it_back_with_its_key(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        key = bury(shell, collector)
        assert "which?" in shell("dead-letters", "requeue", code=1).err
        result = shell("dead-letters", "requeue", key, "--dry-run", "--json")
        assert result.json == {"dry_run": True, "matching": 1}
        assert shell("dead-letters", "requeue", "--type", "bad").out == "1 event requeued\n"
        found = shell("queue", "status", "--json").json["files"][0]
        assert (found["buried"], found["requeued"], found["dead_letters"]) == (0, 1, 0)
        shell("queue", "replay")
        assert collector.keys[-1] == key

    def test_delete_asks_and_it_stays_in_the_count(
        self, shell: Shell, collector: LoopbackCollector
    ) -> None:
        bury(shell, collector)
        assert "which? Name them" in shell("dead-letters", "delete", "--yes", code=1).err
        asked = shell("dead-letters", "delete", "--all", code=1).err
        assert "Delete 1 event? It cannot be brought back. Nobody is there to ask" in asked
        assert shell("dead-letters", "delete", "--all", "--yes", "--json").json["deleted"] == 1
        found = shell("queue", "status", "--json").json["files"][0]
        assert (found["buried"], found["dead_letters"]) == (1, 0)


@contextmanager
def server_with(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A plain server whose every answer is `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def log_message(self, *_arguments: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestDoctor:
    def problems(self, shell: Shell, *options: object, code: int = 1, **environ: str) -> list[Any]:
        found = shell("queue", "doctor", "--json", *options, code=code, **environ).json
        assert found["ok"] == (code == 0)
        problems = [each for each in found["findings"] if each["level"] == "problem"]
        assert all(each["fix"] for each in problems)
        return problems

    def test_0_all_is_well(self, shell: Shell) -> None:
        assert self.problems(shell, code=0) == []
        with shell.client() as client:
            client.track("a")
            assert self.problems(shell, code=0) == []
            out = shell("queue", "doctor").out
            assert f"is owned by process {os.getpid()}" in out
            assert "takes the api key (200)" in out

    def test_the_server_cannot_be_reached(self, shell: Shell) -> None:
        (problem,) = self.problems(shell, "--endpoint", NOWHERE)
        assert "cannot be reached" in problem["text"]
        assert "check the port" in problem["fix"]

    def test_the_key_is_refused(self, shell: Shell, collector: LoopbackCollector) -> None:
        collector.api_key = "another"
        (problem,) = self.problems(shell)
        assert problem["text"].startswith("refuses the api key (401")
        assert collector.count == 0

    def test_the_clock_is_wrong_by_the_servers_date(self, shell: Shell) -> None:
        def an_hour_ago(request: BaseHTTPRequestHandler) -> None:
            request.send_response_only(200)
            request.send_header("Date", formatdate(time.time() - 7200, usegmt=True))
            request.send_header("Content-Length", "0")
            request.end_headers()

        with server_with(an_hour_ago) as endpoint:
            (problem,) = self.problems(shell, "--endpoint", endpoint)
        assert problem["subject"] == "clock"
        assert problem["text"].startswith("2 h fast")

    def test_a_corrupt_file(self, shell: Shell) -> None:
        fill(shell, 2000)
        data = bytearray(shell.queue.read_bytes())
        data[4096 * 20 : 4096 * 24] = os.urandom(4096 * 4)
        shell.queue.write_bytes(data)
        (problem,) = self.problems(shell, "--offline")
        assert "is damaged" in problem["text"]

    def test_a_file_that_is_no_queue(self, shell: Shell) -> None:
        shell.queue.parent.mkdir()
        shell.queue.write_bytes(b"nonsense" * 1000)
        (problem,) = self.problems(shell, "--offline")
        assert "cannot be read" in problem["text"]

    def test_events_for_another_server_or_key(self, shell: Shell) -> None:
        fill(shell)
        (problem,) = self.problems(shell, "--offline", "--endpoint", NOWHERE)
        assert f"5 events in it wait for {shell.environ['CAUSALITY_ENDPOINT']}" in problem["text"]
        assert f"no client with these options, for {NOWHERE}, takes them" in problem["text"]
        shell("queue", "doctor", "--offline", CAUSALITY_API_KEY="new-key")
        (problem,) = self.problems(
            shell, "--offline", "--key-is-destination", CAUSALITY_API_KEY="new-key"
        )
        assert "another api key" in problem["text"]

    def test_a_queue_near_its_cap(self, shell: Shell) -> None:
        fill(shell)
        (problem,) = self.problems(shell, "--offline", "--max-queue-events", "5")
        assert "max_queue_events is 5" in problem["text"]

    def test_a_wrong_option(self, shell: Shell) -> None:
        (problem,) = self.problems(shell, "--batch-size", "0")
        assert "batch_size must be at least 1" in problem["text"]

    def test_a_full_disk(self) -> None:
        assert free_space("x", NEEDED_BYTES, 100).level == "ok"
        assert free_space("x", NEEDED_BYTES - 1, None).level == "problem"
        assert "no free inode" in free_space("x", 10**12, 0).text

    @pytest.mark.parametrize(
        ("status", "words"),
        [(401, "api key"), (403, "api key"), (404, "address"), (301, "address"), (500, "fails")],
    )
    def test_what_an_answer_says_about_the_server(self, status: int, words: str) -> None:
        finding = key_finding("server", status)
        assert finding.level == "problem"
        assert words in finding.text
        assert key_finding("server", 200).level == "ok"
        # A batch of no events may well be refused; what the server says about it is shown.
        refused = key_finding("server", 422, "order_id is required")
        assert refused.level == "note"
        assert "order_id is required" in refused.text

    def test_what_a_date_says_about_the_clock(self) -> None:
        date = "Sat, 21 Nov 2026 08:30:00 GMT"
        now = 1795249800.0
        for difference, text in ((0, "within"), (100, "within"), (3600, "60 min fast")):
            found = clock_finding(date, now + difference)
            assert found is not None
            assert found.text.startswith(text)
        slow = clock_finding(date, now - 600)
        assert slow is not None
        assert slow.text.startswith("10 min slow")
        assert clock_finding("", now) is None
        assert clock_finding("yesterday", now) is None


def test_bench_measures_and_leaves_nothing(shell: Shell, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    options = ("--events", "200", "--directory", place, "--json")
    rates = shell("bench", *options).json["events_per_second"]
    assert set(rates) == {"track()", "track_many() of 200", "delivery"}
    assert all(rate > 0 for rate in rates.values())
    delivery = shell("bench", "--events", "20", "--directory", place).out.splitlines()[-1]
    assert delivery.split()[:2] == ["delivery", "20"]
    assert list(place.iterdir()) == []
