"""The error tree: what its docstring draws is what the classes are."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import get_args

import pytest

from causality_sdk import errors
from causality_sdk.errors import (
    BODY_EXCERPT_CHARS,
    CausalityError,
    ClientClosed,
    ConfigError,
    DeliveryError,
    EventError,
    QueueError,
    QueueFull,
    ResponseError,
    TransportError,
    TransportReason,
)


def drawn_parents(docstring: str) -> dict[str, str | None]:
    """Class name to the name of its parent, read from the tree in a docstring."""
    above: list[tuple[int, str]] = []
    parents: dict[str, str | None] = {}
    for line in docstring.splitlines():
        match = re.match(r"^([ │├└─]*)([A-Z]\w+)(?= {2,}|$)", line)
        if match is None or line == line.lstrip():
            continue
        depth, name = len(match[1]), match[2]
        while above and above[-1][0] >= depth:
            above.pop()
        parents[name] = above[-1][1] if above else None
        above.append((depth, name))
    return parents


def classes() -> dict[str, type[CausalityError]]:
    return {
        name: member
        for name, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, CausalityError) and member.__module__ == errors.__name__
    }


def test_the_reader_of_drawings_reads_one() -> None:
    drawing = """Title.

    Root
    ├── One         words
    │   └── Inner   Words
    └── Two         words
    """
    assert drawn_parents(drawing) == {"Root": None, "One": "Root", "Inner": "One", "Two": "Root"}


def test_the_tree_is_as_drawn() -> None:
    actual = {
        name: None if member is CausalityError else member.__bases__[0].__name__
        for name, member in classes().items()
    }
    assert actual == drawn_parents(inspect.cleandoc(errors.__doc__ or "").replace("\n", "\n "))


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigError, ValueError),
        (EventError, ValueError),
        (ClientClosed, RuntimeError),
        (QueueError, OSError),
        (QueueFull, OSError),
    ],
)
def test_a_class_is_also_the_builtin_that_the_drawing_names(
    error: type[CausalityError], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)
    assert isinstance(error("message"), builtin)
    assert str(error("message")) == "message"


def test_the_drawing_names_every_builtin_base() -> None:
    for name, member in classes().items():
        builtins = [base.__name__ for base in member.__bases__[1:]]
        line = re.search(rf"{name} .*", errors.__doc__ or "")
        assert builtins == re.findall(r"also an? (\w+)", line[0] if line else ""), name


def test_every_class_says_what_it_means() -> None:
    for name, member in classes().items():
        assert member.__doc__, name


def test_a_transport_error_is_retryable_and_keeps_its_reason() -> None:
    error = TransportError("cannot connect to 127.0.0.1:9", reason="refused")
    assert (error.reason, error.stale, error.retryable) == ("refused", False, True)
    assert TransportError("closed", reason="closed", stale=True).stale is True
    assert str(error) == "cannot connect to 127.0.0.1:9"


def test_the_reasons_are_those_of_the_docstring() -> None:
    named = set(re.findall(r"`(\w+)`", TransportError.__doc__ or "")) - {"reason", "stale"}
    assert named == set(get_args(TransportReason))


@pytest.mark.parametrize("retryable", [True, False])
def test_a_response_error_keeps_its_status_and_says_whether_to_retry(retryable: bool) -> None:
    error = ResponseError("HTTP 403", status=403, body="no", retryable=retryable)
    assert (error.status, error.body, error.retryable) == (403, "no", retryable)


def test_a_response_error_keeps_an_excerpt_of_the_body_only() -> None:
    error = ResponseError("HTTP 500", status=500, body="x" * 10_000, retryable=True)
    assert error.body == "x" * BODY_EXCERPT_CHARS


def test_a_delivery_error_is_retryable_unless_it_says_otherwise() -> None:
    assert DeliveryError("message").retryable is True


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("a"),
        QueueFull("a"),
        TransportError("a", reason="dns", stale=True),
        ResponseError("a", status=400, retryable=False),
    ],
)
def test_an_error_survives_a_trip_to_another_process(error: CausalityError) -> None:
    """Worker pools (multiprocessing, celery) pickle what a task raises."""
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
