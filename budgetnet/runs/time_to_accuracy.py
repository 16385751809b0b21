"""Time to accuracy: epochs, training operations and wall time until a run first reached a validation accuracy.

The metric is that of DAWNBench (Coleman et al. 2017). Wall times are only comparable on the same hardware, so training
operations, from `budgetnet.runs.training_cost`, are given as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.runs.records import RunRecord


class TimeToTarget(NamedTuple):
    """Cost of reaching a validation accuracy."""

    epoch: int
    """First epoch after which validation accuracy was at least the target, counted from 1."""
    accuracy: float
    """Validation accuracy after that epoch, from 0 to 1."""
    train_flops: int
    """Training operations up to the end of that epoch."""
    seconds: float
    """Wall time of training and validation up to the end of that epoch."""


def time_to_accuracy(record: RunRecord, target: float) -> TimeToTarget | None:
    """Find the first epoch of a run that reached a validation accuracy; None if no epoch did.

    Args:
        record: the run.
        target: validation accuracy, above 0 and at most 1.

    Raises:
        InputError: the target is out of range.
    """
    if not 0 < target <= 1:
        raise InputError("target", target, "must be above 0 and at most 1")
    # Compared as numbers of images: as a float, 0.923 may be larger than 9,230 / 10,000.
    images = record.result.validation_images
    needed = math.ceil(round(target * images, 6))
    flops = accumulate(record.flops_by_epoch)
    seconds = accumulate(epoch.seconds for epoch in record.curves)
    for epoch, operations, elapsed in zip(record.curves, flops, seconds, strict=True):
        if round(epoch.validation_accuracy * images) >= needed:
            return TimeToTarget(epoch.epoch, epoch.validation_accuracy, operations, elapsed)
    return None


class TimesToAccuracy(NamedTuple):
    """A run and its time to each of several accuracies."""

    record: RunRecord
    reached: tuple[tuple[float, TimeToTarget | None], ...]
    """Each target accuracy, from 0 to 1, and the time to it; None if the run never reached it."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the run and its times as a JSON-compatible dictionary."""
        identity, result = self.record.identity, self.record.result
        return {
            "folder": str(self.record.folder),
            "architecture": identity.spec.label,
            "recipe": identity.recipe.name,
            "seed": identity.seed,
            "device": identity.device,
            "leaks": identity.recipe.leaks,
            "validation_images": result.validation_images,
            "epochs": result.epochs,
            "train_flops": self.record.train_flops,
            "seconds": result.seconds,
            "targets": [
                {"target": target, "reached": None if found is None else found._asdict()}
                for target, found in self.reached
            ],
        }


def times_to_accuracy(records: Sequence[RunRecord], targets: Sequence[float]) -> list[TimesToAccuracy]:
    """Find the time of each run to each target accuracy, see `time_to_accuracy`.

    Raises:
        InputError: a target is not above 0 and at most 1.
    """
    return [
        TimesToAccuracy(record, tuple((target, time_to_accuracy(record, target)) for target in targets))
        for record in records
    ]
