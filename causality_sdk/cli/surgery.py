"""Takes a queue file that nobody owns, for a command that changes it.

Neighbours: `queue replay`, `queue purge`, `dead-letters requeue` and `delete`. Invariant: a file
that a process owns is refused, with that process named; nobody's work is changed under it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from causality_sdk import ownership, repair
from causality_sdk.cli.exits import FAILED, CommandError
from causality_sdk.cli.options import settings
from causality_sdk.cli.output import Output, output
from causality_sdk.cli.queue._elsewhere import here
from causality_sdk.cli.queue_reader import QueueReader
from causality_sdk.holders import Holder, holder
from causality_sdk.queue import Queue


def refuse_live(paths: Sequence[Path], what: str) -> None:
    """Raises `CommandError` if a process owns one of these files."""
    for path in paths:
        found = holder(path)
        if found.held:
            raise _is_owned(path, found, what)


def left_to_owners(paths: Sequence[Path], out: Output) -> list[Path]:
    """Those that no running process owns, and a word about the others: their owner delivers them.

    One whose owner was stopped is not left to it, since that delivers nothing.
    """
    free = []
    for path in paths:
        found = holder(path)
        if found.held and not found.stopped:
            out.note(f"{path} is delivered by {found.text}, which has it open: nothing to do here")
        else:
            free.append(path)
    return free


@contextmanager
def taken(path: Path, what: str) -> Iterator[Queue]:
    """The queue in a file that nobody owns; ours until the end of the block.

    `what` is for the message: what cannot be done to a file in use. What became of a damaged file
    is told, and is in its `repair`. Raises `CommandError` and `QueueError`.
    """
    with QueueReader(path) as reader:
        destination = reader.destination() or here(settings())
    if destination is None:
        raise CommandError(
            f"{path} is damaged, so that whom its events are for cannot be read; name the server"
            " with --endpoint"
        )
    lease = ownership.acquire(path)
    if lease is None:
        raise _is_owned(path, holder(path), what)
    try:
        # A damaged file is salvaged first, as a client does it.
        _, done = repair.prepare_thoroughly(path, destination, is_same_boot=lease.is_same_boot)
        if done is not None:
            output().note(str(done.error))
        # No cap: what waits must not be evicted by the one who came to help.
        queue = Queue(path, max_events=2**62, max_bytes=2**62)
        queue.repair = done
        try:
            yield queue
        finally:
            queue.close()
    finally:
        lease.release()


def shrink(queue: Queue) -> None:
    """Gives the disk back what was removed."""
    queue.checkpoint()
    while queue.vacuum_step():
        pass


def no_way_back(number: int) -> str:
    """The end of a question."""
    return f"{'It' if number == 1 else 'They'} cannot be brought back."


def confirm(question: str, *, yes: bool) -> None:
    """Asks on the terminal. Without one, `--yes` must say it. Raises `CommandError`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Nobody is there to ask; say so with --yes")
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)  # behind the ^C that the terminal has shown
        raise
    if not agreed:
        raise CommandError("nothing was changed")


def _is_owned(path: Path, owner: Holder, what: str) -> CommandError:
    hint = "it was stopped: continue it (SIGCONT) or end it" if owner.stopped else "stop it first"
    return CommandError(f"{path} cannot be {what}: {owner.text} has it open; {hint}", FAILED)
