"""A job of cron: it tracks, sends for up to ten seconds, and leaves the rest to the next run.

15 3 * * *  cd /srv/shop && set -a && . ./nightly.env && python3 nightly.py

cron sets hardly a variable. nightly.env, which its user alone may read, has those of the job:

CAUSALITY_ENDPOINT=https://events.example.com
CAUSALITY_API_KEY=...
CAUSALITY_QUEUE_PATH=/var/lib/shop/queue.db
"""

from __future__ import annotations

import sys

from causality_sdk import Client

# start=False: no thread. The program is over soon, and flush() is all the sending it does.
with Client(app_id="nightly", start=False, close_timeout=0) as client:
    for table in ("orders", "invoices"):
        client.track("table_exported", {"table": table})
    report = client.flush(timeout=10)

print(f"{report.delivered} delivered, {report.remaining} wait for the next run")
# What waits is safe on disk, so a server that is away is no failure of the job.
sys.exit(0)
