"""What `queue doctor` asks of the directory, the disk, and each file.

Neighbours: `doctor` shows the findings, `queue_files` and `queue_reader` look. Invariant: it
changes nothing; a file in use is read as `queue status` reads it.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from causality_sdk import place, possession
from causality_sdk.cli.exits import InputError
from causality_sdk.cli.output import age, count, size
from causality_sdk.cli.queue._elsewhere import elsewhere, here
from causality_sdk.cli.queue._finding import Finding
from causality_sdk.cli.queue_files import FileReport, report
from causality_sdk.cli.queue_reader import QueueReader
from causality_sdk.cli.settings import Settings

NEEDED_BYTES = 64 * 1024 * 1024  # the log of two transactions of the largest size, and a margin
_OLD_SECONDS = 24 * 3600
_NEAR_CAP = 0.9


def check_directory(directory: Path) -> Iterator[Finding]:
    """Whether events can be written there."""
    subject = f"directory {directory}"
    if not directory.is_dir():
        parent = next((each for each in directory.parents if each.exists()), directory)
        if os.access(parent, os.W_OK | os.X_OK):
            yield Finding("note", subject, "is not there yet; the first event makes it")
        else:
            yield Finding(
                "problem",
                subject,
                f"is not there, and {parent} is not writable for this user",
                f"make it for this user: sudo install -d -m 700 -o $USER {directory}",
            )
        directory = parent
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield Finding(
            "problem",
            subject,
            "is not writable for this user",
            f"sudo chown $USER {directory}, or run as its owner, or give another queue_path",
        )
    else:
        yield Finding("ok", subject, "is writable")
    yield free_space(subject, shutil.disk_usage(directory).free, _free_inodes(directory))


def free_space(subject: str, free: int, inodes: int | None) -> Finding:
    """Whether the disk takes more. `inodes` is None where the file system has no such limit."""
    if inodes == 0:
        return Finding(
            "problem", subject, "its disk has no free inode", "delete files, or use another disk"
        )
    if free < NEEDED_BYTES:
        return Finding(
            "problem",
            subject,
            f"its disk is full: {size(free)} free, {size(NEEDED_BYTES)} are needed",
            "free space on it, or give a queue_path on another disk; nothing is lost meanwhile that"
            " is in the file",
        )
    return Finding("ok", subject, f"{size(free)} free on its disk")


def _free_inodes(directory: Path) -> int | None:
    if not hasattr(os, "statvfs"):  # Windows
        return None
    found = os.statvfs(directory)
    return found.f_favail if found.f_files else None


def check_file(path: Path, options: Settings) -> Iterator[Finding]:
    """One queue file."""
    subject = f"file {path}"
    found = report(path)
    if found.snapshot is None:
        yield _unreadable(path, found)
        return
    yield from _health(path, found)
    yield from _access(path, found)
    yield from _owner(found, subject, options)
    yield from _contents(found, subject, options)


def _health(path: Path, found: FileReport) -> Iterator[Finding]:
    subject = f"file {path}"
    damaged = 0
    try:
        with QueueReader(path) as reader:
            wrong = reader.check()
            if wrong is None:
                damaged = sum(not row.sound for row in reader.rows())
    except InputError as error:
        wrong = error.message
    if wrong is not None:
        yield _damaged(path, found, wrong)
    elif damaged:
        yield Finding(
            "problem",
            subject,
            f"{count(damaged)} with a wrong checksum",
            "check the disk; its owner sets them aside (table corrupt_rows) and goes on",
        )
    else:
        yield Finding("ok", subject, f"is sound, {size(found.disk_bytes)} on disk")


def _damaged(path: Path, found: FileReport, wrong: str) -> Finding:
    if found.holder.held:
        fix = (
            f"check the disk; its owner, {found.holder.text}, salvages it as soon as it meets the"
            " damage, and at its next start"
        )
    else:
        replay = shlex.join(["causality", "queue", "replay", "--queue-path", str(path), "--single"])
        fix = f"check the disk; to salvage what can be read, and deliver it: {replay}"
    return Finding("problem", f"file {path}", f"is damaged ({' '.join(wrong.split())})", fix)


def _unreadable(path: Path, found: FileReport) -> Finding:
    if found.damage is not None:
        return _damaged(path, found, found.damage)
    if not possession.may_write(path):
        return Finding(
            "problem", f"file {path}", str(place.not_writable(path)), place.give_it(path)
        )
    return Finding(
        "problem",
        f"file {path}",
        found.error or "cannot be read",
        "it was left as it is, and is passed over; if it is nobody's, move it away",
    )


def _access(path: Path, found: FileReport) -> Iterator[Finding]:
    if not found.holder.held and not os.access(path, os.R_OK | os.W_OK):
        yield Finding(
            "problem",
            f"file {path}",
            "is not writable for this user, so that nobody can deliver it",
            f"sudo chown $USER {path} {path}.lock, or run as its owner; or export it, and import"
            " the export elsewhere",
        )


def _owner(found: FileReport, subject: str, options: Settings) -> Iterator[Finding]:
    waiting = 0 if found.snapshot is None else found.snapshot.pending
    if found.holder.stopped:
        yield Finding(
            "problem",
            subject,
            f"its owner, {found.holder.text}, is stopped and delivers nothing",
            f"continue it (kill -CONT {found.holder.pid}), or end it and replay",
        )
    elif found.holder.held:
        yield Finding("ok", subject, f"is owned by {found.holder.text}")
    elif waiting and elsewhere(found.path, found.snapshot, here(options)) is None:
        yield Finding(
            "note",
            subject,
            f"nobody owns it, and {count(waiting)} {_wait(waiting)} in it",
            "start the service, or run causality queue replay",
        )


def _wait(number: int) -> str:
    return "waits" if number == 1 else "wait"


def _contents(found: FileReport, subject: str, options: Settings) -> Iterator[Finding]:
    snapshot = found.snapshot
    if snapshot is None:
        return
    oldest = found.oldest_seconds
    if oldest is not None and oldest > _OLD_SECONDS and found.holder.held:
        yield Finding(
            "problem",
            subject,
            f"the oldest event waits for {age(oldest)}, although somebody owns the file",
            "see the log of that process, and what is said about the server below",
        )
    for name, there in (
        ("max_queue_events", snapshot.pending),
        ("max_queue_bytes", snapshot.pending_bytes),
    ):
        cap = options[name]
        if isinstance(cap, int) and there >= cap * _NEAR_CAP:
            yield Finding(
                "problem",
                subject,
                f"it holds {there:,}, and {name} is {cap:,}: the oldest events are dropped",
                f"deliver them (causality queue replay), or raise {name}",
            )
    if snapshot.letters:
        yield Finding(
            "note",
            subject,
            count(snapshot.letters, "dead letter"),
            "see causality dead-letters list",
        )
    yield from _destination(found, subject, options)


def _destination(found: FileReport, subject: str, options: Settings) -> Iterator[Finding]:
    snapshot = found.snapshot
    if snapshot is None or found.holder.held:  # what somebody owns he delivers, wherever to
        return
    to = here(options)
    waits = elsewhere(found.path, snapshot, to)
    if waits is None or to is None:
        return
    yield Finding(
        "problem",
        subject,
        f"{count(waits.pending)} in it {'waits' if waits.pending == 1 else 'wait'} for"
        f" {waits.whom}, and no client with these options, for {to.endpoint}, takes them",
        f"{waits.command(to)}; to send them here: {waits.command_to_here}",
    )
