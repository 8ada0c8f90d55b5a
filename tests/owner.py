"""A process that claims a queue file and holds it until it is told to let go, or is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """
import sys
from pathlib import Path
from causality_sdk import schema
from causality_sdk.claim import claim
from causality_sdk.queue import Queue
import sqlite_utils, filelock
print("ready", flush=True)
for line in sys.stdin:
    base = Path(line.rstrip())
    takes = base.name.startswith("+")
    base = base.with_name(base.name.removeprefix("+"))
    here = schema.Destination("http://here", "causality", "key")
    claimed = claim(base, here, take_over=takes)
    queue = Queue(claimed.lease.path, max_events=10**6, max_bytes=10**9)
    queue.append(b"x")
    print(claimed.lease.path.name, flush=True)
    sys.stdin.readline()
    queue.close()
    claimed.lease.release()
    print("released", flush=True)
"""


class Owner:
    """Context manager. `start(base)` makes it go for a file, `claimed()` gives the file's name."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )

    def wait_until_ready(self) -> None:
        """It has imported all it needs."""
        assert self._line() == "ready"

    def start(self, base: Path) -> None:
        """It goes for a file; does not wait."""
        self._tell(str(base))

    def claimed(self) -> str:
        """The name of the file that it owns."""
        return self._line()

    def take(self, base: Path) -> str:
        """All three at once."""
        self.wait_until_ready()
        self.start(base)
        return self.claimed()

    def take_over(self, base: Path) -> str:
        """The same with a file of another destination."""
        return self.take(base.with_name("+" + base.name))

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more."""
        self.process.kill()
        self.process.wait(10)

    def release(self) -> None:
        """It lets its file go."""
        self._tell("")
        assert self._line() == "released"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def __enter__(self) -> Owner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()
