"""Which dead letters a command is about.

Neighbours: the commands of the group; `queue.selection` for files and filters. Invariant: a letter
is changed only in the file in which it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import click

from causality_sdk.cli.exits import INVALID, CommandError
from causality_sdk.cli.output import Output, count, printable
from causality_sdk.cli.queue.selection import Filter, iso, one_key
from causality_sdk.cli.queue_reader import QueueReader
from causality_sdk.cli.surgery import confirm, no_way_back, refuse_live, taken
from causality_sdk.dead_letters import DeadLetter, DeadLetters


def letters(
    path: Path, names: Collection[str], wanted: Filter | None = None
) -> Iterator[DeadLetter]:
    """Those of one file: all, or those of these numbers or keys; that pass the filter."""
    with QueueReader(path) as reader:
        for letter in reader.letters():
            if names and not {str(letter.id), letter.idempotency_key or ""} & set(names):
                continue
            if wanted is None or wanted.passes(letter.event):
                yield letter


def exact(files: list[Path], names: Collection[str]) -> tuple[str, ...]:
    """The numbers and keys that are meant: the beginning of a key will do, if no other begins so.

    Raises `CommandError` for a name that stands for no letter, or for several keys.
    """
    found = [letter for path in files for letter in letters(path, ())] if names else []
    known = {str(letter.id) for letter in found}
    keys = [letter.idempotency_key or "" for letter in found]
    meant = []
    for name in names:
        whole = name if name in known else one_key(name, keys)
        if whole is None:
            raise CommandError(f"no dead letter {printable(name)}", INVALID)
        meant.append(whole)
    return tuple(meant)


def document(path: Path, letter: DeadLetter) -> dict[str, Any]:
    """A letter without its event, for `--json`."""
    return {
        "id": letter.id,
        "idempotency_key": letter.idempotency_key,
        "event_type": letter.event.get("event_type"),
        "buried": iso(letter.buried_ms),
        "buried_ms": letter.buried_ms,
        "attempts": letter.attempts,
        "status": letter.status,
        "reason": letter.reason,
        "file": str(path),
    }


def change(
    files: list[Path],
    names: tuple[str, ...],
    wanted: Filter,
    out: Output,
    *,
    verb: str,
    question: str | None,
    yes: bool,
    every: bool,
    dry_run: bool,
    work: Callable[[DeadLetters, list[DeadLetter]], int],
) -> None:
    """Does `work` to the letters that are meant. Raises `CommandError`.

    `verb`: what was done to them; `question`: asked before, with the number in front. `every`: they
    are all meant, which nobody says by leaving something out.
    """
    if not (names or every) and wanted.is_open:
        raise click.UsageError("which? Name them by number or key, or with filters, or say --all")
    refuse_live(files, f"changed ({verb})")
    names = exact(files, names)
    found = {path: list(letters(path, names, wanted)) for path in files}
    total = sum(map(len, found.values()))
    if dry_run:
        out.summary({"dry_run": True, "matching": total}, f"{count(total)} would be {verb}")
        return
    if question is not None and total:
        confirm(f"{question} {count(total)}? {no_way_back(total)}", yes=yes)
    done = 0
    for path, chosen in found.items():
        if chosen:
            with taken(path, f"changed ({verb})") as queue:
                done += work(DeadLetters(queue), chosen)
    out.summary({"dry_run": False, verb.split()[0]: done}, f"{count(done)} {verb}")
