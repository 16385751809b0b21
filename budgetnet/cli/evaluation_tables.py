"""How answers of trained networks look in a terminal: class by class, confused, calibrated, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from budgetnet.cli.tables import titled_table
from budgetnet.common.formatting import percent
from budgetnet.evaluation.results import Comparison, EvaluatedRun, most_frequent_confusions
from budgetnet.runs.metrics import Calibration, Scores
from budgetnet.statistics.intervals import format_with_interval

HOW_COMPARED = (
    "difference: accuracy of the first less that of the second; only first, only second: images that it alone "
    "classifies rightly; p: McNemar's exact test, with Holm's correction for all rows together"
)
"""What stands below a table of comparisons."""

_CONFUSIONS = 10
"""Confusions that are listed where the matrix has no room."""


def class_table(scores: Scores, names: Sequence[str]) -> Table:
    """What a network made of each class."""
    table = titled_table("class by class", "class", "images", "recall % [95 %]", "precision %")
    for each in scores.per_class(names):
        recall = (
            "-"
            if each.accuracy is None or each.interval is None
            else format_with_interval(each.accuracy, each.interval)
        )
        precision = "-" if each.precision is None else percent(each.precision)
        table.add_row(each.name, f"{each.images:,}", recall, precision)
    return table


def confusion_table(scores: Scores, names: Sequence[str], *, width: int) -> Table:
    """Every true class and what was said of its images, or, where that is too wide, the most frequent confusions."""
    confusion = scores.confusion().tolist()
    labels = [name if name == str(number) else f"{number} {name}" for number, name in enumerate(names)]
    digits = max(len(str(max(map(max, confusion)))), len(str(len(names) - 1)))
    if max(map(len, labels)) + len(names) * (digits + 2) > width:
        return _confusions_table(scores, names)
    table = titled_table("confusion: true in rows, said in columns", "")
    table.box, table.padding, table.show_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
    table.pad_edge = False
    for number in range(len(names)):
        table.add_column(str(number), justify="right", no_wrap=True)
    for number, row in enumerate(confusion):
        cells = [Text(str(count) if count else ".", "bold" if said == number else "") for said, count in enumerate(row)]
        table.add_row(labels[number], *cells)
    return table


def _confusions_table(scores: Scores, names: Sequence[str]) -> Table:
    table = titled_table("most frequent confusions", "true", "said", "images", "% of the true class")
    table.columns[1].justify = "left"
    for each in most_frequent_confusions(scores, names, most=_CONFUSIONS):
        table.add_row(each.truth, each.predicted, f"{each.images:,}", percent(each.share))
    return table


def calibration_table(calibration: Calibration) -> Table:
    """Whether a network is right as often as it says; empty bins are left out."""
    title = f"calibration: ECE {percent(calibration.ece)} % over {len(calibration.bins)} bins"
    table = titled_table(title, "confidence %", "images", "mean confidence %", "right %")
    for each in calibration.bins:
        if each.confidence is not None and each.accuracy is not None:
            span = f"{100 * each.low:.1f} to {100 * each.high:.1f}"
            table.add_row(span, f"{each.count:,}", percent(each.confidence), percent(each.accuracy))
    return table


def overview_table(evaluated: Sequence[EvaluatedRun], *, bins: int) -> Table:
    """Several runs under each other."""
    table = titled_table("all runs", "", "run", "params", "accuracy % [95 %]", "loss", "ECE %")
    fold(table, 1)
    for number, each in enumerate(evaluated, 1):
        scores = each.scores
        accuracy = format_with_interval(scores.accuracy, scores.interval)
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
    """Pairs of networks on the same images.

    Args:
        comparisons: what to show.
        title: what to call them.
        numbers: what each network is called, for short.
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
            Text(short_p(each.adjusted_p), "green" if each.adjusted_p < 0.05 else "yellow"),
        )
    return table


def short_p(p_value: float) -> str:
    """A p-value in so many figures as matter."""
    return f"{p_value:.3f}" if p_value >= 0.0005 else "< 0.001"


def fold(table: Table, place: int) -> None:
    """Lets a column hold long names, in as many lines as they need."""
    column = table.columns[place]
    column.justify, column.overflow, column.min_width = "left", "fold", 12
