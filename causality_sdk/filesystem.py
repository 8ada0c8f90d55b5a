"""Refuses a queue on a network file system, where SQLite's locks and shared memory do not hold.

Neighbour: `claim`, before it locks anything. Invariant: what cannot be found out is allowed.

Why: "All processes using a database must be on the same host computer; WAL does not work over a
network filesystem" (sqlite.org/wal.html), and advisory locks over NFS are "buggy" in many
implementations (sqlite.org/faq.html, question 5). A second machine would write into the same file.

Not refused, though a network protocol may be underneath: 9p and virtiofs (the root of gVisor and
Kata containers, the shared folders of Docker Desktop and WSL 2), vboxsf and vmhgfs (of virtual
machines), and any FUSE file system that is not named here. They join a guest to its own host, and
to refuse them would stop every sandboxed container.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from causality_sdk.errors import QueueError

NETWORK = frozenset(
    {
        "nfs", "nfs4",  # also Amazon EFS, Azure Files over NFS
        "cifs", "smb2", "smb3", "smbfs", "ncpfs",
        "afs", "auristorfs", "coda",
        "ceph", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "panfs", "glusterfs",
        "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.juicefs", "fuse.mfs", "fuse.moosefs",
        "fuse.sshfs", "fuse.davfs", "fuse.davfs2", "davfs", "fuse.curlftpfs", "fuse.smbnetfs",
        "fuse.s3fs", "fuse.goofys", "fuse.mount-s3", "fuse.gcsfuse", "fuse.blobfuse",
        "fuse.blobfuse2", "fuse.rclone", "fuse.seaweedfs", "fuse.alluxio-fuse",
    }
)  # fmt: skip
"""Types of Linux, as in /proc/self/mountinfo (proc(5))."""

_DRIVE_REMOTE = 4  # of GetDriveTypeW, fileapi.h
_MNT_LOCAL = 0x00001000  # of f_flags, sys/mount.h of macOS


def refuse_network(queue_file: Path) -> None:
    """Raises `QueueError` if the directory of `queue_file` is on a network file system."""
    directory = queue_file.parent
    kind = network_type(directory)
    if kind is not None:
        raise QueueError(
            f"queue directory {directory} is on a network file system ({kind}), where the locks and"
            " the shared memory of SQLite are not safe; give a queue_path on a local disk"
        )


def network_type(directory: Path) -> str | None:
    """The type of the network file system that `directory` is on; None if it is local, or unknown.

    On Windows it is called just "network".
    """
    try:
        if os.name == "nt":
            return _on_windows(directory)
        if sys.platform == "darwin":
            return _on_macos(directory)
        with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
            return in_mounts(lines, directory.stat().st_dev, os.path.realpath(directory))
    except (OSError, ValueError, AttributeError, ImportError):
        return None


def in_mounts(mounts: Iterable[str], device: int, directory: str) -> str | None:
    """`network_type` by the lines of a mountinfo file. `device` as in `st_dev`.

    The device decides. Where no mount has it (a subvolume of btrfs), the longest mount point above
    `directory` does, the last of several at one place.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    above, kind = "", ""
    for line in mounts:
        fields = line.split(" ")
        try:
            found = fields[fields.index("-", 6) + 1]
            place = _unescaped(fields[4])
        except (ValueError, IndexError):
            continue
        if fields[2] == number:
            return found if found in NETWORK else None
        if len(place) >= len(above) and (directory + "/").startswith(place.rstrip("/") + "/"):
            above, kind = place, found
    return kind if kind in NETWORK else None


def _unescaped(place: str) -> str:
    for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        place = place.replace(code, letter)
    return place


def _on_windows(directory: Path) -> str | None:
    import ctypes

    root = directory.absolute().anchor  # a drive, or a share of a server
    kind = ctypes.windll.kernel32.GetDriveTypeW(root)  # type: ignore[attr-defined,unused-ignore]
    return "network" if kind == _DRIVE_REMOTE else None


def _on_macos(directory: Path) -> str | None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    # On Intel the plain name is the call of 2005, with another structure.
    statfs = getattr(library, "statfs$INODE64", None) or library.statfs
    buffer = ctypes.create_string_buffer(4096)  # more than the 2168 bytes of struct statfs
    if statfs(os.fsencode(directory), buffer) != 0:
        return None
    return of_statfs(buffer.raw)


def of_statfs(structure: bytes) -> str | None:
    """`network_type` by the `struct statfs` of macOS: flags at byte 64, the type's name at 72."""
    if int.from_bytes(structure[64:68], sys.byteorder) & _MNT_LOCAL:
        return None
    return structure[72:88].split(b"\0")[0].decode("ascii", "replace") or None
