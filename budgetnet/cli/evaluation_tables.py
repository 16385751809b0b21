"""Terminal tables of evaluations: per class, confusion matrix, calibration, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from budgetnet.cli.tables import titled_table
from budgetnet.common.formatting import percent, short_p_value
from budgetnet.evaluation.results import Comparison, EvaluatedRun, most_frequent_confusions
from budgetnet.runs.metrics import Calibration, Scores
from budgetnet.statistics.intervals import format_with_interval

HOW_COMPARED = (
    "difference: accuracy of the first minus that of the second; only first, only second: images that only this one "
    "classifies correctly; p: McNemar's exact test, Holm-corrected over all rows. The interval is Newcombe's for one "
    "pair alone, so it can exclude 0 where p is above 0.05"
)
"""Line below a table of comparisons."""

_CONFUSIONS = 10
"""Number of confusions to list if the matrix is too wide."""


def class_table(scores: Scores, names: Sequence[str]) -> Table:
    """Return a table of recall and precision for each class."""
    table = titled_table("per class", "class", "images", "recall % [95 %]", "precision %")
    for each in scores.per_class(names):
        recall = (
            "-"
            if each.accuracy is None or each.interval is None
            else format_with_interval(each.accuracy, each.interval, images=each.images)
        )
        precision = "-" if each.precision is None else percent(each.precision, images=each.images)
        table.add_row(each.name, f"{each.images:,}", recall, precision)
    return table


def confusion_table(scores: Scores, names: Sequence[str], *, width: int) -> Table:
    """Return the confusion matrix, or, if it is wider than `width`, a table of the most frequent confusions."""
    confusion = scores.confusion().tolist()
    labels = [name if name == str(number) else f"{number} {name}" for number, name in enumerate(names)]
    digits = max(len(str(max(map(max, confusion)))), len(str(len(names) - 1)))
    if max(map(len, labels)) + len(names) * (digits + 2) > width:
        return _confusions_table(scores, names)
    table = titled_table("confusion matrix: true class in rows, predicted class in columns", "")
    table.box, table.padding, table.show_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
    table.pad_edge = False
    for number in range(len(names)):
        table.add_column(str(number), justify="right", no_wrap=True)
    for number, row in enumerate(confusion):
        cells = [
            Text(str(count) if count else ".", "bold" if predicted == number else "")
            for predicted, count in enumerate(row)
        ]
        table.add_row(labels[number], *cells)
    return table


def _confusions_table(scores: Scores, names: Sequence[str]) -> Table:
    table = titled_table("most frequent confusions", "true", "predicted", "images", "% of the true class")
    table.columns[1].justify = "left"
    for each in most_frequent_confusions(scores, names, most=_CONFUSIONS):
        table.add_row(each.truth, each.predicted, f"{each.images:,}", percent(each.share))
    return table


def calibration_table(calibration: Calibration) -> Table:
    """Return a table of accuracy by confidence, without empty bins."""
    title = f"calibration: ECE {percent(calibration.ece)} % over {len(calibration.bins)} bins"
    table = titled_table(title, "confidence %", "images", "mean confidence %", "accuracy %")
    for each in calibration.bins:
        if each.confidence is not None and each.accuracy is not None:
            span = f"{100 * each.low:.1f} to {100 * each.high:.1f}"
            table.add_row(span, f"{each.count:,}", percent(each.confidence), percent(each.accuracy))
    return table


def overview_table(evaluated: Sequence[EvaluatedRun], *, bins: int) -> Table:
    """Return a table with one row for each run."""
    table = titled_table("all runs", "", "run", "params", "accuracy % [95 %]", "loss", "ECE %")
    fold(table, 1)
    for number, each in enumerate(evaluated, 1):
        scores = each.scores
        accuracy = format_with_interval(scores.accuracy, scores.interval, images=scores.images)
        table.add_row(
            str(number),
            each.run,
            f"{each.record.result.params:,}",
            f"{accuracy} leaking" if each.leaks else accuracy,
            f"{scores.loss:.4f}",
            percent(scores.calibration(bins).ece),
        )
    return table


def comparison_table(comparisons: Sequence[Comparison], *, title: str, numbers: Mapping[str, str]) -> Table:
    """Return a table of pairwise comparisons on the same images.

    Args:
        comparisons: the comparisons.
        title: title of the table.
        numbers: short name of each network, by run folder.
    """
    table = titled_table(title, "pair", "difference % [95 %]", "only first", "only second", "p")
    for each in comparisons:
        outcome = each.outcome
        low, high = outcome.interval
        table.add_row(
            f"{numbers[each.first]} - {numbers[each.second]}",
            f"{100 * outcome.difference:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]",
            f"{outcome.mcnemar.only_first:,}",
            f"{outcome.mcnemar.only_second:,}",
            Text(short_p_value(each.adjusted_p), "green" if each.adjusted_p < 0.05 else "yellow"),
        )
    return table


def fold(table: Table, place: int) -> None:
    """Let a column wrap long names."""
    column = table.columns[place]
    column.justify, column.overflow, column.min_width = "left", "fold", 12
