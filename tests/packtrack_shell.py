"""Runs `packtrack-logger`, in this process or in one of its own. Not a test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner, Result

from causality_sdk.packtrack_logger import main
from causality_sdk.testing import LoopbackPackTrack

ROOT = Path(__file__).resolve().parent.parent
KEY = "key-of-the-tests"
EVENT = {
    "--source-system": "backup",
    "--workflow-id": "nightly",
    "--actor-type": "cron",
    "--actor-id": "db1",
    "--severity": "info",
    "--status": "ok",
    "--message": "backup finished",
}


def flags(given: Mapping[str, str]) -> list[str]:
    return [word for pair in given.items() for word in pair]


class Shell:
    """A user with a home of its own, and a server."""

    def __init__(self, home: Path, server: LoopbackPackTrack) -> None:
        self.home = home
        self.server = server
        kept = ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if name in kept or name.startswith("COVERAGE_")
        }
        self.environ |= {
            "HOME": str(home),
            "XDG_DATA_HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "PACKTRACK_API_KEY": KEY,
            "PACKTRACK_BASE_URL": server.endpoint,
        }

    def run(
        self,
        *arguments: str,
        stdin: str | bytes | None = None,
        **environ: str | None,
    ) -> Result:
        """In this process. Retries come at once unless `arguments` say otherwise."""
        quick = () if "--backoff-initial" in arguments else ("--backoff-initial", "1ms")
        changes: dict[str, str | None] = {
            name: None for name in os.environ if name.startswith(("PACKTRACK_", "CAUSALITY_"))
        }
        changes |= self.environ | environ
        return CliRunner().invoke(
            main, [*quick, *arguments], input=stdin, env=changes, prog_name="packtrack-logger"
        )

    def event(self, *arguments: str, **environ: str | None) -> Result:
        """`run` with a complete event."""
        return self.run(*flags(EVENT), *arguments, **environ)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """In a process of its own."""
        environ = {**self.environ, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "causality_sdk.packtrack_logger", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            cwd=self.home,
            encoding="utf-8",
        )
