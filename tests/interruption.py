"""A signal handler at a chosen instruction: what a timer would hit once in a thousand runs.

Python runs handlers between any two instructions. A trace function does the same, and tells them
apart; so a test can go through all of them, one run of the code under test for each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any, TypeVar

Result = TypeVar("Result")


class Interrupt(BaseException):
    """What a handler raises that is no error of anybody: as KeyboardInterrupt."""


def interrupt() -> None:
    """A handler that raises."""
    raise Interrupt


class Interruption:
    """Calls `handler` once, before the instruction `number` that this thread runs in `modules`."""

    def __init__(self, number: int, handler: Callable[[], object], *modules: ModuleType) -> None:
        self.happened = False
        self._left = number
        self._handler = handler
        self._files = {module.__file__ for module in modules}

    def run(self, call: Callable[[], Result]) -> Result | None:
        """What `call` gives, or None if the handler raised."""
        before = sys.gettrace()
        # Python 3.12 tells of instructions only if a frame asked for them before tracing began.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        try:
            return call()
        except Interrupt:
            return None
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.happened:
            if self._left == 0:
                self.happened = True
                self._handler()
            self._left -= 1
        return self._trace
