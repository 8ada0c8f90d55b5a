"""The demo's hold on its child process: start it, tell it, hear from it, kill it.

Neighbours: `demo` gives the orders, `_demo_child` runs over there. Invariant: the child sees none
of the user's `CAUSALITY_*` variables, and is gone when the `with` block is left, however that is.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypedDict

import click

from causality_sdk.cli._demo_plan import LOG
from causality_sdk.config import ENV_PREFIX

IS_CHILD = "_CAUSALITY_DEMO_CHILD"
"""Set in the environment of the child."""
PATIENCE = 60.0  # seconds without a word; then something is wrong


class Message(TypedDict):
    """What the child says. `pending` is not in a progress message."""

    kind: str
    line: int
    pending: int


class Child:
    """One run of the child, in `directory`. Its log is appended to a file there."""

    def __init__(self, directory: Path, options: dict[str, Any]) -> None:
        self._log = directory / LOG
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                _command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=directory,  # -m puts it first on the path; a module of the user's must not win
                env=child_environment(os.environ) | {IS_CHILD: "1"},
                encoding="utf-8",
                **_not_our_ctrl_c(),
            )
        self._heard: SimpleQueue[Message | None] = SimpleQueue()  # None: it says no more
        threading.Thread(target=self._listen, name="demo-child", daemon=True).start()
        self.tell(json.dumps(options))

    def tell(self, command: str) -> None:
        """Gives an order. Returns at once."""
        assert self._process.stdin is not None  # noqa: S101 (PIPE)
        # A child that is gone is noticed, and its reason told, by whoever waits for its answer.
        with contextlib.suppress(OSError):
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()

    def wait_for(
        self, kind: str, progress: Callable[[int], object] = lambda _line: None, line: int = 0
    ) -> Message:
        """Waits for a message of this kind about `line` or a later one.

        `progress` is called with every line heard of. Raises `ClickException` when the child ends
        or keeps silent instead.
        """
        while True:
            try:
                message = self._heard.get(timeout=PATIENCE)
            except Empty:
                raise click.ClickException(
                    f"the tracking process said nothing for {PATIENCE:g} s"
                ) from None
            if message is None:
                self._process.wait()
                raise click.ClickException(f"the tracking process failed: {self._last_words()}")
            progress(message["line"])
            if message["kind"] == kind and message["line"] >= line:
                return message

    def kill(self) -> None:
        """SIGKILL, or what Windows has for it: the child has no chance to do anything more."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Lets it finish: the client is closed, the process exits. Raises `ClickException`."""
        assert self._process.stdin is not None  # noqa: S101 (PIPE)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise click.ClickException("the tracking process did not end") from None
        if code != 0:
            raise click.ClickException(f"the tracking process failed: {self._last_words()}")

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not sent to it, never will be
                    stream.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 (PIPE)
        # A line may be cut short by the kill; a stream may be closed while it is read.
        with contextlib.suppress(ValueError, OSError):
            for line in self._process.stdout:
                self._heard.put(json.loads(line))
        self._heard.put(None)

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"


def _command() -> list[str]:
    """A frozen program has no interpreter to run a module: it starts itself, as `IS_CHILD` says."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "demo"]
    return [sys.executable, "-m", "causality_sdk.cli._demo_child"]


def child_environment(environ: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """`environ` without the user's options and proxies, and with this process's module path."""
    kept = {name: value for name, value in environ.items() if not name.startswith(ENV_PREFIX)}
    # The child runs elsewhere, and finds its modules in the same order as we do.
    kept["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    kept["NO_PROXY"] = kept["no_proxy"] = "127.0.0.1"
    return kept


def _not_our_ctrl_c() -> dict[str, Any]:
    """A Ctrl-C at the terminal is for us; we then end the child."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
