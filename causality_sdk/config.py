"""Options: their defaults, their checks, the environment, the default place of the queue.

`Config` is frozen and checked once, when it is made; the rest of the package trusts it.
Neighbours: `client` makes one; nobody else reads the environment. Invariant: an api key is in no
repr and in no message.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args

from causality_sdk.default_path import default_queue_path
from causality_sdk.errors import ConfigError
from causality_sdk.option_checks import (
    HEADER_NAME,
    HEADER_VALUE,
    SECONDS_MAX,
    certificates,
    choice,
    endpoint,
    file_path,
    flag,
    header,
    key_from_file,
    number,
    parse_flag,
    parse_flag_or_text,
    parse_number,
    parse_text,
    parse_whole,
    protocol,
    required,
    said_by,
    whole,
)
from causality_sdk.option_names import refuse_unknown, unread_variables
from causality_sdk.options import ClientOptions

if TYPE_CHECKING:
    import requests

    from causality_sdk.stats import Delivered, Dropped
    from causality_sdk.transport.base import Transport
    from causality_sdk.wire.base import Wire

ENV_PREFIX = "CAUSALITY_"
LOGGER = logging.getLogger("causality_sdk")

Overflow = Literal["drop_oldest", "reject"]
Durability = Literal["process", "power"]
Compression = Literal["gzip"]
Fallback = Literal["memory"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of a `Client`. Wrong ones raise `ConfigError` with field, value and fix.

    `Config(...)` takes what it is given and the defaults. `Config.load(...)` also reads the
    environment: arguments win over `CAUSALITY_<FIELD>`, which wins over the default.
    Times are in seconds, sizes in bytes.
    """

    api_key: str = field(default="", repr=False)
    """Sent as `X-API-Key`. Required."""
    endpoint: str = ""
    """Base URL of the server, with `https://` or `http://`. Required."""
    app_id: str = ""
    """Names the application in every event, and its queue directory. Required."""
    batch_size: int = 50
    """Events that wake the sender before `flush_interval` is over, and the size of the first
    request: what others call `flush_at`. How large a request may become is `max_batch_events`, and
    none is larger, whatever this is. While events come faster than it sends, the sender waits up to
    50 milliseconds for a fuller batch."""
    flush_interval: float = 30.0
    """Seconds: the longest an event waits while the server answers."""
    max_batch_events: int = 1000
    """Events in one request at most. A backlog goes in requests that grow up to this."""
    max_batch_bytes: int = 1024 * 1024
    """Bytes of events in one request at most."""
    max_event_bytes: int = 256 * 1024
    """Bytes of one event, encoded, at most."""
    timeout: float = 10.0
    """Seconds: total deadline of one HTTP attempt, less the name lookup, which nothing interrupts.
    Connecting takes at most 3 of them for each address of the name. The flag of the command is
    `--attempt-timeout`."""
    max_retries: int = 3
    """Retries inside one `flush()` call. The background never gives up."""
    backoff_initial: float = 1.0
    """Seconds: ceiling of the first delay between background attempts."""
    backoff_max: float = 300.0
    """Seconds: ceiling of every delay between background attempts."""
    jitter: float = 1.0
    """0.0 to 1.0: the random part of a delay; 1.0 is full jitter."""
    queue_path: Path | None = None
    """The queue file. Default: `queue.db` in the user data directory of the platform."""
    max_queue_events: int = 100_000
    """Events one queue file holds at most."""
    max_queue_bytes: int = 128 * 1024 * 1024
    """Bytes one queue file holds at most."""
    overflow: Overflow = "drop_oldest"
    """At the cap: `"drop_oldest"` evicts, `"reject"` raises `QueueFull`."""
    durability: Durability = "process"
    """`"process"` survives kill -9; `"power"` survives power loss too, for one fsync a commit."""
    compression: Compression | None = None
    """`"gzip"` compresses request bodies."""
    close_timeout: float = 2.0
    """Seconds that `close()` and the exit of the interpreter may spend on sending."""
    user_agent: str = ""
    """Default: `causality-sdk/<version>`."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further headers of every request."""
    verify: bool | str = True
    """TLS verification, as in requests: True, False, or the path of a CA bundle in PEM form, or of
    a directory of certificates."""
    proxies: Mapping[str, str] | None = field(default=None, repr=False)
    """Proxies, as in requests; None takes those of the environment."""
    session: requests.Session | None = field(default=None, repr=False)
    """A session of your own. Only the sender uses it while the client lives. Its netrc, cookies,
    adapters and deadline are its own business: requests' timeout begins anew with each read."""
    wire: str | Wire = "causality"
    """The destination's format: a name, or an object that keeps the `Wire` protocol."""
    transport: Transport | None = None
    """What carries requests. Default: HTTP."""
    take_over: bool = False
    """True: also take queue files that were meant for another endpoint, wire or api key, and send
    what is in them here."""
    key_is_destination: bool = False
    """True: the api key names the project on the server, so that events tracked with another key
    are left alone. Else a new key at the same endpoint is the same destination."""
    fallback: Fallback | None = None
    """`"memory"`: when the queue cannot be opened, warn loudly and queue in memory."""
    strict: bool = False
    """True: trouble of the machine raises `QueueError` out of `track()`."""
    start: bool = True
    """False: no thread; the program calls `flush()` itself."""
    enabled: bool = True
    """False: every call is accepted and does nothing."""
    debug: bool = False
    """True: what the client does is told in full, each attempt to deliver included. On standard
    error, if the program has set up no logging of its own that shows it."""
    logger: logging.Logger = field(default=LOGGER, repr=False)
    """Where the client logs."""
    on_delivered: Callable[[Delivered], object] | None = field(default=None, repr=False)
    """Hook after each acknowledged batch. Sender thread."""
    on_dropped: Callable[[Dropped], object] | None = field(default=None, repr=False)
    """Hook after events were evicted. Sender thread."""
    on_error: Callable[[Exception], object] | None = field(default=None, repr=False)
    """Hook for each failure. Sender thread."""

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, **options: Unpack[ClientOptions]
    ) -> Config:
        """A `Config` from `options`, then the environment, then the defaults.

        `environ` stands in for `os.environ`. `CAUSALITY_API_KEY_FILE` names a file with the key,
        for secrets that are mounted; together with `CAUSALITY_API_KEY` it is an error. A variable
        that is probably misspelt is told in one log line. Raises `ConfigError`, also for an option
        that does not exist and for a variable that cannot be read as its field's type.
        """
        environ = os.environ if environ is None else environ
        refuse_unknown(options, (spec.name for spec in fields(cls)))
        given: dict[str, Any] = dict(options)
        variables = {}
        for name, parse in _FROM_ENVIRONMENT.items():
            variable = ENV_PREFIX + name.upper()
            text = environ.get(variable, "")
            # Empty means unset: `VAR= program` and compose files cannot unset a variable.
            if name not in options and text != "":
                given[name] = parse(variable, text)
                variables[name] = variable
        if "api_key" not in options and given.get("enabled", True):
            key = key_from_file(environ, ENV_PREFIX + "API_KEY")
            if key is not None:
                given["api_key"] = key
                variables["api_key"] = ENV_PREFIX + "API_KEY_FILE"
        _tell_of_unread(environ)
        with said_by(variables):
            return cls(**given)

    def __post_init__(self) -> None:
        flag("enabled", self.enabled)
        if not self.enabled:
            return  # a program that has tracking switched off need not have a key for it
        self._check_required()
        whole("batch_size", self.batch_size, 1)
        number("flush_interval", self.flush_interval, above=0, most=SECONDS_MAX)
        whole("max_batch_events", self.max_batch_events, 1)
        whole("max_batch_bytes", self.max_batch_bytes, 1)
        whole("max_event_bytes", self.max_event_bytes, 1)
        number("timeout", self.timeout, above=0, most=SECONDS_MAX)
        whole("max_retries", self.max_retries, 0)
        number("backoff_initial", self.backoff_initial, above=0, most=SECONDS_MAX)
        number("backoff_max", self.backoff_max, above=0, most=SECONDS_MAX)
        if self.backoff_max < self.backoff_initial:
            raise ConfigError(
                f"backoff_max must be at least backoff_initial ({self.backoff_initial:g} s),"
                f" got {self.backoff_max:g} s"
            )
        number("jitter", self.jitter, least=0, most=1)
        whole("max_queue_events", self.max_queue_events, 1)
        whole("max_queue_bytes", self.max_queue_bytes, 1)
        if self.max_event_bytes > self.max_queue_bytes:
            raise ConfigError(
                f"max_queue_bytes must be at least max_event_bytes ({self.max_event_bytes}),"
                f" got {self.max_queue_bytes}"
            )
        choice("overflow", self.overflow, get_args(Overflow))
        choice("durability", self.durability, get_args(Durability))
        choice("compression", self.compression, (None, *get_args(Compression)))
        choice("fallback", self.fallback, (None, *get_args(Fallback)))
        number("close_timeout", self.close_timeout, least=0, most=SECONDS_MAX)
        for name in ("take_over", "key_is_destination", "strict", "start"):
            flag(name, getattr(self, name))
        flag("debug", self.debug)
        self._check_http()
        self._check_objects()

    def _check_required(self) -> None:
        required({name: getattr(self, name) for name in REQUIRED}, ENV_PREFIX)
        try:
            self.app_id.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"app_id must be text that UTF-8 can hold, got {self.app_id!r}"
            ) from None
        # The key itself is never shown; a stray newline from a secrets file is the usual cause.
        if not HEADER_VALUE.fullmatch(self.api_key) or self.api_key != self.api_key.strip():
            raise ConfigError(
                "api_key must be printable ASCII without spaces or line breaks around it;"
                " strip what the file or the secret store added"
            )
        if self.api_key.lower().startswith(("https://", "http://")):
            # Else the message about the endpoint would show the key.
            raise ConfigError("api_key is a URL; are api_key and endpoint swapped?")
        paths = _PATHS.get(self.wire, ()) if isinstance(self.wire, str) else ()
        object.__setattr__(self, "endpoint", endpoint(self.endpoint, paths=paths))
        for path in paths[:1]:
            if self.endpoint.lower().endswith(first := "/" + path.split("/")[1]):
                _tell_once(f"endpoint ends in {first}: requests go to {self.endpoint}{path}")

    def _check_http(self) -> None:
        header("user_agent", self.user_agent)
        if not isinstance(self.headers, Mapping):
            raise ConfigError(f"headers must be a mapping, got {type(self.headers).__name__}")
        for name, value in self.headers.items():
            if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
                raise ConfigError(f"headers has the name {name!r}, which is not an HTTP token")
            header(f"headers[{name!r}]", value)
        object.__setattr__(self, "headers", dict(self.headers))  # nobody changes ours afterwards
        object.__setattr__(self, "verify", certificates("verify", self.verify))
        if self.proxies is not None and not isinstance(self.proxies, Mapping):
            raise ConfigError(
                "proxies must be a mapping such as {'https': 'http://proxy:3128'},"
                f" got {type(self.proxies).__name__}"
            )
        for scheme, url in (self.proxies or {}).items():
            # The URL may hold a password, so it is not shown.
            if not isinstance(scheme, str) or not isinstance(url, str):
                raise ConfigError(
                    "proxies must map texts to texts, such as {'https': 'http://proxy:3128'},"
                    f" got {type(url).__name__} for {scheme!r}"
                )

    def _check_objects(self) -> None:
        if self.queue_path is not None:
            if not isinstance(self.queue_path, (str, os.PathLike)):
                raise ConfigError(
                    f"queue_path must be a path, got {type(self.queue_path).__name__}"
                )
            object.__setattr__(self, "queue_path", file_path("queue_path", self.queue_path))
        if isinstance(self.wire, str):
            choice("wire", self.wire, WIRE_NAMES)
        else:
            protocol("wire", self.wire, ("frame", "verdicts"))
        wire = self.wire if isinstance(self.wire, str) else getattr(self.wire, "name", "")
        if self.compression is not None and wire in _READ_NO_GZIP:
            raise ConfigError(
                f"compression must be None with wire={wire!r}, got {self.compression!r}: its server"
                " reads no compressed body; leave compression out"
            )
        if self.transport is not None:
            protocol("transport", self.transport, ("send", "close"))
        if self.session is not None:
            protocol("session", self.session, ("request", "close"))
        if not isinstance(self.logger, (logging.Logger, logging.LoggerAdapter)):
            raise ConfigError(f"logger must be a logging.Logger, got {type(self.logger).__name__}")
        for name in ("on_delivered", "on_dropped", "on_error"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise ConfigError(f"{name} must be callable, got {type(hook).__name__}")

    @property
    def resolved_queue_path(self) -> Path:
        """`queue_path`, or the default: `<user data dir>/causality/<app_id>/queue.db`.

        Raises `QueueError` where this user has no home directory.
        """
        if self.queue_path is not None:
            return self.queue_path
        return default_queue_path(self.app_id)


REQUIRED = ("api_key", "endpoint", "app_id")
"""What nothing works without."""

WIRE_NAMES = ("causality", "causality-proto", "packtrack")
"""What `wire` may name; the modules are in `causality_sdk.wire`."""

# What a request asks for below the endpoint. One that ends in it would ask for it twice.
_PATHS = {
    "causality": ("/v1/events/batch", "/health"),
    "causality-proto": ("/v1/events/batch", "/health"),
    "packtrack": ("/api/ingest", "/api/health"),
}

_READ_NO_GZIP = frozenset({"causality-proto"})  # servers that refuse a compressed batch for good


def _parser(spec: Field[Any]) -> Callable[[str, str], Any] | None:
    """How the environment gives this field, or None for a field that only an argument can give."""
    if spec.name in ("logger", "session", "transport", "headers", "proxies"):
        return None
    if spec.name.startswith("on_"):
        return None
    if spec.name == "verify":
        return parse_flag_or_text
    default = spec.default if spec.default is not MISSING else None
    if isinstance(default, bool):
        return parse_flag
    if isinstance(default, int):
        return parse_whole
    if isinstance(default, float):
        return parse_number
    return parse_text


_FROM_ENVIRONMENT: dict[str, Callable[[str, str], Any]] = {
    spec.name: parser for spec in fields(Config) if (parser := _parser(spec)) is not None
}

_told: set[str] = set()  # what was told in this process; a program may make many clients


def _tell_once(words: str) -> None:
    if words not in _told:
        _told.add(words)
        LOGGER.warning("causality: %s", words)


def _tell_of_unread(environ: Mapping[str, str]) -> None:
    """One log line for each variable that looks like one of ours and is none."""
    read = [ENV_PREFIX + name.upper() for name in (*_FROM_ENVIRONMENT, *_OF_THE_COMMAND)]
    for words in unread_variables(environ, read, ENV_PREFIX).values():
        _tell_once(words)


# The command reads these as well; config is the path of its config file.
_OF_THE_COMMAND = ("api_key_file", "config", "headers", "proxies")
