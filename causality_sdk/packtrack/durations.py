"""Durations as people write them on a command line: `15s`, `100ms`, `1m30s`. Pure."""

from __future__ import annotations

import math
import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_PARTS = re.compile(rf"({_NUMBER})(ns|us|ms|s|m|h)", re.ASCII)
_WHOLE = re.compile(rf"(?:{_NUMBER}(?:ns|us|ms|s|m|h))+", re.ASCII)
_BARE = re.compile(_NUMBER, re.ASCII)


def seconds(text: str) -> float:
    """`text` in seconds. A number without a unit is seconds. Raises `ValueError`.

    Units, from small to large: ns, us, ms, s, m, h; several follow one another, as in `1m30s`.
    """
    word = text.strip()
    if _BARE.fullmatch(word):
        value = float(word)
    elif _WHOLE.fullmatch(word):
        value = sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(word))
    else:
        raise ValueError(f"{text!r} is not a duration; write for example 15s, 100ms or 1m30s")
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is longer than any wait")
    return value
