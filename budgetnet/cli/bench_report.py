"""The verb that measures how long a report takes: ``bench report``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.bench_output import memory, print_goals, print_machine, read_count, told
from budgetnet.cli.options import Json, print_json

if TYPE_CHECKING:
    from budgetnet.bench.reporting import ReportBenchmark


def report(
    trials: Annotated[
        str, typer.Option("--trials", metavar="N", help="Candidates of the study, invented and all ranked.")
    ] = "1000",
    repeat: Annotated[str, typer.Option("--repeat", metavar="N", help="How many reports to make.")] = "3",
    as_json: Json = False,
) -> None:
    """How long `budgetnet report` takes for a study of many candidates, and how large its page is."""
    wanted = read_count(trials, field="--trials", most=100_000)
    times = read_count(repeat, field="--repeat", most=1000)
    with told("loading torch") as tell:
        from budgetnet.bench.reporting import run

        measured = run(trials=wanted, repeat=times, progress=tell)
    if as_json:
        print_json(measured.to_mapping())
    else:
        _print_report(measured)


def _print_report(measured: ReportBenchmark) -> None:
    from budgetnet.cli.tables import console
    from budgetnet.common.formatting import short_seconds

    output, seconds = console(), measured.seconds
    output.print(f"A report of {measured.trials:,} candidates, every one ranked, each with a run folder")
    times = f"median {short_seconds(measured.median)}, {short_seconds(min(seconds))} to {short_seconds(max(seconds))}"
    output.print(f"from the command to its end: {times}; {len(seconds)} fresh interpreters, one behind the other")
    output.print(f"its page: {memory(measured.bytes)}")
    print_goals(output, measured.goals)
    print_machine(output, measured.environment, packages=("optuna",))
