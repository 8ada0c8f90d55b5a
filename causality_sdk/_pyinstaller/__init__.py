"""Tells PyInstaller what a frozen program needs that no import statement names.

Found through the entry point `pyinstaller40`; the hooks beside this file are named for the module
that pulls them in. Nothing of the package imports it. Invariant: whatever module is imported by its
name, or file is read, is listed.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path


def hook_directories() -> list[str]:
    """Where the hooks are."""
    return [str(Path(__file__).parent)]


def submodules(package: str) -> list[str]:
    """All modules of a package, itself among them."""
    found = pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
    return [package, *(each.name for each in found)]
