"""A wire and a transport by hand: one JSON event a line, over the standard library."""

import http.client
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import urlsplit

from causality_sdk import TransportError
from causality_sdk.wire.base import ACCEPTED, RETRY, Request, Response, Verdict


class LinesWire:
    name, key_header, health_path = "lines", "X-Key", "/health"

    def frame(self, payloads: Sequence[bytes]) -> Request:
        return Request("/v1/events/batch", b"".join(payload + b"\n" for payload in payloads))

    def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
        stored = response.status == 200 and response.body == b"stored %d" % count
        return [ACCEPTED if stored and not response.truncated else RETRY] * count


class PlainTransport:
    def __init__(self, endpoint: str, key: str = "") -> None:
        self._host, self._headers = urlsplit(endpoint).netloc, {"X-Key": key}

    def send(self, request: Request, timeout: float) -> Response:
        headers = {**self._headers, **request.headers}
        with closing(http.client.HTTPConnection(self._host, timeout=timeout)) as link:
            try:
                link.request(request.method, request.path, request.body, headers)
                answer = link.getresponse()
                names = {name.lower(): value for name, value in answer.getheaders()}
                return Response(answer.status, names, answer.read(1 << 20))
            except (OSError, http.client.HTTPException) as error:
                raise TransportError(f"{self._host}: {error!r}", reason="other") from error

    def close(self) -> None:
        """Each request has a connection of its own: there is nothing to let go of."""
