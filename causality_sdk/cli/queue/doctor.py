"""`causality queue doctor`: finds what is wrong with the queue or its server, and says the fix.

Neighbours: `_check_disk` and `_check_server` look; this shows what they found. Invariant: nothing
is changed, no owner is disturbed, and no event is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import click

from causality_sdk.cli.exits import INVALID, InputError
from causality_sdk.cli.option_words import FILES, SERVER
from causality_sdk.cli.options import CommandWithClient, settings
from causality_sdk.cli.output import output, output_options, printable, styled
from causality_sdk.cli.queue._check_disk import check_directory, check_file
from causality_sdk.cli.queue._check_server import check_server
from causality_sdk.cli.queue._finding import Finding
from causality_sdk.cli.queue.selection import chosen_files, file_options
from causality_sdk.cli.settings import FLAGS, Settings
from causality_sdk.cli.words import in_shell
from causality_sdk.errors import ConfigError

_MARKS = {
    "ok": styled("ok", "green") + "     ",
    "note": styled("note", "cyan") + "   ",
    "problem": styled("PROBLEM", "red"),
}


@click.command(
    cls=CommandWithClient,
    uses=FILES | SERVER,
    epilog="""\b
Examples:
  causality queue doctor
  causality queue doctor --queue-path /mnt/kiosk/queue.db --offline
  causality queue doctor --json
""",
)
@click.option("--offline", is_flag=True, help="Look at the files only; ask no server.")
@output_options
@file_options
def command(offline: bool) -> None:
    """Find what is wrong, and say the fix for each.

    Looks at the directory, the disk, each file and its owner, then asks the server: whether it can
    be reached, takes the key, knows the path, and has the same time. The key is tried with a batch
    of no events.

    Exits with 1 if something is wrong.
    """
    out = output()
    found: list[Finding] = []
    subject = ""
    for each in _all(offline=offline):
        finding = replace(each, text=in_shell(each.text, FLAGS), fix=in_shell(each.fix, FLAGS))
        found.append(finding)
        if out.as_json or (out.quiet and finding.level == "ok"):
            continue
        if finding.subject != subject:  # a path is long enough to be said once
            subject = finding.subject
            out.line(styled(printable(subject), "bold"))
        out.line(f"  {_MARKS[finding.level]}  {printable(finding.text)}")
        if finding.fix:
            out.line(f"           fix: {printable(finding.fix)}")
    problems = sum(finding.level == "problem" for finding in found)
    if out.as_json:
        out.json_line({"ok": not problems, "findings": [finding.document() for finding in found]})
    if problems:
        raise click.exceptions.Exit(INVALID)


def _all(*, offline: bool) -> Iterator[Finding]:
    options = settings()
    try:
        base = options.queue_path()
    except ConfigError as error:
        yield Finding("problem", "queue", str(error), "name the queue as it says")
    else:
        yield from check_directory(base.parent)
        try:
            files = chosen_files(must_exist=True)
        except InputError as error:
            if base.is_dir():
                yield Finding("problem", "queue", error.message, "name the file")
            else:
                yield Finding("note", "queue", f"{error.message}: nothing was tracked here yet")
            files = []
        for path in files:
            yield from check_file(path, options)
    if not offline:
        yield from _server(options)


def _server(options: Settings) -> Iterator[Finding]:
    try:
        config = options.config(logger=output().logger(), app_id=options["app_id"] or "doctor")
    except ConfigError as error:
        yield Finding("problem", "options", str(error), "see causality config; or --offline")
        return
    yield from check_server(config, output())
