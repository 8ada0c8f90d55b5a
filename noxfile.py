"""The suite on every supported Python, as strictly as it goes: `nox`. On one: `nox -s tests-3.12`.

Each Python gets an environment of its own below .nox. What follows `--` goes to pytest:
`nox -s tests-3.13 -- tests/test_client.py`. A Python that is not found is a failure, not a skip.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "yes"
nox.options.stop_on_first_error = False


def _find_pyenv() -> None:
    """Puts what pyenv has installed on the path; its shims know only the versions it is told of."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = sorted(str(path) for path in root.glob("versions/3.*/bin"))
    os.environ["PATH"] = os.pathsep.join([*installed, os.environ.get("PATH", os.defpath)])


_find_pyenv()


@nox.session(python=["3.11", "3.12", "3.13", "3.14", "3.15"])
def tests(session: nox.Session) -> None:
    """Every warning is an error, in the development mode of Python, that of child processes too.

    With both, a file or a socket that nobody closed fails the test, and so does an exception that
    nobody could catch: in a thread, or in a destructor.
    """
    session.install("--quiet", "-e", ".[dev]")
    session.run(
        "python", "-W", "error", "-m", "pytest", *session.posargs, env={"PYTHONDEVMODE": "1"}
    )
