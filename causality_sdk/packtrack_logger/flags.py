"""`Flags`: what was given on the command line, under the names of the options. Pure.

Invariant: nothing here has a default of its own: what was not given is None or False, and the
environment and the defaults are `PackTrackConfig`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Flag -> where its value goes in the event.
_EVENT: dict[str, tuple[str, ...]] = {
    "timestamp": ("timestamp",),
    "source_system": ("source", "system"),
    "source_env": ("source", "env"),
    "workflow_id": ("workflow", "id"),
    "workflow_name": ("workflow", "name"),
    "run_id": ("workflow", "run_id"),
    "step_id": ("workflow", "step_id"),
    "actor_type": ("actor", "type"),
    "actor_id": ("actor", "id"),
    "actor_display": ("actor", "display_name"),
    "severity": ("severity",),
    "status": ("status",),
    "message": ("message",),
    "metadata": ("metadata",),
    "extra": ("extra",),
}
_REQUIRED = (
    "source_system", "workflow_id", "actor_type", "actor_id", "severity", "status", "message",
)  # fmt: skip
# Flag -> the option of PackTrackConfig.
_CONFIG = (
    "api_key", "base_url", "timeout", "retries", "backoff_initial", "backoff_max", "jitter",
    "user_agent", "gzip", "batch_size", "flush_interval", "queue_capacity",
)  # fmt: skip
NAMES = {name: "--" + name.replace("_", "-") for name in _CONFIG}
"""Option of PackTrackConfig -> its flag, for messages."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """One command line."""

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    timeout: float | None = None
    retries: int | None = None
    backoff_initial: float | None = None
    backoff_max: float | None = None
    jitter: float | None = None
    user_agent: str | None = None
    idempotency_key: str | None = None
    gzip: bool | None = None
    timestamp: str | None = None
    source_system: str | None = None
    source_env: str | None = None
    workflow_id: str | None = None
    workflow_name: str | None = None
    run_id: str | None = None
    step_id: str | None = None
    actor_type: str | None = None
    actor_id: str | None = None
    actor_display: str | None = None
    severity: str | None = None
    status: str | None = None
    message: str | None = None
    metadata: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None
    file: str | None = None
    stdin: bool = False
    ndjson: bool = False
    verbose: bool = False
    dry_run: bool = False
    health: bool = False
    as_json: bool = False
    durable: bool = False
    batch_size: int | None = None
    flush_interval: float | None = None
    queue_capacity: int | None = None
    no_flush: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """What was given of the options of `PackTrackConfig`."""
        # An empty text is what a shell makes of a variable that is not set.
        found = {name: getattr(self, name) for name in _CONFIG}
        return {name: value for name, value in found.items() if value not in (None, "")}

    @property
    def event(self) -> dict[str, Any]:
        """What was given of an event, in its shape."""
        found: dict[str, Any] = {}
        for name, (first, *rest) in _EVENT.items():
            value = getattr(self, name)
            if value is None or value == "":
                continue
            if rest:
                found.setdefault(first, {})[rest[0]] = value
            else:
                found[first] = value
        return found

    @property
    def missing(self) -> list[str]:
        """The options that an event needs and that were not given."""
        return ["--" + name.replace("_", "-") for name in _REQUIRED if not getattr(self, name)]
