"""The `_server` context: what is collected once per process about where events are made.

No neighbour. Invariant: what is collected never changes while the process lives, so that it is
encoded once and spliced into every event.
"""

from __future__ import annotations

import functools
import os
import socket
import sys

from causality_sdk._version import __version__


@functools.cache
def server_context() -> dict[str, str]:
    """Host name, Python version, SDK version, OS and architecture of this process.

    Reads files and calls the kernel at the first call only. What the machine does not tell is an
    empty string; nothing here ever asks the network.
    """
    import platform  # one of the slower ones; `import causality_sdk` does without

    return {
        "hostname": _hostname(),
        "python_version": platform.python_version(),
        "sdk_version": __version__,
        "os": _os(),
        "arch": platform.machine(),
    }


def _hostname() -> str:
    try:
        name = socket.gethostname()
    except OSError:
        return ""
    # A host name with bytes that are not UTF-8 would make every single event unserialisable.
    return name.encode("utf-8", "replace").decode("utf-8")


def _os() -> str:
    """The kernel's name and release, as in `Linux 6.1.0`."""
    # platform.uname() starts a process for its `processor` on some platforms; os.uname() does not.
    if sys.platform == "win32":
        version = sys.getwindowsversion()
        return f"Windows {version.major}.{version.minor}.{version.build}"
    else:  # noqa: RET505  after a return, mypy takes the rest for unreachable on one platform
        kernel = os.uname()
        return f"{kernel.sysname} {kernel.release}"
