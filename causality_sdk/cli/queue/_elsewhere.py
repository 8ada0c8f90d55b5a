"""Which files wait for another destination than the one that the options of a call name.

Neighbours: `status`, `doctor` and `replay`, which say so, each with the command that sends them.
Invariant: what the options leave open is not held against a file.
"""

from __future__ import annotations

from pathlib import Path

from causality_sdk.cli.output import count, printable
from causality_sdk.cli.queue_rows import Snapshot
from causality_sdk.cli.settings import Settings
from causality_sdk.config import Config
from causality_sdk.destination import Destination, Elsewhere, fingerprint


def here(options: Settings | Config) -> Destination | None:
    """Where a call with these options would send events; None if they name no server."""
    if isinstance(options, Config):
        wire, endpoint, key = options.wire, options.endpoint, options.api_key
        bound = options.key_is_destination
    else:
        wire, endpoint, key, bound = (
            options[name] for name in ("wire", "endpoint", "api_key", "key_is_destination")
        )
    if not isinstance(endpoint, str) or not endpoint:
        return None
    found = Destination(
        endpoint.rstrip("/"),
        wire if isinstance(wire, str) else wire.name,
        fingerprint(str(key)) if key else "",
    )
    return found.bound() if bound and key else found


def elsewhere(path: Path, found: Snapshot | None, to: Destination | None) -> Elsewhere | None:
    """What waits in this file for another destination than `to`; None if nothing does."""
    return None if found is None else waits_elsewhere(path, found.destination, found.pending, to)


def waits_elsewhere(
    path: Path, found: Destination | None, pending: int, to: Destination | None
) -> Elsewhere | None:
    """The same, of a file whose destination and number of events are known."""
    if found is None or to is None or not pending:
        return None
    if not to.key:  # not known
        to = to._replace(key_fingerprint=found.key_fingerprint)
    return None if to.takes(found) else Elsewhere(path, found, pending, to.difference(found))


def sentence(each: Elsewhere, to: Destination) -> str:
    """For people: what waits, for whom, and the command that sends it."""
    verb = "waits" if each.pending == 1 else "wait"
    return (
        f"{count(each.pending)} in {each.path} {verb} for {printable(each.whom)}, not for"
        f" {to.endpoint}; to send there: {printable(each.command(to))}"
    )
