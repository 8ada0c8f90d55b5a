"""Where commands get events from: a file or standard input, as NDJSON, an array, or one event.

Neighbours: `ndjson` parses, `feed` takes the chunks. Invariant: memory does not grow with the
input, unless it is one JSON document; and what has arrived on a pipe is not kept waiting for more.
"""

from __future__ import annotations

import gzip
import select
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from causality_sdk.cli import streams
from causality_sdk.cli.exits import InputError
from causality_sdk.cli.ndjson import MARKS, event_of, parse_event, parse_json, without_mark
from causality_sdk.event import Event

CHUNK_LINES = 1000  # of one chunk, which is one transaction
CHUNK_BYTES = 1024 * 1024
LINE_BYTES = 16 * 1024 * 1024  # of a line; no event is longer, and memory would grow with it
DOCUMENT_BYTES = 64 * 1024 * 1024  # of an array, which is read as a whole
STDIN = "-"

_READ = 256 * 1024
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the input, or why there is none."""

    number: int
    """Of its line, or of its place in the array; from 1."""
    event: Event | None = None
    error: ValueError | None = None


class Source(Protocol):
    """Events in order, in chunks."""

    name: str
    unit: str
    """What entries are counted in: `line` or `event`."""
    is_stream: bool
    """Whether it may go on for long."""
    length: int | None
    """In bytes, where it is known."""
    bytes_read: int

    def chunks(self) -> Iterator[list[Entry]]:
        """To be iterated once. Raises `InputError`."""
        ...

    def close(self) -> None:
        """Closes what is open."""
        ...


class EventSource:
    """An input that is open."""

    is_stream = True

    def __init__(self, path: str, *, lines_only: bool = False) -> None:
        """`path` may be `-`. `lines_only`: NDJSON, whatever it looks like."""
        self.name = "standard input" if path == STDIN else path
        self.unit = "line"
        self.length: int | None = None
        self._lines_only = lines_only
        if path == "":
            raise InputError("the name of the file is empty; - is standard input")
        self._file = _stdin() if path == STDIN else self._open(Path(path))
        self._fd = _descriptor(self._file) if path == STDIN else None
        self._read: Callable[[], bytes] = self._read_some
        self.bytes_read = 0  # of the file as it lies on disk

    def chunks(self) -> Iterator[list[Entry]]:
        """Entries in order, in chunks of what is there. Raises `InputError`."""
        try:
            head = self._head()
            if not self._lines_only and self._is_document(head):
                document = head + self._rest(DOCUMENT_BYTES - len(head))
                yield from self._document(document)
                return
            yield from self._chunks_of_lines(head)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{self.name} is damaged: {error}") from error
        except OSError as error:
            raise InputError(f"{self.name} cannot be read: {error.strerror or error}") from error

    def close(self) -> None:
        """Closes the file, but not standard input."""
        if self._fd is None and self._file is not sys.stdin.buffer:
            self._file.close()

    # ------------------------------------------------------------------ bytes

    def _open(self, path: Path) -> BinaryIO:
        try:
            file = path.open("rb")
            if path.is_file():  # else a pipe, which has no length
                self.length = path.stat().st_size
        except (OSError, ValueError) as error:  # ValueError: no name that a file can have
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path} cannot be read: {reason}") from error
        return file

    def _read_some(self) -> bytes:
        # read1: what a pipe has now, and not a buffer full of it later
        data: bytes = self._file.read1(_READ)  # type: ignore[attr-defined]
        self.bytes_read += len(data)
        return data

    def _head(self) -> bytes:
        """What comes first, up to the end of the first line that is not empty."""
        head = self._begun()
        if head.startswith(_GZIP):  # a name proves nothing
            unpacked = gzip.GzipFile(fileobj=_Rejoined(head, self._read_some))  # type: ignore[call-overload]
            self._read = lambda: bytes(unpacked.read1(_READ))
            self._fd = None  # whether there is more, the pipe does not tell
            head = self._begun()
        head = without_mark(head, self.name)
        while head and b"\n" not in head.lstrip() and len(head) < LINE_BYTES:
            more = self._read()
            if not more:
                break
            head += more
        return head

    def _begun(self) -> bytes:
        """The first bytes: enough of them to tell what it is."""
        head = self._read()
        while any(len(head) < len(m) and m.startswith(head) for m in (_GZIP, *MARKS)):
            more = self._read() if head else b""
            if not more:
                break
            head += more
        return head

    def _rest(self, most: int) -> bytes:
        parts, size = [], 0
        while data := self._read():
            parts.append(data)
            size += len(data)
            if size > most:
                raise InputError(
                    f"{self.name} is one JSON document of more than"
                    f" {DOCUMENT_BYTES // 1024**2} MiB; write one event a line (NDJSON)"
                )
        return b"".join(parts)

    def _is_more_ready(self) -> bool:
        """Whether reading on would not wait."""
        if self._fd is None:
            return True
        try:
            return bool(select.select([self._fd], [], [], 0)[0])
        except (OSError, ValueError):  # Windows: only for sockets
            return False

    # ------------------------------------------------------------------ one document

    def _is_document(self, head: bytes) -> bool:
        """Whether it is an array, or one event over several lines; and not one event a line."""
        start = head.lstrip()
        if start[:1] not in (b"[", b"{"):
            return False
        line = start.partition(b"\n")[0]
        try:
            return isinstance(parse_json(line), list)
        except ValueError:
            # Only the first line of a document, or one event's line that is broken: the latter
            # seldom ends where JSON goes on.
            return start[:1] == b"[" or line.rstrip()[-1:] in (b"{", b"[", b",", b":")

    def _document(self, text: bytes) -> Iterator[list[Entry]]:
        try:
            found = parse_json(text)
        except ValueError as error:
            raise InputError(f"{self.name}: {error}") from error
        self.unit = "event"
        entries = [
            _entry(number, event_of, item)
            for number, item in enumerate(found if isinstance(found, list) else [found], 1)
        ]
        for start in range(0, len(entries), CHUNK_LINES):
            yield entries[start : start + CHUNK_LINES]

    # ------------------------------------------------------------------ lines

    def _chunks_of_lines(self, head: bytes) -> Iterator[list[Entry]]:
        number, size = 0, 0
        chunk: list[Entry] = []
        for line in self._lines(head):
            if line is None:  # nothing more for now
                if chunk:
                    yield chunk
                    chunk, size = [], 0
                continue
            number += 1
            if len(line) > LINE_BYTES:
                error = ValueError(f"longer than {LINE_BYTES // 1024**2} MiB")
                chunk.append(Entry(number, error=error))
            elif line.strip():
                chunk.append(_entry(number, parse_event, line))
                size += len(line)
            if len(chunk) >= CHUNK_LINES or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    def _lines(self, data: bytes) -> Iterator[bytes | None]:
        """Lines; None whenever reading on would wait."""
        rest = b""
        while data:
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
            if len(rest) > LINE_BYTES:
                yield rest[: LINE_BYTES + 1]
                rest = self._skip_line()
            if not self._is_more_ready():
                yield None
            data = self._read()
        if rest:
            yield rest

    def _skip_line(self) -> bytes:
        """What follows the end of this line."""
        while data := self._read():
            _, end, after = data.partition(b"\n")
            if end:
                return after
        return b""


class _Rejoined:
    """What was read already, and then the rest, for a reader that wants a file."""

    def __init__(self, head: bytes, read: Callable[[], bytes]) -> None:
        self._head = head
        self._more = read

    def read(self, most: int = -1) -> bytes:
        data = self._head or self._more()
        if 0 <= most < len(data):
            self._head = data[most:]
            return data[:most]
        self._head = b""
        return data


def _entry(number: int, parse: Callable[[Any], Event], found: Any) -> Entry:
    try:
        return Entry(number, parse(found))
    except ValueError as error:  # an EventError is one
        return Entry(number, error=error)


def _stdin() -> BinaryIO:
    if streams.current().stdin_closed:
        raise InputError("standard input is closed; give it a file, or a pipe")
    return sys.stdin.buffer


def _descriptor(file: BinaryIO) -> int | None:
    with suppress(OSError, ValueError, AttributeError):
        return file.fileno()
    return None
