"""What the README and docs/ show is run; what they link to and name exists.

Each page runs in a process of its own: its ```python blocks in order, in one namespace, under
`-W error`, in an empty directory and an environment without `CAUSALITY_…`. A block that is not to
run is marked ```python no-run and begins with a comment `# not run: <reason>`.

Started as a program, this file is that process: `python tests/test_docs.py page.md`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import click
import conftest  # keeps the process of a page on loopback, too
import pytest

import causality_sdk
from causality_sdk import events, packtrack, testing

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "python no-run", "console", "text", "json", "ini", "sql", "mermaid"}

_FENCE = re.compile(r"^(?P<fence>```+|~~~+)[ ]*(?P<info>.*)$")
_LINK = re.compile(r"(?<!\\)\]\((?P<target>[^)\s]+)\)")
# The README is shown on pages of package indexes, too, where relative links would be dead.
_OURS = re.compile(r"https://github\.com/causality-sdk/causality-sdk/(?:blob|tree)/main/")
_HEADING = re.compile(r"^#{1,6} (?P<text>.+)$", re.MULTILINE)


# ------------------------------------------------------------------------------ reading pages


@dataclass(frozen=True)
class Block:
    """A fenced block: what its fence says, the line its text begins at, the text."""

    info: str
    line: int
    text: str


def blocks(markdown: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = markdown.splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        number += 1
        if opening is None:
            continue
        start = number
        while number < len(lines) and lines[number].rstrip() != opening["fence"]:
            number += 1
        if number == len(lines):
            raise ValueError(f"line {start}: the fence is never closed")
        yield Block(opening["info"].strip(), start + 1, "\n".join(lines[start:number]) + "\n")
        number += 1


def without_blocks(markdown: str) -> str:
    for block in blocks(markdown):
        markdown = markdown.replace(block.text, "", 1)
    return markdown


def bad_blocks(markdown: str) -> list[str]:
    """What is wrong with the fences: a language nobody checks, no-run without a reason."""
    wrong = []
    for block in blocks(markdown):
        if block.info not in LANGUAGES:
            wrong.append(f"line {block.line}: {block.info!r} is not one of {sorted(LANGUAGES)}")
        elif block.info == "python no-run" and not block.text.startswith("# not run: "):
            wrong.append(f"line {block.line}: no-run without a reason")
    return wrong


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = (match["text"].lower() for match in _HEADING.finditer(without_blocks(markdown)))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def broken_links(page: Path, root: Path = ROOT) -> list[str]:
    """Links of a page into the repository that lead nowhere, and relative ones out of it."""
    broken = []
    for match in _LINK.finditer(without_blocks(page.read_text(encoding="utf-8"))):
        target = match["target"]
        ours = _OURS.match(target)
        if ours is None and re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = (target[ours.end() :] if ours else target).partition("#")
        file = ((root if ours else page.parent) / path).resolve() if path else page
        if (
            not file.exists()
            or not file.is_relative_to(root)
            or (anchor and anchor not in anchors(file.read_text(encoding="utf-8")))
        ):
            broken.append(target)
    return broken


# ------------------------------------------------------------------------------ python blocks


def run_page(path: Path) -> None:
    """Executes the python blocks of a page in this process, as one module."""
    module = types.ModuleType("page")
    sys.modules[module.__name__] = module  # dataclasses look up the module of their class
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.info == "python":
            # Blank lines in front, so that a traceback names the line of the page.
            source = "\n" * (block.line - 1) + block.text
            exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102
    if conftest._refused:
        raise SystemExit(f"the page tried to leave loopback: {conftest._refused}")


def page_process(page: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    kept = ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")
    environ = {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith("COVERAGE_")
    }
    environ |= {"HOME": str(directory), "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-W", "error", __file__, str(page)],
        cwd=directory,
        env=environ,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


# ------------------------------------------------------------------------------ shell blocks


@dataclass(frozen=True)
class Command:
    """One command of a console block: the program's name and its arguments."""

    program: str
    arguments: list[str]


def commands(text: str) -> Iterator[Command]:
    """What a console block runs. Output lines are those without a prompt, if any line has one."""
    lines = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("&|;<>"):
                words.append(word)
                continue
            while words and re.match(r"[A-Z_]+=", words[0]):
                del words[0]
            if words:
                yield Command(PurePosixPath(words[0]).name, words[1:])
            words = []


