"""Runs `causality` as people run it: in a process of its own, in a shell, on a terminal.

Neighbours: the tests of the command line. Invariant: nothing of the user's is read or written, and
none of the `CAUSALITY_*` variables of this process is seen.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from causality_sdk import Client

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 120  # until a run that hangs is given up
KEY = "test-key-that-nobody-may-see"
NOWHERE = "http://127.0.0.1:9"  # the discard service, which no test machine runs


class Shell:
    """A user with a home, a queue and a server."""

    def __init__(self, home: Path, endpoint: str = NOWHERE) -> None:
        self.home = home
        self.queue = home / "q" / "queue.db"
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CAUSALITY_", "XDG_"))
        } | {
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "100",
            "CAUSALITY_API_KEY": KEY,
            "CAUSALITY_ENDPOINT": endpoint,
            "CAUSALITY_APP_ID": "shop",
            "CAUSALITY_QUEUE_PATH": str(self.queue),
            "CAUSALITY_BACKOFF_INITIAL": "0.01",
            "CAUSALITY_BACKOFF_MAX": "0.02",
        }

    def __call__(
        self, *arguments: object, stdin: str | bytes = b"", code: int = 0, **environ: str
    ) -> Result:
        """Runs to the end; the exit code must be `code`."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        process = subprocess.run(
            [sys.executable, "-m", "causality_sdk", *map(str, arguments)],
            input=data, capture_output=True, timeout=SECONDS, check=False,
            env=self.environ | environ,
        )  # fmt: skip
        result = Result(process)
        assert result.code == code, (result.code, result.out[-2000:], result.err[-2000:])
        for text in (result.out, result.err):
            assert KEY not in text
            assert "Traceback" not in text
        return result

    def line(self, text: str, **environ: str) -> Result:
        """Runs a line of a real shell, in which `causality` is the command."""
        script = f'causality() {{ "{sys.executable}" -m causality_sdk "$@"; }}\n{text}'
        process = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", script],
            capture_output=True, timeout=SECONDS, check=False, cwd=self.home,
            env=self.environ | environ,
        )  # fmt: skip
        return Result(process)

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """Starts it; the caller waits."""
        environ = self.environ | options.pop("environ", {})
        return subprocess.Popen(
            [sys.executable, "-m", "causality_sdk", *map(str, arguments)],
            env=environ, **options,
        )  # fmt: skip

    def client(self, **options: Any) -> Client:
        """A service of this user's."""
        given: dict[str, Any] = {
            "api_key": KEY,
            "endpoint": self.environ["CAUSALITY_ENDPOINT"],
            "app_id": "shop",
            "queue_path": self.queue,
            "start": False,
            "close_timeout": 0,
            "backoff_initial": 0.01,
            "backoff_max": 0.02,
        }
        return Client(**(given | options))


class Result:
    """What a run left."""

    def __init__(self, process: subprocess.CompletedProcess[bytes]) -> None:
        self.code = process.returncode
        self.out = process.stdout.decode()
        self.err = process.stderr.decode()

    @property
    def json(self) -> Any:
        """The only line of stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[Any]:
        """All lines of stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> Any:
        """The last line of stdout."""
        found = self.lines[-1]
        assert found["kind"] == "summary"
        return found


@contextmanager
def terminal(shell: Shell, *arguments: object, **environ: str) -> Iterator[Terminal]:
    """A run on a pseudo-terminal of its own."""
    import pty

    ours, theirs = pty.openpty()
    process = shell.start(
        *arguments, stdin=theirs, stdout=theirs, stderr=theirs,
        environ={"TERM": "xterm", **environ}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    found = Terminal(ours, process)
    try:
        yield found
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)
        os.close(ours)


class Terminal:
    """The other side of it."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor = descriptor
        self.process = process
        self.text = ""

    def read_until(self, words: str) -> str:
        """All that was shown, once `words` are in it."""
        while words not in self.text:
            data = self._read()
            assert data, self.text
        return self.text

    def read_to_end(self) -> str:
        """All that was shown, once it has ended."""
        while self._read():
            pass
        self.process.wait(SECONDS)
        return self.text

    def type(self, text: str) -> None:
        """What a person types."""
        os.write(self._descriptor, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, as the terminal makes it of the key."""
        os.killpg(self.process.pid, signal.SIGINT)

    def interrupt_question(self) -> None:
        """Ctrl-C at a prompt, as often as it takes.

        Python's `input()` can miss one that comes just before it waits, as people know who press
        it twice.
        """
        while self.process.poll() is None:
            self.interrupt()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)

    def _read(self) -> str:
        try:
            data = os.read(self._descriptor, 65536).decode("utf-8", "replace")
        except OSError:  # Linux: nobody has the other side open any more
            data = ""
        self.text += data
        return data


def ndjson(count: int, start: int = 0) -> bytes:
    """So many events, one a line."""
    return b"".join(
        b'{"event_type":"order_placed","user_id":"u-%d","properties":{"n":%d}}\n' % (n, n)
        for n in range(start, start + count)
    )
