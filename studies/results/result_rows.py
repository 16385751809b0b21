"""Networks that were trained on all of CIFAR-10 and evaluated on its test set, from the records of the studies."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple

from budgetnet.model import published
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.statistics.intervals import Interval, correct_count, mean_interval, wilson_interval

LEAST_IMAGES = 40_000
"""Fewest training images of a run on all of CIFAR-10: those without the validation images."""


Made = Literal["by hand", "by search", "at random"]
"""How a network came about."""


class Row(NamedTuple):
    """Trainings of one network by one recipe with different seeds."""

    records: tuple[RunRecord, ...]
    made: Made

    @property
    def found(self) -> bool:
        """Whether a search found the network."""
        return self.made == "by search"

    @property
    def tests(self) -> list[float]:
        """Test accuracy of each seed, as a share."""
        return [record.test.accuracy for record in self.records if record.test]

    @property
    def interval(self) -> Interval:
        """95 % interval of the mean test accuracy: Student's over seeds, Wilson's for a single one."""
        if len(set(self.tests)) > 1:
            return mean_interval(self.tests)
        (test, *_) = (record.test for record in self.records if record.test)
        return wilson_interval(test.correct, test.images)

    @property
    def minutes(self) -> float:
        """Mean minutes of a training, validation included."""
        return fmean(sum(epoch.seconds for epoch in record.curves) for record in self.records) / 60


def collect_rows(studies: Path) -> list[Row]:
    """Return the evaluated networks with the records of their runs, the most accurate first.

    Args:
        studies: folder of the studies.
    """
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for path in sorted(studies.glob("*/runs/*/test.json")):
        record = RunFolder(path.parent).load(weights=False)
        identity = record.identity
        if identity.data.train_images >= LEAST_IMAGES:
            groups.setdefault((identity.spec.digest, identity.recipe.digest), []).append(record)
    random = ModelSpec.load(studies / "cifar10-random-cpu" / "best.yaml").digest
    rows = []
    for (spec, _), group in groups.items():
        # Networks made by hand have names.
        made: Made = "by hand" if group[0].identity.spec.name else "at random" if spec == random else "by search"
        rows.append(Row(tuple(sorted(group, key=lambda record: record.identity.seed)), made))
    return sorted(rows, key=lambda row: -fmean(row.tests))


class Published(NamedTuple):
    """The published reference, as rows and figures show it."""

    params: int
    macs: int
    accuracy: float
    interval: Interval

    @classmethod
    def load(cls) -> Published:
        """Return the paper's final network, with Wilson's interval of its one evaluation."""
        result = published.reference()
        spec = get(result.known_spec)
        images = result.images or 0
        interval = wilson_interval(correct_count(result.accuracy, images), images)
        return cls(spec.params, spec.macs, result.accuracy, interval)
