"""Reads the pages of a database file and its log without SQLite. For files that SQLite refuses.

Neighbour: `salvage` makes rows of what is found here. Nothing is written. Invariant: whatever the
bytes are, it ends, and yields nothing but bytes that lie in the files.

After SQLite's "Database File Format": sections 1.3 (header), 1.6 (b-tree pages), 1.8 (pointer
map), 2.1 (records), 4.1 to 4.4 (the log).
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias

PAGE = 4096  # every queue file has pages of this size
LOG_HEADER = 32
FRAME_HEADER = 24
FRAME = FRAME_HEADER + PAGE
TABLE_LEAF, INDEX_LEAF = 0x0D, 0x0A

Value: TypeAlias = "int | float | str | bytes | None"
Record: TypeAlias = "tuple[int, list[Value]]"
"""Row id (0 in a table without), and its columns."""

_MAGIC = 0x377F0682  # + 1 where checksums are big-endian
_MAP_ENTRIES = PAGE // 5  # pages that one page of the pointer map speaks of
_FREE = 2  # of the pointer map
_OVERFLOW_TYPES = frozenset({3, 4})
_LOCAL_MIN = (PAGE - 12) * 32 // 255 - 23
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)  # by serial type
_MASK = 0xFFFFFFFF


class Log:
    """A write-ahead log: which frames belong to its last generation, and which are sound."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)
        header = file.read(LOG_HEADER)
        self.frames = max(0, file.seek(0, 2) - LOG_HEADER) // FRAME
        self._seed = header[24:32]
        magic = int.from_bytes(header[:4], "big")
        self._swap = (magic == _MAGIC + 1) != (sys.byteorder == "big")
        sound = len(header) == LOG_HEADER and magic & ~1 == _MAGIC
        if sound and _checksum(header[:24], bytes(8), self._swap) == header[24:32]:
            self._salts = header[16:24]
        else:  # a damaged header; the first frame was written with it
            self._swap = False
            self._salts = self.head(0)[8:16] if self.frames else bytes(8)

    def head(self, index: int) -> bytes:
        """The header of a frame: page, size of the database if it ends a commit, salts, sum."""
        self._file.seek(LOG_HEADER + index * FRAME)
        return self._file.read(FRAME_HEADER)

    def page(self, index: int) -> bytes:
        """The page in a frame."""
        self._file.seek(LOG_HEADER + index * FRAME + FRAME_HEADER)
        return self._file.read(PAGE)

    def is_current(self, head: bytes) -> bool:
        """Whether a frame is of the last generation; older ones lie behind it, done with."""
        return head[8:16] == self._salts

    def is_sound(self, index: int) -> bool:
        """Whether a frame is what was written, as far as its own sum tells."""
        head = self.head(index)
        before = self.head(index - 1)[16:24] if index else self._seed
        whole = head[:8] + self.page(index)
        if len(whole) != 8 + PAGE:
            return False
        return _checksum(whole, before, self._swap) == head[16:24]

    def last_commit(self) -> int:
        """The number of frames up to the last that seems to end a commit. Its sum is not read."""
        for index in range(self.frames - 1, -1, -1):
            head = self.head(index)
            if self.is_current(head) and head[4:8] != bytes(4):
                return index + 1
        return 0

    def has_gap(self) -> bool:
        """Whether a frame is wrong before the last commit that is sound. Reads all of it."""
        last = self.last_sound_commit(0)
        return not all(
            self.is_current(self.head(index)) and self.is_sound(index) for index in range(last)
        )

    def last_sound_commit(self, above: int) -> int:
        """The same, with the sums of those above `above` read; `above` if there is none."""
        for index in range(self.frames - 1, above - 1, -1):
            head = self.head(index)
            if self.is_current(head) and head[4:8] != bytes(4) and self.is_sound(index):
                return index + 1
        return above


