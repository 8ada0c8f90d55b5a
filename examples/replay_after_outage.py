"""A process dies and leaves a backlog in its queue file; a new one opens the file and drains it.

Run it as it stands, or with CAUSALITY_ENDPOINT and CAUSALITY_API_KEY set to use a server of yours.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any

from _server import server

from causality_sdk import Client, Stats

APP_ID = "orders"


def doomed(*, flush: bool) -> None:
    """The process that will be killed. Its options come from the environment.

    Prints the key of each event that is on disk, then waits for its end.
    """
    # stdout is for the keys; a program without logging gets warnings on stderr.
    logging.getLogger("causality_sdk").addHandler(logging.NullHandler())
    client = Client(start=False, max_retries=0)
    for number in range(1, 4):
        print(client.track("order_placed", {"number": number}))
    if flush:
        client.flush(timeout=10)
    for number in range(4, 8):
        print(client.track("order_placed", {"number": number}))
    print("ready", flush=True)
    sys.stdin.read()


def run_and_kill(options: dict[str, Any], *, flush: bool) -> list[str]:
    """Runs `doomed` in a process of its own, kills it, and gives the keys it had printed."""
    environ = {f"CAUSALITY_{name.upper()}": str(value) for name, value in options.items()}
    with subprocess.Popen(
        [sys.executable, __file__, "doomed-flush" if flush else "doomed"],
        env={**os.environ, **environ, "CAUSALITY_APP_ID": APP_ID},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        keys = []
        for line in process.stdout or ():
            if line.strip() == "ready":
                break
            keys.append(line.strip())
        else:
            raise SystemExit("the process has ended by itself")
        process.kill()
    return keys


def show(moment: str, stats: Stats) -> None:
    """The counters belong to the file: they outlive the process that made them."""
    print(
        f"{moment}: tracked {stats.tracked}, acknowledged {stats.acknowledged},"
        f" pending {stats.pending}"
    )


def main() -> None:
    """Kills a process with a backlog and delivers what it left."""
    with server() as (options, collector):
        if collector is not None:
            # The worst moment: the server keeps the first batch, and its answer gets lost.
            collector.drop_next(store=True)
        keys = run_and_kill(options, flush=collector is not None)
        print(f"a process tracked {len(keys)} events and was killed")

        with Client(**options, app_id=APP_ID, start=False) as client:
            show("before", client.stats())
            report = client.flush(timeout=10)
            report.raise_for_error()
            show("after ", client.stats())

        if collector is not None:
            print(f"the server received {collector.received} events over both processes")
            print(f"it knew {collector.duplicates} by their key and kept {collector.count}")
            print(f"keys unchanged: {collector.keys == keys}")


if __name__ == "__main__":
    if sys.argv[1:]:
        doomed(flush=sys.argv[1] == "doomed-flush")
    else:
        main()
