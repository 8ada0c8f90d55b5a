"""Answers that are not the server's, or acknowledge nothing: seen by `health()`, `health`, doctor.

A captive portal, a proxy, or a server of one's own that says "OK" answers everything with 200.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from shell import KEY, Shell

from causality_sdk import Client

PAGE = b"<html><head><title>Hotel</title></head><body><h1>Sign in</h1></body></html>"


class Stranger:
    """Says the same to every request, whatever its path."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.says: tuple[int, bytes, str] = (200, PAGE, "text/html")


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, kind = found.says
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Stranger(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def shell(stranger: Stranger, tmp_path: Path) -> Shell:
    return Shell(tmp_path, stranger.endpoint)


def findings(shell: Shell, code: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shell("queue", "doctor", "--json", code=code).json["findings"]
    return found


def test_a_page_for_people_is_no_sign_of_health(stranger: Stranger, tmp_path: Path) -> None:
    stranger.says = (200, PAGE, "text/html")
    with Client(
        api_key=KEY,
        endpoint=stranger.endpoint,
        app_id="a",
        queue_path=tmp_path / "q.db",
        start=False,
    ) as client:
        health = client.health(timeout=10)
    assert (health.ok, health.status) == (False, 200)
    assert "captive portal" in str(health.error)
    assert "Sign in" in str(health.error)
    assert stranger.endpoint in str(health.error)


def test_the_commands_see_a_captive_portal(shell: Shell, stranger: Stranger) -> None:
    stranger.says = (200, PAGE, "text/html")
    told = shell("health", "--json", code=3).json
    assert told["ok"] is False
    assert "Sign in" in told["error"]
    problems = [one for one in findings(shell, 1) if one["level"] == "problem"]
    assert any("acknowledges nothing" in one["text"] for one in problems)
    assert all(one["fix"] for one in problems)


@pytest.mark.parametrize("body", [b"OK", b"[]", b'"ok"'])
def test_the_doctor_sees_a_server_that_acknowledges_nothing(
    shell: Shell, stranger: Stranger, body: bytes
) -> None:
    stranger.says = (200, body, "text/plain")
    assert any(
        one["level"] == "problem" and "acknowledges nothing" in one["text"]
        for one in findings(shell, 1)
    )


def test_the_doctor_shows_what_a_server_says_that_refuses_everything(
    shell: Shell, stranger: Stranger
) -> None:
    stranger.says = (422, b'{"error":"field order_id is required"}', "application/json")
    assert any("field order_id is required" in one["text"] for one in findings(shell, 0))


def test_what_the_server_said_is_wherever_a_failure_is_told(
    shell: Shell, stranger: Stranger
) -> None:
    stranger.says = (500, b'{"error":"database is locked"}', "application/json")
    plain = shell("send", "x", code=3)
    assert "database is locked" in plain.err
    verbose = shell("send", "x", "-v", code=3)
    assert f"POST {stranger.endpoint}/v1/events/batch" in verbose.err
    assert "database is locked" in verbose.err
    assert "database is locked" in shell("send", "x", "--json", code=3).json["delivery_error"]
    assert KEY not in plain.err + verbose.err
