"""Carries requests over HTTP(S) with requests: one attempt, one total deadline, no redirects.

Neighbours: `deadline` has the connection classes that keep the deadline. Used by one thread at a
time. Invariant: the api key goes to the configured endpoint and nowhere else, and is in no message.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Literal

import requests
import urllib3

from causality_sdk.errors import TransportError, TransportReason
from causality_sdk.transport.deadline import Attempt, DeadlineAdapter
from causality_sdk.wire.base import Request, Response

CONNECT_SECONDS = 3.0  # of an attempt at most go into connecting
BODY_BYTES = 1024 * 1024  # of an answer are read; no acknowledgement is longer
_CHUNK = 64 * 1024


class HttpTransport:
    """One `requests.Session` to one endpoint.

    With a `session` of the caller's own its adapters are used as they are; the deadline is then
    requests' own, which starts anew with each read.
    """

    def __init__(
        self,
        endpoint: str,
        headers: Mapping[str, str],
        *,
        secret: str = "",
        compression: Literal["gzip"] | None = None,
        verify: bool | str = True,
        proxies: Mapping[str, str] | None = None,
        session: requests.Session | None = None,
    ) -> None:
        self._endpoint = endpoint
        # identity: what is not compressed cannot explode in memory
        self._headers = {"Accept-Encoding": "identity", **headers}
        self._secret = secret
        self._compression = compression
        self._verify = verify
        self._proxies = dict(proxies) if proxies is not None else None
        self._attempt = Attempt()  # of the request under way; one at a time
        self._owns_session = session is None
        self._session = session if session is not None else self._new_session()

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, DeadlineAdapter(self._attempt))
        return session

    def send(self, request: Request, timeout: float) -> Response:
        """The answer, whatever its status. Raises `TransportError`, and nothing else."""
        headers = {**self._headers, **request.headers}
        body = request.body
        if self._compression == "gzip" and body:
            body = gzip.compress(body, compresslevel=6, mtime=0)
            headers["Content-Encoding"] = "gzip"
        self._attempt.begin(time.monotonic() + timeout)
        try:
            response = self._session.request(
                request.method,
                self._endpoint + request.path,
                data=body or None,
                headers=headers,
                timeout=(min(CONNECT_SECONDS, timeout), timeout),
                allow_redirects=False,
                stream=True,
                verify=self._verify,
                proxies=self._proxies,
            )
            try:
                content, truncated = _read(response)
            finally:
                response.close()
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as e:
            raise self._error(e, timeout) from e
        return Response(
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=content,
            truncated=truncated,
        )

    def close(self) -> None:
        """Closes the connections. A session of the caller's own is the caller's to close."""
        if self._owns_session:
            self._session.close()

    def _error(self, error: Exception, timeout: float) -> TransportError:
        reason = classify(error)
        stale = (
            reason == "closed"
            and self._owns_session
            and not self._attempt.connected
            and not self._attempt.received
        )
        host = self._endpoint.split("://", 1)[-1]
        message = _WORDS[reason].format(host=host, timeout=timeout)
        if reason in ("tls", "proxy", "protocol", "other"):
            detail = str(_root(error))
            if self._secret:
                detail = detail.replace(self._secret, "***")
            message += f" ({type(_root(error)).__name__}: {detail[:300]})"
        return TransportError(message, reason=reason, stale=stale)


_WORDS: dict[TransportReason, str] = {
    "dns": "the name in {host} cannot be looked up; check endpoint and the machine's DNS",
    "refused": "{host} refuses the connection; nothing listens there",
    "unreachable": "{host} cannot be reached; the machine may be offline",
    "tls": "TLS with {host} failed; check its certificate, the clock, and verify=",
    "timeout": "{host} did not answer within {timeout:g} s",
    "closed": "{host} closed the connection before its answer was complete",
    "proxy": "the proxy on the way to {host} failed; check proxies= and the environment",
    "protocol": "{host} did not answer in HTTP",
    "other": "the request to {host} failed",
}


def classify(error: BaseException) -> TransportReason:
    """Which kind of failure lies at the bottom of what requests and urllib3 raised."""
    chain = list(_chain(error))

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if has(urllib3.exceptions.ProxyError, requests.exceptions.ProxyError):
        return "proxy"
    if has(socket.gaierror, urllib3.exceptions.NameResolutionError):
        return "dns"
    if has(ConnectionRefusedError):
        return "refused"
    if has(TimeoutError, urllib3.exceptions.TimeoutError, requests.exceptions.Timeout):
        return "timeout"
    if has(ConnectionError, urllib3.exceptions.IncompleteRead, ssl.SSLEOFError) or (
        _says(chain, "RemoteDisconnected")
    ):
        return "closed"
    if has(ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError):
        return "tls"
    if _says(chain, "BadStatusLine", "LineTooLong", "HTTPException", "InvalidHeader"):
        return "protocol"
    if has(urllib3.exceptions.NewConnectionError) or any(
        isinstance(link, OSError) and link.errno in _UNREACHABLE for link in chain
    ):
        return "unreachable"
    if has(urllib3.exceptions.ProtocolError):
        return "protocol"
    return "other"


def _unreachable_numbers() -> frozenset[int]:
    import errno

    names = ("ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EHOSTDOWN", "EADDRNOTAVAIL")
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


_UNREACHABLE = _unreachable_numbers()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all it was made from: causes, contexts, and exceptions among the arguments."""
    todo, seen = [error], set()
    while todo:
        link = todo.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        inner = (link.__cause__, link.__context__, getattr(link, "reason", None), *link.args)
        todo.extend(deeper for deeper in inner if isinstance(deeper, BaseException))


def _says(chain: list[BaseException], *names: str) -> bool:
    return any(kind.__name__ in names for link in chain for kind in type(link).__mro__)


def _root(error: BaseException) -> BaseException:
    *_, last = _chain(error)
    return last


def _read(response: requests.Response) -> tuple[bytes, bool]:
    """The body as it came, up to `BODY_BYTES`, and whether there was more."""
    chunks: list[bytes] = []
    size = 0
    while size <= BODY_BYTES:
        chunk = response.raw.read(_CHUNK, decode_content=False)
        if not chunk:
            return b"".join(chunks), False
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)[:BODY_BYTES], True
