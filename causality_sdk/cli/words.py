"""Text as it may be shown: what a terminal, an encoding or JSON cannot hold is escaped.

Neighbours: `output`, `ending` and everything that prints. Pure. Invariant: no text of an event, of
a server, of a file name or of the environment drives a terminal, breaks a line of a table, or makes
JSON invalid.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any


def printable(text: str) -> str:
    r"""`text` on one line. Bytes of a name that is not UTF-8 are shown as `\xe9`."""
    if text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def escaped(text: str) -> str:
    """The same with its line breaks, for messages of several lines."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    if character in "\t\n\r\v\f":
        return " "
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # how Python keeps a byte that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def in_shell(text: str, flags: Mapping[str, str]) -> str:
    """A message of the library in the words of a command: `timeout=` is `--attempt-timeout`.

    `flags`: name of an option -> its flag.
    """
    text = _PYTHON.sub(lambda found: flags.get(found[1], found[0]), text)
    return _MANY_DIGITS.sub(lambda found: f"{float(found[1]):.3g} s", text)


# `timeout=` or `take_over=True`, as messages tell a program what to pass; no `name=value` of data.
_PYTHON = re.compile(r"\b([a-z_]+)=(?:True\b|(?=[\s,;.)]|$))")
_MANY_DIGITS = re.compile(r"\b(\d+\.\d{3,}) s\b")


def json_bytes(document: Any) -> bytes:
    """One line of JSON in UTF-8, whatever strings are in it."""
    import orjson  # 2 ms that the help of a group need not pay

    try:
        return orjson.dumps(document, str)
    except TypeError:  # a string that UTF-8 cannot hold, such as a file name in Latin-1
        return orjson.dumps(_encodable(document))


def json_text(document: Any) -> str:
    """The same in ASCII, with what the standard library has, for an error at any time."""
    import json  # as above

    return json.dumps(_encodable(document), separators=(",", ":"))


def json_for_people(document: Any) -> str:
    """JSON over several lines that drives no terminal, and is the same JSON for a program."""
    import orjson  # as above

    text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    if text.isascii():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _in_json(c) for c in text)


def _in_json(character: str) -> str:
    number = ord(character)
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000  # RFC 8259, section 7: two of them
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_encodable(name): _encodable(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(each) for each in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    if text.isascii():
        return text
    return "".join(_shown(c) if "\ud800" <= c <= "\udfff" else c for c in text)


# unicodedata is there on every Python. A package such as wcwidth knows a few sequences of emoji
# better, which is not worth one more distribution in everybody's services.
def width(text: str) -> int:
    """Columns of a terminal that `text` takes: two for a wide character, none for an accent."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """`text`, or its beginning and an ellipsis, in at most so many columns."""
    if width(text) <= columns:
        return text
    taken, kept = 0, []
    for character in text:
        taken += _columns(character)
        if taken > columns - 1:
            break
        kept.append(character)
    return "".join(kept) + "\u2026"


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """`text` in exactly so many columns, if it is not wider."""
    space = " " * max(0, columns - width(text))
    return space + text if right else text + space


def count(number: int, noun: str = "event") -> str:
    """`1 event`, `2,000 events`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number: int) -> str:
    """Bytes, as people read them."""
    value = float(number)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def age(seconds: float) -> str:
    """A length of time, as people read it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
