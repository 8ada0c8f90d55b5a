"""A service that tracks from many threads and closes its client when the interpreter exits.

Run it as it stands, or with CAUSALITY_ENDPOINT and CAUSALITY_API_KEY set to use a server of yours.
"""

from __future__ import annotations

import atexit
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from _server import server

from causality_sdk import Client, exit_on_sigterm

# atexit runs what was registered last first: the client closes before the server goes away.
surroundings = ExitStack()
options, collector = surroundings.enter_context(server())
atexit.register(surroundings.close)

client = Client(**options, app_id="billing", batch_size=20)


def shut_down() -> None:
    """Sends for 5 seconds at most; what is left then is on disk, for the next start."""
    client.close(timeout=5)
    stats = client.stats()
    print(f"closed: {stats.acknowledged} of {stats.tracked} events delivered, {stats.pending} wait")


atexit.register(shut_down)
# Without this, SIGTERM (systemd, Docker, Kubernetes) would end the process and skip atexit.
exit_on_sigterm()


def charge(order: int) -> None:
    """One request of the service. track() commits to disk and never waits for the network."""
    client.track("order_charged", {"order_id": f"A-{order}", "total_cents": 100 * order})


with ThreadPoolExecutor(max_workers=4) as workers:
    list(workers.map(charge, range(1, 21)))
print("20 requests served, each event committed to disk")

if collector is not None and collector.wait_for(20):
    print("the background thread has delivered a first batch of 20")

for order in range(21, 24):
    charge(order)
print("3 more events are tracked, and the program ends")
