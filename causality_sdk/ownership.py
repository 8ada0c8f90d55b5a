"""Which queue file is ours: a lock beside each file that the kernel drops when its owner dies.

Neighbours: `claim` walks the candidates and keeps the lease of the one it takes. Invariant: nobody
writes to a queue file whose lease it does not hold, and a lock file is never unlinked, since a
second process could then lock a new file of the same name.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from causality_sdk import place, possession
from causality_sdk.errors import QueueError
from causality_sdk.forking import loading_gate

if TYPE_CHECKING:
    from filelock import BaseFileLock

MAX_SIBLINGS = 1000
"""Files of one app at most, one for each process that runs at the same time."""


_STANDARD = 2  # the highest descriptor of a standard stream
_PROGRAM_CHARS = 200


def siblings(base: Path) -> Iterator[Path]:
    """`queue.db`, `queue.1.db`, `queue.2.db`, …: the files that processes of one app may own."""
    yield base
    for number in range(1, MAX_SIBLINGS):
        yield base.with_name(f"{base.stem}.{number}{base.suffix}")


def existing(base: Path) -> list[Path]:
    """Those of the siblings of `base` that exist, in their order. Empty if none can be listed.

    One that was set aside as damaged, and is not repaired yet, is among them.
    """
    name = re.compile(
        re.escape(base.stem)
        + r"(?:\.([1-9][0-9]{0,2}))?"
        + re.escape(base.suffix)
        + r"(?:\.damaged)?"
    )
    found = set()
    try:
        with os.scandir(base.parent) as entries:
            for entry in entries:
                match = name.fullmatch(entry.name)
                if match is not None:
                    found.add(
                        (int(match[1] or 0), base.parent / entry.name.removesuffix(".damaged"))
                    )
    except OSError:
        return []
    return [path for _, path in sorted(found)]


def lock_path(queue_file: Path) -> Path:
    """The lock file that belongs to a queue file."""
    return queue_file.with_name(queue_file.name + ".lock")


class Lease:
    """The right to write to `path`, until `release()` or the end of the process."""

    def __init__(self, path: Path, lock: BaseFileLock, *, is_same_boot: bool) -> None:
        self.path = path
        self.is_same_boot = is_same_boot
        """Whether the last owner is known to have had it since the machine was switched on: then
        no power cut has come in between."""
        self._lock = lock
        self._identity = _identity(lock_path(path))

    @property
    def is_valid(self) -> bool:
        """Whether the lock file is still there. One that was deleted keeps nobody out: somebody
        else may hold a new one of its name.
        """
        return self._identity is not None and _identity(lock_path(self.path)) == self._identity

    def release(self) -> None:
        """Gives the file up. May be called twice, from any thread."""
        self._lock.release()


def acquire(path: Path) -> Lease | None:
    """The lease of `path`, or None while somebody else holds it. Never waits.

    Raises `QueueError` when the lock file cannot be made.
    """
    with standard_streams_kept():
        return _acquire(path)


def _acquire(path: Path) -> Lease | None:
    target = lock_path(path)
    _check_place(target)
    try:
        with loading_gate():
            from filelock import FileLock, Timeout  # 40 ms that `import causality_sdk` need not pay
    except ImportError as error:
        raise QueueError(
            f"lock file {target} cannot be used ({error}); make the first client before the program"
            " forks, or fork when that is made"
        ) from error
    except RuntimeError as error:  # Python 3.11 loads no thread pools in an atexit hook
        raise QueueError(
            f"lock file {target} cannot be used while the interpreter shuts down ({error}); make"
            " the first client earlier"
        ) from error
    lock = FileLock(
        str(target),
        timeout=0,
        mode=0o600,
        thread_local=False,  # the default makes a release() from another thread do nothing
        preserve_lock_file=True,  # Windows would unlink it
        fallback_to_soft=False,  # without flock, a killed owner's file would stay locked for ever
    )
    try:
        with suppress(FileExistsError):
            possession.make_file(target)
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        raise _unusable(target, error) from error
    before = owner(path)
    boot = _boot_id()
    _sign(target, boot)
    return Lease(path, lock, is_same_boot=boot is not None and before.get("boot") == boot)


def _check_place(target: Path) -> None:
    """Refuses what cannot be a lock file: a link would lock a file elsewhere, a FIFO may hang."""
    try:
        mode = target.lstat().st_mode
    except OSError:  # mostly: not there yet
        return
    if not stat.S_ISREG(mode):
        raise QueueError(
            f"lock file {target} is not a regular file; it was left as it is. Move it away, or give"
            " another queue_path"
        )


def _unusable(target: Path, error: Exception) -> QueueError:
    what = f"lock file {target} cannot be used ({getattr(error, 'strerror', None) or error})"
    whose, user = possession.owner_of(target), possession.this_user()
    if whose is not None and whose != user:
        return QueueError(
            f"{what}: it is not writable for this user: it belongs to {whose}, and this process"
            f" runs as {user}; {place.give_it(target)}, or give another queue_path"
        )
    return QueueError(
        f"{what}; make its directory writable for this user, or give another queue_path"
    )


@contextmanager
def standard_streams_kept() -> Iterator[None]:
    """Keeps the numbers 0 to 2 from what is opened inside, where standard streams are closed.

    What a C library, or a child, writes to its standard output would land in the file.
    """
    held: list[int] = []
    try:
        with suppress(OSError):  # no descriptor is left; what is opened inside will tell
            while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD:
                held.append(descriptor)
            os.close(descriptor)
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def owner(path: Path) -> dict[str, Any]:
    """What the last owner of `path` wrote about itself: pid, host, started_ms. Empty if nothing.

    For people. Whether the owner still lives only the lock tells.
    """
    try:
        signed = orjson.loads(lock_path(path).read_bytes()[1:])
    except (OSError, ValueError):
        return {}
    return signed if isinstance(signed, dict) else {}


def _identity(target: Path) -> tuple[int, int] | None:
    try:
        info = target.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _boot_id() -> str | None:
    """What is different after each start of the machine; None where nobody says."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().decode().strip()
    except OSError:
        return None


def _program() -> str:
    """The name of the program, with what is not UTF-8 in it escaped. Empty if it has none."""
    try:
        name = Path(os.fsdecode(sys.argv[0])).name  # an embedded interpreter may have no argv
    except (AttributeError, LookupError, TypeError):
        return ""
    try:
        raw = os.fsencode(name)
    except UnicodeError:  # somebody set it by hand
        raw = name.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")[:_PROGRAM_CHARS]


def _sign(target: Path, boot: str | None) -> None:
    """Writes who owns the lock. The first byte stays blank: it is the one that Windows locks."""
    text = orjson.dumps(
        {
            "pid": os.getpid(),
            "host": socket.gethostname().encode("utf-8", "replace").decode("utf-8"),
            "started_ms": time.time_ns() // 1_000_000,
            "program": _program(),
            "boot": boot,
        }
    )
    try:
        with target.open("r+b") as file:  # flock, unlike lockf, does not mind this open and close
            file.seek(1)
            file.write(text)
            file.truncate()
    except OSError:
        # A courtesy to people; the lock holds without it, and a full disk must not stop us here.
        return
