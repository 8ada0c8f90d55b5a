"""Programs that PyInstaller has frozen: all that the package loads by name is in them."""

from __future__ import annotations

import ast
import os
import runpy
import subprocess
import sys
import venv
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import causality_sdk
from causality_sdk import _pyinstaller, schema
from causality_sdk.cli import COMMANDS as TOP
from causality_sdk.cli._demo_plan import SAMPLE
from causality_sdk.cli.dead_letters import COMMANDS as LETTERS
from causality_sdk.cli.queue import COMMANDS as QUEUE
from causality_sdk.errors import QueueError

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "causality_sdk"


def hook(module: str) -> dict[str, object]:
    """What a hook tells PyInstaller."""
    (directory,) = _pyinstaller.hook_directories()
    return runpy.run_path(str(Path(directory) / f"hook-{module}.py"))


def hidden(module: str) -> set[str]:
    found = hook(module)["hiddenimports"]
    assert isinstance(found, list)
    return set(found)


def test_every_command_is_listed() -> None:
    commands = {place for group in (TOP, QUEUE, LETTERS) for place, _ in group.values()}
    assert commands <= hidden("causality_sdk.cli")
    assert "causality_sdk.cli._demo_child" in hidden("causality_sdk.cli")


def test_every_public_name_comes_from_a_module_that_is_listed() -> None:
    listed = hidden("causality_sdk")
    for name in set(causality_sdk.__all__) - {"__version__"}:
        assert getattr(causality_sdk, name).__module__ in listed, name
    assert "causality_sdk._migrations.queue" in listed


def test_a_module_is_imported_by_its_name_only_where_the_hooks_know_of_it() -> None:
    known = {"__init__.py", "cli/groups.py", "_pyinstaller/__init__.py"}
    # These name what is imported by others in the plain way.
    known |= {"options.py", "cli/guesses.py"}
    assert {path for path, _ in dynamic_imports()} == known


def dynamic_imports() -> Iterator[tuple[str, int]]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                if name in {"import_module", "__import__", "find_spec"}:
                    yield path.relative_to(PACKAGE).as_posix(), node.lineno


def test_every_file_that_is_read_is_listed() -> None:
    data = [path for path in PACKAGE.rglob("*") if path.is_file()]
    data = [
        path
        for path in data
        if path.suffix not in {".py", ".pyc", ".md"} and path.name != "py.typed"
    ]
    assert data == [SAMPLE], data
    datas = hook("causality_sdk.cli")["datas"]
    assert isinstance(datas, list)
    ((pattern, target),) = datas
    assert fnmatch(str(SAMPLE), pattern)
    assert target == "causality_sdk/cli"


def test_every_hook_is_named_for_a_module() -> None:
    for path in (PACKAGE / "_pyinstaller").glob("hook-*.py"):
        assert import_module(path.stem.removeprefix("hook-"))


def test_the_hooks_are_found_by_their_entry_point() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = project.partition("[project.entry-points.pyinstaller40]\n")[2]
    point = EntryPoint("x", table.splitlines()[0].partition('"')[2].rstrip('"'), "pyinstaller40")
    assert point.load() is _pyinstaller.hook_directories


def test_without_its_migrations_a_program_is_told_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(schema, "__file__", str(tmp_path / "_internal" / "schema.pyc"))
    monkeypatch.setitem(sys.modules, "causality_sdk._migrations", None)
    with pytest.raises(QueueError, match=r"--hidden-import causality_sdk\._migrations\.queue"):
        schema.load_migrations()


CLIENT = """
import os
from causality_sdk import Client
client = Client(api_key="k", endpoint="http://127.0.0.1:9", app_id="a", close_timeout=0,
                queue_path=os.environ["CAUSALITY_QUEUE_PATH"])
print("key", client.track("a"))
"""
COMMAND = """
from causality_sdk.cli import main
main(prog_name="causality")
"""
LOGGER = """
from causality_sdk.packtrack_logger import main
main()
"""
EVENT = "--source-system s --workflow-id w --actor-type t --actor-id x --severity info --status ok"


@pytest.mark.long
@pytest.mark.packaging
def test_a_client_both_commands_and_the_demo_work_in_frozen_programs(tmp_path: Path) -> None:
    venv.create(tmp_path / "v", with_pip=True)
    scripts = tmp_path / "v" / ("Scripts" if os.name == "nt" else "bin")
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("CAUSALITY_")
    }
    environ |= {
        "CAUSALITY_QUEUE_PATH": str(tmp_path / "q" / "queue.db"),
        "CAUSALITY_API_KEY": "k",
        "CAUSALITY_ENDPOINT": "http://127.0.0.1:9",
        "CAUSALITY_APP_ID": "a",
        "PACKTRACK_API_KEY": "k",
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    environ.pop("PYTHONPATH", None)

    def run(*words: object, code: int = 0) -> str:
        done = subprocess.run(
            list(map(str, words)), capture_output=True, encoding="utf-8", timeout=600,
            check=False, cwd=tmp_path, env=environ,
        )  # fmt: skip
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    run(scripts / "python", "-m", "pip", "install", "-q", "pyinstaller", ROOT)
    programs = {}
    for name, text in (("client", CLIENT), ("command", COMMAND), ("logger", LOGGER)):
        (tmp_path / f"{name}.py").write_text(text)
        run(scripts / "pyinstaller", "--noconfirm", "--log-level", "ERROR", f"{name}.py")
        programs[name] = tmp_path / "dist" / name / name
    assert run(programs["client"]).startswith("key 0")
    assert len(run(programs["command"], "track", "x", "--no-flush").strip()) == 36
    assert "2 (" in run(programs["command"], "queue", "status")
    assert '"event_type":"x"' in run(programs["command"], "queue", "export")
    assert "Events that wake the sender" in run(programs["command"], "track", "--help")
    assert run(programs["command"], "dead-letters", "list", "--json") == ""
    assert "counts once" in run(programs["command"], "demo")
    asynchronous = ["--async", "--base-url", "http://127.0.0.1:9", "--message", "m"]
    run(programs["logger"], *EVENT.split(), *asynchronous, code=3)
    assert (tmp_path / "data" / "causality" / "packtrack-logger" / "queue.db").exists()
