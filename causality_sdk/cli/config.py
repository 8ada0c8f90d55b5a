"""`causality config`: each option as it is, and which layer it came from.

Neighbours: `settings`. Invariant: the api key, values of headers and passwords are masked.
"""

from __future__ import annotations

import os
from typing import Any

import click

from causality_sdk.cli.exits import INVALID
from causality_sdk.cli.option_words import FILES, SERVER
from causality_sdk.cli.options import CommandWithClient, client_options, settings
from causality_sdk.cli.output import output, output_options, table
from causality_sdk.cli.settings import Setting, shown, unknown_variables
from causality_sdk.cli.words import json_text
from causality_sdk.errors import ConfigError


@click.command(
    cls=CommandWithClient,
    uses=FILES | SERVER,
    epilog="""\b
Examples:
  causality config
  CAUSALITY_BATCH_SIZE=10 causality config --json
  causality config --config ./causality.toml
""",
)
@output_options
@client_options
def command() -> None:
    """Show each option and where it comes from; the key masked.

    A flag wins over the environment, the environment over the config file, the file over the
    default. Exits with 1 if a client could not be made of it, and says why. A variable that looks
    like an option and is none is named, too.
    """
    out = output()
    options = settings()
    problem = None
    try:
        options.config()
    except ConfigError as error:
        problem = str(error)
    unknown = unknown_variables(os.environ)
    document: dict[str, Any] = {
        "config_file": str(options.config_path),
        "config_file_exists": options.config_path.exists(),
        "problem": problem,
        "unknown_variables": unknown,
        "options": {
            name: {
                "value": shown(name, setting.value),
                "source": setting.source,
                "from": setting.detail,
            }
            for name, setting in options.values.items()
        },
    }
    rows = [
        (
            name,
            _text(shown(name, setting.value)),
            " ".join((setting.source, _detail(name, setting))),
        )
        for name, setting in options.values.items()
    ]
    there = "" if document["config_file_exists"] else " (not there)"
    out.result(
        document,
        f"{table(rows, ('option', 'value', 'from'))}\n\nconfig file: {options.config_path}{there}",
    )
    if not out.as_json:
        for name, meant in unknown.items():
            hint = "" if meant is None else f"; did you mean {meant}?"
            out.note(f"{name} is set, and is no option{hint}")
    if problem is not None:
        out.problem(problem, "ConfigError", INVALID)
        raise click.exceptions.Exit(INVALID)


def _detail(name: str, setting: Setting) -> str:
    if name == "overflow" and setting.source == "default":
        return "(commands that fill a queue: reject)"
    return setting.detail


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value or "-"
    return "-" if value is None else json_text(value)
