"""The verb that says what trained networks are worth, and how that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from budgetnet.cli.options import Device, Json, On, OtherData, RunsArgument, TestTimeAugmentation, one_of, print_json
from budgetnet.runs.recipe import LEAKAGE_WARNING, Views

if TYPE_CHECKING:
    from rich.console import Console

    from budgetnet.api.evaluation import Evaluations
    from budgetnet.evaluation.results import EvaluatedRun

_SEEN: dict[Views, str] = {
    "none": "",
    "flip": ", mirrored too",
    "flip-and-shifts": ", mirrored and shifted too",
}
"""What is said of images by the views of them that were judged."""


def evaluate(
    runs: RunsArgument,
    on: On = "validation",
    data: OtherData = None,
    tta: TestTimeAugmentation = "recipe",
    device: Device = "auto",
    bins: Annotated[int, typer.Option("--bins", min=1, max=1000, help="Bins of the calibration error.")] = 15,
    as_json: Json = False,
) -> None:
    """What trained networks are worth, class by class and against each other; the test set stays sealed by itself."""
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
            output.print("runs that were judged on different images are not compared")
    print_images(output, evaluated)


def evaluate_runs(
    runs: Sequence[Path], *, on: str, data: str | None, tta: str, device: str, by: str, together: bool = False
) -> Evaluations:
    """What the runs' networks say of the images that the options ask about.

    Args:
        runs: their folders.
        on: the option of that name, as are ``data``, ``tta`` and ``device``.
        data: likewise.
        tta: likewise.
        device: likewise.
        by: the verb.
        together: whether all must be asked about the same images, and classes need no names.

    Raises:
        InputError: an option is none, a run cannot be asked, or the images are not to be had.
    """
    one_of(on, ("validation", "test"), field="--on")
    one_of(tta, (*_SEEN, "recipe"), field="--tta")
    from budgetnet.api.evaluation import evaluate as evaluate_networks

    return evaluate_networks(runs, on=on, data=data, tta=tta, device=device, by=by, same_images=together)


def print_images(output: Console, evaluated: Sequence[EvaluatedRun]) -> None:
    """Prints which images the answers are about, and what became of the seal."""
    from budgetnet.runs.store import TEST_OPENINGS_FILE

    if evaluated[0].part == "validation":
        output.print("validation images also chose each run's best epoch; the test set stays sealed")
        return
    opened = [each for each in evaluated if not each.kept]
    if len(opened) < len(evaluated):
        names = ", ".join(each.run for each in evaluated if each.kept)
        output.print(f"answered from kept scores, without another opening of the test set: {names}")
    if opened:
        logs = ", ".join(dict.fromkeys(str(each.record.folder.parent / TEST_OPENINGS_FILE) for each in opened))
        output.print(f"test set opened for {', '.join(each.run for each in opened)}; written down in {logs}")


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
        f"{identity.recipe.name or 'from a file'}, seed {identity.seed}, weights of epoch {result.best_epoch} of "
        f"{result.epochs}"
    )
    accuracy = f"accuracy {format_with_interval(scores.accuracy, scores.interval)} %"
    output.print("; ".join([accuracy, *evaluated.remarks]), style="yellow" if evaluated.remarks else None)
    output.print(
        f"{scores.correct:,} of {scores.images:,} {evaluated.part} images{_SEEN[evaluated.views]}; "
        f"95 % interval by Wilson; loss {scores.loss:.4f}, ECE {percent(calibration.ece)} %"
    )
    output.print(class_table(scores, evaluated.class_names))
    output.print(confusion_table(scores, evaluated.class_names, width=output.width))
    output.print(calibration_table(calibration))
    output.print()
