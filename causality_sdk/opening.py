"""Opens what a client works on: the wire, the queue, and the transport to its server.

Neighbours: `client`, the only caller; `claim` finds the file. Invariant: a queue that is returned
is owned, or lies in memory and has said so loudly.
"""

from __future__ import annotations

from pathlib import Path

from causality_sdk import connections, passing, place
from causality_sdk._version import __version__
from causality_sdk.claim import Claim, claim
from causality_sdk.config import Config
from causality_sdk.damage import NoRoom
from causality_sdk.destination import Destination, Elsewhere, fingerprint
from causality_sdk.errors import QueueError
from causality_sdk.forking import LOADING
from causality_sdk.hooks import Hooks
from causality_sdk.installation import installation_id
from causality_sdk.ownership import Lease
from causality_sdk.pacer import Pace
from causality_sdk.queue import Queue
from causality_sdk.transport.base import Transport
from causality_sdk.wire import WIRES
from causality_sdk.wire.base import Wire
from causality_sdk.wire.causality_proto import CausalityProtoWire


def make_wire(config: Config) -> Wire:
    """The wire that `config` names, or holds.

    Raises `QueueError` where it needs an installation id that can be neither read nor made, unless
    `fallback` allows one that lasts as long as the process.
    """
    if not isinstance(config.wire, str):
        return config.wire
    if config.wire != CausalityProtoWire.name:
        return WIRES[config.wire]()
    directory = config.resolved_queue_path.parent
    try:
        place.make_directory(directory)
        return CausalityProtoWire(installation_id(directory))
    except QueueError:
        if config.fallback != "memory" and (config.strict or not place.is_full(directory)):
            raise
        return CausalityProtoWire()  # the queue lies there too, and has the same trouble to tell


def open_queue(
    config: Config, wire: Wire, hooks: Hooks
) -> tuple[Queue, Lease | None, tuple[Elsewhere, ...]]:
    """The queue of this client, and the lease of its file; None for one in memory.

    And the files that were passed over, since their events are for another destination. Raises
    `QueueError` unless `fallback` allows a queue in memory.
    """
    here = destination(config, wire)
    try:
        claimed, queue = _open(config, here)
    except QueueError as error:
        if config.fallback != "memory":
            raise
        config.logger.error(
            "causality: %s. fallback='memory': events are queued in MEMORY ONLY and are lost when"
            " this process ends",
            error,
        )
        hooks.error(error)
        return queue_at(config, connections.MEMORY), None, ()
    for path, trouble in claimed.unusable:
        passing.tell(config.logger, path, trouble)
    for each in claimed.others:
        config.logger.warning(
            "causality: %d events in %s wait for %s; they stay there until a client with those"
            " options runs, or: %s (take_over=True sends them with the options of this one)",
            each.pending,
            each.path,
            each.whom,
            each.command(here),
        )
    if claimed.rekeyed:
        config.logger.warning(
            "causality: the api key has changed since the events in %s were tracked; they go with"
            " the new one. Where a key names the project, use key_is_destination=True",
            queue.path,
        )
    return queue, claimed.lease, claimed.others


def _open(config: Config, here: Destination) -> tuple[Claim, Queue]:
    """The claim of a file, and the queue in it. Raises `NoRoom`, and other `QueueError`s."""
    directory = config.resolved_queue_path.parent
    if not place.is_nearly_full(directory):
        try:
            return _claimed(config, here)
        except QueueError:
            if config.strict or not place.is_full(directory):
                raise
    try:
        with connections.alone():
            claimed, queue = _claimed(config, here)
    except QueueError as error:
        if config.strict:
            raise
        raise NoRoom(f"{error}; make room on the disk") from error
    config.logger.error(
        "causality: the disk of %s is full: what is queued there is delivered, and new events wait"
        " in memory until there is room",
        queue.path,
    )
    return claimed, queue


def _claimed(config: Config, here: Destination) -> tuple[Claim, Queue]:
    claimed = claim(config.resolved_queue_path, here, take_over=config.take_over)
    try:
        queue = queue_at(config, claimed.lease.path)
        queue.repair = claimed.repair
    except BaseException:
        claimed.lease.release()
        raise
    return claimed, queue


def http_transport(config: Config, wire: Wire, *, forked: bool = False) -> Transport:
    """The transport that is built in, with the options and the key of this client.

    `forked`: this process inherited the client, and an injected session with its connections.
    """
    with LOADING:
        from causality_sdk.transport.http import HttpTransport  # loads requests: 80 ms

    if forked and config.session is not None:
        # A connection that parent and child both write to would mix up their requests. This is
        # what unpickling an adapter does: a pool of its own, with the same settings.
        for adapter in config.session.adapters.values():
            if hasattr(adapter, "__getstate__") and hasattr(adapter, "__setstate__"):
                adapter.__setstate__(adapter.__getstate__())

    return HttpTransport(
        config.endpoint,
        {
            **config.headers,
            "User-Agent": config.user_agent or f"causality-sdk/{__version__}",
            wire.key_header: config.api_key,
        },
        secret=config.api_key,
        compression=config.compression,
        verify=config.verify,
        proxies=config.proxies,
        session=config.session,
    )


def make_pace(config: Config) -> Pace:
    """How fast the sender may go, by the options of this client."""
    return Pace(
        batch_size=config.batch_size,
        max_batch_events=config.max_batch_events,
        flush_interval=config.flush_interval,
        backoff_initial=config.backoff_initial,
        backoff_max=config.backoff_max,
        jitter=config.jitter,
    )


def release(queue: Queue, lease: Lease | None) -> None:
    """Closes the file and gives it up. Once no step of the sender runs any more."""
    queue.close()
    if lease is not None:
        lease.release()


def queue_at(config: Config, path: Path) -> Queue:
    """The queue in a file that is ours, with the cap and the durability of this client."""
    return Queue(
        path,
        max_events=config.max_queue_events,
        max_bytes=config.max_queue_bytes,
        reject=config.overflow == "reject",
        power_safe=config.durability == "power",
    )


def destination(config: Config, wire: Wire) -> Destination:
    """Where the events of this client go."""
    here = Destination(config.endpoint, wire.name, fingerprint(config.api_key))
    return here.bound() if config.key_is_destination else here
