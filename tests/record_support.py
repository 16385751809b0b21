"""Run records with given results, as read from run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from budgetnet.model.cost import cost_of
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import DataRecord, Epoch, RunIdentity, RunRecord, RunResult, TestResult


def data_record(**changes: Any) -> DataRecord:
    """Return the data record of original CIFAR-10 with 40,000 training and 10,000 validation images."""
    fields: dict[str, Any] = {
        "name": "cifar10",
        "provenance": "original CIFAR-10, checksums verified by torchvision",
        "fingerprint": "ab" * 32,
        "is_original_cifar10": True,
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2023, 0.1994, 0.2010),
        "split_fingerprint": "cd" * 32,
        "train_images": 40_000,
        "validation_images": 10_000,
    }
    return DataRecord(**{**fields, **changes})


def run_record(
    *,
    seed: int = 0,
    test_correct: int | None = 9_141,
    test_images: int = 10_000,
    validation_correct: int | None = 9_000,
    spec: ModelSpec | None = None,
    recipe: Recipe | None = None,
    data: DataRecord | None = None,
) -> RunRecord:
    """Return a run of two epochs, the second one its best; diverged in epoch 3 if ``validation_correct`` is None."""
    spec, recipe, data = spec or get("reference"), recipe or named_recipe("paper"), data or data_record()
    identity = RunIdentity(spec=spec, recipe=recipe, data=data, seed=seed, device="cpu")
    accuracy = (validation_correct or 0) / data.validation_images
    curves = tuple(
        Epoch(number, 1, 0.01, 1.0 / number, 0.9 + 0.01 * number, 1.0 / number, accuracy, 1.0) for number in (1, 2)
    )
    diverged = validation_correct is None
    result = RunResult(
        status="diverged" if diverged else "complete",
        reason="the loss was no finite number in epoch 3" if diverged else "all 2 epochs",
        **cost_of(spec)._asdict(),
        epochs=2,
        cycles=0,
        best_epoch=None if diverged else 2,
        validation_loss=None if diverged else 0.5,
        validation_correct=validation_correct,
        validation_images=data.validation_images,
        seconds=2.0,
    )
    test = None
    if test_correct is not None and not diverged:
        test = TestResult(loss=0.25, correct=test_correct, images=test_images, reason="a test")
    return RunRecord(Path(identity.run_id), identity, result, curves, test)
