"""The command: runs the rows, prints the table, writes the page.

Neighbours: `registry` has the rows, `page` writes. Invariant: it exits with 1 where a promise was
broken or a control was not caught, and a row that cannot run here says why.
"""

from __future__ import annotations

import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import click

from faults import page
from faults.registry import ROWS, Fault, Outcome, Run, Unavailable, load, scratch_directory


@dataclass(frozen=True)
class Report:
    """One row, run."""

    fault: Fault
    outcome: Outcome
    control: Outcome
    seconds: float
    unavailable: str = ""

    @property
    def verdict(self) -> str:
        """`kept`, `broken`, `no control` or `not run`."""
        if self.unavailable:
            return "not run"
        if self.outcome.failures:
            return "broken"
        return "kept" if self.control.failures else "no control"


def report_on(name: str, *, quick: bool, seed: int = 1, pythons: tuple[str, ...] = ()) -> Report:
    """Runs one row and its control."""
    fault = load(name)
    began = time.monotonic()
    outcome = control = Outcome({})
    unavailable = ""
    try:
        with scratch_directory() as directory:
            run = Run(Path(directory), quick=quick, seed=seed, pythons=pythons or (sys.executable,))
            outcome = fault.run(run)
        with scratch_directory() as directory:
            # The quick control is as good as a long one: it only has to be caught.
            control = fault.control(Run(Path(directory), quick=True, seed=seed))
    except Unavailable as reason:
        unavailable = str(reason)
    except Exception:  # noqa: BLE001 - the other rows are to be run all the same
        outcome = Outcome({}, [f"the row itself failed: {traceback.format_exc(limit=-3)}"])
    return Report(fault, outcome, control, time.monotonic() - began, unavailable)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--quick", is_flag=True, help="What the suite runs: a minute instead of half an hour."
)
@click.option("--only", multiple=True, type=click.Choice(ROWS), help="This row; may be repeated.")
@click.option("--write", is_flag=True, help="Write the table to docs/explanation/reliability.md.")
@click.option("--seed", default=1, show_default=True, help="Of the random instants.")
@click.option(
    "--python",
    "pythons",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="For the row `exits`: an interpreter with the dependencies; may be repeated.",
)
def main(
    *, quick: bool, only: tuple[str, ...], write: bool, seed: int, pythons: tuple[str, ...]
) -> None:
    """Does to the queue what a machine can do, and judges what is left.

    Prints a row for each fault: its figures, and what its control, the same with a rule broken on
    purpose, was caught at. Rows that need root, strace or loop devices say so.
    """
    reports = []
    for name in only or ROWS:
        report = report_on(name, quick=quick, seed=seed, pythons=pythons)
        reports.append(report)
        click.echo(f"{name}: {report.verdict}, {report.seconds:.0f} s")
        if report.unavailable:
            click.echo(f"    {report.unavailable}")
        for figure, value in report.outcome.figures.items():
            click.echo(f"    {figure}: {value}")
        for failure in report.outcome.failures[:10]:
            click.echo(f"    BROKEN: {failure}")
        for failure in report.control.failures[:1]:
            click.echo(f"    control ({report.fault.broken}): {failure}")
    if write:
        page.write(
            [row(report) for report in reports], page.Circumstances.now(quick=quick, seed=seed)
        )
    sys.exit(any(report.verdict in ("broken", "no control") for report in reports))


def row(report: Report) -> page.Row:
    """A report as a row of the page."""
    failures = [str(failure) for failure in report.outcome.failures]
    return page.Row(
        name=report.fault.name,
        how=report.fault.how,
        promise=report.fault.promise,
        figures=[f"{name} {value}" for name, value in report.outcome.figures.items()],
        verdict=report.verdict,
        why=report.unavailable or (failures[0] if failures else ""),
        control=f"{report.fault.broken}: {next(iter(report.control.failures), 'not caught')}",
        seconds=report.seconds,
    )
