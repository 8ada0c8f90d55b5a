"""Makes one `TransportError` of whatever went wrong underneath: its kind, its words, its cause.

Pure. Neighbour: `http`, which catches. Invariant: neither the message nor the text of the causes
holds the api key or a proxy's password, and the causes hold no request: no body, no headers.
"""

from __future__ import annotations

import errno
import http.client
import re
import socket
import ssl
import traceback
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

import requests
import urllib3

from causality_sdk.errors import TransportError, TransportReason

_SECRET_CHARS = 3  # a shorter word is in too many that are no secret
DETAIL_CHARS = 300  # of the innermost error; a server's garbage must not fill a log

_WORDS: dict[TransportReason, str] = {
    "dns": "the name in {host} cannot be looked up; check endpoint and the machine's DNS",
    "refused": "{host} refuses the connection; check the port in endpoint, and the server",
    "unreachable": "{host} cannot be reached; check the machine's network and its firewall",
    "tls": "TLS with {host} failed; check its certificate, the clock, verify= and the port",
    "timeout": "{host} did not answer within {timeout:g} s; check the server and timeout=",
    "closed": "{host} closed the connection before its answer was complete; check its log",
    "proxy": "the proxy on the way to {host} failed; check proxies= and the environment",
    "protocol": "{host} did not answer in HTTP; check the scheme and the port in endpoint",
    "other": "the request to {host} failed; check endpoint and the options of the client",
}
_WITH_DETAIL = frozenset({"tls", "proxy", "protocol", "other"})


def _numbers(*names: str) -> frozenset[int]:
    # Windows has numbers of its own for what goes wrong with sockets.
    every = [name for plain in names for name in (plain, "WSA" + plain)]
    return frozenset(getattr(errno, name) for name in every if hasattr(errno, name))


_UNREACHABLE = _numbers("ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EHOSTDOWN", "EADDRNOTAVAIL")
_FORBIDDEN = _numbers("EACCES", "EPERM")  # by a firewall, when it happens while connecting
_CREDENTIALS = re.compile(r"//[^/@\s'\"]+@")  # of a URL, such as a proxy's


def explain(
    error: Exception,
    *,
    host: str,
    timeout: float,
    secret: str,
    proxy: str | None = None,
    stale: bool = False,
) -> TransportError:
    """The error to raise for `error`, with it as the cause where that gives no secret away.

    `proxy` is the URL of the proxy on the way, if any, with whatever secrets it holds. `stale` says
    that a reused connection gave no byte; it counts only if it was closed.
    """
    reason = classify(error)
    if reason == "other" and proxy is not None and _is_about_a_url(error):
        # The endpoint was checked when it was given, so it is the proxy's.
        message = (
            f"the URL of the proxy on the way to {host} cannot be read; check proxies= and the"
            " environment, and write / # ? @ and \\ in its user name and password as %2F %23 %3F"
            " %40 and %5C"
        )
        return TransportError(message, reason="proxy")
    message = _WORDS[reason].format(host=host, timeout=timeout)
    pieces = _credentials_of(proxy)
    if reason in _WITH_DETAIL:
        root = _root(error)
        detail = _masked(str(root), secret)
        if _shows(detail, pieces):
            detail = "***"
        message += f" ({type(root).__name__}: {detail[:DETAIL_CHARS]})"
    if reason == "tls" and "WRONG_VERSION_NUMBER" in str(_root(error)):
        message += "; or does it speak http://, without TLS?"
    result = TransportError(message, reason=reason, stale=stale and reason == "closed")
    if _is_expected(error):
        _forget_request(error)
    lines = traceback.format_exception(error)
    if not _tells(lines, secret) and not _shows("".join(lines), pieces):
        result.__cause__ = error
    return result


def _is_about_a_url(error: BaseException) -> bool:
    kinds = (urllib3.exceptions.LocationValueError, requests.exceptions.InvalidURL)
    return any(isinstance(link, kinds) for link in _chain(error))


