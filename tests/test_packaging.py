"""What people install: the built distributions, in an empty environment, away from the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from causality_sdk._version import __version__

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).resolve().parent.parent
DEMO_DATA = "causality_sdk/cli/flights-5000.ndjson.gz"

# Tracks one event for a server that is not there, and counts what is left in the queue file.
SCRIPT = """
import contextlib, socket, sqlite3
import causality_sdk
from causality_sdk import Client

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
client = Client(
    api_key="k", endpoint=f"http://127.0.0.1:{port}", app_id="packaging", queue_path="queue.db"
)
assert client.track("installed", {"answer": 42})
client.close(timeout=1)
with contextlib.closing(sqlite3.connect("queue.db")) as database:
    print(database.execute("SELECT count(*) FROM queue").fetchone()[0], causality_sdk.__file__)
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment, run from an empty directory and without our variables."""

    directory: Path

    @property
    def scripts(self) -> Path:
        return self.directory / ("Scripts" if os.name == "nt" else "bin")

    def run(self, program: str, *arguments: str, cwd: Path) -> str:
        """What `program` of this environment prints."""
        return run(str(self.scripts / program), *arguments, cwd=cwd, env=clean_environ(cwd))

    def install(self, *arguments: str) -> None:
        # pip keeps what tells it where its index is; what points at this checkout goes.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "COV", "CAUSALITY_", "VIRTUAL_ENV"))
        }
        pip = (str(self.scripts / "python"), "-m", "pip", "--disable-pip-version-check")
        run(*pip, "install", "--quiet", *arguments, cwd=self.directory, env=kept)


def clean_environ(home: Path) -> dict[str, str]:
    """As little as a program needs; in particular no PYTHONPATH."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TEMP") if name in os.environ}
    return {**kept, "HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home)}


def run(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    result = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def build(source: Path, out: Path, *kinds: str) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", *kinds, "-o", str(out), ".", cwd=source)


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist and the wheel of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out, "--sdist", "--wheel")
    return out


@pytest.fixture(scope="session")
def sdist(distributions: Path) -> Path:
    return distributions / f"causality_sdk-{__version__}.tar.gz"


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    return distributions / f"causality_sdk-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and what it depends on, nothing else."""
    environment = Environment(tmp_path_factory.mktemp("installed"))
    venv.create(environment.directory, with_pip=True)
    environment.install(str(wheel))
    return environment


@pytest.fixture(scope="session")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with this checkout, as `pip install -e .` gives it."""
    environment = Environment(tmp_path_factory.mktemp("editable"))
    venv.create(environment.directory, with_pip=True)
    environment.install("--editable", str(ROOT))
    return environment


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_distributions_carry_the_version(distributions: Path, sdist: Path, wheel: Path) -> None:
    assert {path.name for path in distributions.iterdir() if path.name[0] != "."} == {
        sdist.name,
        wheel.name,
    }


def test_the_wheel_holds_every_module(wheel: Path) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "causality_sdk").rglob("*.py")}
    assert modules - names(wheel) == set()


def test_the_wheel_holds_the_migrations_inside_the_package(wheel: Path) -> None:
    shipped = {name for name in names(wheel) if name.startswith("causality_sdk/_migrations/")}
    top_level = {path.relative_to(ROOT).as_posix() for path in (ROOT / "migrations").rglob("*.py")}
    assert top_level != set()
    assert {name.replace("causality_sdk/_", "") for name in shipped} == top_level


@pytest.mark.parametrize("name", ["causality_sdk/py.typed", DEMO_DATA])
def test_the_wheel_holds_what_is_not_a_module(wheel: Path, name: str) -> None:
    assert name in names(wheel)


def test_the_wheel_holds_the_package_and_its_metadata_only(wheel: Path) -> None:
    assert {PurePosixPath(name).parts[0] for name in names(wheel)} == {
        "causality_sdk",
        f"causality_sdk-{__version__}.dist-info",
    }
    assert not [name for name in names(wheel) if "__pycache__" in name or "/test_" in name]


def test_the_sdist_holds_what_its_own_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()}
    for name in (
        "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "noxfile.py", ".ci/run",
        "tests/conftest.py",
        "causality_sdk/py.typed", DEMO_DATA,
    ):  # fmt: skip
        assert PurePosixPath(name) in held, name
    tops = {name.parts[0] for name in held if name.parts}
    assert not [top for top in tops if top == ".git" or top.startswith((".venv", ".mypy", ".cov"))]


def test_the_sdist_leaves_out_what_only_has_the_name_of_our_directories(tmp_path: Path) -> None:
    """A virtual environment in the checkout has directories called tests and docs, too."""
    from hatchling.builders.sdist import SdistBuilder

    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for name in (
        "causality_sdk/_version.py", "tests/test_x.py", "docs/index.md",
        "bv/lib/python3.11/site-packages/x/tests/test_y.py", "bv/share/docs/y.md",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    builder = SdistBuilder(str(tmp_path))
    held = {Path(file.distribution_path).as_posix() for file in builder.recurse_included_files()}
    assert {"tests/test_x.py", "docs/index.md"} <= held
    assert not [name for name in held if name.startswith("bv")]


def test_the_metadata_say_where_to_read_and_whom_to_ask() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} <= set(project["urls"])
    oldest = project["requires-python"].removeprefix(">=")
    named = [name.rpartition(" ")[2] for name in project["classifiers"] if "Python :: 3." in name]
    assert named[0] == oldest
    assert f'python_version = "{oldest}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    for place in ("noxfile.py", ".github/workflows/ci.yml"):
        text = (ROOT / place).read_text("utf-8")
        assert [version for version in named if f'"{version}"' not in text] == [], place
        assert '"3.10"' not in text


def test_every_link_of_the_readme_is_alive_on_an_index_page() -> None:
    """There, nothing lies beside it: a relative link leads nowhere."""
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_no_recipe_installs_by_a_name_that_anybody_could_take() -> None:
    """The package is on no index yet; a wheel that is named is the one of this version."""
    recipes = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    recipes += [path for path in (ROOT / "examples").rglob("*") if path.is_file()]
    named = set()
    for path in recipes:
        text = path.read_bytes().decode("utf-8", "replace")
        assert not re.search(r"pip install (-\S+ )*causality-sdk", text), path
        named |= set(re.findall(r"causality_sdk-([0-9.]+)-py3", text))
    assert named == {__version__}


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    out = tmp_path / "out"
    build(tmp_path / sdist.name.removesuffix(".tar.gz"), out, "--wheel")
    assert names(out / wheel.name) == names(wheel)


class TestInstalled:
    """The wheel, in an environment of its own."""

    def test_an_event_is_on_disk_after_close(self, installed: Environment, tmp_path: Path) -> None:
        rows, _, place = installed.run("python", "-c", SCRIPT, cwd=tmp_path).strip().partition(" ")
        assert rows == "1"
        assert Path(place).resolve().is_relative_to(installed.directory.resolve())

    def test_both_commands_print_the_version(self, installed: Environment, tmp_path: Path) -> None:
        assert __version__ in installed.run("causality", "--version", cwd=tmp_path)
        module = ("-m", "causality_sdk", "--version")
        assert __version__ in installed.run("python", *module, cwd=tmp_path)

    def test_the_metadata_agree_with_the_package(
        self, installed: Environment, tmp_path: Path
    ) -> None:
        script = "import importlib.metadata as m; print(m.version('causality-sdk'))"
        assert installed.run("python", "-c", script, cwd=tmp_path).strip() == __version__


class TestEditable:
    """The checkout, as somebody who works on it installs it."""

    def test_an_event_is_on_disk_after_close(self, editable: Environment, tmp_path: Path) -> None:
        rows, _, place = editable.run("python", "-c", SCRIPT, cwd=tmp_path).strip().partition(" ")
        assert rows == "1"
        assert Path(place).resolve().is_relative_to(ROOT)

    def test_both_commands_print_the_version(self, editable: Environment, tmp_path: Path) -> None:
        assert __version__ in editable.run("causality", "--version", cwd=tmp_path)
        module = ("-m", "causality_sdk", "--version")
        assert __version__ in editable.run("python", *module, cwd=tmp_path)
