"""Standard streams as a program finds them: closed, on a full disk, in an odd encoding.

Neighbours: `ending` opens this around every run of both programs; `event_source` and `queue export`
ask what was closed. Invariant: a stream that cannot be written never keeps a command from its work.
What stdout did not take is told at the end, by the exit code; what stderr did not take, nobody
could have read.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

# How a character is written that the encoding of a stream does not have.
_ESCAPED = "backslashreplace"


class Streams:
    """What is known about the three of this run."""

    def __init__(self) -> None:
        self.stdin_closed = False
        self.stdout_closed = False
        self.error: OSError | None = None
        """The first failure of stdout that is not a reader who went away."""


_current = Streams()


def current() -> Streams:
    """Those of this run."""
    return _current


@contextmanager
def mended() -> Iterator[Streams]:
    """For the block, all three are there, can be written to, and take every character."""
    global _current
    before, kept = (sys.stdin, sys.stdout, sys.stderr), _current
    opened: list[TextIO] = []
    streams = _current = Streams()
    # A descriptor that is closed would be given to the next file that is opened: to the queue, into
    # which whatever writes to "stdout" would then write.
    for descriptor in (0, 1, 2):
        if _is_closed(descriptor):
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    try:
        if sys.stdin is None or sys.stdin.closed:
            streams.stdin_closed = True
            sys.stdin = _devnull("r", opened)
        sys.stdout = _writable(sys.stdout, streams, opened, tells=True)
        sys.stderr = _writable(sys.stderr, streams, opened, tells=False)
        yield streams
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before
        for stream in opened:
            stream.close()
        _current = kept


def forget_stdout() -> None:
    """Nobody reads it any more; what is still buffered must not fail again at the very end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


def _devnull(mode: str, opened: list[TextIO]) -> TextIO:
    stream: Any = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 (until the end)
    opened.append(stream)
    return opened[-1]


def _writable(
    stream: TextIO | None, streams: Streams, opened: list[TextIO], *, tells: bool
) -> TextIO:
    if stream is None or stream.closed:
        streams.stdout_closed |= tells
        return _devnull("w", opened)
    with suppress(AttributeError, OSError, ValueError):
        stream.reconfigure(errors=_ESCAPED)  # type: ignore[attr-defined]
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return stream  # a test's, or an embedding program's
    if stream.isatty():
        return stream  # never full; and that of Windows has a way of its own to write
    with suppress(OSError, ValueError):
        stream.flush()
    raw = _Raw(descriptor, streams, tells=tells)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding or "utf-8",
        errors=_ESCAPED,
        line_buffering=not tells,
    )


class _Raw(io.FileIO):
    """A descriptor that takes everything: what cannot be written is dropped, and that is noted."""

    def __init__(self, descriptor: int, streams: Streams, *, tells: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._streams = streams
        self._tells = tells
        self._failed = False

    def write(self, data: Any) -> int:
        """All of it, or nothing for ever. Raises `BrokenPipeError` if it is stdout's reader."""
        size = memoryview(data).nbytes
        if self._failed:
            return size
        try:
            while (written := super().write(data)) is None:  # it is set not to wait
                select.select([], [self.fileno()], [])
        except OSError as error:
            if self._tells and error.errno == errno.EPIPE:
                raise
            self._failed = True
            if self._tells and self._streams.error is None:
                self._streams.error = error
            return size
        return written
