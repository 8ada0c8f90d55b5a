"""Durable, disk-backed event tracking: `track()` commits, a background thread delivers.

The public names, nothing else. Each is loaded when it is first asked for: the command line, which
needs few of them, starts in a third of the time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from causality_sdk._version import __version__

if TYPE_CHECKING:
    from causality_sdk.aio import AsyncClient
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
    from causality_sdk.options import ClientOptions
    from causality_sdk.sigterm import exit_on_sigterm
    from causality_sdk.stats import Delivered, Dropped, FlushReport, Health, QueueFileStats, Stats

__all__ = [
    "AsyncClient",
    "CausalityError",
    "Client",
    "ClientClosed",
    "ClientOptions",
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
    "QueueFileStats",
    "QueueFull",
    "ResponseError",
    "Stats",
    "TransportError",
    "__version__",
    "exit_on_sigterm",
]

_PLACES = {
    "aio": ("AsyncClient",),
    "client": ("Client",),
    "config": ("Config",),
    "dead_letters": ("DeadLetter", "DeadLetters"),
    "event": ("Event",),
    "options": ("ClientOptions",),
    "sigterm": ("exit_on_sigterm",),
    "stats": ("Delivered", "Dropped", "FlushReport", "Health", "QueueFileStats", "Stats"),
}
_PLACE = {name: module for module, names in _PLACES.items() for name in names}

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # What is not listed is an error of ours, in more than one sense.
        value = getattr(import_module(f"{__name__}.{_PLACE.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
