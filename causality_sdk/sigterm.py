"""An opt-in handler for SIGTERM, for programs that have none: they end as at `sys.exit()`.

Neighbour: nobody; it knows nothing of clients. Invariant: a handler that the program has installed
is never replaced.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from causality_sdk.errors import ConfigError

EXIT_CODE = 128 + 15
"""What a shell reports for a process that SIGTERM ended; `docker stop` and systemd know it."""


def exit_on_sigterm() -> bool:
    """Lets SIGTERM raise `SystemExit(143)` in the main thread, so that exit hooks run.

    Without a handler SIGTERM ends a process at once: nothing is lost, since every event is on
    disk, but what waits there is sent by the next start only. With it the client's exit hook sends
    what it can within `close_timeout`. A second SIGTERM ends the process at once.

    Returns False, and changes nothing, where the program has a handler of its own, or ignores the
    signal: end it with `sys.exit()` there, or call `close()`. Raises `ConfigError` outside the main
    thread, where Python installs no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError("exit_on_sigterm() must be called in the main thread; call it at start")
    if signal.getsignal(signal.SIGTERM) is _exit:
        return True
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False
    signal.signal(signal.SIGTERM, _exit)
    return True


def _exit(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(EXIT_CODE)
