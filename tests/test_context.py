"""What is collected once per process: complete, plain text, and made without the network."""

from __future__ import annotations

import json
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from causality_sdk._version import __version__
from causality_sdk.context import server_context


@pytest.fixture(autouse=True)
def _collected_anew() -> Iterator[None]:
    server_context.cache_clear()
    yield
    server_context.cache_clear()


def test_it_has_the_five_documented_parts_as_text() -> None:
    collected = server_context()
    assert list(collected) == ["hostname", "python_version", "sdk_version", "os", "arch"]
    assert all(isinstance(value, str) for value in collected.values())


def test_it_tells_the_truth_about_this_process() -> None:
    collected = server_context()
    assert collected["python_version"] == platform.python_version()
    assert collected["sdk_version"] == __version__
    assert collected["hostname"] == socket.gethostname()
    assert collected["arch"] == platform.machine()


def test_the_os_is_the_kernel_and_its_release() -> None:
    assert server_context()["os"].startswith(platform.system())
    assert re.fullmatch(r"\S+ \S+", server_context()["os"])


def test_it_is_collected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def hostname() -> str:
        calls.append(1)
        return "till-4"

    monkeypatch.setattr(socket, "gethostname", hostname)
    assert server_context()["hostname"] == server_context()["hostname"] == "till-4"
    assert len(calls) == 1


def test_a_machine_without_a_host_name_gives_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def hostname() -> str:
        raise OSError

    monkeypatch.setattr(socket, "gethostname", hostname)
    assert server_context()["hostname"] == ""


def test_a_host_name_that_is_not_utf_8_can_still_be_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "till-\udcff")
    assert server_context()["hostname"] == "till-?"
    json.dumps(server_context(), ensure_ascii=False).encode()


def test_nothing_looks_up_a_name_or_starts_a_process() -> None:
    """In a process of its own: here, `platform` may have cached what a process told it."""
    script = """
import sys
from causality_sdk.context import server_context
watched = ("socket.getaddrinfo", "socket.gethostby", "socket.connect", "subprocess.", "os.fork",
           "os.posix_spawn", "os.system")
sys.addaudithook(lambda event, _: print(event) if event.startswith(watched) else None)
server_context()
"""
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert result.stdout == ""
