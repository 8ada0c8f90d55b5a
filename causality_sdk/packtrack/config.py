"""Options of a `PackTrackClient`: their defaults, their checks, the environment.

Neighbours: `client` makes one; the names of the variables and the defaults are those that
PackTrack's own clients have. Invariant: an api key is in no repr and in no message.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_args

from causality_sdk._version import __version__
from causality_sdk.config import LOGGER, Config, Overflow
from causality_sdk.errors import ConfigError
from causality_sdk.option_checks import (
    SECONDS_MAX,
    choice,
    endpoint,
    flag,
    header,
    key_from_file,
    number,
    parse_flag,
    parse_text,
    parse_whole,
    required,
    said_by,
    whole,
)
from causality_sdk.option_names import COUNTERPARTS as CLIENT_COUNTERPARTS
from causality_sdk.option_names import refuse_unknown
from causality_sdk.packtrack.durations import seconds
from causality_sdk.packtrack.options import PackTrackOptions
from causality_sdk.wire.packtrack import HEALTH_PATH, INGEST_PATH, PackTrackWire

if TYPE_CHECKING:
    import requests

    from causality_sdk.packtrack.attempts import Attempt
    from causality_sdk.stats import Delivered, Dropped
    from causality_sdk.transport.base import Transport

BASE_URL = "https://pack.shimcounty.com"
USER_AGENT = f"pack-track-sdk-python/{__version__}"


@dataclass(frozen=True, kw_only=True)
class PackTrackConfig:
    """The options of a `PackTrackClient`. Wrong ones raise `ConfigError`.

    `PackTrackConfig(...)` takes what it is given and the defaults. `PackTrackConfig.load(...)`
    also reads the environment: arguments win over `PACKTRACK_…`, which wins over the default.
    Times are in seconds; in the environment also as `15s` or `100ms`.
    """

    api_key: str = field(default="", repr=False)
    """Sent as `X-PackTrack-Key`. Required."""
    base_url: str = BASE_URL
    """Base URL of the server, with `https://` or `http://`."""
    timeout: float = 15.0
    """Seconds: total deadline of one HTTP attempt. Each call can have another."""
    retries: int = 3
    """Retries of one request after its first attempt."""
    backoff_initial: float = 0.1
    """Seconds: ceiling of the delay before the first retry; doubled for each further one."""
    backoff_max: float = 2.0
    """Seconds: ceiling of every delay."""
    jitter: float = 0.2
    """0.0 to 1.0: the random part of a delay."""
    retry_after_max: float = 60.0
    """Seconds that a call waits at most because of `Retry-After`; asked for more, it gives up."""
    user_agent: str = USER_AGENT
    """The `User-Agent` header."""
    gzip: bool = False
    """True: request bodies are compressed."""
    batch_size: int = 100
    """Events in one request at most; a longer batch goes in several."""
    health_enabled: bool = False
    """True: before its first request the client asks for the server's health, and sends nothing
    as long as that is not well. `health_check()` asks in any case."""
    health_path: str = HEALTH_PATH
    """Where to ask."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further headers of every request."""
    verify: bool | str = True
    """TLS verification, as in requests."""
    proxies: Mapping[str, str] | None = field(default=None, repr=False)
    """Proxies, as in requests; None takes those of the environment."""
    session: requests.Session | None = field(default=None, repr=False)
    """A session of your own. It is used for one request at a time."""
    debug: bool = False
    """True: every attempt is told, and what happens to the queue. On standard error, if the program
    has set up no logging of its own that shows it."""
    logger: logging.Logger | None = field(default=None, repr=False)
    """Where failed attempts and what happens to the queue are logged. None: the attempts nowhere,
    the queue to the logger `causality_sdk`."""
    on_attempt: Callable[[Attempt], object] | None = field(default=None, repr=False)
    """Hook after each attempt of a synchronous call, on the calling thread: for metrics."""
    on_delivered: Callable[[Delivered], object] | None = field(default=None, repr=False)
    """Hook after each acknowledged batch of tracked events. Sender thread."""
    on_dropped: Callable[[Dropped], object] | None = field(default=None, repr=False)
    """Hook after tracked events were evicted. Sender thread."""
    on_error: Callable[[Exception], object] | None = field(default=None, repr=False)
    """Hook for each failure to deliver tracked events. Sender thread."""
    app_id: str = "packtrack"
    """Names the directory of the queue that `track()` uses."""
    queue_path: Path | None = None
    """The queue file. Default: `queue.db` in the user data directory of the platform."""
    flush_interval: float = 1.0
    """Seconds: the longest a tracked event waits while the server answers."""
    queue_capacity: int = 10_000
    """Events that the queue file holds at most."""
    overflow: Overflow = "reject"
    """At the capacity: `"reject"` raises `QueueFull`, `"drop_oldest"` evicts."""
    strict: bool = False
    """True: trouble of the disk raises `QueueError` out of `track()`."""
    start: bool = True
    """False: no thread; tracked events are sent by `flush()` alone."""

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, **options: Unpack[PackTrackOptions]
    ) -> PackTrackConfig:
        """From `options`, then the environment, then the defaults. Raises `ConfigError`.

        `environ` stands in for `os.environ`. An empty variable counts as not set.
        `PACKTRACK_API_KEY_FILE` names a file with the key; with `PACKTRACK_API_KEY`, an error.
        """
        environ = os.environ if environ is None else environ
        refuse_unknown(options, (spec.name for spec in fields(cls)), COUNTERPARTS)
        given: dict[str, Any] = dict(options)
        variables = {}
        for name, (variable, parse) in ENVIRONMENT.items():
            text = environ.get(variable, "")
            if name not in options and text != "":
                given[name] = parse(variable, text)
                variables[name] = variable
        if "api_key" not in options:
            key = key_from_file(environ, "PACKTRACK_API_KEY")
            if key is not None:
                given["api_key"] = key
                variables["api_key"] = "PACKTRACK_API_KEY_FILE"
        with said_by(variables):
            return cls(**given)

    def __post_init__(self) -> None:
        required({"api_key": self.api_key}, "PACKTRACK_")
        if not isinstance(self.base_url, str) or self.base_url.strip() == "":
            raise ConfigError("base_url must be a URL: pass base_url= or set PACKTRACK_BASE_URL")
        if self.api_key.lower().startswith(("https://", "http://")):
            # Else the message about the URL would show the key.
            raise ConfigError("api_key is a URL; are api_key and base_url swapped?")
        header("api_key", self.api_key)
        paths = (INGEST_PATH, HEALTH_PATH)
        object.__setattr__(self, "base_url", endpoint(self.base_url, "base_url", paths=paths))
        whole("retries", self.retries, 0)
        whole("batch_size", self.batch_size, 1)
        whole("queue_capacity", self.queue_capacity, 1)
        number("timeout", self.timeout, above=0, most=SECONDS_MAX)
        number("backoff_initial", self.backoff_initial, above=0, most=SECONDS_MAX)
        number("backoff_max", self.backoff_max, above=0, most=SECONDS_MAX)
        if self.backoff_max < self.backoff_initial:
            raise ConfigError(
                f"backoff_max must be at least backoff_initial ({self.backoff_initial:g} s),"
                f" got {self.backoff_max:g} s"
            )
        number("jitter", self.jitter, least=0, most=1)
        number("retry_after_max", self.retry_after_max, least=0, most=SECONDS_MAX)
        number("flush_interval", self.flush_interval, above=0, most=SECONDS_MAX)
        for name in ("gzip", "health_enabled", "strict", "start", "debug"):
            flag(name, getattr(self, name))
        choice("overflow", self.overflow, get_args(Overflow))
        self._check_health_path()
        if self.logger is not None and not isinstance(
            self.logger, (logging.Logger, logging.LoggerAdapter)
        ):
            raise ConfigError(f"logger must be a logging.Logger, got {type(self.logger).__name__}")
        if self.debug and self.logger is None:
            object.__setattr__(self, "logger", LOGGER)
        if self.on_attempt is not None and not callable(self.on_attempt):
            raise ConfigError(f"on_attempt must be callable, got {type(self.on_attempt).__name__}")
        self.for_queue()  # what is left to check, by the one who knows how

    def _check_health_path(self) -> None:
        path = self.health_path
        if (
            not isinstance(path, str)
            or not path.startswith("/")
            or not path.isascii()
            or not path.isprintable()
            or " " in path
        ):
            raise ConfigError(
                f"health_path must be a path such as {HEALTH_PATH}, got {path!r};"
                " the host belongs in base_url"
            )

    def for_queue(self, transport: Transport | None = None) -> Config:
        """The options of the `Client` that keeps and delivers what is tracked."""
        return Config(
            api_key=self.api_key,
            endpoint=self.base_url,
            app_id=self.app_id,
            batch_size=self.batch_size,
            max_batch_events=self.batch_size,
            flush_interval=self.flush_interval,
            timeout=self.timeout,
            max_retries=self.retries,
            backoff_initial=self.backoff_initial,
            backoff_max=self.backoff_max,
            jitter=self.jitter,
            queue_path=self.queue_path,
            max_queue_events=self.queue_capacity,
            overflow=self.overflow,
            compression="gzip" if self.gzip else None,
            user_agent=self.user_agent,
            headers=self.headers,
            verify=self.verify,
            proxies=self.proxies,
            session=None if transport is not None else self.session,
            wire=PackTrackWire.name,
            transport=transport,
            strict=self.strict,
            debug=self.debug,
            logger=self.logger or LOGGER,
            on_delivered=self.on_delivered,
            on_dropped=self.on_dropped,
            on_error=self.on_error,
            start=self.start,
        )


