"""How a conformance suite counts what is broken: every rule is tried, and all are told at once.

Neighbours: `_wire_rules` and `_transport_rules` hold the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class ConformanceError(AssertionError):
    """What breaks the rules of a protocol, a line for each. `broken` has the lines."""

    def __init__(self, what: str, broken: Iterable[str]) -> None:
        self.broken = tuple(broken)
        lines = "\n".join(f"- {line}" for line in self.broken)
        super().__init__(f"{what} does not keep its protocol:\n{lines}")


class BrokenRuleError(Exception):
    """Raised by a rule. The message says what was done and what came of it."""


def require(kept: object, message: str) -> None:
    """Ends the rule under way unless `kept`."""
    if not kept:
        raise BrokenRuleError(message)


def keep(what: str, rules: Iterable[Callable[..., None]], *arguments: Any) -> None:
    """Tries every rule. Raises `ConformanceError`."""
    broken = [line for rule in rules if (line := _broken(rule, arguments))]
    if broken:
        raise ConformanceError(what, broken)


def _broken(rule: Callable[..., None], arguments: tuple[Any, ...]) -> str:
    """How the rule is broken, or nothing."""
    try:
        rule(*arguments)
    except BrokenRuleError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - of the code under test; no rule allows one
        title = (rule.__doc__ or rule.__name__).splitlines()[0]
        return f"{title} It raised {error!r}"
    return ""
