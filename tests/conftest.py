"""What every test gets: no way out of this machine.

An audit hook sees each look-up and connection of this process before it happens, whichever
library makes it, and patches nothing. Only loopback is let through, and names under `.invalid`,
which no server may answer for (RFC 6761, section 6.4), for tests of a failed look-up. Child
processes are not covered: the packaging tests let pip fetch what they install.
"""

from __future__ import annotations

import ipaddress
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Hypothesis' deadline of 200 ms per example measures how busy the machine is. The rest stays as
# it is by default, which is derandomised where CI is set.
settings.register_profile("suite", settings(), deadline=None)
settings.load_profile("suite")

# A shell starts what runs in its background with SIGINT ignored, and children inherit that. Tests
# that interrupt a child mean one that was started by hand.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_refused: list[str] = []  # appended by any thread, emptied by the fixture


class OutsideConnectionError(OSError):
    """A test tried to reach something that is not loopback."""


def _is_allowed_host(host: object) -> bool:
    if isinstance(host, (bytes, bytearray)):
        host = host.decode("ascii", "replace")
    if host is None:
        return True  # getaddrinfo(None): this machine
    if not isinstance(host, str):
        return False
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith((".localhost", ".invalid")):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _guard(event: str, args: tuple[object, ...]) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = args[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        if not isinstance(address, tuple):  # a Unix socket's path, or none: connected before
            return
        host = address[0]
    else:
        return
    if not _is_allowed_host(host):
        _refused.append(f"{event} {host!r}")
        raise OutsideConnectionError(f"tests must not leave loopback: {event} {host!r}")


sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def refused_connections() -> Iterator[list[str]]:
    """Fails the test during which something tried to get out, even if it hid the exception."""
    _refused.clear()
    yield _refused
    assert _refused == [], "something tried to leave loopback"
