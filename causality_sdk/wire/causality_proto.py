"""The open-source Causality gateway: the same path, read by a strict protobuf-JSON parser.

One key that it does not know refuses the whole batch, so rows are decoded and made into its
messages by `_proto_payload`. Neighbours: `results` reads its answers, `device` knows the machine.
Invariant: one message for each row, and every value of the row is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import orjson

from causality_sdk.wire._proto_payload import is_canonical, message
from causality_sdk.wire.base import Request, Response, Verdict
from causality_sdk.wire.device import Machine, this_machine
from causality_sdk.wire.results import read_results

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


class CausalityProtoWire:
    """Strict protobuf-JSON, as the Causality gateway takes it. It does not read gzip.

    `device_id` is that of events without one; a client gives the installation id of its queue
    directory. Without it, the object makes one that is its own. `machine` is where the events are
    made, if not here.
    """

    name = "causality-proto"
    key_header = "X-API-Key"
    health_path = "/health"

    def __init__(self, device_id: str = "", *, machine: Machine | None = None) -> None:
        # Never empty: the gateway would refuse the whole batch.
        self._device_id = device_id or str(uuid4())
        self._machine = this_machine() if machine is None else machine

    def frame(self, payloads: Sequence[bytes]) -> Request:
        """One message for each row. A row that is no event goes as it is, to be refused alone."""
        messages = b",".join(self._framed(payload) for payload in payloads)
        return Request(
            path="/v1/events/batch", headers=_HEADERS, body=b'{"events":[' + messages + b"]}"
        )

    def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
        """Per-event results where there are any, else the whole batch by its counts.

        Protobuf leaves zeros out: an empty object says that nothing was accepted.
        """
        return read_results(response, count, counted=True)

    def _framed(self, payload: bytes) -> bytes:
        try:
            event = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return payload
        if not is_canonical(event):
            return payload
        try:
            return orjson.dumps(message(event, self._device_id, self._machine))
        except orjson.JSONEncodeError:  # deeper than it writes, though not than it reads
            return payload
