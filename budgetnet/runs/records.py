"""Documents of a run folder: identity, data, result and test result; see `budgetnet.runs.store`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from budgetnet.common.documents import Document
from budgetnet.common.errors import InputError
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.training_cost import flops_by_epoch

TRAINER_VERSION = 2
"""Version of the trainer's arithmetic, incremented by every change that affects results."""


def _printable(text: str) -> str:
    """Validate a name that is shown in terminals and pages, where control characters would be unsafe."""
    if not text.strip() or not text.isprintable():
        raise ValueError("must be printable text")
    return text


# The bounds tell damaged records: no network and no data set has such numbers, and arithmetic with them fails.
Count = Annotated[int, Field(ge=0, le=10**18)]
Images = Annotated[int, Field(ge=1, le=10**9)]
MAX_OPERATIONS = 10**24
Operations = Annotated[int, Field(ge=0, le=MAX_OPERATIONS)]
ClassName = Annotated[str, AfterValidator(_printable)]


class DataRecord(Document):
    """Data set and split of a run."""

    name: str
    """Name of the data set as given by the user, such as ``digits`` or ``folder:PATH``."""
    provenance: str
    """Source of the images, one sentence."""
    fingerprint: str
    """SHA-256, in hexadecimal, of all images and labels."""
    is_original_cifar10: bool
    """Whether the data set is CIFAR-10, verified by checksums."""
    mean: tuple[float, ...]
    """Mean subtracted from the pixels in [0, 1], per channel."""
    std: tuple[float, ...]
    """Standard deviation by which pixels are divided, per channel."""
    split_fingerprint: str
    """SHA-256, in hexadecimal, of the train/validation split."""
    train_images: Images
    """Number of training images."""
    validation_images: Annotated[int, Field(ge=0, le=10**9)]
    """Number of held-out validation images."""
    class_names: tuple[ClassName, ...] | None = None
    """Name of each class; None in records of older versions, or if the names are too long to store."""

    @property
    def key(self) -> list[Any]:
        """Values that identify the data and the split, independent of the data set's name."""
        return [self.fingerprint, self.split_fingerprint, self.is_original_cifar10, self.mean, self.std]


class RunIdentity(Document):
    """Everything that determines the results of a run."""

    schema_version: Literal[1] = 1
    """Version of the file format."""
    spec: ModelSpec
    """Model spec, with the data's input shape and number of classes."""
    recipe: Recipe
    """Training recipe."""
    data: DataRecord
    """Data set and split."""
    seed: int
    """Seed of initialisation, data order and augmentation."""
    device: str
    """Type of device: ``cpu``, ``cuda`` or ``mps``."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of convolutions and matrix products."""
    trainer: int = TRAINER_VERSION
    """Version of the trainer's arithmetic."""

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of everything that determines the run, excluding names and provenance."""
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
    def digest_without_seed(self) -> str:
        """Digest of the same run with seed 0, shared by runs that differ only in their seed."""
        return self.model_copy(update={"seed": 0}).digest

    @property
    def run_id(self) -> str:
        """Name of the run's folder."""
        return f"{self.spec.label[:48]}-s{self.seed}-{self.short_digest}"

    @property
    def short_digest(self) -> str:
        """First ten digits of the digest, with which the folder's name ends."""
        return self.digest[:10]


class Epoch(NamedTuple):
    """Metrics of one epoch, a row of ``curves.csv``."""

    epoch: int
    """Epoch, counted from 1."""
    cycle: int
    """Cycle of the schedule, counted from 1."""
    learning_rate: float
    """Learning rate at the last step of the epoch."""
    train_loss: float
    """Mean cross-entropy of the augmented training images during the epoch, in nats."""
    train_accuracy: float
    """Accuracy on the augmented training images during the epoch, from 0 to 1."""
    validation_loss: float
    """Mean cross-entropy of the validation images after the epoch, in nats."""
    validation_accuracy: float
    """Accuracy on the validation images after the epoch, from 0 to 1."""
    seconds: float
    """Wall time of training and validation."""


