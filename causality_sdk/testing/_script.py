"""Answers that a test dictates: a queue of counted ones in front of one that stands.

Neighbours: `collector` and `transport` take from a `Script` under their own lock. Invariant:
counted answers go in the order they were given; the standing one serves when none is left.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Body = bytes | str | dict[str, Any]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ScriptedAnswer:
    """What the collector does with one batch request instead of the normal answer."""

    status: int = 200
    body: Body = b""
    """A dict becomes JSON; the content type of a string or of bytes is guessed from its start."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """These win over the content type that was guessed."""
    store: bool = False
    """True: keep the events first, as a server does whose acknowledgement gets lost."""
    drop: bool = False
    """True: close the connection instead of answering."""

    def __post_init__(self) -> None:
        check_status(self.status)


class Script(Generic[T]):
    """What to do next. Not thread-safe: the owner calls it under its lock."""

    def __init__(self) -> None:
        self._counted: deque[tuple[T, int]] = deque()
        self._standing: T | None = None

    def add(self, item: T, times: int | None) -> None:
        """Queues `item` for so many turns; with None it stands until `clear`."""
        if times is None:
            self._standing = item
        elif isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise ValueError(f"times must be None or at least 1, got {times!r}")
        else:
            self._counted.append((item, times))

    def take(self) -> T | None:
        """The item whose turn it is, or None when nothing is scripted."""
        if not self._counted:
            return self._standing
        item, times = self._counted.popleft()
        if times > 1:
            self._counted.appendleft((item, times - 1))
        return item

    def clear(self) -> None:
        """Forgets everything."""
        self._counted.clear()
        self._standing = None


def check_status(status: int) -> None:
    """Raises `ValueError` for what is no final HTTP status."""
    if not 200 <= status <= 599:
        raise ValueError(f"status must be between 200 and 599, got {status!r}")


def encode_body(body: Body) -> tuple[bytes, str]:
    """The bytes of a scripted body and its content type, which is empty for an empty body."""
    if isinstance(body, dict):
        return json.dumps(body, separators=(",", ":")).encode(), "application/json"
    data = body.encode() if isinstance(body, str) else bytes(body)
    start = data.lstrip()[:1]
    if not data:
        return data, ""
    if start in (b"{", b"["):
        return data, "application/json"
    return data, "text/html; charset=utf-8" if start == b"<" else "text/plain; charset=utf-8"
