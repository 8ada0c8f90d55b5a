"""Checks of single options: what is wrong is a `ConfigError` with the field, the value and the fix.

Neighbour: `config`. Pure. Invariant: no message shows what may be a secret.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from causality_sdk.errors import ConfigError

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
# A header value may hold visible ASCII, spaces and tabs (RFC 9110, section 5.5). Anything else is
# a smuggled header or an error in the HTTP library, long after the mistake was made.
HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
# No wait of the standard library takes more on every platform (Windows: 4,294,967 s); a larger
# one would be an OverflowError in the sender.
SECONDS_MAX = 4_000_000
_PEM = b"-----BEGIN "  # before each certificate of a CA bundle
_SIZE_MAX = 2**63 - 1  # of an integer in SQLite
HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def endpoint(value: str, name: str = "endpoint", *, paths: Iterable[str] = ()) -> str:
    """The base URL without a trailing slash. Credentials in it would end up in logs.

    `paths` are those that requests ask for below it: it must not end in one.
    """
    example = "use a base URL such as https://events.example.com"
    url = value.strip()
    shown = repr(without_secrets(url))
    if "@" in url:
        raise ConfigError(
            f"{name} must not hold a user name or password, got {shown}; use api_key or headers"
        )
    if "?" in url or "#" in url:
        raise ConfigError(f"{name} must not have a query or a fragment, got {shown}; {example}")
    # urlsplit drops tabs and line breaks in silence, but what uses the URL later would not
    if not url.isprintable() or " " in url:
        raise ConfigError(f"{name} must not hold spaces or line breaks, got {shown}; {example}")
    if not url.lower().startswith(("https://", "http://")):
        raise ConfigError(f"{name} must begin with https:// or http://, got {shown}; {example}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{name} {shown} cannot be read ({error}); {example}") from None
    if not parts.hostname:
        raise ConfigError(f"{name} has no host, got {shown}; {example}")
    if port == 0:
        raise ConfigError(f"{name} has port 0, got {shown}; {example}")
    base = url.rstrip("/")
    for path in paths:
        for twice in (path, path.rpartition("/")[0]):
            # "/v1" alone may be meant: a gateway may keep everything below a path of that name.
            if (twice == path or twice.count("/") > 1) and base.lower().endswith(twice):
                raise ConfigError(
                    f"{name} must be the base URL, without the path {path}, which each request"
                    f" adds, got {shown}; use {base[: -len(twice)]}"
                )
    return base


def required(values: Mapping[str, object], prefix: str) -> None:
    """Options that nothing works without. Raises `ConfigError` that names all that are missing."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be a string, got {type(value).__name__}")
    missing = [name for name, value in values.items() if str(value).strip() == ""]
    if missing:
        raise ConfigError(missing_options(missing, prefix))


def missing_options(names: list[str], prefix: str) -> str:
    """What is to be said of options that are missing."""
    examples = {"endpoint": "https://events.example.com", "app_id": "kiosk-7"}
    example = ", for example " + examples[names[0]] if names[0] in examples else ""
    if len(names) == 1:
        name = names[0]
        example = example or f" (or {prefix}API_KEY_FILE)"
        return f"{name} is required: pass {name}= or set {prefix}{name.upper()}{example}"
    *first, last = names
    *arguments, argument = (f"{name}=" for name in names)
    *variables, variable = (prefix + name.upper() for name in names)
    return (
        f"{', '.join(first)} and {last} are required: pass {', '.join(arguments)} and {argument},"
        f" or set {', '.join(variables)} and {variable}"
    )


def without_secrets(url: str) -> str:
    """`url` as it may be shown: a password, or a token in the query, does not belong in a log."""
    base = re.split(r"[?#]", url, maxsplit=1)[0]
    if "@" not in url:
        return base if base == url else base + "?..."
    scheme = re.match(r"https?://", url, re.IGNORECASE)
    # A password may hold any character, so all before the last @ is taken for one.
    host = re.split(r"[?#]", url.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme[0] if scheme else ''}...@{host}"


def file_path(name: str, value: str | os.PathLike[str]) -> Path:
    """`value` as an absolute path, so that a later chdir does not move the queue."""
    path = Path(value)
    if path.name in ("", "..") or "\0" in str(path):
        raise ConfigError(f"{name} must name a file, got {str(value)!r}")
    try:
        return path.expanduser().absolute()
    except FileNotFoundError:
        raise ConfigError(
            f"{name} is relative, got {str(value)!r}, and the working directory is gone;"
            " use an absolute path"
        ) from None
    except RuntimeError:
        raise ConfigError(
            f"{name} begins with a home directory that is not known, got {str(value)!r};"
            " use an absolute path"
        ) from None


