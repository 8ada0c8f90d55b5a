"""Carries requests over HTTP(S) with requests: one attempt, one total deadline, no redirects.

Neighbours: `deadline` has the connection classes that keep the deadline, `compression` learns
whether the server reads gzip, `failure` makes the errors. Used by one thread at a time.
Invariant: the api key goes to the configured endpoint and nowhere else, and is in no message.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  the first look-up of a name would load it, during a fork perhaps
import time
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Literal
from urllib.parse import urlsplit

import requests
from requests.structures import CaseInsensitiveDict
from requests.utils import select_proxy
from urllib3.exceptions import IncompleteRead, ProtocolError

from causality_sdk.errors import TransportError
from causality_sdk.transport.compression import Compression
from causality_sdk.transport.deadline import CONNECT_SECONDS, Attempt, DeadlineAdapter, connect
from causality_sdk.transport.failure import explain
from causality_sdk.wire.base import Request, Response

BODY_BYTES = 1024 * 1024  # of an answer are read; no acknowledgement is longer
_CHUNK = 64 * 1024
_SECRET_LENGTH = 8  # what is shorter is no secret, and would be found in words that are none


class HttpTransport:
    """One `requests.Session` to one endpoint.

    A proxy is taken from `proxies` or the environment, as requests does; a `.netrc` file, cookies
    and redirects are ignored. With a `session` of the caller's own all of that is as that session
    has it, and so is `verify` as long as it is True here. Its adapters are used as they are: the
    deadline is then requests' own, which starts anew with each read, and the body of a redirect
    is read without a limit.
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
        self.endpoint = endpoint
        self._headers = CaseInsensitiveDict(headers)
        # identity: what is not compressed cannot explode in memory
        self._headers["Accept-Encoding"] = "identity"
        self._secret = secret
        self._compression = Compression(compression)
        self._proxies = dict(proxies or {})
        self._attempt = Attempt()  # of the request under way; one at a time
        self._owns_session = session is None
        self._session = session if session is not None else _Session(self._attempt)
        # Given with a request, True would win over the CA bundle of a session of the caller's.
        self._verify = None if verify is True and not self._owns_session else verify

    def send(self, request: Request, timeout: float) -> Response:
        """The answer, whatever its status. Raises `TransportError`, and nothing else."""
        self._attempt.begin(time.monotonic() + timeout)
        try:
            return self._exchange(request)
        except Exception as error:  # noqa: BLE001 (the protocol allows one kind of error)
            failure = error
        reused = self._owns_session and not self._attempt.connected
        stale = reused and not self._attempt.received
        # Outside of the handler, else what happened would come along as the context.
        raise self._explained(failure, timeout, stale=stale)

    @property
    def can_probe(self) -> bool:
        """Whether `reachable()` means something: not with a proxy or a session of the caller's."""
        return self._owns_session and self._proxy() is None

    def reachable(self, timeout: float) -> None:
        """Makes a TCP connection to the server and closes it; at most `timeout` seconds.

        Cheaper than a request: nothing is sent. Raises `TransportError` where the request would
        fail too; where `can_probe` is false nothing is known, and it returns at once.
        """
        if not self.can_probe:
            return
        parts = urlsplit(self.endpoint)
        port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
        # Of its own: a connection that is open for requests is not touched.
        attempt = Attempt()
        attempt.begin(time.monotonic() + timeout)
        try:
            connect(parts.hostname or "", port, attempt).close()
        except Exception as error:  # noqa: BLE001 (as in send)
            failure = error
        else:
            return
        raise self._explained(failure, timeout, stale=False)

    def close(self) -> None:
        """Closes the connections. A session of the caller's own is the caller's to close."""
        if self._owns_session:
            self._session.close()
            self._attempt.hang_up()

    def _exchange(self, request: Request) -> Response:
        headers = self._headers.copy()
        headers.update(request.headers)
        body, coding = self._compression.encode(request.body)
        headers.update(coding)
        response = self._session.request(
            request.method,
            self.endpoint + request.path,
            data=body or None,
            headers=headers,
            # Where the deadline is kept, it is shorter than these. Zero is an error of its own.
            timeout=(min(CONNECT_SECONDS, self._attempt.left()), self._attempt.left()),
            allow_redirects=False,
            stream=True,
            verify=self._verify,
            proxies=dict(self._proxies),  # requests adds those of the environment to it
        )
        try:
            if response.status_code < 200:
                # The real answer is still to come. Read from a connection that is used again, it
                # would acknowledge the next batch.
                raise ProtocolError(f"an interim answer, {response.status_code}, was not followed")
            content, truncated = _read(response)
        finally:
            response.close()
        if truncated and self._owns_session:
            self._attempt.hang_up()  # what is left of the answer would be that to the next request
        self._compression.answered(response.status_code, body=bool(body))
        return Response(
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=self._without_secret(content),
            truncated=truncated,
        )

    def _without_secret(self, content: bytes) -> bytes:
        """Servers quote the key they refuse, and an answer ends up in errors and logs."""
        if len(self._secret) < _SECRET_LENGTH:
            return content
        return content.replace(self._secret.encode(), b"***")

    def _proxy(self) -> str | None:
        """The proxy that a request would go through."""
        url = self.endpoint + "/"
        settings = self._session.merge_environment_settings(
            url, dict(self._proxies), None, None, None
        )
        return select_proxy(url, settings["proxies"])

    def _explained(self, failure: Exception, timeout: float, *, stale: bool) -> TransportError:
        host = self.endpoint.split("://", 1)[-1]
        try:
            proxy = self._proxy()
        except Exception:  # noqa: BLE001 - of a session of the caller's; an error is being told
            proxy = None
        return explain(
            failure,
            host=host,
            timeout=timeout,
            secret=self._secret,
            proxy=proxy,
            stale=stale,
        )


class _Session(requests.Session):
    """Ours: keeps the deadline, and does nothing of its own accord."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__()
        self.auth = _keep_headers
        # Cookies serve nothing here, and a server could make them grow for ever.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            self.mount(scheme, DeadlineAdapter(attempt))

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """None: to prepare a redirect that nobody follows, requests reads its body, to the end."""
        return None


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An authentication that does nothing. Without one, requests takes what `.netrc` has for the
    host and puts it in the place of an Authorization header that was configured.
    """
    return request


def _read(response: requests.Response) -> tuple[bytes, bool]:
    """The body as it came, up to `BODY_BYTES`, and whether there was more."""
    chunks: list[bytes] = []
    size = 0
    while size <= BODY_BYTES:
        chunk = response.raw.read(_CHUNK, decode_content=False)
        if not chunk:
            _check_complete(response, size)
            return b"".join(chunks), False
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)[:BODY_BYTES], True


def _check_complete(response: requests.Response, size: int) -> None:
    """urllib3 before 2.0 takes a body for complete that is shorter than it was said to be."""
    left = getattr(response.raw, "length_remaining", None)
    if left:
        raise IncompleteRead(size, left)
