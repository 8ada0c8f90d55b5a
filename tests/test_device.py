"""What the machine tells of itself: only what is known, and never a placeholder."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from causality_sdk.context import server_context
from causality_sdk.wire import device
from causality_sdk.wire._proto_schema import DEVICE_CONTEXT, misfit


def test_this_machine_fits_the_gateways_context() -> None:
    machine = device.this_machine()
    assert machine.hostname == server_context()["hostname"]
    assert misfit(DEVICE_CONTEXT, dict(machine.context)) is None
    assert all(machine.context.values())
    assert machine.context["timezone"]
    assert device.this_machine() is machine


@pytest.mark.parametrize(
    ("environ", "tag"),
    [
        ({}, ""),
        ({"LANG": "C"}, ""),
        ({"LANG": "C.UTF-8"}, ""),
        ({"LANG": "POSIX"}, ""),
        ({"LANG": "de_CH.UTF-8"}, "de-CH"),
        ({"LANG": "sr_RS@latin"}, "sr-RS"),
        ({"LANG": "en"}, "en"),
        ({"LANG": "de_CH", "LC_MESSAGES": "fr_CH"}, "fr-CH"),
        ({"LANG": "de_CH", "LC_ALL": "C", "LC_MESSAGES": "fr_CH"}, ""),
        ({"LANG": "de_CH", "LC_ALL": ""}, "de-CH"),
        ({"LANG": "../../etc"}, ""),
    ],
)
def test_the_language_is_that_of_messages(environ: dict[str, str], tag: str) -> None:
    assert device.locale_tag(environ) == tag


class TestTimeZone:
    def test_the_variable_goes_first(self, tmp_path: Path) -> None:
        for given in ("Europe/Zurich", ":Europe/Zurich"):
            assert device.time_zone({"TZ": given}, tmp_path / "none") == "Europe/Zurich"

    @pytest.mark.skipif(sys.platform == "win32", reason="symbolic links of POSIX")
    def test_else_what_localtime_points_to(self, tmp_path: Path) -> None:
        link = tmp_path / "localtime"
        link.symlink_to("/usr/share/zoneinfo/America/Argentina/Ushuaia")
        assert device.time_zone({}, link) == "America/Argentina/Ushuaia"

    @pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process cannot be set")
    @pytest.mark.parametrize(
        ("zone", "shown"),
        [("UTC0", "UTC"), ("XXX-5:45", "UTC+05:45"), ("YYY3:30", "UTC-03:30")],
    )
    def test_else_the_offset(
        self, zone: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            assert device.time_zone(os.environ, tmp_path / "none") == shown
        finally:
            monkeypatch.undo()
            time.tzset()
