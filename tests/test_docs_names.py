"""The page for those who come from other trackers has the names that errors know, and the glossary
the words of the pages.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from causality_sdk import option_names

DOCS = Path(__file__).resolve().parent.parent / "docs"
COMING = (DOCS / "how-to" / "coming-from-other-trackers.md").read_text(encoding="utf-8")
GLOSSARY = (DOCS / "explanation" / "glossary.md").read_text(encoding="utf-8")

TABLES = {
    "Segment": option_names.SEGMENT,
    "PostHog": option_names.POSTHOG,
    "Amplitude": option_names.AMPLITUDE,
    "Mixpanel": option_names.MIXPANEL,
    "Sentry": option_names.SENTRY,
    "Other names": option_names.OTHERS,
    "Fields of an event": option_names.FIELDS,
}


def table_of(heading: str) -> dict[str, str]:
    """The first table of two columns below a heading, without the backticks."""
    section = COMING.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)
    return {name: words.replace("`", "") for name, words in rows}


@pytest.mark.parametrize("heading", sorted(TABLES))
def test_the_page_has_the_names_that_the_errors_know(heading: str) -> None:
    assert table_of(heading) == TABLES[heading]


def test_every_table_of_names_is_on_the_page() -> None:
    sections = [option_names.SEGMENT, option_names.POSTHOG, option_names.AMPLITUDE,
                option_names.MIXPANEL, option_names.SENTRY, option_names.OTHERS]  # fmt: skip
    assert {name for section in sections for name in section} == set(option_names.COUNTERPARTS)
    # A name in two tables would have two meanings.
    assert sum(map(len, sections)) == len(option_names.COUNTERPARTS)


@pytest.mark.parametrize(
    "word",
    ["witness", "suspect", "scout", "burial", "set aside", "adoption", "orphan", "heir",
     "dead letter", "wire", "transport", "settle", "residual", "eviction", "salvage", "blocked"],
)  # fmt: skip
def test_the_glossary_has_the_word(word: str) -> None:
    assert re.search(rf"^\| \[?{word}\b", GLOSSARY, re.MULTILINE)


def test_the_glossary_is_in_the_order_of_the_alphabet() -> None:
    words = [word.lower() for word in re.findall(r"^\| \[?(\w[^|\](,]*)", GLOSSARY, re.MULTILINE)]
    words.remove("word ")
    assert words == sorted(words)


PACKAGE = DOCS.parent / "causality_sdk"
# The literals of the package, with those that go on in the next line put together.
SOURCE = re.sub(
    r'"\s*\n\s*f?"',
    "",
    "\n".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))),
)
LOG = (DOCS / "explanation" / "delivery.md").read_text(encoding="utf-8")
WHY = (DOCS / "how-to" / "events-that-do-not-arrive.md").read_text(encoding="utf-8")


def parts(message: str) -> list[str]:
    """What of a message is the same each time: without numbers, names and the server's words."""
    found = re.split(r"\d+\S*|https?://\S+|[…():]|\b(?:1 )?events? waits?\b", message)
    return [part.strip(" ,;.") for part in found if len(part.strip(" ,;.")) > 7]


def told() -> list[str]:
    """The parts of each message in the table of log lines."""
    table = LOG.split("\n## What the log says\n")[1].split("\n\nEach begins")[0]
    messages = re.findall(r"^\| [A-Z]+ \| [^|]+ \| `([^`]+)` \|$", table, re.MULTILINE)
    assert len(messages) >= 6
    return [part for message in messages for part in parts(message)]


def explained() -> list[str]:
    """The parts of each message that the page on events that do not arrive explains."""
    table = WHY.split("\n## What the messages mean\n")[1].split("\n\nWhat each")[0]
    messages = re.findall(r"\*([^*|]+)\*", table)
    assert len(messages) >= 12
    return [part for message in messages for part in parts(message)]


@pytest.mark.parametrize("words", sorted({*told(), *explained()}))
def test_a_message_on_a_page_is_one_of_the_code(words: str) -> None:
    assert words in SOURCE


def test_a_message_that_nobody_says_is_found() -> None:
    assert parts("delivery failed, 1 event waits: the server answered 503: no") == [
        "delivery failed",
        "the server answered",
    ]
    assert "delivery went wrong" not in SOURCE
