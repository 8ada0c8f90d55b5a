"""Where the queue of an app lies when nobody says where.

Neighbour: `config`. Invariant: two apps never share a directory, and none leaves the user data
directory of the platform, whatever its name is.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from causality_sdk.errors import QueueError

# Names that Windows keeps for devices, alone or before a dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def default_queue_path(app_id: str) -> Path:
    """Where the queue of `app_id` lies when `queue_path` is not given.

    What a file name cannot hold on some platform is percent-encoded, so that two apps never
    share a directory and none leaves the user data directory. (Where the file system ignores the
    case of letters, so does this.)
    """
    import platformdirs  # 3 ms that a client with a queue_path of its own need not pay

    name = quote(app_id, safe=" ")
    if _DEVICE.match(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if name.strip(". ") == "" or name.endswith((".", " ")):
        name = name.replace(".", "%2E").replace(" ", "%20")
    try:
        directory = Path(platformdirs.user_data_dir("causality", appauthor=False))
    except RuntimeError:  # of newer releases; older ones leave a "~" in it
        directory = Path("~")
    if not directory.is_absolute():  # a container with a random uid
        raise QueueError(
            "there is no home directory to keep the queue in (HOME is not set and this user has no"
            " passwd entry); give queue_path, or set CAUSALITY_QUEUE_PATH"
        )
    return directory / name / "queue.db"
