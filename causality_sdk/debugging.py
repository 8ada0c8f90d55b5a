"""The switch `debug=True`: what the client does is told, also in a program without logging.

Neighbour: `client`. Invariant: a line is shown once. Where the program's own logging shows it,
the handler here stays silent; once the last client that asked for it is closed, it is gone, and the
logger is as it was.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from typing import Any

_FORMAT = "%(asctime)s %(levelname)s %(message)s"

_guard = threading.RLock()  # of the next; a signal handler may close a client in the middle of it
_switched: dict[logging.Logger, tuple[int, int, Fallback]] = {}  # clients, the level before


class Fallback(logging.Handler):
    """Writes to standard error what no other handler shows."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter(_FORMAT))
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """To what is standard error now: tests and daemons exchange it."""
        stream = sys.stderr
        if stream is None or self._is_shown_elsewhere(record):
            return
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except (OSError, ValueError):  # closed, or full; there is nowhere to say so
            pass
        except Exception:  # noqa: BLE001 - an argument whose text raises; as other handlers do
            self.handleError(record)

    def _is_shown_elsewhere(self, record: logging.LogRecord) -> bool:
        logger: logging.Logger | None = self._logger
        while logger is not None:
            for handler in logger.handlers:
                silent = isinstance(handler, (Fallback, logging.NullHandler))
                if not silent and record.levelno >= handler.level:
                    return True
            logger = logger.parent if logger.propagate else None
        return False


def switch_on(
    client: object, logger: logging.Logger | logging.LoggerAdapter[Any]
) -> weakref.finalize[..., object]:
    """Until the result is called, or `client` is gone. Several clients may share a logger."""
    target = logger.logger if isinstance(logger, logging.LoggerAdapter) else logger
    while isinstance(target, logging.LoggerAdapter):  # an adapter of an adapter
        target = target.logger
    with _guard:
        count, level, handler = _switched.get(target) or (0, target.level, Fallback(target))
        if count == 0:
            target.addHandler(handler)
            if target.getEffectiveLevel() > logging.DEBUG:
                target.setLevel(logging.DEBUG)
        _switched[target] = count + 1, level, handler
    off = weakref.finalize(client, _switch_off, target)
    off.atexit = False  # what happens at exit is told, too
    return off


def _switch_off(logger: logging.Logger) -> None:
    with _guard:
        count, level, handler = _switched[logger]
        if count > 1:
            _switched[logger] = count - 1, level, handler
            return
        del _switched[logger]
        logger.removeHandler(handler)
        logger.setLevel(level)
