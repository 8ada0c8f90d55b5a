"""A web application that tracks an event in each request, for gunicorn and uWSGI.

The client is made as the module is imported: once in each worker, or once in the master under
--preload. Both are right. A forked worker takes a queue file of its own at its first `track()`.

api_key, endpoint and queue_path come from CAUSALITY_API_KEY, CAUSALITY_ENDPOINT and
CAUSALITY_QUEUE_PATH.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from causality_sdk import Client

client = Client(app_id="web")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers with the key of the event, which is on disk by then."""
    key = client.track("page_viewed", {"path": environ["PATH_INFO"]})
    body = (key or "").encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
