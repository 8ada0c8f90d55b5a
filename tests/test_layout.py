"""Who may import whom inside the package, what `import causality_sdk` costs, and its public names.

A new module fails here until somebody decides where it stands.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import causality_sdk

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "causality_sdk"

# Module (a package stands for its __init__) -> what it may import when it runs. "x.*" is
# everything inside the package x. `_version` may be imported by all.
CORE = {"errors", "config", "context", "event", "stats"}
WAY = {"backoff", "batch", "buffer", "delivery", "flushing", "hooks", "ownership", "pacer", "queue"}
WAY |= {"bisection", "claim", "courier", "dead_letters", "diagnosis", "scout", "suspects"}
WAY |= {"chance", "logs", "outages", "throttle"}
WAY |= {
    "adoption",
    "filesystem",
    "forking",
    "group_commit",
    "inheritance",
    "installation",
    "intake",
    "mending",
    "opening",
    "queue_file",
    "repair",
    "runs",
    "sender",
    "steps",
    "turn",
    "wakeup",
}
DESTINATION = {"wire", "wire.*", "transport", "transport.*"}
PACKTRACK = {"wire.base", "wire.packtrack"}
REPAIR = {"quarantine", "repair"}
REFUSALS = {"batch", "bisection", "chance", "scout", "suspects"}
ABOVE_CLIENT = CORE | WAY | DESTINATION
ALL = ABOVE_CLIENT | {"schema", "pipeline", "client", "aio", "events", "events.*"}
ALL |= {"destination", "holders", "packtrack", "packtrack.*"}
ALLOWED: dict[str, set[str]] = {
    "__init__": {
        "aio",
        "client",
        "config",
        "dead_letters",
        "event",
        "errors",
        "options",
        "sigterm",
        "stats",
    },
    "__main__": {"cli"},
    "_pyinstaller": set(),
    "_pyinstaller.*": {"__init__", "_pyinstaller", "cli"},
    "_version": set(),
    "adoption": {"destination", "errors", "forking", "inheritance", "ownership", "passing", "place"}
    | {"queue"}
    | {"schema"}
    | REPAIR,
    "aio": {"client", "committer", "dead_letters", "options", "replies"} | CORE,
    "backoff": set(),
    "batch": set(),
    "bisection": {"batch", "queue"},
    "buffer": {"errors", "wakeup"},
    "chance": set(),
    "claim": {
        "destination",
        "errors",
        "filesystem",
        "forking",
        "ownership",
        "place",
        "repair",
        "schema",
    },
    "cli": ALL | {"cli.*", "testing", "testing.*"},
    "cli.*": ALL
    | {"cli", "cli.*", "connections", "counters", "header", "option_checks", "testing", "testing.*"}
    | {"default_path", "option_names", "timestamps"}
    | {"damage", "place", "possession", "quarantine", "salvage", "transactions"},
    "client": ABOVE_CLIENT | {"damage", "debugging", "holders", "options", "pipeline"},
    "committer": {"client", "errors", "pipeline", "replies"},
    "config": {"default_path", "errors", "option_checks", "option_names", "options"},
    "connections": set(),
    "context": set(),
    "counters": set(),
    "courier": {"batch", "chance", "dead_letters", "delivery", "diagnosis", "errors", "logs"}
    | {"queue", "transport.base", "wire.base"},
    "damage": {"errors"},
    "dead_letters": {"queue"},
    "debugging": set(),
    "destination": set(),
    "detached": set(),
    "default_path": {"errors"},
    "delivery": {"errors", "wire.base"},
    "diagnosis": {"errors", "queue"} | REFUSALS,
    "errors": set(),
    "event": {"errors", "context", "keys", "option_names", "plain", "timestamps"},
    "events": {"events.*"},
    "events.*": {"event", "wire", "wire.*", "errors", "events.*"},
    "filesystem": {"errors"},
    "flushing": {"errors", "wakeup"},
    "forking": set(),
    "group_commit": {"errors", "turn"},
    "header": {"connections", "counters", "damage", "place", "possession", "quarantine"}
    | {"recognition"},
    "holders": {"destination", "ownership", "stats"},
    "hooks": {"logs", "stats"},
    "inheritance": {"dead_letters", "errors", "ownership", "queue", "wal"},
    "keys": set(),
    "installation": {"errors", "forking", "ownership", "possession"},
    "intake": {
        "connections",
        "counters",
        "group_commit",
        "errors",
        "queue_file",
        "runs",
        "snapshot",
        "transactions",
        "wal",
    },
    "logs": set(),
    "mending": {"connections", "errors", "forking", "ownership", "place", "queue_file", "salvage"}
    | {"possession", "schema"}
    | REPAIR,
    "opening": {
        "claim",
        "config",
        "destination",
        "errors",
        "forking",
        "hooks",
        "ownership",
        "queue",
    }
    | {"connections", "damage", "installation", "pacer", "passing", "place"}
    | DESTINATION,
    "option_checks": {"errors"},
    "option_names": {"errors"},
    "options": set(),
    "outages": {"logs"},
    "ownership": {"errors", "forking", "place", "possession"},
    "pacer": {"backoff", "errors"},
    "packtrack": {"errors", "packtrack.*"},
    "packtrack.attempts": {"backoff", "errors", "packtrack.config", "transport.base"} | PACKTRACK,
    "packtrack.client": {"client", "errors", "event", "forking", "opening", "option_checks"}
    | {"plain", "stats"}
    | PACKTRACK
    | {"debugging", "options", "packtrack.*", "transport.base"},
    "packtrack.config": {"config", "errors", "option_checks", "option_names"}
    | {"packtrack.durations", "packtrack.options"}
    | PACKTRACK,
    "packtrack.connections": {"errors", "transport.base", "wire.base"},
    "packtrack.durations": set(),
    "packtrack.event": {"errors", "event", "packtrack.rfc3339", "plain", "timestamps"} | PACKTRACK,
    "packtrack.options": set(),
    "packtrack.rfc3339": {"errors", "plain"},
    "packtrack_logger": {
        "cli.ending",
        "cli.exits",
        "packtrack.durations",
        "packtrack_logger.*",
        "wire.packtrack",
    },
    "packtrack_logger.*": {"cli.exits", "cli.streams", "cli.words"}
    | {"errors", "event", "packtrack", "packtrack.*", "stats"}
    | {"packtrack_logger", "packtrack_logger.*"},
    "pages": set(),
    "pipeline": (CORE | WAY) - {"event"} | {"holders"} | DESTINATION,
    "passing": set(),
    "place": {"errors", "possession", "quarantine"},
    "plain": {"errors"},
    "possession": set(),
    "quarantine": set(),
    "queue": {"counters", "intake", "queue_file", "runs", "transactions", "wal"},
    "queue_file": {"connections", "counters", "damage", "detached", "errors", "forking", "schema"}
    | {"snapshot", "transactions", "wakeup", "wal"},
    "recognition": {"pages"},
    "repair": {"damage", "header", "errors", "quarantine", "salvage", "schema"},
    "replies": set(),
    "runs": set(),
    "salvage": {
        "connections",
        "counters",
        "forking",
        "pages",
        "possession",
        "quarantine",
        "recognition",
        "schema",
    },
    "schema": {
        "connections",
        "counters",
        "damage",
        "destination",
        "errors",
        "forking",
        "header",
        "pages",
    }
    | {"place", "possession", "quarantine", "_migrations", "_migrations.*"},
    "scout": {"queue", "suspects"},
    "sender": {"errors", "flushing", "pacer", "steps", "wakeup", "wire.base"},
    "sigterm": {"errors"},
    "snapshot": set(),
    "stats": {"errors"},
    "steps": {"errors", "stats"} | (WAY - {"sender", "steps"}),
    "suspects": {"chance"},
    "throttle": set(),
    "timestamps": {"errors", "plain"},
    "transactions": {"counters", "errors"},
    "testing": ALL | {"testing.*"},
    "testing.*": ALL | {"testing.*"},
    "transport": {"errors", "wire.base", "transport.*"},
    "transport.*": {"errors", "wire.base", "transport.*"},
    "transport.base": {"wire.base"},
    "turn": {"wakeup"},
    "wakeup": set(),
    "wal": {"connections", "errors", "forking", "wakeup"},
    "wire": {"errors", "wire.*"},
    "wire.*": {"errors", "wire.*"},
    "wire.base": set(),
    "wire.device": {"context"},
}
ANYBODY = {"_version"}
# What a module may name in annotations, under `if TYPE_CHECKING:`, and nowhere else.
FOR_TYPES: dict[str, set[str]] = {
    "config": {"stats", "transport.base", "wire.base"},
    "options": {"config", "stats", "transport.base", "wire.base"},
    "packtrack.options": {"config", "packtrack.attempts", "stats"},
    "packtrack.config": {"packtrack.attempts", "stats", "transport.base"},
    "queue_file": {"repair"},
}

PUBLIC = {
    "AsyncClient",
    "ClientOptions",
    "DeadLetter",
    "DeadLetters",
    "Health",
    "CausalityError",
    "Client",
    "ClientClosed",
    "Config",
    "ConfigError",
    "Delivered",
    "DeliveryError",
    "Dropped",
    "Event",
    "EventError",
    "FlushReport",
    "QueueError",
    "QueueFileStats",
    "QueueFull",
    "ResponseError",
    "Stats",
    "TransportError",
    "__version__",
    "exit_on_sigterm",
}


def module_name(path: Path) -> str:
    """`wire/base.py` is `wire.base`, `wire/__init__.py` is `wire`, the top one is `__init__`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