# What the client of this package calls them, and what others do, where it differs from here.
_HERE = {
    "endpoint": "base_url",
    "max_queue_events": "queue_capacity",
    "max_retries": "retries",
    "max_batch_events": "batch_size",
    'compression="gzip"': "gzip=True",
    "enabled": "a condition of your own",
    "enabled=False": "a condition of your own",
    "the variable CAUSALITY_API_KEY_FILE": "the variable PACKTRACK_API_KEY_FILE",
}
COUNTERPARTS = {name: _HERE.get(words, words) for name, words in CLIENT_COUNTERPARTS.items()}
COUNTERPARTS |= {name: words for name, words in _HERE.items() if name.isidentifier()}
COUNTERPARTS["compression"] = "gzip=True"


def parse_duration(name: str, text: str) -> float:
    """A duration from the environment, in seconds."""
    try:
        return seconds(text)
    except ValueError as error:
        raise ConfigError(f"{name} cannot be read: {error}") from None


ENVIRONMENT: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "api_key": ("PACKTRACK_API_KEY", parse_text),
    "base_url": ("PACKTRACK_BASE_URL", parse_text),
    "timeout": ("PACKTRACK_TIMEOUT", parse_duration),
    "retries": ("PACKTRACK_RETRIES", parse_whole),
    "user_agent": ("PACKTRACK_USER_AGENT", parse_text),
    "health_enabled": ("PACKTRACK_HEALTH_ENABLE", parse_flag),
    "health_path": ("PACKTRACK_HEALTH_PATH", parse_text),
    "debug": ("PACKTRACK_DEBUG", parse_flag),
}
"""Field -> its variable, and how that is read."""
