"""For a program that contains the command line: its commands, and the sample of `demo`."""

from pathlib import Path

import causality_sdk.cli
from causality_sdk._pyinstaller import submodules

hiddenimports = submodules("causality_sdk.cli")
datas = [(str(Path(causality_sdk.cli.__file__).parent / "*.gz"), "causality_sdk/cli")]
# The help of the options is read from the source of `Config`.
module_collection_mode = {"causality_sdk.config": "pyz+py"}