SOURCES = {
    module_name(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
    if "_migrations" not in path.parts
}


def arrows(source: str, modules: frozenset[str] = frozenset(SOURCES)) -> set[str]:
    """The modules of the package that `source` imports when it runs, at any depth.

    `modules` tells a module from a name: `from causality_sdk import queue` is an arrow to
    `queue` if there is such a module, else to `__init__`.
    """
    return {arrow for node in _running(ast.parse(source)) for arrow in _of(node, modules)}


def type_arrows(source: str, modules: frozenset[str] = frozenset(SOURCES)) -> set[str]:
    """The modules of the package that `source` imports for the type checker only."""
    every = {arrow for node in ast.walk(ast.parse(source)) for arrow in _of(node, modules)}
    return every - arrows(source, modules)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    yield node
    children: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
        children = list(node.orelse)
    for child in children:
        yield from _running(child)


def _of(node: ast.AST, modules: frozenset[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _inside(alias.name)
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            pytest.fail(f"line {node.lineno}: a relative import; name the module in full")
        for package in _inside(node.module or ""):
            for alias in node.names:
                prefix = "" if package == "__init__" else package + "."
                yield prefix + alias.name if prefix + alias.name in modules else package
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
        "import_module",
        "__import__",
    ):
        for argument in node.args[:1]:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield from _inside(argument.value)


def _inside(name: str) -> Iterator[str]:
    top, _, rest = name.partition(".")
    if top == "causality_sdk":
        yield rest or "__init__"


def place(module: str) -> str | None:
    """The line of the table that speaks of `module`: its own, else its package's "x.*"."""
    if module in ALLOWED:
        return module
    wildcard = module.partition(".")[0] + ".*"
    return wildcard if "." in module and wildcard in ALLOWED else None


def forbidden(source_arrows: set[str], allowed: set[str]) -> set[str]:
    return {
        arrow
        for arrow in source_arrows - ANYBODY
        if arrow not in allowed and not ("." in arrow and arrow.partition(".")[0] + ".*" in allowed)
    }


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of `graph`, its first module named again at the end, or nothing."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            if cycle := visit(target, [*way, module]):
                return cycle
        done.add(module)
        return []

    return next((cycle for module in sorted(graph) if (cycle := visit(module, []))), [])


class TestTheReader:
    """A check that cannot fail is a defect, so it is shown made-up sources first."""

    MODULES = frozenset({"queue", "sender", "wire", "wire.base", "errors"})

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("import causality_sdk", {"__init__"}),
            ("import causality_sdk.queue", {"queue"}),
            ("import causality_sdk.wire.base as base", {"wire.base"}),
            ("import json, causality_sdk.errors", {"errors"}),
            ("from causality_sdk import queue", {"queue"}),
            ("from causality_sdk import Client", {"__init__"}),
            ("from causality_sdk import queue, Client", {"queue", "__init__"}),
            ("from causality_sdk.wire import base", {"wire.base"}),
            ("from causality_sdk.wire import Wire", {"wire"}),
            ("from causality_sdk.wire.base import Wire", {"wire.base"}),
            ("def f():\n    from causality_sdk.sender import Sender", {"sender"}),
            ("class A:\n  async def f(self):\n    import causality_sdk.queue", {"queue"}),
            ("try:\n    import causality_sdk.queue\nexcept ImportError:\n    pass", {"queue"}),
            ("importlib.import_module('causality_sdk.queue')", {"queue"}),
            ("__import__('causality_sdk.queue')", {"queue"}),
            ("if not TYPE_CHECKING:\n    import causality_sdk.queue",
             {"queue"}),
            ("if TYPE_CHECKING:\n    import x\nelse:\n    import causality_sdk.queue", {"queue"}),
            ("if TYPE_CHECKING:\n    import causality_sdk.queue", set()),
            ("if typing.TYPE_CHECKING:\n    import causality_sdk.queue", set()),
            ("import causality_sdk_extras.queue\nfrom collections import queue", set()),
        ],
    )  # fmt: skip
    def test_it_sees_what_a_source_imports(self, source: str, expected: set[str]) -> None:
        assert arrows(source, self.MODULES) == expected

    def test_it_sees_what_is_imported_for_types_only(self) -> None:
        source = "if TYPE_CHECKING:\n    from causality_sdk.queue import Queue\n"
        assert type_arrows(source, self.MODULES) == {"queue"}
        assert type_arrows(source + "import causality_sdk.queue", self.MODULES) == set()

    def test_a_relative_import_is_refused(self) -> None:
        with pytest.raises(pytest.fail.Exception, match="relative"):
            arrows("from . import queue", self.MODULES)

    def test_a_forbidden_import_is_found(self) -> None:
        source = "def peek():\n    from causality_sdk.sender import Sender"
        assert forbidden(arrows(source, self.MODULES), ALLOWED["queue"]) == {"sender"}

    def test_a_wildcard_allows_the_modules_of_that_package_only(self) -> None:
        assert forbidden({"wire.base", "wire", "sender"}, {"wire.*"}) == {"wire", "sender"}

    def test_a_cycle_is_found(self) -> None:
        assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
        assert find_cycle({"a": {"a"}}) == ["a", "a"]
        assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []

    def test_a_module_that_is_not_in_the_table_has_no_place(self) -> None:
        assert place("kafka") is None
        assert place("nowhere.queue") is None
        assert place("wire.other") == "wire.*"
        assert place("wire.base") == "wire.base"


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_a_module_has_a_place_and_imports_only_what_stands_above_it(module: str) -> None:
    where = place(module)
    assert where is not None, f"{module} is new: place it in ALLOWED"
    assert forbidden(arrows(SOURCES[module]), ALLOWED[where]) == set()


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_a_module_names_for_types_only_what_is_listed(module: str) -> None:
    where = place(module) or module
    listed = FOR_TYPES.get(module, set()) | ALLOWED.get(where, set())
    assert forbidden(type_arrows(SOURCES[module]), listed) == set()


