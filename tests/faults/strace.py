"""Runs a program under strace: to record what it does to its files, or to spoil a system call.

Neighbours: `disk_model` replays a recording, `rows.kill_at_call` and `rows.fsync_fails` inject.
Invariant: operations come in the order of their completion, and each says when it began, so that a
sync covers only what was written before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.registry import need_strace

CALLS = (
    "openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,"
    "fsync,fdatasync,sync_file_range,unlink,unlinkat,rename,renameat,renameat2,mkdir,link,linkat"
)

_LINE = re.compile(r"^(\d+) +([\d.]+) (.*)$")
_UNFINISHED = re.compile(r"^(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+)(.*)$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^-?\d+<((?:\\x[0-9a-f]{2})*)>")
_RESULT = re.compile(r"^<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True)
class Call:
    """One system call that came to its end."""

    number: int
    """Place in the order of ends."""
    began: int
    """Calls that had ended when it began."""
    time: float
    name: str
    path: str
    result: int
    offset: int = 0
    data: bytes = b""
    flags: str = ""
    target: str = ""


def recording(output: Path, inject: str = "", calls: str = CALLS) -> list[str]:
    """The words to put in front of a command line. Raises `Unavailable`."""
    words = [need_strace(), "-f", "-ttt", "-y", "-xx", "-s", "10000000", "-o", str(output)]
    words += ["-e", f"trace={calls}"]
    # With a filter in the kernel, which is quicker, strace 6.1 injects nothing.
    return [*words, "-e", f"inject={inject}"] if inject else [*words, "--seccomp-bpf"]


def injecting(inject: str, *, threads: bool = False) -> list[str]:
    """The same without a recording: `pwrite64:signal=KILL:when=3`.

    Into the first thread alone, or into every one; each has a count of its own.
    """
    call = inject.partition(":")[0]
    words = [need_strace(), *(["-f"] if threads else []), "-qq", "-o", "/dev/null"]
    return [*words, "-e", f"trace={call}", "-e", f"inject={inject}"]


def parse(output: Path) -> Iterator[Call]:
    """The calls of a recording."""
    begun: dict[str, tuple[str, int]] = {}
    number = 0
    with output.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            match = _LINE.match(line)
            if match is None:
                continue
            pid, time, rest = match[1], float(match[2]), match[3]
            if unfinished := _UNFINISHED.match(rest):
                begun[pid] = (f"{unfinished[1]}({unfinished[2]}", number)
                continue
            began = number
            if resumed := _RESUMED.match(rest):
                if pid not in begun:
                    continue
                start, began = begun.pop(pid)
                rest = start + resumed[2]
            call = _CALL.match(rest)
            if call is None:
                continue
            yield _decode(number, began, time, call[1], call[2], int(call[3]), call[4])
            number += 1


def _decode(
    number: int, began: int, time: float, name: str, arguments: str, result: int, after: str
) -> Call:
    path, offset, data, flags, target = "", 0, b"", "", ""
    strings = _STRING.findall(arguments)
    descriptor = _DESCRIPTOR.match(arguments)
    if name in ("openat", "open", "creat"):
        opened = _RESULT.match(after)
        path = _text(opened[1]) if opened else _text(strings[0])
        flags = arguments.rpartition('", ')[2]
    elif name in ("unlink", "unlinkat", "mkdir"):
        path = _text(strings[0]) if strings else ""
    elif name.startswith(("rename", "link")):
        path, target = (_text(strings[0]), _text(strings[1])) if len(strings) > 1 else ("", "")
    elif descriptor:
        path = _text(descriptor[1])
        if name in ("write", "pwrite64") and strings:
            data = _bytes(strings[0])[: max(result, 0)]
        if name == "pwrite64":
            offset = int(arguments.rpartition(", ")[2])
        elif name == "ftruncate":
            offset = int(arguments.rpartition(", ")[2], 0)
    return Call(number, began, time, name, path, result, offset, data, flags, target)


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def _text(escaped: str) -> str:
    return _bytes(escaped).decode("utf-8", "replace")


def count_calls(output: Path, names: Sequence[str]) -> dict[str, int]:
    """How often each call was made by a recorded program, whatever came of it."""
    counts = dict.fromkeys(names, 0)
    for call in parse(output):
        if call.name in counts:
            counts[call.name] += 1
    return counts
