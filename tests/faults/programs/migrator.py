"""A producer of a later release: its schema is one step further.

Takes what `producer.py` takes; or `--judge DIRECTORY`, and prints the verdict on what is there.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from sqlite_utils import Database, Migrations

from causality_sdk import header, schema
from faults.children import Place
from faults.programs.producer import DEFAULTS, main


def load_later() -> Migrations:
    """The migrations of this release, and one more that rewrites every row."""
    migrations = RELEASED()

    @migrations()
    def later(database: Database) -> None:
        database.execute("CREATE TABLE later (id INTEGER PRIMARY KEY, note TEXT)")
        database.execute("INSERT INTO later (note) SELECT hex(payload) FROM queue")
        database.execute("UPDATE queue SET payload = CAST(payload AS BLOB)")

    return migrations


RELEASED = schema.load_migrations
schema.load_migrations = load_later
header.VERSION += 1

if __name__ == "__main__":
    if sys.argv[1] == "--judge":
        print(json.dumps(asdict(Place(Path(sys.argv[2])).judge())))  # noqa: T201
    else:
        main({**DEFAULTS, **json.loads(sys.argv[1])})
