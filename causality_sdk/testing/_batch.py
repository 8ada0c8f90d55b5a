"""Reads what clients sent: a batch cut into the raw bytes of its events, a request as received.

Pure. Neighbours: `collector` and `transport`, which call it. Invariant: the bytes of an event
are those of the body, never a re-serialisation, so that a byte changed on the way shows.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

_OPEN = re.compile(r'[ \t\n\r]*\{[ \t\n\r]*"events"[ \t\n\r]*:[ \t\n\r]*\[[ \t\n\r]*')
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_CLOSE = re.compile(r"[ \t\n\r]*\][ \t\n\r]*\}[ \t\n\r]*\Z")
_SHAPE = 'the body must be {"events":[...]}'


class BatchError(ValueError):
    """The body is not a batch of events. The message is meant for the client's developer."""


WireEvent = tuple[str, bytes]
"""One event of a batch: its idempotency key and its bytes as they came."""


def _refuse_constant(name: str) -> NoReturn:
    raise BatchError(f"{name} is not JSON")


# NaN and Infinity are an extension of Python's; a server in any other language refuses them.
_decode = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode


def parse_batch(body: bytes) -> list[WireEvent]:
    """The events of `{"events":[...]}` in their order. Raises `BatchError`.

    One event is decoded at a time and let go again: decoding a large batch as a whole, even by a
    parser twice as fast, took longer for the memory that it touched.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BatchError(f"the body is not UTF-8: {error}") from None
    opening = _OPEN.match(text)
    if opening is None:
        raise BatchError(_SHAPE)
    end = opening.end()
    # In ASCII, a position in the text is one in the body: slice it without encoding again.
    ascii_only = len(text) == len(body)
    events: list[WireEvent] = []
    more = not _CLOSE.match(text, end)
    while more:
        at = end
        try:
            fields, end = _decode(text, at)
        except BatchError:
            raise
        except ValueError as error:  # also an integer of more digits than Python reads
            raise BatchError(f"event {len(events)} is not JSON: {error}") from None
        except RecursionError:
            raise BatchError(f"event {len(events)} is nested too deeply") from None
        key = fields.get("idempotency_key") if isinstance(fields, dict) else None
        if not isinstance(key, str) or not key:
            raise BatchError(f"event {len(events)} is not an object with an idempotency_key")
        events.append((key, body[at:end] if ascii_only else text[at:end].encode()))
        if text.startswith(",{", end):  # as compact JSON has it; the pattern costs more
            end += 1
        elif comma := _COMMA.match(text, end):
            end = comma.end()
        else:
            more = False
    if not _CLOSE.match(text, end):
        raise BatchError(_SHAPE)
    return events


def decompress(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The body with its `Content-Encoding` undone. Header names are lower case. `BatchError`."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip"):
        raise BatchError(f"Content-Encoding {coding!r} is not supported; use gzip or none")
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise BatchError(f"the body is not gzip: {error}") from None


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as the collector got it. Header names are lower case."""

    method: str
    path: str
    """As it stood in the request line, with the query."""
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    """As it came on the wire, perhaps gzip; empty once the collector has let go of it."""
    status: int = 0
    """Of the answer; 0 as long as there is none, and for good where the connection was closed."""
    count: int = 0
    """Events in the body; 0 where it is no batch."""

    @property
    def content(self) -> bytes:
        """The body with its `Content-Encoding` undone. Raises `ValueError` where it cannot be."""
        return decompress(self.body, self.headers)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of the body, decoded at each call; empty where it is no batch."""
        try:
            return [json.loads(raw) for _, raw in parse_batch(self.content)]
        except BatchError:
            return []
