"""The options as the signatures of `Client`, `AsyncClient` and `Config.load` show them.

Neighbours: `config` holds the same options with their defaults and their checks; a test keeps the
two equal. Invariant: a type checker finds a misspelt option, and an editor completes a right one.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import logging
    import os
    from collections.abc import Callable, Mapping

    import requests

    from causality_sdk.config import Compression, Durability, Fallback, Overflow
    from causality_sdk.stats import Delivered, Dropped
    from causality_sdk.transport.base import Transport
    from causality_sdk.wire.base import Wire


class ClientOptions(TypedDict, total=False):
    """The keywords of `Client`: for the annotation of a function that passes them on.

    `def make_client(**options: Unpack[ClientOptions]) -> Client: …`. What each means is in the
    table of options; `Config` has the same as fields.
    """

    api_key: str
    endpoint: str
    app_id: str
    batch_size: int
    flush_interval: float
    max_batch_events: int
    max_batch_bytes: int
    max_event_bytes: int
    timeout: float
    max_retries: int
    backoff_initial: float
    backoff_max: float
    jitter: float
    queue_path: str | os.PathLike[str] | None
    max_queue_events: int
    max_queue_bytes: int
    overflow: Overflow
    durability: Durability
    compression: Compression | None
    close_timeout: float
    user_agent: str
    headers: Mapping[str, str]
    verify: bool | str | os.PathLike[str]
    proxies: Mapping[str, str] | None
    session: requests.Session | None
    wire: str | Wire
    transport: Transport | None
    take_over: bool
    key_is_destination: bool
    fallback: Fallback | None
    strict: bool
    start: bool
    enabled: bool
    debug: bool
    logger: logging.Logger | logging.LoggerAdapter[Any]
    on_delivered: Callable[[Delivered], object] | None
    on_dropped: Callable[[Dropped], object] | None
    on_error: Callable[[Exception], object] | None


class OptionsSignature:
    """For `__signature__` of a class that takes the fields of a dataclass as keywords.

    `help()` and `inspect.signature()` then list them. It is made when somebody asks, since an
    import should not pay for it; a subclass with an `__init__` of its own shows that.
    """

    def __init__(self, keywords: type, module: str, name: str) -> None:
        self._keywords = keywords  # with what each may be, which is more than the field is then
        self._place = module, name

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        holder = next(each for each in owner.__mro__ if self in vars(each).values())
        if owner.__init__ is not holder.__init__:  # type: ignore[misc]
            raise AttributeError("__signature__")
        from importlib import import_module

        module, name = self._place
        fields = inspect.signature(getattr(import_module(module), name)).parameters.values()
        kinds = inspect.get_annotations(self._keywords)
        options = [
            each.replace(annotation=getattr(kinds[each.name], "__forward_arg__", kinds[each.name]))
            for each in fields
        ]
        own = inspect.signature(holder.__init__).parameters.values()  # type: ignore[misc]
        keywords = [each for each in own if each.kind is inspect.Parameter.KEYWORD_ONLY]
        return inspect.Signature([*keywords, *options])


def no_copies(name: str) -> str:
    """Why a client can be neither pickled nor copied, which would be two on one queue file."""
    return (
        f"a {name} can be neither copied nor sent to another process: it holds an open queue file"
        f" and a thread; make a {name} in each process, of the same options or of its config"
    )
