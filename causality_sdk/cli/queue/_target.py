"""Where an export goes: standard output, a file that is replaced as a whole, a device or a pipe.

Neighbour: `export`. Invariant: a regular file that is there under its name is whole; nothing that
is no regular file is ever replaced by one.
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from causality_sdk.cli.exits import FAILED, UNWRITABLE, CommandError


@contextmanager
def opened(target: str, *, force: bool) -> Iterator[IO[bytes]]:
    """`-` is standard output. Raises `CommandError` for what is there already, unless `force`."""
    if target == "-":
        yield sys.stdout.buffer
        return
    named = Path(target)
    try:
        kind = _kind(named)
        _check(named, kind, force=force)
        with _stream(named, kind) as stream:
            yield stream
    except OSError as error:
        # A disk that is full is nobody's wrong argument.
        code = UNWRITABLE if error.errno in _TROUBLE else FAILED
        raise CommandError(f"{named} cannot be written: {error.strerror or error}", code) from error


_TROUBLE = frozenset({errno.ENOSPC, errno.EIO, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


def _check(named: Path, kind: str | None, *, force: bool) -> None:
    if kind == "a directory":
        raise CommandError(f"{named} is a directory; name a file in it", FAILED)
    if kind is None or force:
        return
    if kind == "a regular file":
        raise CommandError(f"{named} is there already; --force replaces it", FAILED)
    raise CommandError(f"{named} is {kind}; --force writes into it, - is standard output", FAILED)


def _kind(path: Path) -> str | None:
    """What is there; None if there is nothing."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    for test, words in (
        (stat.S_ISREG, "a regular file"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return words
    return "a device"


@contextmanager
def _stream(named: Path, kind: str | None) -> Iterator[IO[bytes]]:
    # A link is followed: what it points to gets the events, and the link stays.
    path = named.resolve() if named.is_symlink() else named
    # That may be no name of it: /dev/stdout leads to a pipe, or to a file that was deleted.
    leads_there = kind is None or (kind == "a regular file" and _is_same(path, named))
    leads_there = leads_there and not path.is_relative_to("/dev")  # macOS names descriptors there
    if not leads_there:
        with named.open("wb", buffering=256 * 1024) as file, _packed(file, named) as stream:
            yield stream
        return
    part = path.with_name(path.name + ".part")
    try:
        # For this user alone: events are nobody else's business, as in the queue.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with _packed(file, path) as stream:
                yield stream
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _is_same(path: Path, named: Path) -> bool:
    try:
        return path.samefile(named)
    except OSError:
        return False


@contextmanager
def _packed(file: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    if not path.name.endswith(".gz"):
        yield file
        return
    with gzip.GzipFile(fileobj=file, mode="wb", filename="") as packed:
        yield packed  # type: ignore[misc]  # it has write()
