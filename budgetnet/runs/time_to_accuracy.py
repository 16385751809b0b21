"""Time to accuracy: epochs, training operations and wall time until a run first reached a validation accuracy.

The measure is DAWNBench's (Coleman et al. 2017), with operations beside minutes, as minutes compare runs on the same
hardware alone. Everything comes from records: the curves of a run, and the closed form of
`budgetnet.runs.training_cost`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.runs.records import RunRecord


class Reached(NamedTuple):
    """What a run took to reach a validation accuracy."""

    epoch: int
    """First epoch at whose end validation accuracy was at least the target, counted from 1."""
    accuracy: float
    """Validation accuracy after that epoch, as a share."""
    train_flops: int
    """Floating-point operations of training up to the end of that epoch."""
    seconds: float
    """Wall time of training and validation up to the end of that epoch."""


def time_to_accuracy(record: RunRecord, target: float) -> Reached | None:
    """Find the first epoch of a run that reached a validation accuracy; None where no epoch did.

    Args:
        record: the run.
        target: validation accuracy as a share, above 0 and at most 1.

    Raises:
        InputError: the target is no such share.
    """
    if not 0 < target <= 1:
        raise InputError("target", target, "must be a share above 0 and at most 1")
    # Compared as counts of images: 0.923 as a float may lie above 9,230 / 10,000.
    images = record.result.validation_images
    needed = math.ceil(round(target * images, 6))
    flops = accumulate(record.flops_by_epoch)
    seconds = accumulate(epoch.seconds for epoch in record.curves)
    for epoch, operations, passed in zip(record.curves, flops, seconds, strict=True):
        if round(epoch.validation_accuracy * images) >= needed:
            return Reached(epoch.epoch, epoch.validation_accuracy, operations, passed)
    return None


class RunTimes(NamedTuple):
    """A run and what it took to reach each of several accuracies."""

    record: RunRecord
    reached: tuple[tuple[float, Reached | None], ...]
    """Each target, as a share, and what it took; None where the run never reached it."""

    def to_mapping(self) -> dict[str, Any]:
        """Give the run as plain data; accuracies as shares."""
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


def run_times(records: Sequence[RunRecord], targets: Sequence[float]) -> list[RunTimes]:
    """Find for each run what it took to reach each target, as `time_to_accuracy`.

    Raises:
        InputError: a target is no share above 0 and at most 1.
    """
    return [
        RunTimes(record, tuple((target, time_to_accuracy(record, target)) for target in targets)) for record in records
    ]
