"""What a destination's format is made of. Neighbours: `transport` carries a `Request` and gives a
`Response`; the sender calls a `Wire` and acts on its verdicts.

Invariant: a wire is stateless and does no I/O, and only a verdict of kind ACCEPTED, given to the
event it clearly names, may ever delete a row.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

WORDS_CHARS = 500  # of the server's words about one event; a server must not fill our disk or log


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, less the base URL and the credentials, which the transport adds."""

    path: str  # begins with a slash, joined to the endpoint
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Response:
    """One complete answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    truncated: bool = False  # the body was longer than the transport reads


class Kind(enum.Enum):
    """What the server said about one event."""

    ACCEPTED = "accepted"  # it is the server's now: delete the row
    REJECTED = "rejected"  # refused by name, for now or for ever: the sender judges
    RETRY = "retry"  # nothing was said about it: leave the row


class Verdict(NamedTuple):
    """The server's word on one event of a batch, with the reason it gave (bounded)."""

    kind: Kind
    words: str = ""


ACCEPTED = Verdict(Kind.ACCEPTED)
RETRY = Verdict(Kind.RETRY)


class Wire(Protocol):
    """A destination's format. Pure: it may be called from any thread.

    `key_header` names the request header that carries the api key; `health_path` is asked by
    `Client.health()`, or is empty where the destination has none.
    """

    name: str
    key_header: str
    health_path: str

    def frame(self, payloads: Sequence[bytes]) -> Request:
        """One request for these events, each canonical JSON bytes, in this order."""
        ...

    def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
        """Exactly `count` verdicts, in the order of the payloads that were framed.

        Must not raise, whatever the response holds: what it cannot read is `RETRY`.
        """
        ...
