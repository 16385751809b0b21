"""The declarative recipe: how a network is trained, as data."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from budgetnet.common.documents import Document, Real, whole_number
from budgetnet.common.errors import InputError
from budgetnet.runs.augmentation import Augmentation, ExampleFilter, Resizing
from budgetnet.runs.schedule import EarlyStopping, Lookahead, Muon, Schedule, Share

Views = Literal["none", "flip", "flip-and-shifts"]
"""By which views of an image a network is judged: the image alone, its mirror image too, or shifted images as well."""


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
    nesterov: bool = False
    """Whether the step looks ahead along the momentum (Nesterov's variant, as torch's SGD has it)."""
    label_smoothing: Share = 0.0
    """Share of each label that is spread evenly over all classes (Szegedy et al. 2016)."""
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
    weight_average: Share | None = None
    """Decay, for each step, of a moving average of the weights, which is then judged and kept in place of the weights
    themselves (Polyak and Juditsky 1992); null for none."""
    test_time_flip: bool = False
    """Whether the network judges each image and its mirror image, and their probabilities are averaged."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of convolutions and matrix products; ``auto`` is bfloat16 where the device multiplies it natively."""
    validation_fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.2
    """Share of the training images held out for validation, in the same shares of classes."""
    split_seed: Annotated[int, BeforeValidator(whole_number), Field(ge=0, lt=2**32)] = 0
    """Seed of the split, apart from the run's seed, so that every run of a study is judged on the same images."""
    validation_split: Literal["fixed", "each-epoch"] = "fixed"
    """Whether validation images are held out for good, or both parts are drawn anew for each epoch from all of them:
    then every image is trained on sooner or later, and validation accuracy is an accuracy on training images."""
    augmented_validation: bool = False
    """Whether validation images are cropped and mirrored at random as training images are, anew for each epoch."""
    test_time_shifts: bool = False
    """Whether `test_time_flip` averages six views: image and mirror image with weight 1/4 each, and both of them
    shifted by one pixel along the diagonal in either direction with weight 1/8 each (Jordan 2024)."""
    resizing: Resizing | None = None
    """How training images grow from epoch to epoch; null for their full size throughout."""
    example_filter: ExampleFilter | None = None
    """Which examples of each batch are trained on; null for all."""

    per_1024_examples: bool = False
    """Whether `learning_rate` and `weight_decay` are given for 1,024 examples, whatever the batch size and momentum:
    the rate of a step is the given one times batch_size / (1024 (1 + 1 / (1 - momentum))), and weight_decay is the
    decay for 1,024 examples at the peak of the schedule (Jordan 2024, decoupled hyperparameters)."""
    norm_bias_rate: Annotated[Real, Field(gt=0, le=1000)] = 1.0
    """Multiple of the learning rate for biases of batch norm; their decay in a step is that of the other parameters."""
    freeze_norm_scales: bool = False
    """Whether scales of batch norm stay at 1."""
    norm_momentum: Annotated[Real, Field(gt=0, le=1)] = 0.1
    """Share of a batch's statistics in the running statistics of batch norm, as torch has it."""
    initialisation: Literal["default", "dirac"] = "default"
    """``default``: as torch initialises layers. ``dirac``: the first output channels of each convolution, as many as it
    has input channels, pass their input on at the start (Zagoruyko and Komodakis 2017; Jordan 2024)."""
    lookahead: Lookahead | None = None
    """Pulls weights towards their slow average; null for none."""
    muon: Muon | None = None
    """Trains convolutions by Muon in place of stochastic gradient descent; null for none."""

    def for_epochs(self, epochs: int) -> Self:
        """The recipe for another length.

        A first cycle longer than the training is shortened to it, so that training still ends where the learning rate
        is at its minimum; a longer training keeps the cycle, but a single cycle always spans the training.

        Raises:
            InputError: fewer than one epoch.
        """
        changes: dict[str, Any] = {"epochs": epochs}
        schedule = self.schedule
        shortened = schedule.kind == "cosine-restarts" and epochs < schedule.first_cycle
        if epochs > 0 and (schedule.is_single_cycle or shortened):
            changes["schedule"] = {**schedule.model_dump(), "first_cycle": epochs}
        return self.from_mapping({**self.model_dump(), **changes})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.nesterov and not self.momentum:
            raise InputError("nesterov", True, "needs a momentum above 0")
        if self.test_time_shifts and not self.test_time_flip:
            raise InputError("test_time_shifts", True, "needs test_time_flip: true")
        others = self.augmentation.model_copy(update={"crop_padding": 0, "flip": False, "padding_mode": "zeros"})
        if self.augmented_validation and others != Augmentation(crop_padding=0, flip=False):
            raise InputError("augmented_validation", True, "knows crops and mirror images only, not the other options")
        if self.schedule.is_single_cycle and self.schedule.first_cycle != self.epochs:
            rule = f"must be the training's {self.epochs} epochs where it is the only cycle"
            raise InputError("schedule.first_cycle", self.schedule.first_cycle, rule)
        return self

    def require_images(self, height: int, width: int) -> None:
        """Refuses images that are too small for the recipe, or of a shape that it cannot be used for.

        Args:
            height: of the training images, in pixels.
            width: likewise.

        Raises:
            InputError: the padding is as large as a side of the images and cannot be filled by reflection, images are
                too small to be shifted, or they are not square or too small to be resized.
        """
        if self.resizing is not None and height != width:
            raise InputError("resizing", self.resizing.to_mapping(), f"needs square images, not {height}x{width}")
        if self.resizing is not None and self.resizing.start > height:
            raise InputError("resizing.start", self.resizing.start, f"must be at most the images' side of {height}")
        if self.test_time_shifts and min(height, width) < 2:
            raise InputError("test_time_shifts", True, f"needs images of at least 2x2 pixels, not {height}x{width}")
        padding = self.augmentation.crop_padding
        if self.augmentation.padding_mode == "reflect" and padding >= min(height, width):
            rule = f"must be less than {min(height, width)} to be filled by reflection of images of {height}x{width}"
            raise InputError("augmentation.crop_padding", padding, rule)

    def require_steps(self, images: int) -> None:
        """Refuse a training that is too short for its slow average of weights.

        Args:
            images: training images.

        Raises:
            InputError: Lookahead would bring weights and average together fewer than ten times.
        """
        steps = self.epochs * math.ceil(images / self.batch_size)
        if self.lookahead is not None and 10 * self.lookahead.every > steps:
            rule = f"must be at most a tenth of the training's {steps:,} steps, or the average is of weights long gone"
            raise InputError("lookahead.every", self.lookahead.every, rule)

    def side(self, epoch: int, *, full: int) -> int:
        """The side of square training images in an epoch, in pixels.

        Args:
            epoch: counted from 1.
            full: side of the images at full size, in pixels.
        """
        return full if self.resizing is None else self.resizing.side(epoch, epochs=self.epochs, full=full)

    @property
    def views(self) -> Views:
        """By which views of an image a trained network is judged, their probabilities averaged."""
        if self.test_time_shifts:
            return "flip-and-shifts"
        return "flip" if self.test_time_flip else "none"

    @property
    def leaks(self) -> bool:
        """Whether validation images are trained on, so that validation accuracy says nothing of new images."""
        return self.validation_split == "each-epoch"

    @property
    def digest(self) -> str:
        """Identity of the recipe: a hexadecimal SHA-256 over every field but the name that differs from its default.

        So a field that is added later, off by default, leaves the identity of earlier recipes as it was.
        """
        fields = self.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
        content = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


LEAKING = "leaking: validation images are trained on, so validation accuracy is an accuracy on training images"
"""What is said wherever a number stands that came from a recipe that leaks."""


def require_sound(recipe: Recipe, *, field: str) -> None:
    """Lets a recipe pass by whose validation accuracy networks can be ranked.

    Raises:
        InputError: it leaks, or changes validation images at random.
    """
    if recipe.leaks:
        rule = "cannot rank networks: it validates on images that it trains on, so the best memory would win"
        raise InputError(field, recipe.name or "recipe", rule)
    if recipe.augmented_validation:
        rule = "cannot rank networks: it validates on images that are cropped and mirrored at random"
        raise InputError(field, recipe.name or "recipe", rule)
