"""A handler that raises at any instruction of a flush without a thread, or of a probe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from interruption import Interruption, interrupt
from simulation import Simulation

from causality_sdk import sender as sender_module
from causality_sdk import turn as turn_module
from causality_sdk.wire.base import Request

PROBE = Request("/health", b"", method="GET")
CALLS: dict[str, Callable[[Simulation], object]] = {
    "flush": lambda simulation: simulation.sender.flush(timeout=60, retries=0),
    "probe": lambda simulation: simulation.sender.probe(PROBE, 1),
    "step": lambda simulation: simulation.sender.step(),
}


@pytest.mark.parametrize("name", CALLS)
def test_it_leaves_the_turn_to_the_next_flush(tmp_path: Path, name: str) -> None:
    with Simulation(tmp_path / "queue.db") as simulation:
        for number in range(10_000):
            simulation.track(1)
            interruption = Interruption(number, interrupt, sender_module, turn_module)
            interruption.run(lambda: CALLS[name](simulation))
            assert not simulation.sender._turn.locked(), number
            flush = simulation.sender.flush(timeout=60, retries=0)
            assert flush.error is None, number
            assert simulation.queue.pending == 0
            if not interruption.happened:
                break
        assert 10 < number < 9_999
