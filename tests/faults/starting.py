"""Starts `programs.construct` where it may not work, and tells whether anything was touched."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from faults.children import PRODUCER, environment

CONSTRUCT = PRODUCER.with_name("construct.py")
SECONDS = 20.0  # a construction that takes longer hangs


def construct(**spec: Any) -> dict[str, Any]:
    """`error`, `text`, `key` and `queue`; an error of "hangs" or "crashed" if it comes to that."""
    try:
        done = subprocess.run(
            [sys.executable, str(CONSTRUCT), json.dumps(spec)],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": "hangs", "text": "", "key": None}
    if done.returncode != 0:
        return {"error": "crashed", "text": done.stderr[-300:], "key": None}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fingerprint(root: Path) -> dict[str, str]:
    """Every file below `root` but lock files: its kind, its mode, its bytes."""
    found = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        if path.name.endswith(".lock"):
            continue
        text = f"{stat.filemode(info.st_mode)} "
        if stat.S_ISREG(info.st_mode):
            text += hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            text += str(path.readlink())
        found[str(path.relative_to(root))] = text
    return found
