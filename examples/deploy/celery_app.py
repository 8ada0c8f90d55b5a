"""A Celery application whose tasks track events: `celery -A celery_app worker`.

The client is made as the module is imported, in the parent of a prefork pool; each child takes a
queue file of its own at its first `track()`. api_key, endpoint and queue_path come from
CAUSALITY_API_KEY, CAUSALITY_ENDPOINT and CAUSALITY_QUEUE_PATH.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_shutdown

from causality_sdk import Client

app = Celery("orders", broker=os.environ.get("BROKER_URL", "redis://localhost"))
if app.conf.broker_url.startswith("filesystem:"):  # to try it without a broker
    folder = os.environ["BROKER_FOLDER"]
    app.conf.broker_transport_options = {
        "data_folder_in": folder,
        "data_folder_out": folder,
        "control_folder": folder,
        "polling_interval": 0.1,  # seconds
    }
app.conf.task_ignore_result = True

client = Client(app_id="orders")


@app.task
def charge(order_id: str) -> None:
    """The event is on disk when the task ends, and the task does not wait for its delivery."""
    client.track("order_charged", {"order_id": order_id})


@worker_process_shutdown.connect
def send_what_is_left(**_: Any) -> None:
    """A child of a prefork pool ends with os._exit(), which skips atexit hooks.

    Without this nothing is lost: what is left is on disk, and another process delivers it.
    """
    client.close()
