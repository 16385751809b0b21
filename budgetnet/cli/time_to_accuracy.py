"""The ``budgetnet time-to-accuracy`` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.options import Json, RunsArgument, print_json
from budgetnet.common.errors import InputError
from budgetnet.runs.named_recipes import describe_recipe
from budgetnet.runs.recipe import LEAKAGE_WARNING

if TYPE_CHECKING:
    from rich.table import Table

    from budgetnet.runs.time_to_accuracy import TimesToAccuracy


def time_to_accuracy(
    runs: RunsArgument,
    targets: Annotated[
        str, typer.Option("--targets", metavar="LIST", help="Validation accuracies in per cent, separated by commas.")
    ] = "90,93,94,95",
    as_json: Json = False,
) -> None:
    """Compare epochs, PFLOP and minutes until runs first reached a validation accuracy."""
    wanted = _read_targets(targets)
    from budgetnet.runs.store import RunFolder
    from budgetnet.runs.time_to_accuracy import times_to_accuracy
    from budgetnet.study.run_names import run_path

    found = times_to_accuracy([RunFolder(run_path(run)).load(weights=False) for run in runs], wanted)
    if as_json:
        print_json({"runs": [each.to_mapping() for each in found]})
        return
    from budgetnet.cli.tables import console

    output = console()
    output.print(_table(found))
    output.print(
        "epoch: first epoch whose validation accuracy reached the target; PFLOP: 1e15 floating-point operations of "
        "training until its end; minutes: training and validation until its end, comparable only on the same hardware"
    )
    if len({each.record.identity.data.split_fingerprint for each in found}) > 1:
        output.print("the runs were validated on different images", style="yellow")
    if any(each.record.identity.recipe.leaks for each in found):
        output.print(LEAKAGE_WARNING, style="yellow")


def _read_targets(text: str) -> list[float]:
    """Parse accuracies in per cent; return them as fractions, sorted and without duplicates.

    Raises:
        InputError: a value is not a number above 0 and at most 100.
    """
    try:
        numbers = sorted({float(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number <= 100 for number in numbers):
        raise InputError("--targets", text, "must be accuracies in per cent, such as 90,93,94")
    return [number / 100 for number in numbers]


def _table(found: list[TimesToAccuracy]) -> Table:
    from rich.table import Table

    from budgetnet.common.formatting import percent, short_petaflops

    table = Table(title="time to accuracy", title_justify="left")
    for heading in ("run", "recipe"):
        table.add_column(heading, overflow="fold")
    for heading in ("seed", "target %", "reached %", "epoch", "PFLOP", "minutes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        identity = each.record.identity
        for number, (target, reached) in enumerate(each.reached):
            first = number == 0
            table.add_row(
                each.record.folder.name if first else "",
                describe_recipe(identity.recipe) if first else "",
                str(identity.seed) if first else "",
                f"{100 * target:g}",
                *(
                    ("-", "-", "-", "-")
                    if reached is None
                    else (
                        percent(reached.accuracy),
                        f"{reached.epoch} of {each.record.result.epochs}",
                        short_petaflops(reached.train_flops),
                        f"{reached.seconds / 60:.{2 if reached.seconds < 600 else 1}f}",
                    )
                ),
                end_section=number == len(each.reached) - 1,
            )
    return table
