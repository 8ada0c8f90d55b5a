"""Whether request bodies are compressed, and what is learned of a server that cannot read them.

Pure: the transport asks before each request and reports each answer. Invariant: a body is sent
plain for good only after the server refused a compressed one, had never accepted any, and then
accepted a plain one.
"""

from __future__ import annotations

import gzip
from typing import Literal

_REFUSALS = frozenset({400, 415})  # what servers say to a body whose coding they do not know


class Compression:
    """The body coding for one destination; forgotten with the transport."""

    def __init__(self, coding: Literal["gzip"] | None) -> None:
        self._wanted = coding == "gzip"
        self._proven = False  # a compressed body was accepted: later refusals are about its content
        self._doubted = False  # one was refused: the next goes plain, to see what it was about
        self._last = False  # whether the request under way is compressed

    def encode(self, body: bytes) -> tuple[bytes, dict[str, str]]:
        """The body as it is to be sent, and the headers that say so."""
        self._last = self._wanted and not self._doubted and bool(body)
        if not self._last:
            return body, {}
        # mtime=0: the same batch is the same bytes, whenever it is sent
        return gzip.compress(body, compresslevel=6, mtime=0), {"Content-Encoding": "gzip"}

    def answered(self, status: int, *, body: bool) -> None:
        """Learns from the answer to a request with or without a body."""
        if not self._wanted or not body:
            return
        accepted = 200 <= status <= 299
        if self._last:
            self._proven = self._proven or accepted
            self._doubted = status in _REFUSALS and not self._proven
        elif accepted:
            self._wanted = False
        elif status in _REFUSALS:
            self._doubted = False  # it refuses the content, whichever way it comes
