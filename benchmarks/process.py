"""Both ends of a measured process: one request a line, one answer a line, as JSON.

The parent asks its children in turn, so that what the machine does meanwhile hits all alike.
Imports nothing that is not in the standard library: peers run it in environments of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Broken(Exception):
    """The process could not do what it was asked; the message is its own."""


class Process:
    """A child that runs one module of `benchmarks.subjects`, or the server."""

    def __init__(self, module: str, *arguments: str, python: str = sys.executable) -> None:
        self.name = " ".join([module.rpartition(".")[2], *arguments])
        self._child = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # peers say much there; what fails is told by the answer
            text=True,
            cwd=ROOT,
            env={**_without_options(os.environ), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._child.pid

    def ask(self, what: str, **arguments: Any) -> Any:
        """Has the child call its function `what`; gives the result. Raises `Broken`."""
        self.begin(what, **arguments)
        return self.result()

    def begin(self, what: str, **arguments: Any) -> None:
        """Has the child begin; `result` waits for it."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps([what, arguments]) + "\n")
            self._child.stdin.flush()
        except OSError as error:
            raise Broken(f"{self.name} is gone") from error

    def result(self) -> Any:
        """What the function that was begun gave. Raises `Broken`."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise Broken(f"{self.name} ended without an answer")
        answer = json.loads(line)
        if "error" in answer:
            raise Broken(f"{self.name}: {answer['error']}")
        return answer["result"]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_exception: object) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.close()
            self._child.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()


def serve(functions: dict[str, Callable[..., Any]]) -> None:
    """The child's end: answers until its parent closes the line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a peer that prints must not speak in our name
    for line in sys.stdin:
        what, arguments = json.loads(line)
        try:
            answer = {"result": functions[what](**arguments)}
        except Exception as error:  # noqa: BLE001 - the parent says it, and goes on with the others
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def written() -> int:
    """Bytes that this process handed to write() so far. Raises `OSError` where nobody counts."""
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise OSError("the kernel does not count what is written")


def _without_options(environment: Any) -> dict[str, str]:
    """An environment in which no option of a client is set."""
    return {name: value for name, value in environment.items() if "CAUSALITY_" not in name}
