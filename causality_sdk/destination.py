"""Where the events of a queue file are meant to go, and whether a client may send them.

Neighbours: `schema` keeps it in the file, `claim` and `adoption` compare, the command line shows.
Invariant: events never go to a server, or to a project of it, that they were not tracked for,
unless somebody says so.

A file remembers endpoint, wire and a fingerprint of the api key. Keys are rotated, so a new key at
the same endpoint is the same destination; except where the key names the project. Who has said so
(`key_is_destination`) marks his files with it, and they stay bound to their key whoever opens them.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

_BOUND = "key:"  # before a fingerprint, in files whose key is part of the destination


class Destination(NamedTuple):
    """As it stands in the state row of a file."""

    endpoint: str
    wire: str
    key_fingerprint: str

    @property
    def is_bound(self) -> bool:
        """Whether the api key is part of it."""
        return self.key_fingerprint.startswith(_BOUND)

    @property
    def key(self) -> str:
        """The fingerprint alone."""
        return self.key_fingerprint.removeprefix(_BOUND)

    def bound(self) -> Destination:
        """The same, with the key as a part of it."""
        return self._replace(key_fingerprint=_BOUND + self.key)

    def takes(self, found: Destination) -> bool:
        """Whether a client with this destination may send what was tracked for `found`."""
        if (self.endpoint, self.wire) != (found.endpoint, found.wire):
            return False
        return self.key == found.key or not (self.is_bound or found.is_bound)

    def over(self, found: Destination) -> Destination:
        """What a file of `found` says from now on, where a client with this destination takes it.

        One that is bound stays so: the next client may have another key.
        """
        return found if found.is_bound else self

    def difference(self, found: Destination) -> str:
        """For people: for whom events are that this destination does not take."""
        if found.endpoint != self.endpoint:
            return found.endpoint
        if found.wire != self.wire:
            return f"{found.endpoint} in the format {found.wire}"
        return f"another api key of {found.endpoint}"


class Elsewhere(NamedTuple):
    """A file whose events wait for another destination."""

    path: Path
    destination: Destination
    pending: int
    whom: str
    """They wait for; for people."""

    @property
    def command_to_here(self) -> str:
        """The command that sends them where the options of this program say."""
        return f"{self._replay} --take-over"

    @property
    def _replay(self) -> str:
        return shlex.join(
            ["causality", "queue", "replay", "--queue-path", str(self.path), "--single"]
        )

    def command(self, here: Destination) -> str:
        """The command that sends them; `here` is what the options of this program say."""
        words = ["--endpoint", self.destination.endpoint]
        if self.destination.wire != here.wire:
            words += ["--wire", self.destination.wire]
        text = f"{self._replay} {shlex.join(words)}"
        if self.destination.endpoint == here.endpoint and self.destination.wire == here.wire:
            text += " --api-key-file FILE"  # with the key they were tracked with
        return text


def fingerprint(api_key: str) -> str:
    """Tells one api key from another without holding it."""
    import hashlib  # with OpenSSL, which `import causality_sdk` does not load

    return hashlib.sha256(
        b"causality-sdk queue\x00" + api_key.encode("utf-8", "surrogatepass")
    ).hexdigest()[:16]
