"""The power of a real file system is cut in mid-work: ext4 on a loop device, shut down by ioctl.

Neighbour: `mounts`. After the cut it is unmounted and mounted again, which replays its journal.
"""

from __future__ import annotations

import os
import time
from typing import Any

from faults.children import Place, Producer
from faults.mounts import Ext4
from faults.registry import Fault, Outcome, Run


def _cuts(run: Run, level: str, count: int, **more: Any) -> Outcome:
    lost = corrupt = promised = 0
    failures = []
    directory = run.directory(f"cut-{level}-{len(more)}")
    with Ext4(directory / "disk", 96) as disk:
        for number in range(count):
            # The journals lie elsewhere: they are what the world outside has seen.
            queue = disk.root / f"{number}" / "queue.db"
            place = Place(directory / f"{number}", queue)
            spec = place.spec(
                events=100_000,
                first=number * 500,
                durability=level,
                flush_every=70,
                checkpoint_every=45,
                start=number % 2 == 1,
                options={"flush_interval": 0.05},
            )
            with Producer({**spec, **more}) as producer:
                producer.wait_for("ready")
                time.sleep(run.rng.uniform(0.02, 0.4))  # the instant of the cut is what is random
                seen = place.journal.stat().st_size
                disk.cut()
                producer.process.kill()
                producer.process.wait()
            # What a program that lost its power goes on to say, nobody hears: an fsync that the
            # shutdown overtakes may return as if it had succeeded.
            os.truncate(place.journal, seen)
            disk.unmount()
            disk.mount()
            verdict = place.judge()
            promised += verdict.promised
            if verdict.troubles or verdict.altered or verdict.residual:
                corrupt += 1
                failures.append(f"cut {number}: {'; '.join(verdict.failures)}")
            elif verdict.lost:
                lost += len(verdict.lost)
                if level == "power":
                    failures.append(f"cut {number}: {len(verdict.lost)} lost")
    figures = {"cuts": count, "promised": promised, "corrupt": corrupt, "lost": lost}
    return Outcome({f'"{level}": {name}': value for name, value in figures.items()}, failures)


def run(run: Run) -> Outcome:
    """Both levels of durability."""
    count = 3 if run.quick else 60
    power, process = _cuts(run, "power", count), _cuts(run, "process", count)
    return Outcome({**power.figures, **process.figures}, [*power.failures, *process.failures])


def control(run: Run) -> Outcome:
    """SQLite without a sync, promised to be safe."""
    return _cuts(run, "power", 2 if run.quick else 10, sabotage="synchronous off")


FAULT = Fault(
    name="power cut of a real file system",
    how="ext4 on a loop device is shut down by ioctl (EXT4_IOC_SHUTDOWN, no log flush) while a"
    " producer works, unmounted, mounted again",
    promise='"power": nothing lost; "process": never corrupt',
    run=run,
    control=control,
    broken="synchronous=OFF",
)
