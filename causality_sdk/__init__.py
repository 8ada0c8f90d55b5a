"""Durable, disk-backed event tracking: `track()` commits, a background thread delivers.

The public names, nothing else.
"""

from causality_sdk._version import __version__
from causality_sdk.client import Client
from causality_sdk.config import Config
from causality_sdk.dead_letters import DeadLetter, DeadLetters
from causality_sdk.errors import (
    CausalityError,
    ClientClosed,
    ConfigError,
    DeliveryError,
    EventError,
    QueueError,
    QueueFull,
    ResponseError,
    TransportError,
)
from causality_sdk.event import Event
from causality_sdk.sigterm import exit_on_sigterm
from causality_sdk.stats import Delivered, Dropped, FlushReport, Health, Stats

__all__ = [
    "CausalityError",
    "Client",
    "ClientClosed",
    "Config",
    "ConfigError",
    "DeadLetter",
    "DeadLetters",
    "Delivered",
    "DeliveryError",
    "Dropped",
    "Event",
    "EventError",
    "FlushReport",
    "Health",
    "QueueError",
    "QueueFull",
    "ResponseError",
    "Stats",
    "TransportError",
    "__version__",
    "exit_on_sigterm",
]