class Pages:
    """The newest sound version of each page, of a database and the log beside it.

    A context manager. Either file may be missing, cut off or full of garbage.
    """

    def __init__(self, database: Path, log: Path) -> None:
        self._files: list[BinaryIO] = []
        self._database = self._open(database)
        self._log: Log | None = None
        self._frames: dict[int, int] = {}  # page -> index of its newest sound frame
        self._map: tuple[int, bytes] = (0, b"")  # the page of the pointer map that was read last
        self._unsound: list[int] = []  # frames whose sum is wrong: parts of them may be right
        size = self._database.seek(0, 2) if self._database is not None else 0
        self.count = -(-size // PAGE)
        log_file = self._open(log)
        if log_file is not None:
            self._read_log(Log(log_file))

    def _open(self, path: Path) -> BinaryIO | None:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        self._files.append(file)
        return file

    def _read_log(self, log: Log) -> None:
        self._log = log
        for index in range(log.last_sound_commit(0)):
            head = log.head(index)
            number, size = struct.unpack(">II", head[:8])
            if log.is_current(head) and log.is_sound(index):
                self._frames[number] = index
                # A commit says how long the database is.
                self.count = size or max(self.count, number)
            else:
                self._unsound.append(index)
        # A frame that cannot be believed counts only where no newer one of its page can.
        self._unsound = [
            index
            for index in self._unsound
            if self._frames.get(int.from_bytes(log.head(index)[:4], "big"), -1) < index
        ]
        # What lies behind that was cut off by it.
        self._frames = {page: at for page, at in self._frames.items() if page <= self.count}

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, *_exception: object) -> None:
        for file in self._files:
            file.close()

    def page(self, number: int) -> bytes:
        """A page, from 1; shorter than a page where the file ends."""
        frame = self._frames.get(number)
        if frame is not None and self._log is not None:
            return self._log.page(frame)
        if self._database is None or number < 1:
            return b""
        try:
            self._database.seek((number - 1) * PAGE)
            return self._database.read(PAGE)
        except OSError:  # a bad sector
            return b""

    def leaves(self, *, most: int | None = None) -> Iterator[tuple[int, bytes, bool]]:
        """Every page that may hold rows and is in use: number, bytes, and whether it is sound.

        What the pointer map calls free is left out: rows that were deleted lie there still.
        `most`: only the first of the file, and what the log holds.
        """
        numbers = set(range(1, self.count + 1 if most is None else min(self.count, most) + 1))
        for number in sorted(numbers | set(self._frames)):
            page = self.page(number)
            start = 100 if number == 1 else 0
            if page[start : start + 1] not in (b"\x0d", b"\x0a"):
                continue
            kind = self._map_entry(number)
            if kind != _FREE and kind not in _OVERFLOW_TYPES:
                yield number, page, True
        if self._log is not None:
            for index in self._unsound:
                page = self._log.page(index)
                if page[:1] in (b"\x0d", b"\x0a"):
                    # Its number is not to be trusted: any but the first, which begins elsewhere.
                    yield 2, page, False

    def _map_entry(self, number: int) -> int:
        """What the pointer map says that a page is; 1 for the first, which it does not cover."""
        if number < 3:
            return 1
        per_page = _MAP_ENTRIES + 1
        map_page = (number - 2) // per_page * per_page + 2
        offset = 5 * (number - map_page - 1)
        if self._map[0] != map_page:
            self._map = (map_page, self.page(map_page))
        return (self._map[1][offset : offset + 1] or b"\x01")[0]

    def row_ids(self, number: int, page: bytes) -> list[int]:
        """The row ids of a leaf of a table, as far as they can be read."""
        start = 100 if number == 1 else 0
        if page[start] != TABLE_LEAF:
            return []
        row_ids = []
        for at in _cells(page, start):
            with suppress(IndexError):
                row_ids.append(varint(page, varint(page, at)[1])[0])
        return row_ids

    def records(self, number: int, page: bytes) -> Iterator[Record]:
        """The rows of a leaf, as far as they can be read."""
        start = 100 if number == 1 else 0
        kind = page[start]
        local_max = PAGE - 35 if kind == TABLE_LEAF else (PAGE - 12) * 64 // 255 - 23
        for at in _cells(page, start):
            with suppress(IndexError, ValueError, struct.error):
                size, at = varint(page, at)
                row_id = 0
                if kind == TABLE_LEAF:
                    row_id, at = varint(page, at)
                body = self._body(page, at, size, local_max)
                yield row_id, columns(body)

    def _body(self, page: bytes, at: int, size: int, local_max: int) -> bytes:
        """The record that begins at `at`; what does not fit there is in a chain of pages."""
        if size <= local_max:
            body = page[at : at + size]
        else:
            if size > self.count * PAGE:
                raise ValueError("longer than the file")
            local = _LOCAL_MIN + (size - _LOCAL_MIN) % (PAGE - 4)
            if local > local_max:
                local = _LOCAL_MIN
            parts, left = [page[at : at + local]], size - local
            following = int.from_bytes(page[at + local : at + local + 4], "big")
            while left > 0:
                overflow = self.page(following) if 0 < following <= self.count else b""
                if len(overflow) < 5:
                    raise ValueError("its chain of pages is broken")
                parts.append(overflow[4 : 4 + left])
                left -= len(overflow) - 4
                following = int.from_bytes(overflow[:4], "big")
            body = b"".join(parts)
        if len(body) != size:
            raise ValueError("it is cut off")
        return body


def _cells(page: bytes, start: int) -> Iterator[int]:
    """Where the cells of a leaf begin."""
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    for place in range(start + 8, min(start + 8 + 2 * count, len(page) - 1), 2):
        yield int.from_bytes(page[place : place + 2], "big")


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and the place behind it. Raises `IndexError` at the end of the data."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for _ in range(7):
        at += 1
        byte = data[at]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + 1
    at += 1
    value = value << 8 | data[at]
    return (value - (1 << 64) if value >> 63 else value), at + 1


def columns(body: bytes) -> list[Value]:
    """The values of a record. Raises `ValueError` or `IndexError` if it is none."""
    end, at = varint(body, 0)
    values: list[Value] = []
    place = end
    while at < end:
        kind, at = varint(body, at)
        if kind >= 12:
            size = (kind - 12) >> 1
            part = body[place : place + size]
            if len(part) != size:
                raise ValueError("a value is cut off")
            values.append(part.decode("utf-8") if kind & 1 else part)
        elif kind == 0:
            size = 0
            values.append(None)
        elif kind == 7:
            size = 8
            values.append(struct.unpack(">d", body[place : place + 8])[0])
        elif kind in (8, 9):
            size = 0
            values.append(kind - 8)
        elif kind <= 6:
            size = _INTEGER_BYTES[kind]
            values.append(int.from_bytes(body[place : place + size], "big", signed=True))
        else:
            raise ValueError("a type that SQLite keeps for itself")
        place += size
    if at != end or place != len(body):
        raise ValueError("it is no record")
    return values


def _checksum(data: bytes, seed: bytes, swap: bool) -> bytes:
    """The sum of a log, section 4.2. `swap`: its words are not in the order of this machine."""
    words = array("I", data)
    if swap:
        words.byteswap()
    first, second = struct.unpack(">II", seed)
    pairs = iter(words)
    for even, odd in zip(pairs, pairs, strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return struct.pack(">II", first, second)
