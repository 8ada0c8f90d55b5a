"""Who holds a queue file at this moment, found out without disturbing anybody.

Neighbours: `ownership` makes the locks and writes who owns them; `Client.stats()` and the command
line ask here. Invariant: nothing is written, and no lock is taken that could turn an owner away for
longer than a look takes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causality_sdk import ownership
from causality_sdk.destination import Destination, Elsewhere
from causality_sdk.stats import OwnerState, QueueFileStats


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that owns a file, or the last one that did."""

    held: bool
    """Whether it owns the file now."""
    pid: int | None = None
    host: str = ""
    program: str = ""
    started_ms: int | None = None
    """When it took the file; milliseconds since the epoch."""
    stopped: bool = False
    """Whether it was stopped (SIGSTOP, Ctrl-Z): it owns the file and does nothing."""

    @property
    def state(self) -> OwnerState:
        """`free`, `owned` or `stopped`."""
        if not self.held:
            return "free"
        return "stopped" if self.stopped else "owned"

    @property
    def text(self) -> str:
        """For messages: which process it is."""
        if self.pid is None:
            return "another process"
        program = f" ({self.program})" if self.program else ""
        where = "" if self.host in ("", socket.gethostname()) else f" on {self.host}"
        return f"process {self.pid}{program}{where}"

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "state": self.state,
            "pid": self.pid,
            "host": self.host or None,
            "program": self.program or None,
            "started_ms": self.started_ms,
        }


def holder(path: Path) -> Holder:
    """Of the queue file at `path`."""
    signed = ownership.owner(path)
    lock = ownership.lock_path(path)
    pid = _pid_in_proc_locks(lock)
    held = pid is not None or _is_locked(lock)
    known = pid if pid is not None and pid > 0 else _whole(signed.get("pid"))
    host = signed.get("host")
    here = host in (None, socket.gethostname())
    return Holder(
        held=held,
        pid=known,
        host=host if isinstance(host, str) else "",
        program=str(signed.get("program") or ""),
        started_ms=_whole(signed.get("started_ms")),
        stopped=held and here and known is not None and _is_stopped(known),
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _pid_in_proc_locks(lock: Path) -> int | None:
    """Whose flock Linux has on this file, which it tells to whoever asks. None: not seen.

    A process in another container is not in the list.
    """
    try:
        info = lock.stat()
        # As bytes: a program that gave up its rights may not be able to load a codec any more.
        lines = Path("/proc/locks").read_bytes().splitlines()
    except OSError:
        return None
    name = b"%02x:%02x:%d" % (os.major(info.st_dev), os.minor(info.st_dev), info.st_ino)
    for line in lines:  # 1: FLOCK  ADVISORY  WRITE 1234 fe:01:131077 0 EOF
        words = line.split()
        if len(words) >= 6 and words[1] == b"FLOCK" and words[5] == name:
            return int(words[4])
    return None


if sys.platform == "win32":

    def _is_locked(lock: Path) -> bool:
        """Tries the byte that the owner locks, and lets go at once."""
        import msvcrt

        try:
            with lock.open("rb") as file:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

else:

    def _is_locked(lock: Path) -> bool:
        """Tries a shared lock, and lets go at once. An owner's is exclusive.

        Shared, so that two who look do not see each other; and flock, unlike lockf, does not mind
        that the file is opened and closed.
        """
        import fcntl

        try:
            descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False  # never owned on this disk, or copied without its lock file
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False  # a file system without locks has no owner
        finally:
            os.close(descriptor)
        return False


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped this process of ours, or a debugger."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines():
            if line.startswith("State:"):
                return line.split()[1] in ("T", "t")
    except OSError:
        pass
    if not Path("/bin/ps").exists() or Path("/proc/self").exists():
        return False
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(
            ["/bin/ps", "-o", "state=", "-p", str(pid)],
            capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
        return found.stdout.strip().startswith("T")
    return False


def since(holder: Holder) -> float | None:
    """Seconds since it took the file."""
    if holder.started_ms is None:
        return None
    return max(0.0, time.time() - holder.started_ms / 1000)


def files_of(
    base: Path, here: Destination, elsewhere: Mapping[Path, Elsewhere]
) -> tuple[QueueFileStats, ...]:
    """All queue files of the app whose first file is `base`, and who owns each.

    `elsewhere`: those of another destination than `here`.
    """
    return tuple(_file_stats(path, here, elsewhere.get(path)) for path in ownership.existing(base))


def _file_stats(path: Path, here: Destination, waits: Elsewhere | None) -> QueueFileStats:
    found = holder(path)
    size = 0
    for file in (path, path.with_name(path.name + "-wal")):
        with suppress(OSError):
            size += file.stat().st_size  # stat only: a close would drop SQLite's locks
    return QueueFileStats(
        path=str(path),
        bytes=size,
        state=found.state,
        pid=found.pid,
        host=found.host,
        program=found.program,
        started_ms=found.started_ms,
        elsewhere=0 if waits is None else waits.pending,
        destination="" if waits is None else waits.whom,
        command="" if waits is None else waits.command(here),
    )
