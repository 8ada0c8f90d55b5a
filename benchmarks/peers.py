"""The peers, each in a virtual environment of its own, with pinned versions.

An environment is made once and kept. A peer that cannot be installed is said to be missing; the
others are measured without it.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import platformdirs

DEFAULT = Path(platformdirs.user_cache_dir("causality-sdk-benchmarks"))


@dataclass(frozen=True)
class Peer:
    """A library: what pip is told, and which of our modules drives it."""

    requirement: str
    module: str
    subjects: tuple[str, ...]


PEERS = [
    Peer(
        "persist-queue==1.1.0",
        "benchmarks.subjects.queues",
        ("persist-queue", "persist-queue-ack"),
    ),
    Peer("litequeue==0.9", "benchmarks.subjects.queues", ("litequeue",)),
    Peer("diskcache==5.6.3", "benchmarks.subjects.queues", ("diskcache",)),
    Peer("huey==3.5.4", "benchmarks.subjects.queues", ("huey",)),
    Peer("segment-analytics-python==2.4.0", "benchmarks.subjects.trackers", ("segment",)),
    Peer("rudder-sdk-python==2.1.9", "benchmarks.subjects.trackers", ("rudderstack",)),
    Peer("posthog==7.91.1", "benchmarks.subjects.trackers", ("posthog",)),
    Peer("amplitude-analytics==1.3.0", "benchmarks.subjects.trackers", ("amplitude",)),
    Peer(
        "snowplow-tracker==1.1.0",
        "benchmarks.subjects.trackers",
        ("snowplow", "snowplow, 10 a batch"),
    ),
    Peer("mixpanel==5.4.1", "benchmarks.subjects.trackers", ("mixpanel",)),
]


def python_of(peer: Peer, directory: Path) -> str:
    """The interpreter of the peer's environment, which is made if it is not there.

    Raises `subprocess.CalledProcessError` with pip's words where it cannot be installed.
    """
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    home = directory / f"{peer.requirement.replace('==', '-')}-py{minor}"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = home / "complete"
    if not done.exists():
        venv.create(home, clear=True, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--no-input", peer.requirement],
            check=True,
            capture_output=True,
            text=True,
        )
        done.touch()
    return str(python)


def install(directory: Path) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Subject to its interpreter and module; and what is missing, with the reason."""
    ready: dict[str, tuple[str, str]] = {}
    missing: dict[str, str] = {}
    for peer in PEERS:
        try:
            python = python_of(peer, directory)
        except (subprocess.CalledProcessError, OSError) as error:
            words = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            missing[peer.requirement] = words[-1] if words else "pip gave no reason"
            continue
        ready |= dict.fromkeys(peer.subjects, (python, peer.module))
    return ready, missing
