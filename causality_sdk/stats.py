"""What the client tells about itself: the snapshot, the flush report, what hooks are given.

No neighbour. Everything here is frozen: it can be kept, compared and sent to another thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from causality_sdk.errors import DeliveryError

SenderState = Literal["idle", "sending", "offline", "blocked"]
OwnerState = Literal["free", "owned", "stopped"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """For `on_delivered`: one batch was answered and these events of it are acknowledged."""

    events: int
    bytes: int
    rejected: int
    """Events of the batch that the server refused; they stay queued, or are buried in the end."""
    status: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """For `on_dropped`: events left the queue undelivered since the last call."""

    events: int
    reason: str
    """`max_queue_events`, `max_queue_bytes`, `corrupt`, `purged` or `buffer_full`."""


@dataclass(frozen=True, slots=True)
class FlushReport:
    """What one `flush()` did."""

    delivered: int = 0
    """Events acknowledged while it ran."""
    rejected: int = 0
    """Refusals of single events while it ran; they stay queued, or are buried in the end."""
    buried: int = 0
    """Events that became dead letters while it ran."""
    remaining: int = 0
    """Events queued at its end, those tracked meanwhile included."""
    error: Exception | None = None
    """The last failure: a `DeliveryError`, a `QueueError`, or a `TimeoutError` of the flush."""

    def raise_for_error(self) -> None:
        """Raises `error`, if there is one."""
        if self.error is not None:
            raise self.error


@dataclass(frozen=True, slots=True)
class QueueFileStats:
    """One queue file of the app, this process's or another's."""

    path: str
    bytes: int
    """On disk, with its log."""
    state: OwnerState
    """`free` (whose owner has ended: a running process will adopt it), `owned`, or `stopped`: its
    owner lives and was stopped by a signal."""
    pid: int | None
    """Of its owner, or of the last one."""
    host: str
    program: str
    started_ms: int | None
    """When its owner took it; milliseconds since the epoch."""
    elsewhere: int = 0
    """Events in it that wait for another endpoint, wire or api key than this client's, as of the
    last look at it. They stay there until a client with those options runs."""
    destination: str = ""
    """What those wait for."""
    command: str = ""
    """What sends them there."""


@dataclass(frozen=True, slots=True)
class Stats:
    """One moment of a client. The counters are those of its queue file's whole life.

    `tracked == acknowledged + sum(evicted.values()) + buried + pending`, at every moment.
    """

    tracked: int = 0
    acknowledged: int = 0
    evicted: Mapping[str, int] = field(default_factory=dict)
    """By reason."""
    buried: int = 0
    pending: int = 0
    pending_bytes: int = 0
    oldest_seconds: float | None = None
    """Age of the oldest queued event by its timestamp; None if none waits, or once closed."""
    buffered: int = 0
    """Events in memory that the disk did not take yet; not tracked so far."""
    buffer_dropped: int = 0
    """Events that were lost since the disk took nothing and the buffer was full."""
    retries: int = 0
    """Attempts that failed and were or will be made again, since this client was made."""
    last_success_ms: int | None = None
    """Milliseconds since the epoch of the last acknowledgement."""
    last_error: str | None = None
    state: SenderState = "idle"
    queue_path: str = ""
    files: tuple[QueueFileStats, ...] = ()
    """All queue files of the app, in the order in which processes take them."""
    elsewhere: int = 0
    """Events in `files` that wait for another destination, and are in no other number here."""


@dataclass(frozen=True, slots=True)
class Health:
    """For `Client.health()`: whether the server answered, and how."""

    ok: bool
    status: int | None = None
    seconds: float = 0.0
    error: DeliveryError | None = None
