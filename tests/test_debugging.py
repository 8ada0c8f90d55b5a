"""The switch `debug=True`: lines on standard error, each once, and no trace of it afterwards."""

from __future__ import annotations

import gc
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from causality_sdk import AsyncClient, Client
from causality_sdk.cli.output import Output
from causality_sdk.config import LOGGER
from causality_sdk.packtrack import (
    Actor,
    PackTrackClient,
    PackTrackConfig,
    PackTrackEvent,
    Source,
    Workflow,
)
from causality_sdk.testing import LoopbackPackTrack, RecordingTransport


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """One that nobody has set up, and that pytest does not listen to."""
    made = logging.Logger("test_debugging")  # below no root
    yield made
    assert made.handlers == []
    assert made.level == logging.NOTSET


def client(directory: Path, logger: Any, **options: Any) -> Client:
    return Client(
        api_key="test-key",
        endpoint="https://events.invalid",
        app_id="debugging",
        queue_path=directory / "queue.db",
        transport=RecordingTransport(),
        start=False,
        logger=logger,
        **{"debug": True, **options},
    )


def test_the_lines_go_to_standard_error_until_the_client_is_closed(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path, logger):
        logger.debug("causality: one %s", "attempt")
    logger.debug("causality: nobody listens")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("DEBUG causality: one attempt")


def test_without_the_switch_nothing_is_told(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path, logger, debug=False):
        logger.debug("causality: one attempt")
    assert capsys.readouterr().err == ""


def test_the_variable_switches_it_on(
    tmp_path: Path,
    logger: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAUSALITY_DEBUG", "1")
    with Client(
        api_key="k", endpoint="http://127.0.0.1:9", app_id="a", queue_path=tmp_path / "q.db",
        transport=RecordingTransport(), start=False, logger=logger,
    ):  # fmt: skip
        logger.debug("causality: one attempt")
    assert "one attempt" in capsys.readouterr().err


def test_two_clients_of_one_logger_tell_each_line_once(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = client(tmp_path / "a", logger), client(tmp_path / "b", logger)
    logger.debug("both")
    first.close()
    first.close()
    logger.debug("the second")
    second.close()
    logger.debug("none")
    assert [line.split(" DEBUG ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "both",
        "the second",
    ]


def test_a_client_that_is_forgotten_switches_it_off(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    client(tmp_path, logger)
    gc.collect()
    logger.debug("nobody listens")
    assert capsys.readouterr().err == ""


def test_what_the_program_shows_itself_is_not_shown_twice(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether its logging was set up before the client or after it; a line it hides is shown."""
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    with client(tmp_path, logger):
        logger.addHandler(handler)
        logger.debug("theirs")
        handler.setLevel(logging.WARNING)
        logger.debug("ours")
        logger.warning("theirs, too")
        logger.removeHandler(handler)
    assert shown.getvalue().splitlines() == ["theirs", "theirs, too"]
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == ["ours"]


def test_a_level_of_the_program_comes_back(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.setLevel(logging.ERROR)
    with client(tmp_path, logging.LoggerAdapter(logger)):
        logger.debug("told")
    assert logger.level == logging.ERROR
    assert "told" in capsys.readouterr().err
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("stream", [None, io.TextIOWrapper(io.BytesIO())])
def test_a_stream_that_is_closed_or_missing_harms_nobody(
    tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, stream: Any
) -> None:
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with client(tmp_path, logger):
        logger.debug("lost")


def test_each_attempt_of_a_packtrack_client_is_told(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    event = PackTrackEvent(
        source=Source("backup"), workflow=Workflow("nightly"), actor=Actor("cron", "db1"),
        severity="info", status="ok", message="done",
    )  # fmt: skip
    with LoopbackPackTrack(api_key="test-key") as server:
        options: Any = {"api_key": "test-key", "base_url": server.endpoint, "logger": logger}
        with PackTrackClient(**options, debug=True) as client:
            client.ingest_event(event)
        with PackTrackClient(**options) as client:
            client.ingest_event(event)
    (line,) = capsys.readouterr().err.splitlines()
    assert "DEBUG packtrack: attempt 1 at /api/ingest: 1 events" in line
    assert PackTrackConfig.load({"PACKTRACK_DEBUG": "1"}, api_key="k").logger is LOGGER


async def _one_event(directory: Path, logger: logging.Logger) -> None:
    async with AsyncClient(
        api_key="k", endpoint="http://127.0.0.1:9", app_id="a", queue_path=directory / "q.db",
        transport=RecordingTransport(), logger=logger, debug=True,
    ):  # fmt: skip
        logger.debug("told")


def test_the_async_client_has_it_too(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    import asyncio

    asyncio.run(_one_event(tmp_path, logger))
    assert "told" in capsys.readouterr().err


@pytest.mark.parametrize("verbose", [False, True])
def test_the_command_shows_each_line_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    logger = Output(verbose=verbose).logger()
    with client(tmp_path, logger):
        logger.debug("causality: one attempt")
    assert capsys.readouterr().err.count("one attempt") == 1
    assert len(logger.handlers) == 1
