"""Both commands as one file each, built by one command, in an environment that has nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import packtrack_schema
import pytest
from packtrack_shell import EVENT, KEY, flags

from causality_sdk import __version__
from causality_sdk.testing import LoopbackPackTrack

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "examples" / "zipapps" / "build_zipapps.py"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both files lie."""
    place = tmp_path_factory.mktemp("zipapps")
    built = subprocess.run(
        [sys.executable, str(BUILD), str(place)],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
        cwd=place,
    )
    assert built.returncode == 0, built.stderr
    for name in ("causality.pyz", "packtrack-logger.pyz"):
        assert f"{place / name}  " in built.stdout
    return place


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has neither this package nor any other."""
    place = tmp_path_factory.mktemp("bare")
    venv.create(place, with_pip=False)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    alone = subprocess.run([python, "-I", "-c", "import orjson"], capture_output=True, check=False)
    assert alone.returncode == 1
    return python


def run(python: Path, file: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    return subprocess.run(
        [python, "-I", file, *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        cwd=home,
        env={**kept, "HOME": str(home), "XDG_DATA_HOME": str(home), "SHIV_ROOT": str(home)},
    )


@pytest.mark.parametrize("name", ["causality", "packtrack-logger"])
def test_each_runs_by_itself(directory: Path, bare: Path, tmp_path: Path, name: str) -> None:
    result = run(bare, directory / f"{name}.pyz", "--version", home=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{name}, version {__version__}\n"


def test_the_logger_sends_and_queues(directory: Path, bare: Path, tmp_path: Path) -> None:
    with LoopbackPackTrack(api_key=KEY) as server:
        options = ("--api-key", KEY, "--base-url", server.endpoint, *flags(EVENT))
        for extra in ((), ("--async", "--gzip")):
            file = directory / "packtrack-logger.pyz"
            result = run(bare, file, *options, *extra, home=tmp_path)
            assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert len(server.events) == 2
        for event in server.events:
            packtrack_schema.check(event)


def test_the_demo_finds_its_data_and_starts_its_processes(
    directory: Path, bare: Path, tmp_path: Path
) -> None:
    result = run(bare, directory / "causality.pyz", "demo", "--json", home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert '"lost": 0' in result.stdout


def test_a_wrong_argument_of_the_builder_shows_how_it_is_used() -> None:
    shown = subprocess.run(
        [sys.executable, str(BUILD), "--help"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 2
    assert "python examples/zipapps/build_zipapps.py" in shown.stderr
