"""A service on asyncio: many tasks track, the event loop never waits for the disk or the network.

Run it as it stands, or with CAUSALITY_ENDPOINT and CAUSALITY_API_KEY set to use a server of yours.
"""

from __future__ import annotations

import asyncio
from typing import Any

from _server import server

from causality_sdk import AsyncClient, Event


async def charge(client: AsyncClient, order: int) -> None:
    """One request of the service. What concurrent requests track shares a commit."""
    await client.track("order_charged", {"order_id": f"A-{order}", "total_cents": 100 * order})


async def main(options: dict[str, Any]) -> None:
    """Opens the client, serves, and closes it with what is left."""
    client = AsyncClient(**options, app_id="billing", close_timeout=10)
    async with client:
        await asyncio.gather(*[charge(client, order) for order in range(1, 101)])
        print("100 requests served, each event committed to disk")

        await client.track_many([Event("report_made", {"page": page}) for page in range(20)])
        report = await client.flush(timeout=10)
        print(f"flushed, {report.remaining} wait")

        await client.track("shift_ended")
    stats = await client.stats()
    print(f"closed: {stats.acknowledged} of {stats.tracked} events delivered, {stats.pending} wait")


with server() as (options, _):
    asyncio.run(main(options))
