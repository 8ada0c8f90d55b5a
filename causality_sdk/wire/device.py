"""What this machine tells of itself, for the `device_context` of the Causality gateway.

Neighbour: `causality_proto`, which adds it to the events that were made here. Invariant: only what
is known is in it; nothing here asks the network or starts a process.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from causality_sdk.context import server_context

_TEXT_BYTES = 256  # of a file of the kernel's; a model's name is no longer
# What vendors leave in the firmware where a name should be.
_PLACEHOLDERS = frozenset(
    {
        "to be filled by o.e.m.",
        "system product name",
        "system manufacturer",
        "default string",
        "none",
    }
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A host's name, and members of `device_context` that hold for all events made on it."""

    hostname: str = ""
    context: Mapping[str, str] = field(default_factory=dict)


@functools.cache
def this_machine() -> Machine:
    """The machine of this process. Reads files at the first call only."""
    found = {
        "device_model": device_model(),
        "manufacturer": _kernel_text("/sys/class/dmi/id/sys_vendor"),
        "locale": locale_tag(os.environ),
        "timezone": time_zone(os.environ),
    }
    return Machine(
        server_context()["hostname"], {name: text for name, text in found.items() if text}
    )


def device_model() -> str:
    """What the firmware says it is: a board such as a Raspberry Pi, or a PC; empty elsewhere."""
    return _kernel_text("/proc/device-tree/model") or _kernel_text("/sys/class/dmi/id/product_name")


def locale_tag(environ: Mapping[str, str]) -> str:
    """The language of messages as in `de-CH` (BCP 47), by the rules of POSIX; empty for `C`."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = environ.get(name, "")
        if value:  # the first that is set decides, POSIX.1-2017, section 8.2
            tag = value.partition(".")[0].partition("@")[0].replace("_", "-")
            known = tag.isascii() and tag.replace("-", "").isalnum()
            return tag if known and tag not in ("C", "POSIX") else ""
    return ""


def time_zone(environ: Mapping[str, str], localtime: Path = Path("/etc/localtime")) -> str:
    """The zone's name in the IANA database, as in `Europe/Zurich`, else its offset: `UTC+01:00`."""
    given = environ.get("TZ", "").removeprefix(":")
    if "/" in given and not given.startswith("/"):
        return given
    if not given and sys.platform != "win32":
        try:
            _, found, name = localtime.readlink().as_posix().partition("zoneinfo/")
        except OSError:
            found = name = ""
        if found and name.isascii():
            return name
    minutes = (time.localtime().tm_gmtoff or 0) // 60
    if minutes == 0:
        return "UTC"
    sign = "-" if minutes < 0 else "+"
    return f"UTC{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _kernel_text(path: str) -> str:
    if not sys.platform.startswith("linux"):
        return ""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_TEXT_BYTES).decode("utf-8", "replace").strip("\x00 \r\n\t")
    except OSError:
        return ""
    return "" if text.lower() in _PLACEHOLDERS else text
