"""The verb that measures what is proposed before anything is trained: ``bench proposals``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.bench_output import print_goals, print_machine, read_count, told
from budgetnet.cli.options import (
    Classes,
    InputShape,
    Json,
    MaxActivations,
    MaxMacs,
    MaxParams,
    Seed,
    SpaceArgument,
    print_json,
    read_budget,
    read_image,
    read_space,
)

if TYPE_CHECKING:
    from budgetnet.bench.proposals import ProposalsBenchmark


def proposals(
    space: SpaceArgument = "resnet",
    max_params: MaxParams = "5M",
    max_macs: MaxMacs = None,
    max_activations: MaxActivations = None,
    input_shape: InputShape = "3,32,32",
    classes: Classes = "10",
    count: Annotated[str, typer.Option("--count", metavar="N", help="Proposals for each way to size them.")] = "1000",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """How many proposals fit the budget and how much of it they use, where widths are solved for and where drawn."""
    wanted = read_count(count, field="--count", most=1_000_000)
    budget = read_budget(max_params, max_macs, max_activations)
    image = read_image(input_shape, classes)
    candidates = read_space(space)
    with told("loading torch") as tell:
        from budgetnet.bench.proposals import run

        measured = run(candidates, budget=budget, **image, proposals=wanted, seed=seed, progress=tell)
    if as_json:
        print_json(measured.to_mapping())
    else:
        _print_proposals(measured)


def _print_proposals(measured: ProposalsBenchmark) -> None:
    from rich.table import Table

    from budgetnet.cli.tables import console
    from budgetnet.common.formatting import percent, short_seconds
    from budgetnet.statistics.intervals import with_interval

    limits = ", ".join(f"{value:,} {name[4:]}" for name, value in measured.budget.to_mapping().items() if value)
    shape = "x".join(map(str, measured.input_shape))
    title = f"Proposals from {measured.space.name or 'a file'}: at most {limits}; images {shape}"
    table = Table(title=title, title_justify="left")
    table.add_column("sizing", no_wrap=True)
    for heading in ("count", "within % [95 %]", "use %", "low use %", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in measured.rows:
        uses = ("-" if use is None else percent(use) for use in (row.median_use, row.low_use))
        within = with_interval(row.share_within, row.interval)
        table.add_row(row.sizing, f"{row.proposals:,}", within, *uses, short_seconds(row.seconds_per_proposal))
    output = console()
    output.print(table)
    output.print("use: of the tightest limit, median of the proposals within the budget")
    output.print("low use: a twentieth of them uses less; time: mean, to draw, size, check")
    print_goals(output, measured.goals)
    print_machine(output, measured.environment, packages=("optuna",))
