"""The default wire: Causality, plain JSON.

`POST /v1/events/batch` with `{"events":[…]}`, the rows joined as they lie in the queue. Any 2xx
with a JSON or an empty body acknowledges the batch, unless the body itself says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from causality_sdk.wire.base import Request, Response, Verdict
from causality_sdk.wire.results import read_results

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


class CausalityWire:
    """Plain JSON, as the Causality server and those compatible with it take it."""

    name = "causality"
    key_header = "X-API-Key"
    health_path = "/health"

    def frame(self, payloads: Sequence[bytes]) -> Request:
        """The rows joined; nothing is decoded or encoded again."""
        return Request(
            path="/v1/events/batch",
            headers=_HEADERS,
            body=b'{"events":[' + b",".join(payloads) + b"]}",
        )

    def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
        """Per-event results where there are any, else the whole batch by its counts."""
        return read_results(response, count)
