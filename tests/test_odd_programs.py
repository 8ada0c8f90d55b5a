"""Programs that are not started as most are: odd names, no argv, closed streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import sys, os, stat, tempfile
{before}
from pathlib import Path
from causality_sdk import Client
path = os.environ["QUEUE"]
with Client(api_key="k", endpoint="http://127.0.0.1:9", app_id="a", queue_path=path,
            wire="causality-proto", start=False, close_timeout=0) as client:
    key = client.track("x")
    {inside}
with open(os.environ["RESULT"], "w") as result:
    result.write(str(key))
"""


def run(
    tmp_path: Path, before: str = "", *, inside: str = "", script: bytes | None = None
) -> dict[str, object]:
    """What the lock file says of a program that must have got a key."""
    text = PROGRAM.format(before=before, inside=inside)
    arguments: list[bytes | str] = ["-c", text]
    if script is not None:
        place = os.fsencode(tmp_path) + b"/" + script
        with open(place, "w") as file:  # noqa: PTH123 - a name in bytes
            file.write(text)
        arguments = [place]
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        timeout=60,
        check=False,
        env={
            **os.environ,
            "QUEUE": str(tmp_path / "queue" / "queue.db"),
            "RESULT": str(tmp_path / "result"),
            "PYTHONPATH": str(ROOT),
        },
    )
    assert done.returncode == 0, done.stderr.decode()
    assert len((tmp_path / "result").read_text()) == 36
    signed = orjson.loads((tmp_path / "queue" / "queue.db.lock").read_bytes()[1:])
    assert isinstance(signed, dict)
    return signed


@pytest.mark.parametrize(
    ("before", "name"),
    [
        ("del sys.argv", ""),
        ("sys.argv = None", ""),
        ("sys.argv = []", ""),
        ("sys.argv = ['']", ""),
        ("sys.argv = [None]", ""),
        ("sys.argv = [17]", ""),
        ("sys.argv = [b'/opt/caf\\xe9']", "caf\\xe9"),
        ("import pathlib; sys.argv = [pathlib.Path('/opt/daemon')]", "daemon"),
        ("sys.argv = ['a' * 5000]", "a" * 200),
        ("sys.argv = ['a\\0b']", "a\0b"),
        ("sys.argv = ['/opt/\\ud800']", "\\ud800"),
    ],
)
def test_whatever_a_program_has_for_argv_its_client_opens(
    tmp_path: Path, before: str, name: str
) -> None:
    assert run(tmp_path, before)["program"] == name


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="names are bytes")
def test_a_script_whose_name_is_not_utf_8_is_named_with_escapes(tmp_path: Path) -> None:
    assert run(tmp_path, script=b"caf\xe9.py")["program"] == "caf\\xe9.py"


@pytest.mark.skipif(os.name != "posix", reason="descriptors by number")
@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_no_file_of_the_queue_gets_the_number_of_a_standard_stream(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    """What a C library writes to its standard output must not land in a lock file."""
    closing = "; ".join(f"os.close({number})" for number in closed)
    inside = f"""
    for number in {closed}:
        try:
            found = os.fstat(number)
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):  # SQLite puts /dev/null there
            raise SystemExit(f"{{number}} is a file")
    """
    assert run(tmp_path, closing, inside=inside)["pid"]


@pytest.mark.skipif(os.name != "posix", reason="a directory in use cannot be deleted there")
def test_a_working_directory_that_was_deleted_is_no_trouble(tmp_path: Path) -> None:
    gone = "where = tempfile.mkdtemp(); os.chdir(where); os.rmdir(where)"
    run(tmp_path, gone)