def unknown_command(command: Command, group: click.Command) -> str | None:
    """Why `command` is not one of `group`, or None if it is."""
    options = {
        option
        for parameter in group.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for argument in command.arguments:
        if argument.startswith("-") and argument != "-":  # which alone is standard input
            if argument.partition("=")[0] not in options | {"--help"}:
                return f"{command.program} has no option {argument}"
        elif isinstance(group, click.Group):
            rest = command.arguments[command.arguments.index(argument) + 1 :]
            name = argument
            if name not in group.list_commands(click.Context(group)):
                # sqlite-utils takes what is no command for an argument of its command `query`.
                name, rest = getattr(group, "default_cmd_name", name), [argument, *rest]
            inner = group.get_command(click.Context(group), name)
            if inner is None:
                return f"{command.program} has no command {name}"
            return unknown_command(Command(f"{command.program} {name}", rest), inner)
    return None


def group_of(program: str) -> click.Command | None:
    """The click command behind a program whose lines are checked."""
    places = {
        "causality": ("causality_sdk.cli", "main"),
        "packtrack-logger": ("causality_sdk.packtrack_logger", "main"),
        "sqlite-utils": ("sqlite_utils.cli", "cli"),
    }
    if program not in places:
        return None
    module, name = places[program]
    command = getattr(importlib.import_module(module), name)
    assert isinstance(command, click.Command)
    return command


# ------------------------------------------------------------------------------ the tests


def ids(pages: list[Path]) -> list[str]:
    return [page.relative_to(ROOT).as_posix() for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
class TestPage:
    def test_its_python_runs(self, page: Path, tmp_path: Path) -> None:
        found = [block.info for block in blocks(page.read_text(encoding="utf-8"))]
        if "python" not in found:
            return
        result = page_process(page, tmp_path)
        assert result.returncode == 0, result.stderr

    def test_its_blocks_are_of_a_language_that_is_checked(self, page: Path) -> None:
        assert bad_blocks(page.read_text(encoding="utf-8")) == []

    def test_its_links_lead_somewhere(self, page: Path) -> None:
        assert broken_links(page) == []

    def test_its_shell_lines_name_commands_that_exist(self, page: Path) -> None:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.info != "console":
                continue
            for command in commands(block.text):
                group = group_of(command.program)
                if group is not None:
                    assert unknown_command(command, group) is None


def test_every_sqlite_utils_line_runs_on_a_queue_file(tmp_path: Path) -> None:
    with causality_sdk.Client(
        api_key="test-key",
        endpoint="https://events.invalid",
        app_id="shop",
        queue_path=tmp_path / "queue.db",
        transport=testing.RecordingTransport(),
        start=False,
        close_timeout=0,
    ) as client:
        client.track_many([causality_sdk.Event("order_placed", {"n": n}) for n in range(3)])
        tried = 0
        for page in PAGES:
            for block in blocks(page.read_text(encoding="utf-8")):
                for command in commands(block.text) if block.info == "console" else ():
                    if command.program == "sqlite-utils":
                        tried += 1
                        run_sqlite_utils(command.arguments, tmp_path)
    assert tried > 0


def run_sqlite_utils(arguments: list[str], directory: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sqlite_utils", *arguments],
        cwd=directory,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, f"{arguments}: {result.stderr}"


def test_the_generated_reference_is_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_page_of_docs_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {
        (index.parent / match["target"].partition("#")[0]).resolve()
        for match in _LINK.finditer(index.read_text(encoding="utf-8"))
    }
    assert set(PAGES[1:]) - linked - {index} == set()


def undocumented(owner: object, names: list[str]) -> list[str]:
    """The names of `owner` without a docstring, and those of their public members."""
    missing = []
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, str):
            continue
        # inspect.getdoc would give the docstring of a base class of Python's own.
        if not value.__doc__ or value.__doc__.startswith(f"{name}("):
            missing.append(name)
        for parent in inspect.getmro(value) if inspect.isclass(value) else ():
            if not parent.__module__.startswith("causality_sdk"):
                continue
            missing += [
                f"{name}.{member}"
                for member, body in vars(parent).items()
                if member[0] != "_"
                and isinstance(body, (types.FunctionType, classmethod, staticmethod, property))
                and not body.__doc__
            ]
    return missing


def test_every_public_name_has_a_docstring() -> None:
    assert undocumented(causality_sdk, causality_sdk.__all__) == []
    assert undocumented(testing, testing.__all__) == []
    assert undocumented(events, events.__all__) == []
    assert undocumented(packtrack, packtrack.__all__) == []


OURS = "https://github.com/causality-sdk/causality-sdk/blob/main/"


class TestTheChecker:
    """A check that cannot fail is a defect."""

    def page(self, directory: Path, text: str) -> Path:
        page = directory / "page.md"
        page.write_text(text, encoding="utf-8")
        return page

    def test_a_failing_block_fails_and_its_line_is_named(self, tmp_path: Path) -> None:
        page = self.page(
            tmp_path, "# A\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n"
        )
        result = page_process(page, tmp_path)
        assert result.returncode == 1
        assert 'page.md", line 8' in result.stderr

    def test_blocks_share_a_namespace(self, tmp_path: Path) -> None:
        page = self.page(
            tmp_path, "```python\nx = 1\n```\n```text\nx = 2\n```\n```python\nx\n```\n"
        )
        assert page_process(page, tmp_path).returncode == 0

    def test_a_warning_fails(self, tmp_path: Path) -> None:
        page = self.page(tmp_path, "```python\nimport warnings\nwarnings.warn('old')\n```\n")
        assert page_process(page, tmp_path).returncode == 1

    def test_a_page_cannot_leave_loopback_even_if_it_hides_it(self, tmp_path: Path) -> None:
        page = self.page(
            tmp_path,
            "```python\nimport socket, contextlib\n"
            "with contextlib.suppress(OSError):\n    socket.gethostbyname('192.0.2.1')\n```\n",
        )
        result = page_process(page, tmp_path)
        assert result.returncode == 1
        assert "tried to leave loopback" in result.stderr

    def test_the_environment_of_a_page_has_no_options(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CAUSALITY_API_KEY", "secret")
        page = self.page(
            tmp_path,
            "```python\nimport os\nassert not [n for n in os.environ if 'CAUSALITY' in n]\n```\n",
        )
        assert page_process(page, tmp_path).returncode == 0

    def test_an_unknown_language_is_found(self) -> None:
        assert bad_blocks("```py\nx\n```\n") != []
        assert bad_blocks("```\nx\n```\n") != []
        assert bad_blocks("```text\nx\n```\n") == []

    def test_no_run_needs_a_reason(self) -> None:
        assert bad_blocks("```python no-run\nx\n```\n") != []
        assert bad_blocks("```python no-run\n# not run: it never ends\nx\n```\n") == []

    def test_an_open_fence_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="line 1"):
            list(blocks("```python\nx = 1\n"))

    def test_a_link_to_nowhere_is_found(self, tmp_path: Path) -> None:
        page = self.page(
            tmp_path,
            "# One *two*: three\n[a](page.md) [b](gone.md) [c](#one-two-three) [d](#gone)"
            " [e](https://events.invalid/x) [f](../outside.md)\n```text\n[g](gone.md)\n```\n"
            f"[h]({OURS}page.md) [i]({OURS}gone.md)\n",
        )
        (tmp_path.parent / "outside.md").write_text("x", encoding="utf-8")
        assert broken_links(page, tmp_path) == [
            "gone.md", "#gone", "../outside.md", f"{OURS}gone.md"
        ]  # fmt: skip

    def test_commands_are_read_out_of_a_console_block(self) -> None:
        text = "A=1 .venv/bin/x y 'a b' && z -q \\\n  w > out\n"
        assert list(commands(text)) == [
            Command("x", ["y", "a b"]),
            Command("z", ["-q", "w"]),
            Command("out", []),
        ]
        assert list(commands("$ x y\nits output\n")) == [Command("x", ["y"])]

    def test_an_unknown_command_or_option_is_found(self) -> None:
        @click.group()
        @click.option("--loud/--quiet")
        def tool() -> None: ...

        @tool.command()
        @click.option("--count")
        def demo() -> None: ...

        def check(*arguments: str) -> str | None:
            return unknown_command(Command("tool", list(arguments)), tool)

        assert check("demo") is None
        assert check("--quiet", "demo", "--count=3", "x") is None
        assert check("demi") == "tool has no command demi"
        assert check("--quiet") is None
        assert check("--soft", "demo") == "tool has no option --soft"
        assert check("demo", "--loud") == "tool demo has no option --loud"

    def test_a_name_without_a_docstring_is_found(self) -> None:
        class Bare:
            def shout(self) -> None: ...

        Bare.__module__ = "causality_sdk.made_up"
        owner = types.SimpleNamespace(Bare=Bare)
        assert undocumented(owner, ["Bare"]) == ["Bare", "Bare.shout"]


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
