"""The options as the signature of `PackTrackClient` shows them.

Neighbour: `config` holds the same with their defaults and their checks; a test keeps the two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import logging
    import os
    from collections.abc import Callable, Mapping

    import requests

    from causality_sdk.config import Overflow
    from causality_sdk.packtrack.attempts import Attempt
    from causality_sdk.stats import Delivered, Dropped


class PackTrackOptions(TypedDict, total=False):
    """The keywords of `PackTrackClient`. What each means is in the table of `PackTrackConfig`."""

    api_key: str
    base_url: str
    timeout: float
    retries: int
    backoff_initial: float
    backoff_max: float
    jitter: float
    retry_after_max: float
    user_agent: str
    gzip: bool
    batch_size: int
    health_enabled: bool
    health_path: str
    headers: Mapping[str, str]
    verify: bool | str | os.PathLike[str]
    proxies: Mapping[str, str] | None
    session: requests.Session | None
    debug: bool
    logger: logging.Logger | logging.LoggerAdapter[Any] | None
    on_attempt: Callable[[Attempt], object] | None
    on_delivered: Callable[[Delivered], object] | None
    on_dropped: Callable[[Dropped], object] | None
    on_error: Callable[[Exception], object] | None
    app_id: str
    queue_path: str | os.PathLike[str] | None
    flush_interval: float
    queue_capacity: int
    overflow: Overflow
    strict: bool
    start: bool
