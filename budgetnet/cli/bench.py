"""Verbs that measure: ``bench check`` and its like."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.bench_output import print_goals, print_machine, require_seconds
from budgetnet.cli.fields import Command
from budgetnet.cli.options import Json, print_json

if TYPE_CHECKING:
    from budgetnet.bench.check import CheckBenchmark

bench = typer.Typer(help="Measures budgetnet beside other tools, on this machine.", no_args_is_help=True)


@bench.command(cls=Command)
def check(
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="N", help="About how long to measure; three times at least.")
    ] = 8.0,
    as_json: Json = False,
) -> None:
    """How long counting a network takes: in closed form, by thop, by torch's counter; all counts compared first."""
    require_seconds(seconds)
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from budgetnet.bench.check import run

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bars:
        task = bars.add_task("loading torch")
        measured = run(
            seconds=seconds,
            progress=lambda doing, done, of: bars.update(task, description=doing, completed=done, total=of),
        )
    if as_json:
        print_json(measured.to_mapping())
    else:
        _print_check(measured)


def _print_check(measured: CheckBenchmark) -> None:
    from rich.table import Table

    from budgetnet.bench.check import CLOSED_FORM
    from budgetnet.cli.tables import console
    from budgetnet.common.formatting import short_seconds

    table = Table(title="Time to count a network, median over samples made in turn", title_justify="left")
    table.add_column("network", no_wrap=True)
    table.add_column("counted by", no_wrap=True)
    for heading in ("median", "min", "max", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for network, methods in measured.measurements.items():
        for position, (method, times) in enumerate(methods.items()):
            ratio = measured.ratios[network].get(method)
            table.add_row(
                network if position == 0 else "",
                method,
                *(short_seconds(time) for time in times[:3]),
                "" if ratio is None else f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}",
                style="green" if method == CLOSED_FORM else None,
                end_section=position == len(methods) - 1,
            )
    output = console()
    output.print(table)
    output.print("ratio: median time over that of the closed form of the same network")
    output.print("before it was timed, everything that counts agreed on every network")
    print_goals(output, measured.goals)
    output.print("everything on one thread, where it does not say threaded")
    print_machine(output, measured.environment, packages=("torch", "thop", "numpy", "pydantic"))
