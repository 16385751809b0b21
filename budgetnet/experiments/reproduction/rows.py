"""One line for each run, as its record has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from budgetnet.runs.records import RunRecord
from budgetnet.statistics.intervals import Interval, mean_interval


class RunRow(NamedTuple):
    """A run and what it came to; accuracies are shares, None where there is none."""

    run: str
    """Name of its folder."""
    recipe: str
    seed: int
    epochs: int
    """Epochs trained."""
    best_epoch: int | None
    """Epoch whose weights were kept."""
    train_accuracy: float | None
    """On augmented training images, in the best epoch, while the weights moved."""
    validation_accuracy: float | None
    """Behind the best epoch."""
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
        """The row as plain data."""
        return {**self._asdict(), "gap": self.gap}


def run_rows(records: Iterable[RunRecord]) -> tuple[RunRow, ...]:
    """The rows of some runs, in their order."""
    return tuple(map(_row, records))


def _row(record: RunRecord) -> RunRow:
    result, identity = record.result, record.identity
    best = None if result.best_epoch is None else record.curves[result.best_epoch - 1]
    return RunRow(
        run=record.folder.name,
        recipe=identity.recipe.name or "from a file",
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
    """Student's 95 % interval of a mean over seeds; none where there is no spread to make one from."""
    return mean_interval(values) if len(set(values)) > 1 else None
