"""HTML tables of reproductions for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from budgetnet.common.formatting import percent
from budgetnet.experiments.reproduction.ensemble import EnsembleReproduction
from budgetnet.experiments.reproduction.ladder import LadderResult
from budgetnet.experiments.reproduction.leakage import LeakageResult
from budgetnet.experiments.reproduction.reference import ReferenceResult
from budgetnet.experiments.reproduction.rows import RunRow
from budgetnet.experiments.reproduction.running import ReproductionResult
from budgetnet.experiments.reproduction.verdict import Verdict
from budgetnet.statistics.intervals import points
from budgetnet.visualization.html import table_html
from budgetnet.visualization.published import stated_accuracy


def reproduction_html(result: ReproductionResult) -> str:
    """Return the runs of a reproduction as a table, the networks of a ladder as another, and the conclusion."""
    head: Sequence[str] = ("recipe", "seed", "epochs", "train %", "validation %", "test %", "validation less test")
    name = escape(result.to_mapping()["reproduction"])
    shown = table_html(f"<b>reproduction: {name}</b>", head, [_cells(row) for row in result.rows])
    if isinstance(result, LadderResult):
        head = ("network", "params", "seeds", "test %", "stated %")
        rungs: list[Sequence[object]] = [
            (
                each.published.name,
                f"{each.params:,}",
                each.n,
                percent(each.test_accuracy),
                stated_accuracy(each.published),
            )
            for each in result.rungs
        ]
        shown += table_html("means over the seeds; ~ approximate in the paper", head, rungs)
    return f"{shown}<p>{escape(_conclusion(result))}</p>"


def _cells(row: RunRow) -> list[object]:
    recipe = f"{row.recipe} (leaking)" if row.leaks else row.recipe
    accuracies = (row.train_accuracy, row.validation_accuracy, row.test_accuracy)
    shown = ["-" if accuracy is None else percent(accuracy) for accuracy in accuracies]
    return [recipe, row.seed, row.epochs, *shown, "-" if row.gap is None else points(row.gap)]


def _conclusion(result: ReproductionResult) -> str:
    match result:
        case ReferenceResult():
            return _verdict_text(result.verdict)
        case LeakageResult():
            difference = result.difference
            gap = points(difference.mean, difference.interval)
            return f"The leak widens the gap by {gap} points, n = {difference.n} paired seeds."
        case LadderResult():
            order = "The order is the paper's." if result.same_order else "The order is not the paper's."
            return f"{order} {_verdict_text(result.rungs[-1].verdict)}"
        case EnsembleReproduction():
            accuracy, mean = percent(result.result.scores.accuracy), percent(result.result.mean_accuracy)
            return f"Ensemble: {accuracy} % on the test set, members {mean} % on average; {result.published.caveat}."


def _verdict_text(verdict: Verdict) -> str:
    comparison = verdict.comparison
    difference = points(comparison.difference, comparison.interval)
    reasons = f" ({'; '.join(verdict.reasons)})" if verdict.reasons else ""
    return (
        f"{verdict.outcome}{reasons}: {percent(comparison.mean)} % here, {percent(comparison.published)} % published, "
        f"difference {difference} points, n = {comparison.n}."
    )
