"""The declarative recipe: how a network is trained, as data."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from budgetnet.fields import Document, Positive, Real, look_up, whole_number

Share = Annotated[Real, Field(ge=0, lt=1)]


class Schedule(Document):
    """How the learning rate moves."""

    kind: Literal["cosine-restarts", "constant"] = "cosine-restarts"
    """Cosine annealing with warm restarts (Loshchilov and Hutter 2017), stepped every batch, or a constant rate."""
    first_cycle: Positive = 100
    """Epochs of the first cycle: T_0."""
    cycle_factor: Positive = 1
    """Each cycle is this many times as long as the one before: T_mult."""
    minimum: Annotated[Real, Field(ge=0)] = 0.0
    """Learning rate at the end of a cycle."""

    def cycle_ends(self, epochs: int) -> list[int]:
        """The epochs, counted from 1 and up to ``epochs``, behind which a cycle is complete."""
        ends, end, length = [], self.first_cycle, self.first_cycle
        while self.kind == "cosine-restarts" and end <= epochs:
            ends.append(end)
            length *= self.cycle_factor
            end += length
        return ends

    def learning_rate(self, epochs: float, *, initial: float) -> float:
        """The learning rate at a moment of training (Loshchilov and Hutter 2017, equation 5).

        Args:
            epochs: epochs that have passed, with the share of the one under way.
            initial: learning rate at the start of each cycle.
        """
        if self.kind == "constant":
            return initial
        start, length = 0, self.first_cycle
        while epochs - start >= length:
            start += length
            length *= self.cycle_factor
        return self.minimum + (initial - self.minimum) * (1 + math.cos(math.pi * (epochs - start) / length)) / 2


class EarlyStopping(Document):
    """When to give up: validation loss has not fallen by ``min_delta`` for ``patience`` epochs."""

    patience: Positive = 10
    """Epochs without improvement that are tolerated."""
    min_delta: Annotated[Real, Field(ge=0)] = 1e-4
    """Smallest fall of the validation loss, in nats, that counts as improvement."""


class Augmentation(Document):
    """What is done to training images."""

    crop_padding: Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=64)] = 4
    """Zero pixels added on each side before a crop of the original size at a random place."""
    flip: bool = True
    """Whether every second image, at random, is mirrored left to right."""


class Recipe(Document):
    """How a network is trained; together with specification, data and seed it determines a run.

    Raises:
        InputError: a field is unknown or breaks its rule.
    """

    document_kind: ClassVar[str] = "recipe"

    schema_version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]*$")] = ""
    """A label for people."""
    learning_rate: Annotated[Real, Field(gt=0)] = 0.01
    """Learning rate of stochastic gradient descent, at the start of each cycle."""
    momentum: Share = 0.9
    """Momentum."""
    weight_decay: Annotated[Real, Field(ge=0)] = 5e-4
    """L2 penalty added to the gradient."""
    batch_size: Annotated[int, BeforeValidator(whole_number), Field(ge=2, le=65_536)] = 128
    """Images in a step."""
    epochs: Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=100_000)] = 150
    """Most epochs to train."""
    schedule: Schedule = Schedule()
    """How the learning rate moves."""
    early_stopping: EarlyStopping | None = EarlyStopping()
    """When to give up; never if null."""
    augmentation: Augmentation = Augmentation()
    """What is done to training images."""
    validation_fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.2
    """Share of the training images held out for validation, in the same shares of classes."""
    split_seed: Annotated[int, BeforeValidator(whole_number), Field(ge=0, lt=2**32)] = 0
    """Seed of the split, apart from the run's seed, so that every run of a study is judged on the same images."""

    def for_epochs(self, epochs: int) -> Self:
        """The recipe for another length.

        A first cycle longer than the training is shortened to it, so that training still ends where the learning rate
        is at its minimum; a longer training keeps the cycle.

        Raises:
            InputError: fewer than one epoch.
        """
        changes: dict[str, Any] = {"epochs": epochs}
        if self.schedule.kind == "cosine-restarts" and 0 < epochs < self.schedule.first_cycle:
            changes["schedule"] = {**self.schedule.model_dump(), "first_cycle": epochs}
        return self.from_mapping({**self.model_dump(), **changes})

    @property
    def digest(self) -> str:
        """Identity of the recipe: a hexadecimal SHA-256 over every field but the name."""
        content = json.dumps(self.model_dump(mode="json", exclude={"name"}), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


NAMED: dict[str, Recipe] = {
    # As the paper is written; the values that it leaves open are those of its public notebook.
    "paper": Recipe(name="paper"),
    # The paper's optimiser for 8x8 digits: mirrored digits are other signs, and 4 pixels of padding hide half of one.
    "digits": Recipe(
        name="digits",
        learning_rate=0.05,
        epochs=4,
        schedule=Schedule(first_cycle=4),
        augmentation=Augmentation(crop_padding=1, flip=False),
    ),
}


def named_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: no recipe has that name.
    """
    return look_up(name, NAMED, field="recipe", missing="no such recipe, and no such file")
