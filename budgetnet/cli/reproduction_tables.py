"""Terminal tables of reproductions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from budgetnet.cli import ensemble as ensembles
from budgetnet.cli.tables import console, titled_table
from budgetnet.common.formatting import percent, short_p_value
from budgetnet.experiments.reproduction.ensemble import EnsembleReproduction
from budgetnet.experiments.reproduction.ladder import LadderResult, Rung
from budgetnet.experiments.reproduction.leakage import LeakageResult
from budgetnet.experiments.reproduction.reference import ReferenceResult
from budgetnet.experiments.reproduction.rows import RunRow
from budgetnet.experiments.reproduction.running import ReproductionResult
from budgetnet.experiments.reproduction.verdict import Verdict
from budgetnet.model.published import get
from budgetnet.runs.recipe import LEAKAGE_WARNING
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import TEST_OPENINGS_FILE
from budgetnet.statistics.intervals import format_with_interval, points
from budgetnet.visualization.published import stated_accuracy

_WIDE = 90
"""Terminal width, in characters, from which all columns are shown."""
_COLOURS = {"reproduced": "green", "not reproduced": "red", "not comparable": "yellow"}


def print_reproduction(result: ReproductionResult, record: RunRecord, *, out: Path) -> None:
    """Print the result of a reproduction.

    Args:
        result: the result.
        record: one of its runs, for the data.
        out: folder of the runs.
    """
    match result:
        case ReferenceResult():
            _print_reference(result)
        case LeakageResult():
            _print_leakage(result)
        case LadderResult():
            _print_ladder(result)
        case EnsembleReproduction():
            _print_ensemble(result)
    data = record.identity.data
    typer.echo(
        f"data: {data.name}: {data.provenance}; {data.train_images:,} training and {data.validation_images:,} "
        f"validation images; run folders and the log of test set uses ({TEST_OPENINGS_FILE}) in {out}"
    )


def _print_reference(result: ReferenceResult) -> None:
    """Print the runs of the reference, the comparison with the published result, and the verdict."""
    output, table, verdict = console(), result.table, result.verdict
    output.print(_runs_table(result.rows, title="the published reference, trained here", width=output.width))
    agrees = "agrees" if table.agrees else "DIFFERS"
    counts = f"{table.equal} of {table.rows} rows equal, {table.params:,} parameters"
    typer.echo(f"Table 1, compared with the reference for CIFAR-10: {agrees}: {counts}")
    comparison = verdict.comparison
    spread = "" if comparison.standard_deviation is None else f" (sd {100 * comparison.standard_deviation:.2f})"
    published = result.published
    typer.echo(
        f"test accuracy: {percent(comparison.mean)} %{spread} here, n = {comparison.n}; "
        f"{percent(comparison.published)} published, {published.images:,} images, one run"
    )
    typer.echo(f"test loss: {result.loss:.3f} here, {published.loss} published")
    _print_difference(verdict)
    _print_verdict(output, verdict)


def _print_leakage(result: LeakageResult) -> None:
    """Print both recipes' runs, their gaps between validation and test accuracy, and the difference of the gaps."""
    output = console()
    title = "validation and test accuracy, with and without a leaking split"
    output.print(_runs_table(result.rows, title=title, width=output.width))
    title = "means over seeds, in per cent; gap: validation minus test [95 %]"
    table = titled_table(title, "recipe", "seeds", "train", "valid.", "test", "gap", no_wrap=True)
    for side in result.sides:
        table.add_row(
            _recipe(side.recipe, leaks=side.leaks),
            str(side.n),
            percent(side.train_accuracy),
            percent(side.validation_accuracy),
            percent(side.test_accuracy),
            points(side.gap, side.gap_interval),
        )
    validation, test = get("leaking-validation").accuracy, get("reference").accuracy
    name = _recipe("published", leaks=True)
    table.add_row(name, "1", "~98", percent(validation), percent(test), points(result.published_gap), style="cyan")
    output.print(table)
    difference = result.difference
    typer.echo(
        f"the leak widens the gap by {points(difference.mean, difference.interval)} points, n = {difference.n} paired "
        f"seeds, {_p_value(difference.p_value)} ({difference.method})"
    )
    typer.echo(f"{result.sides[0].recipe} is {LEAKAGE_WARNING}")


