"""The ``budgetnet evaluate`` command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.options import Device, Json, On, OtherData, RunsArgument, TestTimeAugmentation, print_json
from budgetnet.cli.parsing import check_names, one_of
from budgetnet.runs.named_recipes import describe_recipe
from budgetnet.runs.recipe import LEAKAGE_WARNING, Views

if TYPE_CHECKING:
    from rich.console import Console

    from budgetnet.api.evaluation import Evaluations
    from budgetnet.evaluation.results import EvaluatedRun

_VIEWS: dict[Views, str] = {
    "none": "",
    "flip": ", averaged over flips",
    "flip-and-shifts": ", averaged over flips and shifts",
}
"""Description of test-time augmentation, by views."""


def evaluate(
    runs: RunsArgument,
    on: On = "validation",
    data: OtherData = None,
    tta: TestTimeAugmentation = "recipe",
    device: Device = "auto",
    bins: Annotated[int, typer.Option("--bins", min=1, max=1000, help="Number of bins of the calibration error.")] = 15,
    as_json: Json = False,
) -> None:
    """Evaluate trained networks: per class, calibration, comparisons; on the test set only with --on test."""
    evaluated = evaluate_runs(runs, on=on, data=data, tta=tta, device=device, by="evaluate")
    if as_json:
        print_json(evaluated.to_mapping(bins=bins))
        return
    comparisons = evaluated.comparisons
    from budgetnet.cli.evaluation_tables import HOW_COMPARED, comparison_table, overview_table
    from budgetnet.cli.tables import console

    output = console()
    for number, each in enumerate(evaluated, 1):
        _print_run(output, each, number=number, bins=bins)
    if len(evaluated) > 1:
        output.print(overview_table(evaluated, bins=bins))
        if any(each.leaks for each in evaluated):
            output.print(LEAKAGE_WARNING, style="yellow")
        if comparisons:
            numbers = {str(each.record.folder): str(number) for number, each in enumerate(evaluated, 1)}
            title = "differences on the same images"
            output.print(comparison_table(comparisons, title=title, numbers=numbers))
            output.print(HOW_COMPARED)
        if len(comparisons) < len(evaluated) * (len(evaluated) - 1) // 2:
            output.print("runs evaluated on different images are not compared")
    print_images(output, evaluated)


def evaluate_runs(
    runs: Sequence[Path], *, on: str, data: str | None, tta: str, device: str, by: str, together: bool = False
) -> Evaluations:
    """Evaluate the networks of runs as the command-line options say.

    Args:
        runs: run folders.
        on: value of ``--on``.
        data: value of ``--data``.
        tta: value of ``--tta``.
        device: value of ``--device``.
        by: name of the command, for the log of test set uses.
        together: whether all runs must be evaluated on the same images; class names are then not read.

    Raises:
        InputError: an option is invalid, a run cannot be evaluated, or the images are not available.
    """
    one_of(on, ("validation", "test"), field="--on")
    one_of(tta, (*_VIEWS, "recipe"), field="--tta")
    check_names(data=data, device=device)
    from budgetnet.api.evaluation import evaluate as evaluate_networks

    return evaluate_networks(runs, on=on, data=data, tta=tta, device=device, by=by, same_images=together)


def print_images(output: Console, evaluated: Sequence[EvaluatedRun]) -> None:
    """Print which images the results are on, and whether the test set was used."""
    from budgetnet.runs.store import TEST_OPENINGS_FILE

    if evaluated[0].part == "validation":
        output.print("on validation images, which also selected each run's best epoch by its loss; test set not used")
        return
    opened = [each for each in evaluated if not each.kept]
    if len(opened) < len(evaluated):
        names = ", ".join(each.run for each in evaluated if each.kept)
        output.print(f"stored scores, test set not used again: {names}")
    if opened:
        logs = ", ".join(dict.fromkeys(str(each.record.folder.parent / TEST_OPENINGS_FILE) for each in opened))
        output.print(f"test set used for {', '.join(each.run for each in opened)}; recorded in {logs}")


def _print_run(output: Console, evaluated: EvaluatedRun, *, number: int, bins: int) -> None:
    from budgetnet.cli.evaluation_tables import calibration_table, class_table, confusion_table
    from budgetnet.common.formatting import percent, short_count
    from budgetnet.statistics.intervals import format_with_interval

    record, scores = evaluated.record, evaluated.scores
    identity, result = record.identity, record.result
    calibration = scores.calibration(bins)
    output.print(f"{number}: {record.folder}", style="bold")
    output.print(
        f"{identity.spec.label}: {result.params:,} parameters, {short_count(result.macs)} MACs; recipe "
        f"{describe_recipe(identity.recipe)}, seed {identity.seed}, weights of epoch {result.best_epoch} of "
        f"{result.epochs} (lowest validation loss)"
    )
    balanced = percent(scores.balanced_accuracy, images=scores.images)
    accuracy = f"accuracy {format_with_interval(scores.accuracy, scores.interval, images=scores.images)} %"
    output.print("; ".join([accuracy, *evaluated.remarks]), style="yellow" if evaluated.remarks else None)
    output.print(
        f"{scores.correct:,} of {scores.images:,} {evaluated.part} images{_VIEWS[evaluated.views]}; "
        f"95 % interval by Wilson; balanced accuracy {balanced} %, loss {scores.loss:.4f}, "
        f"ECE {percent(calibration.ece)} %"
    )
    output.print(class_table(scores, evaluated.class_names))
    output.print(confusion_table(scores, evaluated.class_names, width=output.width))
    output.print(calibration_table(calibration))
    output.print()
