"""Where each option of `Config` comes from: flag, environment, config file, default; in that order.

Neighbours: `options` gives the flags, `config_file` reads the file, every command that has a client
or a queue asks here. Invariant: the api key is shown nowhere, whatever layer it came from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from causality_sdk.cli import config_file
from causality_sdk.config import (
    _FROM_ENVIRONMENT,
    ENV_PREFIX,
    REQUIRED,
    Config,
)
from causality_sdk.default_path import default_queue_path
from causality_sdk.errors import ConfigError
from causality_sdk.option_checks import file_path, read_key, said_by, without_secrets

MASK = "***"
KEY_FILE = "api_key_file"
"""Stands in for `api_key` in every layer, so that the key need not stand there itself."""

_PROGRAM_ONLY = ("session", "transport", "logger")  # objects; only a program can give them


def settable(spec: Field[Any]) -> bool:
    """Whether a flag, the environment or a file can give this field of `Config`."""
    return spec.name not in _PROGRAM_ONLY and not spec.name.startswith("on_")


FIELDS = {spec.name: spec for spec in fields(Config) if settable(spec)}


class Setting(NamedTuple):
    """One option as it is, and why."""

    value: Any
    source: str
    """`flag`, `environment`, `file` or `default`."""
    detail: str = ""
    """The name of the flag or of the variable, the path of the file."""


class Settings:
    """All options of one call of the command line."""

    def __init__(self, values: Mapping[str, Setting], config_path: Path) -> None:
        self.values = values
        self.config_path = config_path

    @classmethod
    def resolve(
        cls,
        flags: Mapping[str, Any],
        config_path: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """From the flags of this call, the environment, the config file. Raises `ConfigError`.

        `config_path` is that of `--config`, which then must exist.
        """
        environ = os.environ if environ is None else environ
        if config_path is None and environ.get(ENV_PREFIX + "CONFIG"):
            config_path = Path(environ[ENV_PREFIX + "CONFIG"])
        place = config_file.default_path() if config_path is None else config_path
        found = config_file.read(place, must_exist=config_path is not None)
        config_file.check(place, found, {*FIELDS, KEY_FILE})
        layers = (
            {
                name: Setting(value, "flag", flag_name(name))
                for name, value in flags.items()
                if value is not None
            },
            _environment(environ),
            {name: Setting(value, "file", str(place)) for name, value in found.items()},
            {name: Setting(_default(spec), "default") for name, spec in FIELDS.items()},
        )
        values = {
            name: setting
            for layer in reversed([_with_key(layer) for layer in layers])
            for name, setting in layer.items()
        }
        return cls({name: values[name] for name in FIELDS}, place)

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value

    def is_default(self, name: str) -> bool:
        """Whether nobody has set it."""
        return self.values[name].source == "default"

    def is_flag(self, name: str) -> bool:
        """Whether this very call sets it."""
        return self.values[name].source == "flag"

    def config(self, **overrides: Any) -> Config:
        """The `Config`; `overrides` win. Raises `ConfigError`."""
        options = {name: setting.value for name, setting in self.values.items()} | overrides
        if options["enabled"]:
            self._require([name for name in REQUIRED if name not in overrides])
        sources = {
            name: f"config file {setting.detail}" if setting.source == "file" else setting.detail
            for name, setting in self.values.items()
            if setting.source != "default" and name not in overrides
        }
        with said_by(sources):
            return Config(**options)

    def without_server(self, **overrides: Any) -> Config:
        """The same for a command that only looks at events: who sends them where may be open."""
        stand_ins = {"app_id": "app", "endpoint": "http://localhost", "api_key": "none"}
        return self.config(
            **{n: text for n, text in stand_ins.items() if _is_blank(self[n])}, **overrides
        )

    def queue_path(self) -> Path:
        """Where the queue lies, which needs neither a key nor a server. Raises `ConfigError`."""
        if self["queue_path"] is not None:
            return file_path("queue_path", self["queue_path"])
        if not self["app_id"]:
            raise ConfigError(
                "which queue? Give --queue-path FILE or --app-id NAME, set CAUSALITY_QUEUE_PATH or"
                f" CAUSALITY_APP_ID, or write one of them into {self.config_path}"
            )
        return default_queue_path(self["app_id"])

    def _require(self, names: list[str]) -> None:
        missing = [
            name for name in names if isinstance(self[name], str) and self[name].strip() == ""
        ]
        if not missing:
            return
        flags = [
            "--api-key-file FILE" if name == "api_key" else f"{flag_name(name)} …"
            for name in missing
        ]
        variables = [ENV_PREFIX + name.upper() for name in missing]
        is_are = "is" if len(missing) == 1 else "are"
        raise ConfigError(
            f"{_listed(missing)} {is_are} required: give {_listed(flags)}, set"
            f" {_listed(variables)}, or write {_listed([f'{name} = …' for name in missing])} into"
            f" {self.config_path}"
        )


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _is_blank(value: object) -> bool:
    return isinstance(value, str) and value.strip() == ""


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Variables that are named as if they were options and are none, with what may be meant."""
    import difflib  # for `causality config` alone

    known = [name.upper() for name in (*FIELDS, KEY_FILE, "config")]
    found = {}
    for variable in sorted(environ):
        name = variable.removeprefix(ENV_PREFIX)
        if name not in (*known, variable):
            meant = difflib.get_close_matches(name, known, n=1)
            found[variable] = ENV_PREFIX + meant[0] if meant else None
    return found