def _print_ladder(result: LadderResult) -> None:
    """Print the ladder's networks in order with stated and measured accuracies and steps."""
    output = console()
    wide = output.width >= 100
    headings = ["rung", "params", "seeds", "test %", "stated %", "step here", "step stated"]
    headings += ["p (Holm)"] if wide else []
    table = titled_table("the paper's ladder: stated and measured here", *headings)
    for rung in result.rungs:
        table.add_row(*_rung_cells(rung, wide=wide))
    output.print(table)
    order = "the order is the paper's" if result.same_order else "the order is not the paper's"
    typer.echo(f"{order}; steps: paired differences in points, with intervals; ~ approximate in the paper")
    # Only the last rung is published exactly; the others are approximate.
    top = result.rungs[-1].verdict
    _print_difference(top, name=top.published.name)
    _print_verdict(output, top)


def _print_ensemble(result: EnsembleReproduction) -> None:
    """Print the members, their mean and the ensemble, with the paper's own result."""
    output = console()
    ensembles.print_ensemble(output, result.result, max_params=result.max_params, leaks=False)
    typer.echo(f"published: about {100 * result.published.accuracy:.0f} %; {result.published.caveat}: not comparable")


def _rung_cells(rung: Rung, *, wide: bool) -> list[str]:
    published, step = rung.published, rung.step
    test = format_with_interval(rung.test_accuracy, rung.interval) if rung.interval else percent(rung.test_accuracy)
    cells = [published.name, f"{rung.params:,}", str(rung.n), test, stated_accuracy(published)]
    cells += [points(step.difference.mean, step.difference.interval), points(step.published)] if step else ["", ""]
    if wide:
        cells.append("" if step is None or step.p_value is None else short_p_value(step.p_value))
    return cells


def _recipe(name: str, *, leaks: bool) -> str:
    return f"{name} (leaking)" if leaks else name


def _runs_table(rows: Sequence[RunRow], *, title: str, width: int) -> Table:
    wide = width >= _WIDE
    best = ["best"] if wide else []
    headings = ("recipe", "seed", "epochs", *best, "train %", "valid. %", "test %", "gap")
    table = titled_table(title, *headings, no_wrap=True)
    for row in rows:
        accuracies = (row.train_accuracy, row.validation_accuracy, row.test_accuracy)
        best = ["-" if row.best_epoch is None else str(row.best_epoch)] if wide else []
        table.add_row(
            _recipe(row.recipe, leaks=row.leaks),
            str(row.seed),
            str(row.epochs),
            *best,
            *("-" if accuracy is None else percent(accuracy) for accuracy in accuracies),
            "-" if row.gap is None else points(row.gap),
        )
    return table


def _p_value(p_value: float | None) -> str:
    if p_value is None:
        return "no p-value"
    return f"p {'' if p_value < 0.001 else '= '}{short_p_value(p_value)}"


def _print_difference(verdict: Verdict, *, name: str = "difference") -> None:
    comparison = verdict.comparison
    typer.echo(
        f"{name}: {points(comparison.difference, comparison.interval)} points, {_p_value(comparison.p_value)} "
        f"({comparison.test})"
    )


def _print_verdict(output: Console, verdict: Verdict) -> None:
    output.print(Text(f"verdict: {verdict.outcome}", f"bold {_COLOURS[verdict.outcome]}"))
    for reason in verdict.reasons:
        typer.echo(f"  as {reason}")
    for remark in verdict.remarks:
        typer.echo(f"  remark: {remark}")
