"""`Client(wire="causality-proto")` against a strict gateway over HTTP, in good days and bad."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from strict_gateway import MAX_BODY_BYTES, StrictGateway

from causality_sdk import Client, Event, events
from causality_sdk.event import Encoder
from causality_sdk.installation import NAME, installation_id
from causality_sdk.testing import LoopbackCollector
from causality_sdk.wire.causality_proto import CausalityProtoWire

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def gateway() -> Iterator[StrictGateway]:
    with StrictGateway() as running:
        yield running


def client_of(server: LoopbackCollector | StrictGateway, directory: Path, **options: Any) -> Client:
    defaults: dict[str, Any] = {
        "wire": "causality-proto",
        "start": False,
        "backoff_initial": 0.001,
        "backoff_max": 0.001,
    }
    return Client(
        api_key="test-key",
        endpoint=server.endpoint,
        app_id="shop",
        queue_path=directory / "queue.db",
        **{**defaults, **options},
    )


def test_events_arrive_typed_where_they_fit_and_custom_where_not(
    gateway: StrictGateway, tmp_path: Path
) -> None:
    with client_of(gateway, tmp_path) as client:
        bought = events.PurchaseComplete(
            order_id="A-1", total_cents=1299, items=[events.PurchaseItem(product_id="p-1")]
        )
        key = client.track(bought, user_id="u-42", session_id="s-1")
        client.track("purchase_complete", {"order_id": "A-2", "coupon": "X"}, user_id="u-42")
        client.track("coffee_made", {"beans": {"grams": 18.5}, "decaf": False})
        report = client.flush(timeout=10)
    assert (report.delivered, report.remaining, report.error) == (3, 0, None)
    assert key is not None
    envelope = gateway.stored[key]
    assert envelope.purchase_complete.total_cents == 1299
    assert envelope.purchase_complete.items[0].product_id == "p-1"
    rest = json.loads(envelope.correlation_id)
    assert (rest["user_id"], rest["session_id"]) == ("u-42", "s-1")
    assert [custom.event_name for custom in gateway.events_of("custom_event")] == [
        "purchase_complete", "coffee_made",
    ]  # fmt: skip
    device = (tmp_path / NAME).read_text(encoding="ascii").strip()
    assert {envelope.device_id for envelope in gateway.stored.values()} == {device}


def test_a_client_with_a_thread_delivers_by_itself(gateway: StrictGateway, tmp_path: Path) -> None:
    with client_of(gateway, tmp_path, start=True, batch_size=2) as client:
        client.track("app_start")
        client.track("app_start")
        assert gateway.server.wait_for_requests(1)
        assert client.flush(timeout=10).remaining == 0
    assert len(gateway.events_of("app_start")) == 2


def test_one_bad_event_of_a_refused_batch_is_found_and_the_others_arrive(
    gateway: StrictGateway, tmp_path: Path
) -> None:
    """The gateway says 400 for the whole batch, and not for whose sake."""
    gateway.invalid = lambda envelope: envelope.screen_view.screen_name == "bad"
    with client_of(gateway, tmp_path) as client:
        for number in range(20):
            name = "bad" if number == 7 else f"screen-{number}"
            client.track(events.ScreenView(screen_name=name))
        client.flush(timeout=10)
        names = [payload.screen_name for payload in gateway.events_of("screen_view")]
        assert names == [f"screen-{number}" for number in range(20) if number != 7]
        for number in range(6):  # each a witness: refused three times beside one that passes
            client.track(events.ScreenView(screen_name=f"later-{number}"))
            client.flush(timeout=10)
        stats = client.stats()
        assert (stats.buried, stats.pending) == (1, 0)
        [letter] = client.dead_letters
        assert letter.status == 400
        assert letter.event["properties"]["screen_name"] == "bad"


def test_a_row_that_is_no_event_is_buried_alone(gateway: StrictGateway, tmp_path: Path) -> None:
    with client_of(gateway, tmp_path) as client:
        client.track("a")
        assert client._pipeline is not None
        client._pipeline.queue.append(b"what is this")
        for name in "bcdefgh":
            client.track(name)
            client.flush(timeout=10)
        assert (client.stats().buried, client.stats().pending) == (1, 0)
    assert len(gateway.stored) == 8


def test_rejected_for_a_time_is_not_rejected_for_good(
    gateway: StrictGateway, tmp_path: Path
) -> None:
    """Its broker is away: every event is rejected by name, and none is buried for that."""
    gateway.refuse = lambda _: "broker unavailable"
    with client_of(gateway, tmp_path, max_retries=20) as client:
        for _ in range(5):
            client.track("app_start")
        report = client.flush(timeout=10)
        assert report.delivered == 0
        assert "broker unavailable" in str(report.error)
        assert (client.stats().buried, client.stats().pending) == (0, 5)
        gateway.refuse = lambda _: ""
        assert client.flush(timeout=10).remaining == 0
    assert len(gateway.stored) == 5


def test_too_many_events_are_halved(tmp_path: Path) -> None:
    """A batch with more events than the gateway is set to take is a 500 there."""
    with StrictGateway(max_events=30) as gateway, client_of(gateway, tmp_path) as client:
        client.track_many(Event("app_start") for _ in range(200))
        for _ in range(10):
            if client.flush(timeout=10).remaining == 0:
                break
        assert client.stats().acknowledged == 200
        assert 500 in gateway.statuses
    assert len(gateway.stored) == 200


def test_a_body_over_its_limit_is_divided(gateway: StrictGateway, tmp_path: Path) -> None:
    """More than 5 MiB is a 400, as for a bad event; bisection finds what passes."""
    with client_of(gateway, tmp_path, max_batch_bytes=8 * MAX_BODY_BYTES) as client:
        client.track_many(Event("note", {"text": "x" * 250_000}) for _ in range(30))
        assert client.flush(timeout=20).remaining == 0
        assert client.stats().buried == 0
    assert gateway.statuses[0] == 400
    assert len(gateway.stored) == 30


def test_the_default_limits_stay_below_the_gateways() -> None:
    """1 MiB of rows that grow most: quotes inside nested values, or as many as may go at once."""
    encoder = Encoder("shop", max_event_bytes=256 * 1024)
    wire = CausalityProtoWire("d")
    largest = encoder.encode("x", {"a": ['"' * 120_000]})[1]
    smallest = encoder.encode("x", user_id="u", session_id="s")[1]
    for row in (largest, smallest):
        count = min(1000, 1024 * 1024 // len(row))
        assert len(wire.frame([row] * count).body) < MAX_BODY_BYTES / 2


def test_a_401_that_passes_costs_nothing(gateway: StrictGateway, tmp_path: Path) -> None:
    """Its key look-up may fail for a moment."""
    gateway.answer_first(401, 429, 500)
    with client_of(gateway, tmp_path) as client:
        client.track("app_start")
        for _ in range(4):
            client.flush(timeout=10)
        assert (client.stats().acknowledged, client.stats().pending) == (1, 0)
    assert gateway.statuses == [401, 429, 500, 200]


def test_the_gateway_refuses_gzip_as_the_real_one(gateway: StrictGateway, tmp_path: Path) -> None:
    """What the option is refused for: from a server that cannot read it nothing gets through."""

    class Disguised:
        name, key_header, health_path = "mine", "X-API-Key", "/health"

        def __init__(self, inner: Any) -> None:
            self.frame, self.verdicts = inner.frame, inner.verdicts

    wire = Disguised(CausalityProtoWire("d"))
    with client_of(gateway, tmp_path, wire=wire, compression="gzip") as client:
        client.track("app_start")
        client.flush(timeout=10)
    assert gateway.statuses[0] == 400


def test_an_outage_loses_and_doubles_nothing(gateway: StrictGateway, tmp_path: Path) -> None:
    with client_of(gateway, tmp_path) as client:
        keys = [client.track("app_start")]
        client.flush(timeout=10)
        gateway.down()
        keys += client.track_many(Event("app_start") for _ in range(100)) or []
        assert client.flush(timeout=0.2).delivered == 0
        gateway.up()
        assert client.flush(timeout=10).remaining == 0
        assert client.stats().tracked == client.stats().acknowledged == 101
    assert list(gateway.stored) == keys


def test_what_a_killed_process_tracked_arrives(gateway: StrictGateway, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from causality_sdk import Client, events\n"
        "client = Client(api_key='test-key', endpoint=sys.argv[1], app_id='shop', start=False,\n"
        "                wire='causality-proto', queue_path=sys.argv[2])\n"
        "for number in range(50):\n"
        "    print(client.track(events.ScreenView(screen_name=f's-{number}')), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    arguments = [sys.executable, "-c", program, gateway.endpoint, str(tmp_path / "queue.db")]
    killed = subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    device = installation_id(tmp_path)
    with client_of(gateway, tmp_path) as client:
        assert client.flush(timeout=10).remaining == 0
    assert list(gateway.stored) == killed.stdout.split()
    assert {envelope.device_id for envelope in gateway.stored.values()} == {device}


class TestAnotherWire:
    """The queue holds canonical rows, so whichever wire is there when they are sent takes them."""

    def test_a_queue_filled_for_one_is_drained_by_the_other_and_back(
        self, gateway: StrictGateway, tmp_path: Path
    ) -> None:
        with LoopbackCollector() as collector:
            collector.down()
            with client_of(collector, tmp_path, wire="causality", close_timeout=0) as client:
                first = client.track("purchase_complete", {"order_id": "A-1"}, user_id="u")
                second = client.track("x", {"deep": {"a": None}}, session_id="s")
            collector.up()
            gateway.down()
            with client_of(gateway, tmp_path, take_over=True, close_timeout=0) as client:
                assert client.stats().pending == 2
                third = client.track("app_start")
                gateway.up()
                client.flush(timeout=10)
                assert list(gateway.stored) == [first, second, third]
                assert gateway.stored[str(first)].purchase_complete.order_id == "A-1"
                gateway.down()
                fourth = client.track("app_start", user_id="u")
            with client_of(collector, tmp_path, wire="causality", take_over=True) as client:
                client.flush(timeout=10)
                stats = client.stats()
                assert (stats.tracked, stats.acknowledged, stats.pending) == (4, 4, 0)
            assert collector.keys == [fourth]
            assert collector.events[0]["user_id"] == "u"

    def test_without_being_asked_it_leaves_the_other_file_alone(
        self, gateway: StrictGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with client_of(gateway, tmp_path, wire="causality", close_timeout=0) as client:
            client.track("x")
            gateway.down()
        gateway.up()
        with (
            caplog.at_level(logging.WARNING),
            client_of(gateway, tmp_path) as client,
        ):
            assert client.flush(timeout=10).delivered == 0
            assert client.stats().queue_path.endswith("queue.1.db")
        assert "take_over=True" in caplog.text
        assert gateway.stored == {}

    def test_dead_letters_are_taken_over_too(self, gateway: StrictGateway, tmp_path: Path) -> None:
        gateway.invalid = lambda envelope: envelope.screen_view.screen_name == "bad"
        with client_of(gateway, tmp_path) as client:
            client.track("screen_view", {"screen_name": "bad"})
            for _ in range(6):
                client.track("app_start")
                client.flush(timeout=10)
            assert client.stats().buried == 1
        with (
            LoopbackCollector() as collector,
            client_of(collector, tmp_path, wire="causality", take_over=True) as client,
        ):
            assert client.dead_letters.requeue() == 1
            assert client.flush(timeout=10).delivered == 1


class TestInstallationId:
    def test_it_is_made_once_and_is_a_uuid(self, tmp_path: Path) -> None:
        made = installation_id(tmp_path)
        assert str(uuid.UUID(made)) == made
        assert installation_id(tmp_path) == made
        assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, f"{NAME}.lock"]

    @pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
    def test_it_is_for_this_user_alone(self, tmp_path: Path) -> None:
        installation_id(tmp_path)
        assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("torn", [b"", b"\n", b"0195a", b"\x00" * 37, b"\xff\xfe", b"x" * 999])
    def test_a_torn_one_is_made_anew(self, tmp_path: Path, torn: bytes) -> None:
        (tmp_path / NAME).write_bytes(torn)
        made = installation_id(tmp_path)
        assert str(uuid.UUID(made)) == made == installation_id(tmp_path)

    @pytest.mark.parametrize("torn", [None, b""])
    def test_processes_that_start_at_once_agree(self, tmp_path: Path, torn: bytes | None) -> None:
        if torn is not None:
            (tmp_path / NAME).write_bytes(torn)
        program = (
            "import sys; from pathlib import Path\n"
            "from causality_sdk.installation import installation_id\n"
            "import filelock\n"
            "print('ready', flush=True); sys.stdin.readline()\n"
            "print(installation_id(Path(sys.argv[1])))\n"
        )
        crowd = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(tmp_path)],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(8)
        ]  # fmt: skip
        for process in crowd:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in crowd:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        made = {process.communicate(timeout=30)[0].strip() for process in crowd}
        assert made == {installation_id(tmp_path)}

    def test_with_a_queue_in_memory_there_is_a_device_too(
        self, gateway: StrictGateway, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("not a directory", encoding="utf-8")
        with client_of(gateway, tmp_path / "file", fallback="memory") as client:
            client.track("app_start")
            client.track("app_start")
            assert client.flush(timeout=10).delivered == 2
        [device] = {envelope.device_id for envelope in gateway.stored.values()}
        assert str(uuid.UUID(device)) == device

    def test_where_it_cannot_be_made_the_error_names_it(
        self, gateway: StrictGateway, tmp_path: Path
    ) -> None:
        (tmp_path / NAME).mkdir()
        with pytest.raises(OSError, match=f"installation id .*{NAME} cannot be read or made"):
            client_of(gateway, tmp_path)

    def test_the_default_wire_needs_none(self, gateway: StrictGateway, tmp_path: Path) -> None:
        client_of(gateway, tmp_path, wire="causality").close()
        assert not (tmp_path / NAME).exists()
