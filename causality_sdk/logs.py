"""The log lines of the sender, and what may come of them: nothing that ends it.

Neighbours: the sender's steps and whatever they call. Invariant: on the sender's own thread no
exception of a handler, a filter or a hook gets any further than here, whatever its class.
"""

from __future__ import annotations

import logging
import threading

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


class Log:
    """A logger that cannot do harm. Any thread."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self.thread: int | None = None  # the sender's own; set as it starts

    def swallows(self, error: BaseException) -> bool:
        """Whether this exception ends here.

        `SystemExit`, `KeyboardInterrupt`, `CancelledError` and the like mean the thread they are
        raised in. Where a caller of `flush()` takes the steps, that is the caller's; the sender's
        own thread is nobody's to end.
        """
        return isinstance(error, Exception) or threading.get_ident() == self.thread

    def is_told(self, level: int) -> bool:
        """Whether lines of this level go anywhere."""
        return self._logger.isEnabledFor(level)

    def debug(self, message: str, *values: object) -> None:
        """What was done."""
        self._log(DEBUG, message, values)

    def info(self, message: str, *values: object) -> None:
        """What is well again."""
        self._log(INFO, message, values)

    def warning(self, message: str, *values: object) -> None:
        """What somebody should know."""
        self._log(WARNING, message, values)

    def error(self, message: str, *values: object, cause: BaseException | None = None) -> None:
        """What went wrong here; with the traceback of `cause`."""
        self._log(ERROR, message, values, cause)

    def _log(
        self,
        level: int,
        message: str,
        values: tuple[object, ...],
        cause: BaseException | None = None,
    ) -> None:
        try:
            self._logger.log(level, message, *values, exc_info=cause, stacklevel=3)
        except BaseException as error:
            if not self.swallows(error):
                raise
            # The log is where it would be told.
