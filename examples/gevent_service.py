"""A service under gevent: greenlets track, and the client's background thread is one of them.

Needs gevent. Run it as it stands, or with CAUSALITY_ENDPOINT and CAUSALITY_API_KEY set to use a
server of yours.
"""

from __future__ import annotations

# First, before anything else is imported.
from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402
from _server import server  # noqa: E402

from causality_sdk import Client  # noqa: E402

with server() as (options, _), Client(**options, app_id="billing", batch_size=20) as client:

    def charge(order: int) -> None:
        """One request of the service."""
        client.track("order_charged", {"order_id": f"A-{order}", "total_cents": 100 * order})

    requests = [gevent.spawn(charge, order) for order in range(1, 41)]
    gevent.joinall(requests, raise_error=True)
    print("40 greenlets have tracked, each event committed to disk")

    # The greenlet waits; the others go on.
    report = client.flush(timeout=10)
    print(f"flushed, {report.remaining} wait")
