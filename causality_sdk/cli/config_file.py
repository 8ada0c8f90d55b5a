"""The config file: TOML, one key for each field of `Config`, in the user's config directory.

Neighbour: `settings`, the only caller. Invariant: a message names the file and the key, and never
a value, which may be the api key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from causality_sdk.errors import ConfigError
from causality_sdk.option_names import refuse_unknown


def default_path() -> Path:
    """`causality/config.toml` in the config directory of the platform."""
    import platformdirs

    return Path(platformdirs.user_config_dir("causality", appauthor=False)) / "config.toml"


def read(path: Path, *, must_exist: bool) -> dict[str, Any]:
    """What the file says; nothing if it is not there and need not be. Raises `ConfigError`."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"config file {path} does not exist") from None
        return {}
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror or error}") from None
    try:
        found: dict[str, Any] = tomllib.loads(text.decode("utf-8-sig"))  # Windows marks it
    except tomllib.TOMLDecodeError as error:
        # Its words name the line and the column, never the text.
        raise ConfigError(f"config file {path} is not TOML: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config file {path} is not UTF-8; save it as UTF-8") from None
    return found


def check(path: Path, found: dict[str, Any], names: Collection[str]) -> None:
    """Raises `ConfigError` for a key that is no option: a typing error would go unnoticed."""
    try:
        refuse_unknown(found, sorted(names))
    except ConfigError as error:
        raise ConfigError(f"config file {path}: {error}") from None
