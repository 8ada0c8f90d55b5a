"""The options that commands share: a flag for each field of `Config` that a shell has a use for.

Neighbours: every command wears `client_options` and `output_options`; what was given is kept with
click's context, for `settings()` here and for `output`; `option_words` says what a command uses.
Invariant: a new field of `Config` gets its flag, its variable and its line in the help from here,
without another word.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import Field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from causality_sdk import config as config_module
from causality_sdk.cli import completions
from causality_sdk.cli.formatter import OurCommand
from causality_sdk.cli.option_words import PROGRAM_ONLY, WORDS
from causality_sdk.cli.settings import FIELDS, KEY_FILE, Settings, flag_name
from causality_sdk.option_checks import parse_flag_or_text

_FLAGS = "causality_sdk.flags"  # where click's context keeps what was given
_CONFIG = "causality_sdk.config"
_CHOICES = {
    "overflow": config_module.Overflow,
    "durability": config_module.Durability,
    "compression": config_module.Compression,
}
_Command = TypeVar("_Command", bound=Callable[..., Any])


def settings(context: click.Context | None = None) -> Settings:
    """The options of the running command, from all layers. Raises `ConfigError`."""
    context = click.get_current_context() if context is None else context
    return Settings.resolve(context.meta.get(_FLAGS, {}), context.meta.get(_CONFIG))


def client_options(command: _Command) -> _Command:
    """Adds a flag for every field of `Config`, `--config` and `--api-key-file`."""
    for spec in reversed(FIELDS.values()):
        if spec.name not in PROGRAM_ONLY:
            command = _option(spec)(command)
    for decorator in (
        click.option(
            "--gzip",
            cls=SharedOption,
            field="compression",
            is_flag=True,
            default=None,
            expose_value=False,
            callback=_keep("compression", lambda given: "gzip" if given else None),
            help="Short for --compression gzip.",
        ),
        click.option(
            "--api-key-file",
            cls=SharedOption,
            field="api_key",
            type=click.Path(path_type=Path),
            metavar="FILE",
            expose_value=False,
            callback=_keep(KEY_FILE),
            help="Read the api key from this file.",
        ),
        click.option(
            "--config",
            cls=SharedOption,
            field="",
            type=click.Path(path_type=Path),
            metavar="FILE",
            expose_value=False,
            callback=_keep_config,
            help="Config file, TOML.  [default: config.toml in the user's config directory]",
        ),
    ):
        command = decorator(command)
    return command


def is_client_option(parameter: click.Parameter) -> bool:
    """Whether it is one of those above, which the help shows apart."""
    return isinstance(parameter, SharedOption)


class SharedOption(click.Option):
    """An option of every command that has to do with a field of `Config`; with all, if none."""

    def __init__(self, *args: Any, field: str, **options: Any) -> None:
        self.field = field
        super().__init__(*args, **options)


class ConfigOption(SharedOption):
    """A flag for one field, whose help is in `WORDS`, else the docstring of the field."""

    @property
    def help(self) -> str:
        """From the source of `Config`, which is read when a help is shown, and else not."""
        text = WORDS.get(self.field) or _docstrings().get(self.field, "")
        default = FIELDS[self.field].default
        if isinstance(default, (int, float)) and "default" not in text.lower():
            text += f"  [default: {str(default).lower() if default in (True, False) else default}]"
        return text

    @help.setter  # noqa: A003 (click has it)
    def help(self, _text: str | None) -> None:
        pass


class CommandWithClient(OurCommand):
    """Shows the flags of `Config` in a table of their own, and of them those that it `uses`."""

    def __init__(self, *args: Any, uses: Collection[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.uses = frozenset(uses)
        self.params.append(
            click.Option(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_all,
                help="Show this, and every option that there is.",
            )
        )

    def shown(self, parameter: click.Parameter) -> bool:
        """Whether the help has this option, or `--help-all` alone."""
        field = parameter.field if isinstance(parameter, SharedOption) else ""
        return field == "" or field in self.uses

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two tables."""
        tables: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
        for parameter in self.get_params(ctx):
            if not (ctx.meta.get(_ALL) or self.shown(parameter)):
                continue
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                tables[is_client_option(parameter)].append(record)
        with formatter.section("Options"):
            formatter.write_dl(tables[0])
        if tables[1]:
            with formatter.section("Options that CAUSALITY_<NAME> and the config file have, too"):
                formatter.write_dl(tables[1])


_ALL = "causality_sdk.help_all"


def _show_all(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        context.meta[_ALL] = True
        click.echo(context.get_help(), color=context.color)
        context.exit()


def _option(spec: Field[Any]) -> Callable[[_Command], _Command]:
    name, flag = spec.name, flag_name(spec.name)
    options: dict[str, Any] = {
        "field": name,
        "cls": ConfigOption,
        "expose_value": False,
        "callback": _keep(name),
        "default": None,
    }
    default = spec.default
    if name == "verify":
        options |= {
            "metavar": "BOOL|FILE",
            "callback": _keep(
                name, lambda text: None if text is None else parse_flag_or_text(name, text)
            ),
        }
    elif name in ("headers", "proxies"):
        pair = "NAME=VALUE" if name == "headers" else "SCHEME=URL"
        options |= {"multiple": True, "metavar": pair, "callback": _keep_pairs(name, pair)}
    elif isinstance(default, bool):
        flag = f"{flag}/--no-{flag[2:]}"
    elif name in _CHOICES:
        options["type"] = click.Choice(get_args(_CHOICES[name]))
    elif name == "queue_path":
        options |= {"type": click.Path(path_type=Path), "metavar": "FILE"}
    elif name == "wire":
        options |= {"metavar": "NAME", "shell_complete": completions.wires}
    elif name == "app_id":
        options |= {"metavar": "NAME", "shell_complete": completions.app_ids}
    elif isinstance(default, (int, float)):
        options["type"] = type(default)
        options["metavar"] = "NUMBER"
    # A dest of its own: a command may have a parameter of the same name.
    return click.option(flag, f"client_{name}", **options)


def _keep(name: str, convert: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        value = value if convert is None else convert(value)
        if value is not None:
            context.meta.setdefault(_FLAGS, {})[name] = value
        return value

    return callback


def _keep_pairs(name: str, pair: str) -> Callable[..., Any]:
    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        found = {}
        for text in value:
            key, equals, rest = text.partition("=")
            if not equals or not key:
                # It may hold a credential, so it is not shown.
                raise click.BadParameter(f"must be {pair}")
            found[key] = rest
        if found:
            context.meta.setdefault(_FLAGS, {})[name] = found

    return callback


def _keep_config(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    context.meta[_CONFIG] = value


@functools.cache
def _docstrings() -> dict[str, str]:
    """Field to its docstring, as the source of `Config` has it."""
    try:
        tree = ast.parse(inspect.getsource(config_module))
    except (OSError, SyntaxError):  # installed without its source
        return {}
    body = next(
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config"
    )
    found = {}
    for node, below in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(below, ast.Expr):
            text = " ".join(str(ast.literal_eval(below.value)).split())
            found[ast.unparse(node.target)] = re.sub(r"`+", "", text).replace(" Required.", "")
    return found