MAX_CONFUSION_CLASSES = 100
"""Largest number of classes for which a run's confusion matrix is stored."""
MAX_REASON = 500
"""Largest number of characters of a reason in a record."""


class RunResult(Document):
    """Result of a finished run."""

    schema_version: Literal[1] = 1
    """Version of the file format."""
    status: Literal["complete", "diverged", "stopped"]
    """``complete``, ``diverged`` (the loss became infinite or NaN) or ``stopped`` (pruned by a search)."""
    reason: Annotated[str, Field(max_length=MAX_REASON)]
    """Reason why training ended."""
    params: Count
    """Number of parameters, frozen ones included."""
    macs: Count
    """Multiply-accumulates per image."""
    activations: Count
    """Output elements of convolutions and the linear layer per image."""
    epochs: Count
    """Number of epochs trained."""
    cycles: Count
    """Number of completed cycles of the schedule."""
    best_epoch: Annotated[int, Field(ge=1)] | None
    """Epoch with the lowest validation loss, whose weights are saved."""
    validation_loss: float | None
    """Mean cross-entropy of the validation images at the best epoch, in nats."""
    validation_correct: Count | None
    """Number of correctly classified validation images at the best epoch."""
    validation_images: Images
    """Number of validation images."""
    seconds: float
    """Wall time of all epochs."""
    train_flops: Operations | None = None
    """Floating-point operations of the epochs trained, see `budgetnet.runs.training_cost`; None in records of older
    versions, for which `RunRecord.train_flops` computes them."""

    @model_validator(mode="after")
    def _counts_correct_images(self) -> Self:
        if self.validation_correct is not None and self.validation_correct > self.validation_images:
            raise InputError("validation_correct", self.validation_correct, "must be at most validation_images")
        return self

    @model_validator(mode="after")
    def _best_epoch_is_one_of_them(self) -> Self:
        if self.best_epoch is not None and self.best_epoch > self.epochs:
            raise InputError("best_epoch", self.best_epoch, "must be at most epochs")
        for name in ("validation_loss", "validation_correct"):
            if (getattr(self, name) is None) != (self.best_epoch is None):
                raise InputError(name, getattr(self, name), "must be null if and only if best_epoch is")
        return self

    @property
    def validation_accuracy(self) -> float | None:
        """Validation accuracy at the best epoch, from 0 to 1."""
        return None if self.validation_correct is None else self.validation_correct / self.validation_images


class TestResult(Document):
    """Metrics of a run on the test set."""

    # Keeps pytest from collecting the class as a test.
    __test__: ClassVar[bool] = False

    schema_version: Literal[1] = 1
    """Version of the file format."""
    loss: float
    """Mean cross-entropy of the test images, in nats."""
    correct: Count
    """Number of correctly classified test images."""
    images: Images
    """Number of test images."""
    reason: Annotated[str, Field(max_length=MAX_REASON)]
    """Reason for which the test set was opened."""

    @model_validator(mode="after")
    def _counts_correct_images(self) -> Self:
        if self.correct > self.images:
            raise InputError("correct", self.correct, "must be at most images")
        return self

    @property
    def accuracy(self) -> float:
        """Test accuracy, from 0 to 1."""
        return self.correct / self.images


class RunRecord(NamedTuple):
    """Record of a finished run, loaded from its folder."""

    folder: Path
    identity: RunIdentity
    result: RunResult
    curves: tuple[Epoch, ...]
    test: TestResult | None = None
    """Metrics on the test set; None if the run was not evaluated on it."""

    @property
    def flops_by_epoch(self) -> list[int]:
        """Training operations of each epoch."""
        identity = self.identity
        images, epochs = identity.data.train_images, self.result.epochs
        return flops_by_epoch(identity.spec, identity.recipe, images=images, epochs=epochs)

    @property
    def train_flops(self) -> int:
        """Training operations of all epochs, computed if the record does not contain them."""
        recorded = self.result.train_flops
        return sum(self.flops_by_epoch) if recorded is None else recorded
