"""PackTrack: events of workflows, sent at once or durably.

`PackTrackEvent` can be tracked by every `Client`; with `Client(wire="packtrack")` it goes to
PackTrack. `PackTrackClient` adds the synchronous verbs, and has PackTrack's own defaults.
"""

from causality_sdk.errors import IngestError, IngestRefused, RetriesExhausted
from causality_sdk.packtrack.attempts import Attempt
from causality_sdk.packtrack.client import IngestResult, PackTrackClient
from causality_sdk.packtrack.config import PackTrackConfig
from causality_sdk.packtrack.event import (
    Actor,
    PackTrackEvent,
    Severity,
    Source,
    Status,
    Workflow,
)

__all__ = [
    "Actor",
    "Attempt",
    "IngestError",
    "IngestRefused",
    "IngestResult",
    "PackTrackClient",
    "PackTrackConfig",
    "PackTrackEvent",
    "RetriesExhausted",
    "Severity",
    "Source",
    "Status",
    "Workflow",
]
