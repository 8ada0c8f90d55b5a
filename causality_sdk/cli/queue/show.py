"""`causality queue show`: one event, whole, wherever in the files of an app it lies.

Neighbour: `selection`. Invariant: nothing is written.
"""

from __future__ import annotations

import click

from causality_sdk.cli.exits import INVALID, CommandError
from causality_sdk.cli.option_words import FILES
from causality_sdk.cli.options import CommandWithClient
from causality_sdk.cli.output import output, output_options
from causality_sdk.cli.queue.selection import (
    Filter,
    Losses,
    buried_in,
    chosen_files,
    file_options,
    one_key,
    waiting_in,
)
from causality_sdk.cli.words import json_for_people


@click.command(
    cls=CommandWithClient,
    uses=FILES,
    epilog="""\b
Examples:
  causality queue show 01a1fd3f-a65a-7579-a2e3-f9b809e87fb8
  causality queue show 01a1fd3f-a65a-75 --json
""",
)
@click.argument("key")
@output_options
@file_options
def command(key: str) -> None:
    """Show the event with this idempotency key, as it will be sent, and where it is.

    The beginning of a key will do, if no other begins so. Looks at what waits and at the dead
    letters. Exits with 1 if it is in neither: then it was delivered, evicted, or never tracked
    here.
    """
    out = output()
    files = chosen_files()
    losses = Losses()
    places = (("waiting", waiting_in), ("dead letter", buried_in))
    every = (found.key for _, look in places for found in look(files, Filter(), losses))
    whole = one_key(key, every)
    if whole is None:
        for line in dict.fromkeys(losses.lines):
            out.note(line)
        among = f" in {', '.join(map(str, files))}" if files else ""
        raise CommandError(f"no event with the key {key}{among}", INVALID)
    wanted = Filter(keys=frozenset([whole]))
    for where, look in places:
        for found in look(files, wanted, losses):
            place = str(found.path)
            document = {"file": place, "id": found.id, "state": where, "event": found.event}
            out.result(document, json_for_people(found.event))
            if not out.as_json:
                out.note(f"{where}, row {found.id} of {place}")
            return
