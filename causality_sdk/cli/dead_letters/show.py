"""`causality dead-letters show`. Neighbour: `selection`. Invariant: nothing is written."""

from __future__ import annotations

import click

from causality_sdk.cli.dead_letters.selection import document, exact, letters
from causality_sdk.cli.option_words import FILES
from causality_sdk.cli.options import CommandWithClient
from causality_sdk.cli.output import count, output, output_options, printable
from causality_sdk.cli.queue.selection import chosen_files, file_options
from causality_sdk.cli.words import json_for_people


@click.command(
    cls=CommandWithClient,
    uses=FILES,
    epilog="""\b
Examples:
  causality dead-letters show 3
  causality dead-letters show 01a1fd3f-a65a-7579-a2e3-f9b809e87fb8 --json
""",
)
@click.argument("letter", metavar="NUMBER_OR_KEY")
@output_options
@file_options
def command(letter: str) -> None:
    """Show one dead letter: the event as it was tracked, and the server's words.

    The beginning of a key will do, if no other begins so. With several files, a number may stand
    for a letter in each; all are shown.
    """
    out = output()
    files = chosen_files()
    meant = exact(files, [letter])
    for path in files:
        for each in letters(path, meant):
            facts = document(path, each)
            out.result({**facts, "event": each.event}, json_for_people(each.event))
            if not out.as_json:
                out.note(
                    f"letter {each.id} of {path}, refused {count(each.attempts, 'time')}, buried"
                    f" {facts['buried']}: {each.status} {printable(each.reason)}"
                )
