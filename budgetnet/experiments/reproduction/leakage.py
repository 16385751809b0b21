"""Leakage of the notebook's validation split: gap of validation and test accuracy with and without it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from budgetnet.common.errors import BudgetnetError
from budgetnet.experiments.reproduction.rows import RunRow, interval_of, run_rows
from budgetnet.model.published import get
from budgetnet.runs.records import RunRecord
from budgetnet.statistics import Difference, paired_difference
from budgetnet.statistics.intervals import Interval


class Side(NamedTuple):
    """Runs of one recipe; accuracies and gaps are means over them, as shares."""

    recipe: str
    leaks: bool
    n: int
    """Number of seeds with results of both recipes."""
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float
    gap: float
    """Validation accuracy less test accuracy."""
    gap_interval: Interval | None
    """Student's interval over the seeds; None for a single one."""
    epochs: float
    """Epochs trained."""


class LeakageResult(NamedTuple):
    """Two recipes, trained with the same seeds."""

    rows: tuple[RunRow, ...]
    """Each run."""
    sides: tuple[Side, Side]
    """The recipe that leaks, then the one that does not."""
    difference: Difference
    """Paired difference of the gaps, leaking less not leaking."""
    published_gap: float
    """The notebook's validation accuracy less its test accuracy."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "reproduction": "leakage",
            "runs": [row.to_mapping() for row in self.rows],
            "recipes": [
                {**side._asdict(), "gap_interval": side.gap_interval and list(side.gap_interval)} for side in self.sides
            ],
            "difference_of_gaps": {
                **self.difference._asdict(),
                "interval": self.difference.interval and list(self.difference.interval),
            },
            "published": {
                "validation_accuracy": get("leaking-validation").accuracy,
                "test_accuracy": get("reference").accuracy,
                "gap": self.published_gap,
            },
        }


def leakage_result(leaking: Sequence[RunRecord], sound: Sequence[RunRecord]) -> LeakageResult:
    """Compute the leakage from runs of two recipes, paired by seed.

    Args:
        leaking: runs that trained on their validation images, with test results.
        sound: runs with the same seeds and held-out validation images, with test results.

    Raises:
        BudgetnetError: no seed has results of both recipes.
    """
    pairs = [
        (one, other)
        for one, other in zip(run_rows(leaking), run_rows(sound), strict=True)
        if one.gap is not None and other.gap is not None
    ]
    if not pairs:
        raise BudgetnetError("no seed has results of both recipes")
    sides = _side([one for one, _ in pairs]), _side([other for _, other in pairs])
    difference = paired_difference([one.gap or 0.0 for one, _ in pairs], [other.gap or 0.0 for _, other in pairs])
    published = get("leaking-validation").accuracy - get("reference").accuracy
    return LeakageResult(run_rows([*leaking, *sound]), sides, difference, published)


def _side(rows: list[RunRow]) -> Side:
    def mean(field: str) -> float:
        return fmean(getattr(row, field) for row in rows)

    return Side(
        recipe=rows[0].recipe,
        leaks=rows[0].leaks,
        n=len(rows),
        train_accuracy=mean("train_accuracy"),
        validation_accuracy=mean("validation_accuracy"),
        test_accuracy=mean("test_accuracy"),
        gap=mean("gap"),
        gap_interval=interval_of([row.gap or 0.0 for row in rows]),
        epochs=mean("epochs"),
    )
