"""`causality queue show`: one event, whole, wherever in the files of an app it lies.

Neighbour: `selection`. Invariant: nothing is written.
"""

from __future__ import annotations

import click
import orjson

from causality_sdk.cli.exits import INVALID, CommandError
from causality_sdk.cli.options import CommandWithClient
from causality_sdk.cli.output import output, output_options
from causality_sdk.cli.queue.selection import (
    Filter,
    Losses,
    buried_in,
    chosen_files,
    file_options,
    waiting_in,
)


@click.command(
    cls=CommandWithClient,
    epilog="""\b
Examples:
  causality queue show 01a1fd3f-a65a-7579-a2e3-f9b809e87fb8
  causality queue show 01a1fd3f-a65a-7579-a2e3-f9b809e87fb8 --json
""",
)
@click.argument("key")
@output_options
@file_options
def command(key: str) -> None:
    """Show the event with this idempotency key, as it will be sent, and where it is.

    Looks at what waits and at the dead letters. Exits with 1 if it is in neither: then it was
    delivered, evicted, or never tracked here.
    """
    out = output()
    wanted = Filter(keys=frozenset([key]))
    files = chosen_files()
    losses = Losses()
    for where, look in (("waiting", waiting_in), ("dead letter", buried_in)):
        for found in look(files, wanted, losses):
            place = str(found.path)
            document = {"file": place, "id": found.id, "state": where, "event": found.event}
            out.result(document, orjson.dumps(found.event, option=orjson.OPT_INDENT_2).decode())
            if not out.as_json:
                out.note(f"{where}, row {found.id} of {place}")
            return
    for line in dict.fromkeys(losses.lines):
        out.note(line)
    raise CommandError(f"no event with the key {key} in {', '.join(map(str, files))}", INVALID)
