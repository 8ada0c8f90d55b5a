"""A disk that loses power: what may be on it after each system call of a recording.

Neighbours: `strace` records, `rows.power_loss` and `rows.fsync_fails` judge the states. Invariant:
what a successful fsync covered is in every later state; of what is pending, anything may be there.

The rules, none kinder than POSIX: a write that was not synced may be there, may not, or may be
there in part, by sectors of 512 bytes; it may overtake others, in the same file and in others; a
file may have grown and its new bytes be zeros. A name that was made, removed or changed lasts once
its directory is synced; until then, such changes may be missing, the latest first. A sync that
failed covers nothing. On a `forgetful` disk no later one covers what it should have: a kernel may
mark pages clean although they were not written. The -shm file is memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from faults.strace import Call

SECTOR = 512
KINDS = ("all", "none", "prefix", "subset", "torn", "grown")
_IGNORED = (".lock", "-shm")


@dataclass(eq=False)
class Change:
    """A write, or a truncation where there is no data, that is not synced."""

    order: int
    offset: int
    data: bytes | None
    doomed: bool = False
    """A sync of it failed: no later sync will take it to the disk."""


@dataclass(eq=False)
class Inode:
    """One file, by whatever name."""

    stable: bytes = b""
    pending: list[Change] = field(default_factory=list)


@dataclass(frozen=True)
class Naming:
    """A change of a directory that is not synced. No inode: the name is gone."""

    order: int
    name: str
    inode: Inode | None


State = dict[str, bytes]
"""What the disk holds after the cut: name to content."""


class Disk:
    """The files of one directory. `apply` the calls in order; ask for `states` in between."""

    def __init__(self, directory: str, *, forgetful: bool = False) -> None:
        self._directory = PurePosixPath(directory)
        self._forgetful = forgetful
        self._names: dict[str, Inode] = {}  # as the program sees them
        self._stable_names: dict[str, Inode] = {}
        self._namings: list[Naming] = []
        self.failed_syncs = 0

    def apply(self, call: Call) -> bool:
        """Takes one call; True if it changed what may be on the disk."""
        path = PurePosixPath(call.path)
        if path == self._directory and call.name in ("fsync", "fdatasync"):
            # Whatever its outcome: SQLite does not look at that of a directory, and the file
            # systems that it is used on write a new name with the file's own sync.
            self.failed_syncs += call.result < 0
            self._sync_directory(call.began)
            return True
        if call.result < 0:
            return self._sync_failed(call) if call.name in ("fsync", "fdatasync") else False
        if path.parent != self._directory or path.name.endswith(_IGNORED):
            return False
        return self._apply_to_file(call, path.name)

    def _apply_to_file(self, call: Call, name: str) -> bool:
        if call.name in ("openat", "open", "creat"):
            return self._open(call, name)
        if call.name in ("unlink", "unlinkat"):
            self._names.pop(name, None)
            self._namings.append(Naming(call.number, name, None))
            return True
        if call.name.startswith("rename"):
            target = PurePosixPath(call.target).name
            inode = self._names.pop(name)
            self._names[target] = inode
            self._namings.append(Naming(call.number, target, inode))
            self._namings.append(Naming(call.number, name, None))
            return True
        file = self._names.get(name)
        if file is None:
            return False  # it was removed while it was open: nobody will see it again
        if call.name == "pwrite64":
            file.pending.append(Change(call.number, call.offset, call.data))
        elif call.name == "write":
            end = len(_content(file.stable, file.pending))
            file.pending.append(Change(call.number, end, call.data))
        elif call.name == "ftruncate":
            file.pending.append(Change(call.number, call.offset, None))
        elif call.name in ("fsync", "fdatasync"):
            covered = [c for c in file.pending if c.order < call.began and not c.doomed]
            file.stable = _content(file.stable, covered)
            file.pending = [c for c in file.pending if c not in covered]
        else:
            raise NotImplementedError(f"the model does not know {call.name}")
        return True

    def _open(self, call: Call, name: str) -> bool:
        if "O_CREAT" not in call.flags:
            return False
        if name not in self._names:
            self._names[name] = Inode()
            self._namings.append(Naming(call.number, name, self._names[name]))
            return True
        if "O_TRUNC" in call.flags:
            self._names[name].pending.append(Change(call.number, 0, None))
            return True
        return False

    def _sync_directory(self, began: int) -> None:
        for naming in self._namings:
            if naming.order < began:
                _rename(self._stable_names, naming)
        self._namings = [naming for naming in self._namings if naming.order >= began]

    def _sync_failed(self, call: Call) -> bool:
        self.failed_syncs += 1
        inode = self._names.get(PurePosixPath(call.path).name)
        for change in inode.pending if inode is not None and self._forgetful else ():
            change.doomed = True
        return True

    # ---------------------------------------------------------------- what a cut leaves

    def states(self, rng: random.Random) -> Iterator[tuple[str, State]]:
        """One state of each kind, at this moment."""
        for kind in KINDS:
            yield kind, self._state(kind, rng)

    def _state(self, kind: str, rng: random.Random) -> State:
        names = dict(self._stable_names)
        kept = len(self._namings)
        if kind == "none":
            kept = 0
        elif kind in ("prefix", "subset"):
            kept = rng.randint(0, kept)
        for naming in self._namings[:kept]:
            _rename(names, naming)
        orders = sorted(c.order for inode in names.values() for c in inode.pending)
        cut = rng.choice([*orders, orders[-1] + 1]) if orders and kind == "prefix" else 0
        latest = orders[-1] if orders else -1
        state = {}
        for name, inode in names.items():
            changes = list(inode.pending)
            if kind == "none":
                changes = []
            elif kind == "prefix":
                changes = [c for c in changes if c.order < cut]
            elif kind == "subset":
                changes = [c for c in changes if rng.random() < 0.5]
            elif kind == "torn":
                changes = [_torn(c, rng) if c.order == latest else c for c in changes]
            elif kind == "grown":
                changes = _grown(inode.stable, changes, rng)
            state[name] = _content(inode.stable, changes)
        return state


def _rename(names: dict[str, Inode], naming: Naming) -> None:
    if naming.inode is None:
        names.pop(naming.name, None)
    else:
        names[naming.name] = naming.inode


def _content(stable: bytes, changes: Iterable[Change]) -> bytes:
    content = bytearray(stable)
    for change in changes:
        if change.data is None:
            size = change.offset
            content = content[:size] + bytes(max(0, size - len(content)))
            continue
        if len(content) < change.offset:
            content += bytes(change.offset - len(content))
        content[change.offset : change.offset + len(change.data)] = change.data
    return bytes(content)


def _torn(change: Change, rng: random.Random) -> Change:
    """The first sectors of a write, and no more."""
    if change.data is None or len(change.data) <= SECTOR:
        return change
    first = SECTOR - change.offset % SECTOR  # a write need not begin where a sector does
    ends = range(first, len(change.data), SECTOR)
    return Change(change.order, change.offset, change.data[: rng.choice(ends)])


def _grown(stable: bytes, changes: list[Change], rng: random.Random) -> list[Change]:
    """The size of one write that made the file longer, but not its data."""
    longer = [c for c in changes if c.data and c.offset + len(c.data) > len(stable)]
    if not longer:
        return changes
    chosen = rng.choice(longer)
    assert chosen.data is not None
    zeros = Change(chosen.order, chosen.offset, bytes(len(chosen.data)))
    return [zeros if c is chosen else c for c in changes]
