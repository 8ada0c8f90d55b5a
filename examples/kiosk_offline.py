"""A kiosk goes offline: its events wait on disk, and all of them arrive once the server is back.

Run it as it stands, or with CAUSALITY_ENDPOINT and CAUSALITY_API_KEY set to use a server of yours;
then unplug the network yourself.
"""

from __future__ import annotations

import logging
import sys
import threading

from _server import server

from causality_sdk import Client

# One line when an outage begins and one when it ends, whatever its length.
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="  log: %(message)s")


def main() -> None:
    """Tracks a little online, more offline, and waits for all of it to arrive."""
    failed = threading.Event()
    with (
        server() as (options, collector),
        Client(
            **options,
            app_id="kiosk-7",
            batch_size=1,  # every event is worth a request of its own
            backoff_initial=0.1,  # the defaults, 1 and 300 s, are too patient to watch
            backoff_max=1.0,
            on_error=lambda _error: failed.set(),
        ) as client,
    ):
        client.track("screen_view", {"screen": "welcome"})
        client.flush(timeout=10)
        print(f"online:  {client.stats().acknowledged} event delivered")

        if collector is not None:
            collector.down()
        for ticket in range(1, 6):
            client.track("ticket_sold", {"ticket": ticket})
        if collector is not None:
            failed.wait(timeout=10)
            print(f"offline: {client.stats().pending} events wait in the queue file")
            collector.up()
            print("the server is back; nobody calls flush()")
            collector.wait_for(6)
            tickets = [event["properties"].get("ticket") for event in collector.events[1:]]
            print(f"the server has {collector.count} events, tickets in order: {tickets}")

        report = client.flush(timeout=10)
        print(f"done:    {client.stats().acknowledged} delivered, {report.remaining} wait")


main()