def certificates(name: str, value: object) -> bool | str:
    """True, False, or what can verify a server: a file of certificates, or a directory."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigError(f"{name} must be True, False or the path of a CA bundle, got {value!r}")
    offer = "give True, False or the path of a CA bundle"
    try:
        path = Path(value).expanduser().absolute()
        if path.is_dir():
            return str(path)
        with path.open("rb") as file:
            begins = any(_PEM in line for line in file)
    except (OSError, RuntimeError, ValueError) as error:  # no home; a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{name} cannot be read, got {str(value)!r}: {reason}; {offer}") from None
    if not begins:
        raise ConfigError(f"{name} holds no certificate in PEM form, got {str(value)!r}; {offer}")
    return str(path)


def key_from_file(environ: Mapping[str, str], variable: str) -> str | None:
    """The api key in the file that `<variable>_FILE` names, or None where it is not set.

    Secrets of Docker and Kubernetes are mounted as files. Raises `ConfigError`, also where
    `variable` itself is set: nobody could say which is meant.
    """
    place = environ.get(f"{variable}_FILE", "")
    if place == "":
        return None
    if environ.get(variable, "") != "":
        raise ConfigError(f"{variable} and {variable}_FILE are both set; set one of them")
    return read_key(f"{variable}_FILE", place)


def read_key(name: str, place: str) -> str:
    """The api key in a file, without the line break at its end. Raises `ConfigError`."""
    shown = place if place.isprintable() else ascii(place)
    try:
        path = Path(place).expanduser()
        text = path.read_text("utf-8-sig")  # editors of Windows put a byte order mark in front
    except (OSError, RuntimeError, ValueError) as error:  # not UTF-8, a NUL in the name, no home
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{name} {shown} cannot be read: {reason}") from None
    key = text.removesuffix("\n").removesuffix("\r")  # that belongs to the file, not to the key
    if key.strip() == "":
        raise ConfigError(f"{name} {shown} is empty; write the api key into it")
    return key


@contextmanager
def said_by(sources: Mapping[str, str]) -> Iterator[None]:
    """A `ConfigError` about one of these options says, too, where its value comes from."""
    try:
        yield
    except ConfigError as error:
        name = re.match(r"\w*", str(error))
        source = sources.get(name[0]) if name else None
        if source is None:
            raise
        raise ConfigError(f"{error} (from {source})") from None


def whole(name: str, value: object, least: int) -> None:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ConfigError(f"{name} must be at least {least}, got {value}")
    if value > _SIZE_MAX:
        raise ConfigError(f"{name} must be at most {_SIZE_MAX}, got {value}")


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> None:
    """A finite number above `above`, or of at least `least`, and of at most `most`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be a number, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value!r}")
    if above is not None and value <= above:
        raise ConfigError(f"{name} must be above {above:g}, got {value}")
    if least is not None and value < least:
        raise ConfigError(f"{name} must be at least {least:g}, got {value}")
    if most is not None and value > most:
        raise ConfigError(f"{name} must be at most {most}, got {value}")


def flag(name: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, got {value!r}")


def choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """One of `choices`."""
    if value not in choices:
        offer = " or ".join(repr(choice) for choice in choices)
        raise ConfigError(f"{name} must be {offer}, got {value!r}")


def header(name: str, value: object) -> None:
    """What may be the value of an HTTP header."""
    # A header may carry a credential, so its value is not shown.
    # Space around it is refused since requests would do so, at the first attempt to send.
    if not isinstance(value, str) or not HEADER_VALUE.fullmatch(value) or value != value.strip():
        raise ConfigError(
            f"{name} must be a string of printable ASCII without line breaks or spaces around it"
        )


def protocol(name: str, value: object, methods: tuple[str, ...]) -> None:
    """An object that has these methods."""
    for method in methods:
        if not callable(getattr(value, method, None)):
            raise ConfigError(
                f"{name} must have a method {method}(), which {type(value).__name__} has not"
            )


def parse_whole(name: str, text: str) -> int:
    """A whole number from the environment."""
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} must be a whole number, got {text!r}") from None


def parse_number(name: str, text: str) -> float:
    """A number from the environment."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} must be a number, got {text!r}") from None


def parse_flag(name: str, text: str) -> bool:
    """A yes or no from the environment."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ConfigError(f"{name} must be true or false, got {text!r}")
    return word in _TRUE


def parse_flag_or_text(_name: str, text: str) -> bool | str:
    """A yes or no from the environment, or anything else as it is."""
    word = text.strip().lower()
    return word in _TRUE if word in _TRUE | _FALSE else text


def parse_text(_name: str, text: str) -> str:
    """Text from the environment."""
    return text
