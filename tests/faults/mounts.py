"""File systems to fill, to make read-only and to cut the power of: a tmpfs, an ext4 in a file.

Needs root. Invariant: what was mounted is unmounted, whatever happened in between.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from faults.registry import Unavailable, need_program, need_root

# Of include/uapi/linux/fs.h and fs/ext4/ext4.h: _IOR('X', 125, __u32).
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2  # neither data nor journal reaches the disk any more


def call(*words: object) -> None:
    """Runs a program of the system; its words if it fails."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


@contextlib.contextmanager
def tmpfs(where: Path, megabytes: int) -> Iterator[Path]:
    """A small file system in memory."""
    need_root()
    where.mkdir()
    call(need_program("mount"), "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", where)
    try:
        yield where
    finally:
        call(need_program("umount"), "-l", where)


class Ext4:
    """An ext4 in a file, on a loop device. Context manager."""

    def __init__(self, where: Path, megabytes: int) -> None:
        need_root()
        self.root = where / "mounted"
        self.root.mkdir(parents=True)
        self._image = where / "image"
        with self._image.open("wb") as file:
            file.truncate(megabytes * 1024 * 1024)
        call(need_program("mkfs.ext4"), "-q", "-F", self._image)

    def mount(self) -> None:
        """Mounts it; the journal is replayed."""
        call(need_program("mount"), "-o", "loop", self._image, self.root)

    def unmount(self) -> None:
        """Unmounts it. Nobody may use it."""
        call(need_program("umount"), self.root)

    def cut(self) -> None:
        """As if the power had gone: from now on nothing is written, every call is an error."""
        import fcntl  # not on Windows, where this module can be imported all the same

        root = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(root, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(root)

    def __enter__(self) -> Ext4:
        self.mount()
        return self

    def __exit__(self, *_exception: object) -> None:
        with contextlib.suppress(Unavailable):
            self.unmount()


def fill(directory: Path) -> Path:
    """Another writer takes all the space that is left; gives the file that holds it."""
    filler = directory / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(descriptor, bytes(size))
    finally:
        os.close(descriptor)
    return filler
