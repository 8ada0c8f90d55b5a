"""The chart of an event's life is what the code does: names, states, counters and transitions."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import fields
from pathlib import Path

import pytest

from causality_sdk.counters import EVICTION_REASONS, Counters

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "causality_sdk"
PAGE = (ROOT / "docs/explanation/the-life-of-an-event.md").read_text(encoding="utf-8")

Transition = tuple[str, str, tuple[str, ...]]

_ARROW = re.compile(r"^\s*(?P<source>\S+) --> (?P<target>\S+) : (?P<functions>.+)$")
_CODE = re.compile(r"`([^`]+)`")
# What adds or deletes a row.
_STATEMENT = re.compile(
    r"\b(DELETE\s+FROM|INSERT(\s+OR\s+\w+)?\s+INTO)\s+(queue|dead_letters|corrupt_rows)\b"
)


def section(heading: str) -> str:
    """The text of a page below `## heading`, up to the next one."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def chart() -> str:
    found = re.search(r"```mermaid\n(.*?)```", section("Chart"), re.DOTALL)
    assert found is not None
    return found[1]


def drawn() -> list[Transition]:
    """The arrows of the chart."""
    matches = (_ARROW.match(line) for line in chart().splitlines())
    return [
        (match["source"], match["target"], tuple(match["functions"].split(", ")))
        for match in matches
        if match is not None
    ]


def written() -> list[Transition]:
    """The rows of the table."""
    return [
        (source.strip("`"), target.strip("`"), tuple(_CODE.findall(functions)))
        for source, target, functions, _ in rows("The same as a table")
    ]


def states() -> dict[str, list[str]]:
    """Name in the chart to the row of the table of states."""
    return {row[1].strip("`"): row for row in rows("States")}


def missing(name: str) -> str | None:
    """What of `module.Class.function` or `module.function` does not exist, where it is defined."""
    module, *rest = name.split(".")
    if not (PACKAGE / f"{module}.py").exists():
        return module
    owner: object = importlib.import_module(f"causality_sdk.{module}")
    for part in rest:
        if part not in vars(owner):
            return f"{part} in {owner!r}"
        owner = vars(owner)[part]
    return None if callable(owner) and rest else f"{name} is no function"


def changing_functions() -> set[str]:
    """Every function of the package that adds or deletes rows, by its SQL or a constant with it."""
    trees = {
        path.stem: ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.glob("*.py"))
    }
    constants = {
        node.targets[0].id
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and _STATEMENT.search(ast.unparse(node.value).replace("\\n", " "))
    }
    found: set[str] = set()
    for module, tree in trees.items():
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        bodies = {f"{module}.": tree.body} | {f"{module}.{c.name}.": c.body for c in classes}
        found |= {
            prefix + node.name
            for prefix, body in bodies.items()
            for node in body
            if isinstance(node, ast.FunctionDef) and _changes(node, constants)
        }
    return found


def _changes(function: ast.FunctionDef, constants: set[str]) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id in constants:
            return True
        # In an f-string, too: its constant parts are nodes of their own.
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node is getattr(function.body[0], "value", None):
                continue  # the docstring
            if _STATEMENT.search(node.value):
                return True
    return False


def test_the_chart_and_the_table_have_the_same_transitions() -> None:
    assert drawn() == written()
    assert len(set(drawn())) == len(drawn()) > 0


def test_every_arrow_of_the_chart_is_read() -> None:
    """Else one that is written in another way would be compared with nothing."""
    assert chart().count("-->") == len(drawn())


@pytest.mark.parametrize("name", sorted({name for *_, names in written() for name in names}))
def test_every_function_exists_where_the_table_says(name: str) -> None:
    assert missing(name) is None


def test_every_function_that_adds_or_deletes_rows_makes_a_transition() -> None:
    named = {name for *_, names in written() for name in names}
    assert changing_functions() - named == set()
    assert "dead_letters.bury" in changing_functions()


def test_every_state_has_its_row_and_its_transitions() -> None:
    sources = {source for source, _, _ in drawn()}
    targets = {target for _, target, _ in drawn()}
    assert set(states()) == (sources | targets) - {"[*]"}
    assert sources - targets == {"[*]"}, "a state that nothing leads to"


def test_every_reason_of_eviction_is_a_state_with_its_counter() -> None:
    for reason in EVICTION_REASONS:
        assert f'`evicted["{reason}"]`' in states()[reason][3]
        assert f"`evicted_{reason}`" in states()[reason][4]


def test_every_counter_of_the_state_row_appears() -> None:
    names = {spec.name for spec in fields(Counters)}
    twins = {name for name in names if name.endswith("_bytes") and name[:-6] in names}
    assert "evicted_max_queue_bytes" not in twins
    shown = set(_CODE.findall(section("States")))
    assert names - twins - shown == set()
    counters = {name for row in states().values() for name in _CODE.findall(row[4])}
    assert counters - names == set(), "a counter that is none"


@pytest.mark.parametrize(
    "name", ["queue.Queue.gone", "gone.Queue", "queue.Gone.take", "queue", "queue.SLICE_ROWS"]
)
def test_a_function_that_does_not_exist_is_found(name: str) -> None:
    assert missing(name) is not None


def test_a_function_that_is_only_inherited_is_named_where_it_stands() -> None:
    assert missing("dead_letters.DeadLetters.__repr__") is not None