def test_there_is_no_cycle() -> None:
    graph = {module: arrows(source) - {module} for module, source in SOURCES.items()}
    for module, targets in graph.items():
        # Importing a.b runs a/__init__.py first, unless one is inside a already.
        parents = {target.partition(".")[0] for target in targets if "." in target}
        targets |= {parent for parent in parents if parent != module.partition(".")[0]}
    assert find_cycle(graph) == []


def test_the_table_allows_no_cycle_between_the_parts() -> None:
    """Else the table itself would let an arrow turn round. Inside a package, modules may choose."""
    graph: dict[str, set[str]] = {}
    for module, targets in ALLOWED.items():
        part = module.partition(".")[0]
        graph.setdefault(part, set()).update(
            target.partition(".")[0] for target in targets if target.partition(".")[0] != part
        )
    assert find_cycle(graph) == []


def test_the_migrations_import_nothing_of_the_package() -> None:
    """They are frozen: what they import would change under them."""
    for path in (ROOT / "migrations").rglob("*.py"):
        assert arrows(path.read_text(encoding="utf-8")) == set(), path


def test_import_of_the_package_loads_nothing_slow() -> None:
    script = (
        "import sys, causality_sdk\n"
        "assert {f'causality_sdk.{name}' for name in ('client', 'event')}.isdisjoint(sys.modules)\n"
        "[getattr(causality_sdk, name) for name in causality_sdk.__all__]\n"
        "slow = {'requests', 'sqlite_utils', 'filelock', 'platformdirs', 'click'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_the_public_names_are_these() -> None:
    assert set(causality_sdk.__all__) == PUBLIC
    assert len(causality_sdk.__all__) == len(PUBLIC)
    for name in PUBLIC:
        assert getattr(causality_sdk, name) is not None
    assert set(dir(causality_sdk)) >= PUBLIC
    with pytest.raises(AttributeError, match="has no attribute 'Clinet'"):
        _ = causality_sdk.Clinet  # type: ignore[attr-defined]