def _credentials_of(proxy: str | None) -> frozenset[str]:
    """What may not be shown of a proxy's URL: its user name, its password, and parts of both.

    Written wrongly, they are cut at characters that mean something in a URL, and each part ends up
    where another thing is expected: in a host name, a port, a path.
    """
    if not proxy or "@" not in proxy:
        return frozenset()
    userinfo = proxy.split("://", 1)[-1].rpartition("@")[0]
    words = {userinfo, *userinfo.split(":", 1), *re.split(r"[/#?@:\\]", userinfo)}
    words |= {unquote(word) for word in words}
    return frozenset(word for word in words if len(word) >= _SECRET_CHARS)


def _shows(text: str, words: Iterable[str]) -> bool:
    lowered = text.replace("\\", "").lower()  # a host name may have been made lower case
    return any(word.replace("\\", "").lower() in lowered for word in words)


def classify(error: BaseException) -> TransportReason:
    """Which kind of failure lies at the bottom of what requests and urllib3 raised."""
    chain = list(_chain(error))

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    connecting = has(urllib3.exceptions.NewConnectionError)
    if has(urllib3.exceptions.ProxyError, requests.exceptions.ProxyError):
        return "proxy"
    if has(socket.gaierror):
        return "dns"
    if has(ConnectionRefusedError):
        return "refused"
    # Before the timeouts, of which NewConnectionError is one in urllib3 1.26.
    if numbers & _UNREACHABLE or (connecting and numbers & _FORBIDDEN):
        return "unreachable"
    if has(TimeoutError, requests.exceptions.Timeout) or (
        has(urllib3.exceptions.TimeoutError) and not connecting
    ):
        return "timeout"
    # RemoteDisconnected is both: a connection that ended, and a status line that is missing.
    if has(ConnectionError, http.client.IncompleteRead, ssl.SSLEOFError):
        return "closed"
    if has(ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError):
        return "tls"
    if any(type(link) is OSError and "CA certificate" in str(link) for link in chain):
        return "tls"  # requests, about a path in verify= that does not exist
    if has(
        http.client.HTTPException,
        urllib3.exceptions.ProtocolError,
        requests.exceptions.InvalidHeader,
    ):
        return "protocol"
    return "other"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all it was made from: causes, contexts, and exceptions among the arguments."""
    todo, seen = [error], set()
    while todo:
        link = todo.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        inner = (link.__context__, link.__cause__, getattr(link, "reason", None), *link.args)
        todo.extend(deeper for deeper in inner if isinstance(deeper, BaseException))


def _root(error: BaseException) -> BaseException:
    """The innermost error that a traceback would show."""
    seen: set[int] = set()
    while True:
        seen.add(id(error))
        context = None if error.__suppress_context__ else error.__context__
        inner = (*error.args, getattr(error, "reason", None), error.__cause__, context)
        deeper = [
            link for link in inner if isinstance(link, BaseException) and id(link) not in seen
        ]
        if not deeper:
            return error
        error = deeper[0]


def _is_expected(error: Exception) -> bool:
    """Whether this is how requests and the network fail, rather than a bug of somebody's."""
    kinds = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)
    return isinstance(error, kinds)


def _forget_request(error: BaseException) -> None:
    """Lets go of body and headers, which tracebacks and errors of requests hold on to.

    Else the last error of each client would keep a batch in memory, and a reporter that shows the
    variables of each frame would show the api key.
    """
    for link in _chain(error):
        link.__traceback__ = None
        if isinstance(link, requests.RequestException):
            link.request = link.response = None


def _masked(text: str, secret: str) -> str:
    if secret:
        text = text.replace(secret, "***").replace(repr(secret)[1:-1], "***")
    masked = _CREDENTIALS.sub("//***@", text)
    return "***" if _tells([masked], secret) else masked


def _tells(lines: Iterable[str], secret: str) -> bool:
    """Whether the text shows the secret or the credentials of a URL, escaped however often."""
    text = "".join(lines).replace("\\", "")
    forms = (secret, repr(secret)[1:-1]) if secret else ()
    shown = any(form.replace("\\", "") in text for form in forms)
    return shown or any(found != "//***@" for found in _CREDENTIALS.findall(text))
