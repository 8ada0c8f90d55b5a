"""Every console block of the page about `packtrack-logger` runs, against a server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import packtrack_schema
import pytest
from packtrack_shell import KEY, ROOT, Shell
from test_docs import Block, blocks

from causality_sdk.testing import LoopbackPackTrack

PAGE = ROOT / "docs" / "how-to" / "log-from-a-shell.md"
BLOCKS = [block for block in blocks(PAGE.read_text(encoding="utf-8")) if block.info == "console"]

EVENT = {
    "timestamp": "2026-01-31T12:00:00Z",
    "source": {"system": "s"},
    "workflow": {"id": "w"},
    "actor": {"type": "cron", "id": "a"},
    "severity": "info",
    "status": "ok",
    "message": "from the input",
}


@pytest.mark.skipif(os.name == "nt", reason="the page is for POSIX shells")
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line {block.line}")
def test_a_block_runs_and_what_it_sends_is_valid(block: Block, tmp_path: Path) -> None:
    (tmp_path / "events.json").write_text(json.dumps([EVENT, EVENT]))
    (tmp_path / "events.ndjson").write_text(f"{json.dumps(EVENT)}\n")
    command = tmp_path / "bin" / "packtrack-logger"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m causality_sdk.packtrack_logger "$@"\n'
    )
    command.chmod(0o755)
    with LoopbackPackTrack(api_key=KEY) as server:
        shell = Shell(tmp_path, server)
        result = subprocess.run(
            ["/bin/sh", "-e", "-c", block.text],
            cwd=tmp_path,
            env={**shell.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        if "--dry-run" in block.text:
            packtrack_schema.check(json.loads(result.stdout))
            assert server.requests == []
        elif "--health" in block.text:
            assert [request.path for request in server.requests] == ["/api/health"]
        else:
            assert result.stdout == ""
            assert len(server.events) >= block.text.count("packtrack-logger ")
            for event in server.events:
                packtrack_schema.check(event)


def test_the_page_has_blocks() -> None:
    assert len(BLOCKS) >= 9
