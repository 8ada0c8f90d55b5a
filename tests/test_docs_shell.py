"""The shell lines of the how-to pages are run, in a real shell, against a server on loopback."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import KEY, NOWHERE, ROOT, Shell, ndjson
from test_docs import blocks

from causality_sdk import Event
from causality_sdk.testing import LoopbackCollector

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shells of POSIX")

# Page -> what some of its lines end with, where it is not 0.
PAGES: dict[str, dict[str, int]] = {
    "shell-and-cron.md": {},
    "ci-pipelines.md": {},
    "operate-after-an-outage.md": {
        "causality queue show 01a1": 1,  # of that page's own example, which is nowhere here
        "causality dead-letters show 3": 1,
    },
}


@pytest.fixture
def collector() -> Iterator[LoopbackCollector]:
    with LoopbackCollector(api_key=KEY) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, collector: LoopbackCollector) -> Shell:
    """A home with the files that the pages speak of, and a kiosk's queue that nobody owns."""
    made = Shell(tmp_path, collector.endpoint)
    del made.environ["CAUSALITY_QUEUE_PATH"]  # the pages name apps
    made.environ["XDG_DATA_HOME"] = str(tmp_path / "data")
    (tmp_path / "events.ndjson").write_bytes(ndjson(20))
    (tmp_path / "events.ndjson.gz").write_bytes(gzip.compress(ndjson(20)))
    (tmp_path / "fixtures").mkdir()
    shutil.copy(tmp_path / "events.ndjson", tmp_path / "fixtures")
    for name in ("events.json", "report.json"):
        (tmp_path / name).write_text('[{"event_type":"a"},\n {"event_type":"b"}]')
    kiosk = tmp_path / "kiosk" / "queue.db"
    with made.client(queue_path=kiosk, endpoint=NOWHERE) as client:
        client.track_many([Event("order_placed", {"n": n}) for n in range(3)])
    made("track", "order_placed", "--no-flush", "--app-id", "kiosk-7")
    return made


def lines(page: str) -> list[str]:
    text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    found = [block.text for block in blocks(text) if block.info == "console"]
    return [line for block in found for line in block.splitlines()]


@pytest.mark.parametrize("page", PAGES)
def test_its_lines_do_what_the_page_says(page: str, shell: Shell) -> None:
    shell("track", "order_placed", "--no-flush")  # there is a queue of the page's own app, too
    (shell.home / ".config/fish/completions").mkdir(parents=True)
    assert lines(page)
    for line in lines(page):
        here = line.replace("/mnt/kiosk", str(shell.home / "kiosk")).replace(
            "https://b.example.com", shell.environ["CAUSALITY_ENDPOINT"]
        )
        wanted = next((code for start, code in PAGES[page].items() if line.startswith(start)), 0)
        if line == "causality queue purge --type debug_trace":
            here += " --yes"  # nobody is there to ask
        result = shell.line(here)
        assert result.code == wanted, (line, result.out, result.err)
        assert KEY not in result.out + result.err
        assert "Traceback" not in result.err


def test_every_command_of_the_readme_is_run(shell: Shell) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [
        line
        for block in blocks(text)
        if block.info == "console"
        for line in block.text.splitlines()
        if line.startswith(("causality ", "cat "))
    ]
    assert len(found) >= 5
    for line in found:
        result = shell.line(line)
        assert result.code == 0, (line, result.err)


def test_bash_takes_the_completion(shell: Shell) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    script = (
        'eval "$(_CAUSALITY_COMPLETE=bash_source "$0" -m causality_sdk)"; complete -p causality'
    )
    result = subprocess.run(
        [bash, "-c", script, sys.executable],
        env=shell.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "_causality_completion causality" in result.stdout
