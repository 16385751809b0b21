"""Rows of tables with one run each, from records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from budgetnet.runs.named_recipes import describe_recipe
from budgetnet.runs.records import RunRecord
from budgetnet.statistics.intervals import Interval, mean_interval


class RunRow(NamedTuple):
    """A run and its results; accuracies are shares, None if missing."""

    run: str
    """Name of its folder."""
    recipe: str
    seed: int
    epochs: int
    """Epochs trained."""
    best_epoch: int | None
    """Epoch of the stored weights."""
    train_accuracy: float | None
    """Accuracy on augmented training images during the best epoch."""
    validation_accuracy: float | None
    """Accuracy after the best epoch."""
    test_accuracy: float | None
    leaks: bool
    """Whether validation images were trained on."""
    ended: str
    """Why training ended."""

    @property
    def gap(self) -> float | None:
        """Validation accuracy less test accuracy."""
        if self.validation_accuracy is None or self.test_accuracy is None:
            return None
        return self.validation_accuracy - self.test_accuracy

    def to_mapping(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return {**self._asdict(), "gap": self.gap}


def run_rows(records: Iterable[RunRecord]) -> tuple[RunRow, ...]:
    """Return the rows of runs, in their order."""
    return tuple(map(_row, records))


def _row(record: RunRecord) -> RunRow:
    result, identity = record.result, record.identity
    best = None if result.best_epoch is None else record.curves[result.best_epoch - 1]
    return RunRow(
        run=record.folder.name,
        recipe=describe_recipe(identity.recipe),
        seed=identity.seed,
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        train_accuracy=best.train_accuracy if best else None,
        validation_accuracy=result.validation_accuracy,
        test_accuracy=record.test.accuracy if record.test else None,
        leaks=identity.recipe.leaks,
        ended=result.reason,
    )


def interval_of(values: list[float]) -> Interval | None:
    """Return Student's 95 % interval of a mean over seeds, or None if all values are equal."""
    return mean_interval(values) if len(set(values)) > 1 else None
