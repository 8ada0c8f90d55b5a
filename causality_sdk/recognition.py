"""Tells by their shape what the rows in a damaged file are, and whether the file is ours at all.

Neighbours: `pages` reads the rows; `schema` asks whose file it is, `salvage` takes what is good.
Invariant: an event or a dead letter that is recognised passes its CRC.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeGuard
from zlib import crc32

from causality_sdk.pages import Pages, Record, Value

_MARKED_PAGES = 256  # of a file that are looked at to find out whose it is
_UUID_CHARS = 36


class State(NamedTuple):
    """What can be read of a state row."""

    file_uuid: str
    created_ms: int
    destination: tuple[str, str, str]
    counters: tuple[int, ...]
    """In the order of the columns."""
    heir: str | None
    """The uuid of the file that takes it over, if any."""


def event(values: list[Value]) -> bytes | None:
    """The payload, if this is a row of the queue that is what was written."""
    if len(values) == 4 and values[0] is None and type(values[1]) is int:
        payload = values[3]
        if type(payload) is bytes and crc32(payload) == values[2]:
            return payload
    return None


def dead_letter(values: list[Value]) -> tuple[Value, ...] | None:
    """crc, payload, buried_ms, attempts, status, reason; if the payload is what was written."""
    if len(values) != 7 or values[0] is not None:
        return None
    crc, payload, buried_ms, attempts, status, reason = values[1:]
    if not (type(payload) is bytes and crc32(payload) == crc):
        return None
    return (
        crc,
        payload,
        buried_ms if type(buried_ms) is int else 0,
        attempts if type(attempts) is int else 0,
        status if type(status) is int else None,
        reason if type(reason) is str else "",
    )


def state(values: list[Value], counters: int) -> State | None:
    """The state row, with as many counters as it must have."""
    if len(values) < 6 + counters or values[0] is not None:
        return None
    file_uuid, created_ms, *destination = values[1:6]
    numbers = values[6 : 6 + counters]
    if not (_is_uuid(file_uuid) and type(created_ms) is int and _are_numbers(numbers)):
        return None
    endpoint, wire, key_fingerprint = destination
    if type(endpoint) is str and type(wire) is str and type(key_fingerprint) is str:
        heir = values[6 + counters] if len(values) > 6 + counters else None
        meant_for = (endpoint, wire, key_fingerprint)
        return State(
            file_uuid, created_ms, meant_for, tuple(numbers), heir if _is_uuid(heir) else None
        )
    return None


def adopted(values: list[Value]) -> tuple[str, int] | None:
    """The note that another file was adopted: its uuid, and when."""
    if len(values) == 2 and _is_uuid(values[0]) and type(values[1]) is int:
        return values[0], values[1]
    return None


def is_ours(database: Path, log: Path, application_id: int, counters: int) -> bool:
    """Whether a file that SQLite does not take for ours was ours once. Raises `OSError`.

    It was if our mark, an event or a state row is in it or in its log, or if it is nothing but
    zeros, as file systems leave a file whose blocks never reached the disk.
    """
    mark = application_id.to_bytes(4, "big")
    with Pages(database, log) as pages:
        if pages.count and all(
            not pages.page(number).strip(b"\0") for number in range(1, pages.count + 1)
        ):
            return True
        if pages.page(1)[68:72] == mark:
            return True
        for number, page, _ in pages.leaves(most=_MARKED_PAGES):
            for _, values in pages.records(number, page):
                if event(values) is not None or state(values, counters) is not None:
                    return True
    return False


def row_of(record: Record) -> tuple[int, bytes] | None:
    """Id and payload, if this is a row of the queue."""
    payload = event(record[1])
    return None if payload is None else (record[0], payload)


def _is_uuid(value: Value) -> TypeGuard[str]:
    return type(value) is str and len(value) == _UUID_CHARS and value.count("-") == 4


def _are_numbers(values: list[Value]) -> TypeGuard[list[int]]:
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)
