"""Whether request bodies are compressed, and what is learned of a server that cannot read them.

Pure: the transport asks before each request and reports each answer. Invariant: a body is sent
plain for good only after the server refused a compressed one, had never accepted any, and then
accepted a plain one; twice, where the refusal was not clearly about the coding.
"""

from __future__ import annotations

import gzip
from typing import Literal

# What says nothing about the coding of a body. All else may: a naive view that parses compressed
# bytes as JSON raises, and its framework answers 500.
_NOT_ABOUT_IT = frozenset({401, 403, 404, 405, 407, 408, 413, 425, 429, 502, 503, 504})
_SURE = frozenset({400, 415})  # what servers say on purpose to a body whose coding they cannot read
AGAIN_AFTER = 50  # accepted plain bodies, before a compressed one is tried again


class Compression:
    """The body coding for one destination; forgotten with the transport."""

    def __init__(self, coding: Literal["gzip"] | None) -> None:
        self._wanted = coding == "gzip"
        self._proven = False  # a compressed body was accepted: later refusals are about its content
        self._doubted = False  # one was refused: the next goes plain, to see what it was about
        self._sure = False  # the last refusal of a compressed one was on purpose
        self._chances = 1  # more tries with a compressed one, after something like a 500
        self._plain = 0  # accepted since
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
            self._doubted = _may_be_about_it(status) and not self._proven
            self._sure, self._plain = status in _SURE, 0
        elif accepted:
            self._plain += 1
            if self._sure or not self._chances:
                self._wanted = False
            elif self._plain >= AGAIN_AFTER:  # it may have been chance
                self._chances -= 1
                self._doubted = False
        elif _may_be_about_it(status):
            self._doubted = False  # it refuses the content, whichever way it comes


def _may_be_about_it(status: int) -> bool:
    return status >= 400 and status not in _NOT_ABOUT_IT
