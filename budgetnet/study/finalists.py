"""Finalists of a study and their results, read from the records of their runs."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

import optuna

from budgetnet.common.documents import Document
from budgetnet.common.errors import InputError, RecordError
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.statistics.intervals import Interval, correct_count, gap_interval, mean_interval, wilson_interval

FINALS_KEY = "budgetnet:finals"
"""User attribute of a study that holds its finals."""


class Finalist(Document):
    """A candidate that is trained with the final recipe."""

    trial: int
    """Number of its trial."""
    name: str
    """Name in tables: ``#12``, or the label of an enqueued network."""
    spec: ModelSpec
    """The network."""
    recipe: Recipe
    """Recipe of its runs."""
    enqueued: bool = False
    """Whether the user enqueued it."""
    runs: tuple[str, ...]
    """Names of its run folders, one per seed."""


class Finals(Document):
    """Finalists of a study and the seeds of their runs."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    finalists: tuple[Finalist, ...]
    """The finalists, the best of the search first."""
    seeds: tuple[int, ...]
    """Seeds; each finalist is trained with each of them."""


class FinalResult(NamedTuple):
    """A finalist and the records of its runs."""

    finalist: Finalist
    records: tuple[RunRecord, ...]
    """Its complete runs, in the order of the seeds."""

    @property
    def validation(self) -> list[float]:
        """Validation accuracy of each run at its best epoch, as shares."""
        return [record.result.validation_accuracy or 0.0 for record in self.records]

    @property
    def test(self) -> list[float]:
        """Test accuracy of each run that was evaluated on the test set, as shares."""
        return [record.test.accuracy for record in self.records if record.test]

    @property
    def train_flops(self) -> list[int]:
        """Floating-point operations of each run's training."""
        return [record.train_flops for record in self.records]

    @property
    def test_interval(self) -> Interval | None:
        """95 % interval of the mean test accuracy: Student's over the seeds, Wilson's for a single one."""
        tests = [record.test for record in self.records if record.test]
        # Equal accuracies have no standard deviation to make a Student interval from.
        if len(set(self.test)) > 1:
            low, high = mean_interval(self.test)
            return Interval(max(0.0, low), min(1.0, high))
        return wilson_interval(tests[0].correct, tests[0].images) if tests else None

    @property
    def gap(self) -> tuple[float, Interval] | None:
        """Mean test accuracy less the published one, and its 95 % interval."""
        own = self.test_interval
        if own is None:
            return None
        # Imported here because most tables that import this module show no published result.
        from budgetnet.model.published import reference

        accuracy, images = reference().accuracy, reference().known_images
        other = wilson_interval(correct_count(accuracy, images), images)
        mean = fmean(self.test)
        return mean - accuracy, gap_interval(mean, own, accuracy, other)

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as plain data; accuracies as shares from 0 to 1."""
        cost, gap = self.finalist.spec.cost, self.gap
        return {
            "name": self.finalist.name,
            "architecture": self.finalist.spec.label,
            "enqueued": self.finalist.enqueued,
            **cost._asdict(),
            "runs": list(self.finalist.runs),
            "results": len(self.records),
            "train_flops": self.train_flops,
            "validation": self.validation,
            "mean_validation": fmean(self.validation) if self.records else None,
            "test": self.test,
            "mean_test": fmean(self.test) if self.test else None,
            "test_interval": list(self.test_interval) if self.test_interval else None,
            "gap": gap[0] if gap else None,
            "gap_interval": list(gap[1]) if gap else None,
        }


def store_finals(study: optuna.Study, finals: Finals) -> None:
    """Store the finals with the study."""
    study.set_user_attr(FINALS_KEY, finals.to_mapping())


def load_finals(study: optuna.Study) -> Finals | None:
    """Return the stored finals of a study, or None.

    Raises:
        RecordError: they were written by another version.
    """
    mapping = study.user_attrs.get(FINALS_KEY)
    if mapping is None:
        return None
    try:
        return Finals.from_mapping(mapping)
    except InputError as error:
        rule = f"its finals cannot be read by this version of budgetnet: {error.field} {error.rule}"
        raise RecordError("study", study.study_name, rule) from None


def read_results(finals: Finals, out: Path) -> list[FinalResult]:
    """Return the results of the finalists from their records, the best mean validation accuracy first.

    Args:
        finals: finals of the study.
        out: folder of run folders.

    Raises:
        RecordError: a run folder is damaged.
    """
    results = []
    for finalist in finals.finalists:
        folders = [RunFolder(out / name) for name in finalist.runs]
        records = [folder.load() for folder in folders if folder.finished]
        results.append(FinalResult(finalist, tuple(each for each in records if each.result.status == "complete")))
    return sorted(results, key=lambda each: -fmean(each.validation) if each.records else 0.0)
