"""What is known of a run: the documents that its folder holds, see `budgetnet.runs.store`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field

from budgetnet.common.documents import Document
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.training_cost import flops_by_epoch

TRAINER = 2
"""Version of the trainer's arithmetic; a change that gives other numbers raises it."""


def _printable(text: str) -> str:
    """Names go to terminals and into pages, where other characters could do as they like."""
    if not text.strip() or not text.isprintable():
        raise ValueError("must be printable text")
    return text


ClassName = Annotated[str, AfterValidator(_printable)]


class DataRecord(Document):
    """Which images a run saw."""

    name: str
    """The data set as it was asked for."""
    provenance: str
    """Where its images come from, in words."""
    fingerprint: str
    """Hexadecimal SHA-256 over every image and label."""
    is_original_cifar10: bool
    """Whether the images are CIFAR-10's own, by their checksums."""
    mean: tuple[float, ...]
    """What is subtracted from each channel's pixels, scaled to [0, 1]."""
    std: tuple[float, ...]
    """What each channel's pixels are then divided by."""
    split_fingerprint: str
    """Hexadecimal SHA-256 over the split into training and validation images."""
    train_images: int
    """Images trained on."""
    validation_images: int
    """Images held out, on which the run is judged."""
    class_names: tuple[ClassName, ...] | None = None
    """Name of each class; none in records of versions that kept no names, or where there are too many to keep."""

    @property
    def key(self) -> list[Any]:
        """What tells one use of data from another, whatever the data are called."""
        return [self.fingerprint, self.split_fingerprint, self.is_original_cifar10, self.mean, self.std]


class RunIdentity(Document):
    """Everything that determines a run."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    spec: ModelSpec
    """The network, with the data's input shape and classes."""
    recipe: Recipe
    """How it is trained."""
    data: DataRecord
    """What it is trained on."""
    seed: int
    """Seed of initialisation, order and augmentation."""
    device: str
    """Kind of device, on which the arithmetic depends: ``cpu``, ``cuda`` or ``mps``."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of convolutions and matrix products."""
    trainer: int = TRAINER
    """Version of the trainer's arithmetic."""

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 over what determines the run; names and words for people do not."""
        content = {
            "spec": self.spec.digest,
            "recipe": self.recipe.digest,
            "data": self.data.key,
            "trainer": self.trainer,
            "seed": self.seed,
            "device": self.device,
            "precision": self.precision,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def shared_digest(self) -> str:
        """The digest of the same run with seed 0: what runs have in common that differ in their seed alone."""
        return self.model_copy(update={"seed": 0}).digest

    @property
    def run_id(self) -> str:
        """Name of the run's folder."""
        return f"{self.spec.label[:48]}-s{self.seed}-{self.short_digest}"

    @property
    def short_digest(self) -> str:
        """The end of the folder's name."""
        return self.digest[:10]


class Epoch(NamedTuple):
    """One epoch of a run: a row of the curves."""

    epoch: int
    """Counted from 1."""
    cycle: int
    """Cycle of the schedule, counted from 1."""
    learning_rate: float
    """At the epoch's last step."""
    train_loss: float
    """Mean cross-entropy over the augmented training images, in nats, while the weights move."""
    train_accuracy: float
    """Share of augmented training images classified rightly, while the weights move."""
    validation_loss: float
    """Mean cross-entropy over the validation images, in nats, behind the epoch."""
    validation_accuracy: float
    """Share of validation images classified rightly, behind the epoch."""
    seconds: float
    """Wall time of training and validation."""


class RunResult(Document):
    """How a run ended."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    status: Literal["complete", "diverged", "stopped"]
    """Whether there is a result, the loss left the finite numbers, or a search pruned the run before its end."""
    reason: Annotated[str, Field(max_length=500)]
    """Why it ended, in words."""
    params: int
    """Trainable parameters."""
    macs: int
    """Multiply-accumulates for one image."""
    activations: int
    """Output elements of convolutions and the linear layer for one image."""
    epochs: int
    """Epochs trained."""
    cycles: int
    """Cycles of the schedule completed."""
    best_epoch: int | None
    """Epoch with the lowest validation loss, whose weights are kept."""
    validation_loss: float | None
    """Mean cross-entropy over the validation images at the best epoch, in nats."""
    validation_correct: int | None
    """Validation images classified rightly at the best epoch."""
    validation_images: int
    """Validation images."""
    seconds: float
    """Wall time of all epochs."""
    train_flops: Annotated[int, Field(ge=0)] | None = None
    """Floating-point operations of the epochs trained, see `budgetnet.runs.training_cost`; none in records of versions
    that did not count them: `RunRecord.train_flops` counts them then."""

    @property
    def validation_accuracy(self) -> float | None:
        """Share of validation images classified rightly at the best epoch."""
        return None if self.validation_correct is None else self.validation_correct / self.validation_images


class TestResult(Document):
    """What a run's network did on the test set, once that was opened for it."""

    __test__: ClassVar[bool] = False
    """No test, whatever pytest makes of the name."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    loss: float
    """Mean cross-entropy over the test images, in nats."""
    correct: int
    """Test images classified rightly."""
    images: int
    """Test images."""
    reason: Annotated[str, Field(max_length=500)]
    """Why the test set was opened."""

    @property
    def accuracy(self) -> float:
        """Share of test images classified rightly."""
        return self.correct / self.images


class RunRecord(NamedTuple):
    """A finished run, as it stands in its folder."""

    folder: Path
    identity: RunIdentity
    result: RunResult
    curves: tuple[Epoch, ...]
    test: TestResult | None = None
    """What it did on the test set; none where that was not opened for it."""

    @property
    def flops_by_epoch(self) -> list[int]:
        """Floating-point operations of each epoch trained."""
        identity = self.identity
        images, epochs = identity.data.train_images, self.result.epochs
        return flops_by_epoch(identity.spec, identity.recipe, images=images, epochs=epochs)

    @property
    def train_flops(self) -> int:
        """Floating-point operations of all epochs trained, counted anew for records that do not hold them."""
        kept = self.result.train_flops
        return sum(self.flops_by_epoch) if kept is None else kept
