"""Work done in child processes, each of which tracks: `python pools.py method queue endpoint`.

The client is made where most programs make it, at the top of the module; under spawn and
forkserver that is done once more in each child. Prints the keys that the children got.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from causality_sdk import Client

METHOD, QUEUE, ENDPOINT = sys.argv[1:]
OPTIONS: dict[str, Any] = {
    "api_key": "test-key",
    "endpoint": ENDPOINT,
    "app_id": "pools",
    "queue_path": Path(QUEUE),
    # Nothing is sent before the end of a process.
    "flush_interval": 3600,
    "batch_size": 1000,
    "close_timeout": 20,
}

client = Client(**OPTIONS)
others: list[Client] = []  # kept, so that only the end of the process ends them


def work(number: int) -> str:
    """Tracks with the module's client."""
    key = client.track("work", {"number": number})
    assert key is not None
    return key


def work_of_its_own(number: int) -> str:
    """Tracks with a client that nobody closes."""
    others.append(Client(**OPTIONS))
    key = others[-1].track("work", {"number": number})
    assert key is not None
    return key


def put(number: int, keys: multiprocessing.SimpleQueue[str]) -> None:
    """The work of a single process."""
    keys.put(work(number))
    keys.put(work_of_its_own(number))


def main() -> None:
    multiprocessing.set_start_method(METHOD)
    keys = [work(0)]
    results: multiprocessing.SimpleQueue[str] = multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=put, args=(1, results))
    process.start()
    keys += [results.get(), results.get()]
    process.join()
    assert process.exitcode == 0
    pool = multiprocessing.Pool(2)
    keys += pool.map(work, range(2, 8))
    pool.close()
    pool.join()
    with ProcessPoolExecutor(max_workers=2) as executor:
        keys += executor.map(work, range(8, 14))
    results.close()
    sys.stdout.write(json.dumps(keys))


if __name__ == "__main__":
    main()