def flag_name(name: str) -> str:
    """The flag of a field. Two are named for what one gives, and one leaves room for commands.

    (`--timeout` is the deadline of a whole command; the field is that of one HTTP attempt.)
    """
    special = {"timeout": "--attempt-timeout", "headers": "--header", "proxies": "--proxy"}
    return special.get(name, "--" + name.replace("_", "-"))


def directory_of_apps() -> Path:
    """Where the queues lie for which nobody gave a path. Raises `QueueError`."""
    return default_queue_path("any").parent.parent


FLAGS = {name: flag_name(name) for name in FIELDS}
"""How a message names an option to who sits at a shell."""


def shown(name: str, value: Any) -> Any:
    """A value as it may be printed: without the key, and without what else may be a secret."""
    if name == "api_key":
        return MASK if value else ""
    if name == "headers":
        return dict.fromkeys(value, MASK)
    if name == "proxies" and value is not None:
        return {scheme: without_secrets(str(url)) for scheme, url in value.items()}
    if name == "endpoint" and isinstance(value, str):
        return without_secrets(value)
    return str(value) if isinstance(value, Path) else value


def _environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    parsers: dict[str, Callable[[str, str], Any]] = {
        **_FROM_ENVIRONMENT,
        "headers": _mapping,
        "proxies": _mapping,
        KEY_FILE: lambda _variable, text: text,
    }
    found = {}
    for name, parse in parsers.items():
        variable = ENV_PREFIX + name.upper()
        if environ.get(variable, "") != "":  # as for a client: empty means unset
            found[name] = Setting(parse(variable, environ[variable]), "environment", variable)
    return found


def _mapping(variable: str, text: str) -> dict[str, str]:
    """A JSON object. It may hold a credential, so it is not shown."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f'{variable} must be a JSON object such as {{"name": "value"}}')
    return found


def _default(spec: Field[Any]) -> Any:
    if spec.default is not MISSING:
        return spec.default
    return spec.default_factory() if spec.default_factory is not MISSING else None


def _with_key(layer: Mapping[str, Setting]) -> dict[str, Setting]:
    """The layer, with the key of its `api_key_file` in place of that."""
    values = dict(layer)
    named = values.pop(KEY_FILE, None)
    if named is None:
        return values
    if "api_key" in values:
        raise ConfigError(
            f"api_key and {KEY_FILE} are both given ({named.source} {named.detail}); give one"
        )
    key = read_key(KEY_FILE, str(named.value))
    place = f"{named.detail} ({KEY_FILE} {Path(str(named.value)).expanduser()})"
    values["api_key"] = Setting(key, named.source, place)
    return values
