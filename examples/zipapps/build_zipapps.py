"""Builds both commands as files that run by themselves: `causality.pyz` and `packtrack-logger.pyz`.

    python examples/zipapps/build_zipapps.py            into dist/
    python examples/zipapps/build_zipapps.py DIRECTORY  into another one

For a machine where nothing may be installed. Each file holds the package and all it depends on; it
needs a Python of the same minor version and platform as the one that built it, since orjson is
compiled. At its first run it unpacks itself into ~/.shiv, or into SHIV_ROOT: a compiled module
cannot be imported out of a zip. Needs shiv, which the extra `dev` has, and pip.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COMMANDS = ("causality", "packtrack-logger")

# Runs before the command. Without it another Python would only say that it cannot import orjson.
PREAMBLE = """
import sys
if sys.version_info[:2] != {version}:
    sys.exit("this file was built for Python {shown}; run it with that, or build it again")
"""


def build(directory: Path) -> list[Path]:
    """Writes the files into `directory`; raises `CalledProcessError` where a step fails."""
    directory.mkdir(parents=True, exist_ok=True)
    built = []
    with tempfile.TemporaryDirectory(prefix="zipapps-") as scratch:
        site = Path(scratch) / "site-packages"
        preamble = Path(scratch) / "preamble.py"
        version = sys.version_info[:2]
        shown = ".".join(map(str, version))
        preamble.write_text(PREAMBLE.format(version=tuple(version), shown=shown), encoding="utf-8")
        run("pip", "install", "--quiet", "--no-compile", "--target", str(site), str(ROOT))
        for command in COMMANDS:
            target = directory / f"{command}.pyz"
            run(
                "shiv",
                "--site-packages",
                str(site),
                "--console-script",
                command,
                "--output-file",
                str(target),
                "--python",
                "/usr/bin/env python3",
                "--preamble",
                str(preamble),
                "--extend-pythonpath",  # `causality demo` starts processes of its own
                "--reproducible",
                "--compressed",
            )
            built.append(target)
    return built


def run(module: str, *arguments: str) -> None:
    """`python -m module arguments`, with this Python: what it builds is for this one."""
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def main(arguments: list[str]) -> int:
    """Gives the exit code."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    for path in build(Path(arguments[0]) if arguments else ROOT / "dist"):
        sys.stdout.write(f"{path}  {path.stat().st_size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
