"""Fresh idempotency keys: version 7 UUIDs (RFC 9562, section 5.7) as text.

No neighbour. Any thread. Invariant: what `new_key` gives is what `str(uuid6.uuid7())` would give
with the same clock and the same random bits; a test holds the two against each other. It is
written out here because the package builds a `UUID` object on the way to the text, which alone
takes a tenth of a whole `track()`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import time_ns

# Of the four bits in which the variant lies, two are fixed and two random.
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))

_last_ms = 0  # of the newest key; a race of two threads costs their order, never their difference


def new_key(
    clock_ns: Callable[[], int] = time_ns, random: Callable[[int], bytes] = os.urandom
) -> str:
    """A new key. Keys of one thread sort by the order in which they were made.

    As in the uuid6 package each takes a millisecond of its own, so that many at once run ahead of
    the clock. `clock_ns` gives nanoseconds since the epoch, `random` that many bytes.
    """
    global _last_ms
    ms = clock_ns() // 1_000_000
    if ms <= _last_ms:
        ms = _last_ms + 1
    _last_ms = ms
    time = f"{ms & 0xFFFFFFFFFFFF:012x}"
    bits = random(10).hex()
    return f"{time[:8]}-{time[8:]}-7{bits[1:4]}-{_VARIANT[bits[4]]}{bits[5:8]}-{bits[8:]}"
