"""`causality queue export`: events to a file or a pipe, byte for byte as they lie in the queue.

Neighbours: `selection` and `rows`; `import_` is the way back. Invariant: a file that is there under
its name is whole.
"""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from causality_sdk.cli.exits import FAILED, UNREADABLE, CommandError
from causality_sdk.cli.options import CommandWithClient
from causality_sdk.cli.output import count, output, output_options
from causality_sdk.cli.queue.rows import FORMATS, row_writer
from causality_sdk.cli.queue.selection import (
    Filter,
    Losses,
    buried_in,
    chosen_files,
    file_options,
    filter_options,
    waiting_in,
)


@click.command(
    cls=CommandWithClient,
    epilog="""\b
Examples:
  causality queue export > waiting.ndjson
  causality queue export --output waiting.ndjson.gz --since 2026-11-20
  causality queue export --queue-path /mnt/kiosk/queue.db --single --format csv --output k.csv
""",
)
@filter_options
@click.option(
    "--output", "target", default="-", metavar="FILE", help="Where to; gzip if it ends in .gz."
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="ndjson",
    show_default=True,
    help="NDJSON can be imported again.",
)
@click.option("--dead-letters", is_flag=True, help="The dead letters, and not what waits.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@output_options
@file_options
def command(wanted: Filter, target: str, kind: str, dead_letters: bool, force: bool) -> None:
    """Export events: whole, with their keys, so that they can be imported and sent elsewhere.

    Nothing is removed from the queue. Rows whose checksum is wrong are left out and counted. What
    can be read of a damaged file is exported, and what is lost is counted.
    With --json, a summary goes to stdout if the events do not.

    Exits with 4 if one of several files cannot be read at all; the others are exported.
    """
    out = output()
    files = chosen_files()
    losses = Losses()
    look = buried_in if dead_letters else waiting_in
    exported = damaged = 0
    with _opened(target, force=force) as stream:
        writer = row_writer(kind, stream, summary=False)
        for found in look(files, wanted, losses):
            if found.sound:
                writer.write(found)
                exported += 1
            else:
                damaged += 1
    if damaged:
        out.note(f"{count(damaged)} with a wrong checksum left out")
    for line in losses.lines:
        out.note(line)
    if target != "-":
        document = {
            "exported": exported,
            "damaged": damaged,
            "lost": losses.events if losses.counted else None,
            "file": target,
        }
        out.summary(document, f"{count(exported)} in {target}")
    if losses.unreadable:
        raise click.exceptions.Exit(UNREADABLE)


@contextmanager
def _opened(target: str, *, force: bool) -> Iterator[IO[bytes]]:
    """Standard output, or a file that gets its name when it is complete."""
    if target == "-":
        yield sys.stdout.buffer
        return
    path = Path(target)
    if path.exists() and not force:
        raise CommandError(f"{path} is there already; --force replaces it", FAILED)
    part = path.with_name(path.name + ".part")
    try:
        # For this user alone: events are nobody else's business, as in the queue.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if path.name.endswith(".gz"):
                with gzip.GzipFile(fileobj=file, mode="wb", filename="") as packed:
                    yield packed  # type: ignore[misc]  # it has write()
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CommandError(
            f"{path} cannot be written: {error.strerror or error}", FAILED
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
