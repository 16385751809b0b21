"""The declarative recipe: how a network is trained, as data."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from budgetnet.errors import InputError
from budgetnet.fields import Document, Positive, Real, look_up, whole_number

Share = Annotated[Real, Field(ge=0, lt=1)]
Views = Literal["none", "flip", "flip-and-shifts"]
"""By which views of an image a network is judged: the image alone, its mirror image too, or shifted images as well."""


class Schedule(Document):
    """How the learning rate moves, at every step."""

    kind: Literal["cosine-restarts", "one-cycle", "linear", "constant"] = "cosine-restarts"
    """Cosine annealing with warm restarts (Loshchilov and Hutter 2017); a single cycle that warms up from a 25th of the
    learning rate to it and anneals, both along a cosine (Smith and Topin 2018); a single cycle of two straight lines,
    up from `warmup_start` and down to `minimum` (Page 2018, "How to Train Your ResNet"); or a constant rate."""
    first_cycle: Positive = 100
    """Epochs of the first cycle, T_0, or of the only one."""
    cycle_factor: Positive = 1
    """Each cycle is this many times as long as the one before: T_mult. A single cycle has none behind it."""
    minimum: Annotated[Real, Field(ge=0)] = 0.0
    """Learning rate at the end of a cycle."""
    warmup_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.3
    """Share of a single cycle in which the rate rises; the others do not look at it."""
    warmup_start: Annotated[Real, Field(ge=0, le=1)] = 0.2
    """Share of the learning rate at which a linear schedule starts."""

    @property
    def is_single_cycle(self) -> bool:
        """Whether the schedule is one cycle that spans the whole training."""
        return self.kind in ("one-cycle", "linear")

    def cycle_ends(self, epochs: int) -> list[int]:
        """The epochs, counted from 1 and up to ``epochs``, behind which a cycle is complete."""
        if self.is_single_cycle:
            return [self.first_cycle] if self.first_cycle <= epochs else []
        ends, end, length = [], self.first_cycle, self.first_cycle
        while self.kind == "cosine-restarts" and end <= epochs:
            ends.append(end)
            length *= self.cycle_factor
            end += length
        return ends

    def learning_rate(self, epochs: float, *, initial: float) -> float:
        """The learning rate at a moment of training (for restarts: Loshchilov and Hutter 2017, equation 5).

        Args:
            epochs: epochs that have passed, with the share of the one under way.
            initial: the recipe's learning rate, the highest of a cycle.
        """
        if self.kind == "constant":
            return initial
        if self.is_single_cycle:
            warmup, passed = self.warmup_fraction * self.first_cycle, min(epochs, self.first_cycle)
            linear = self.kind == "linear"
            between = _line if linear else _cosine
            if passed < warmup:
                start = initial * self.warmup_start if linear else initial / _WARMUP_DIVISOR
                return between(start, initial, passed / warmup)
            return between(initial, self.minimum, (passed - warmup) / (self.first_cycle - warmup))
        start, length = 0, self.first_cycle
        while epochs - start >= length:
            start += length
            length *= self.cycle_factor
        return _cosine(initial, self.minimum, (epochs - start) / length)


_WARMUP_DIVISOR = 25
"""How much lower than its peak a single cycle starts (Smith and Topin's choice as torch's OneCycleLR has it)."""


def _cosine(start: float, end: float, share: float) -> float:
    """Where a half cosine from one value to another stands when that share of it has passed."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _line(start: float, end: float, share: float) -> float:
    """Interpolate linearly from one value to another."""
    return start + (end - start) * share


class Lookahead(Document):
    """Weights that are pulled towards their own slow average (Zhang et al. 2019), the pull growing over the training.

    Every `every` steps the average moves towards the weights by 1 - ``decay**every * progress**power``, where progress
    is the share of the training that has passed, and the weights are set to the average. The last step sets them to the
    average as it is (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU").
    """

    every: Positive = 5
    """Steps between two meetings of weights and average."""
    decay: Share = 0.95
    """Decay of the average for each step, at the end of the training."""
    power: Annotated[Real, Field(ge=0, le=100)] = 3.0
    """How late the decay grows: it is multiplied by the share of training that has passed, to this power."""


class Muon(Document):
    """Optimiser of convolution weights by orthogonalised momentum (Jordan et al. 2024, "Muon").

    Each weight, as a matrix (output channels, everything else), is moved along its Nesterov momentum with all singular
    values brought near 1 by a Newton-Schulz iteration, and is kept at a Frobenius norm of the square root of its output
    channels. The head's linear layer, biases and batch norm stay with stochastic gradient descent.
    """

    learning_rate: Annotated[Real, Field(gt=0)] = 0.24
    """Size of a step at the schedule's peak: about what each singular value of the step is. It moves as the recipe's
    learning rate does."""
    momentum: Share = 0.6
    """Momentum, in Nesterov's form."""
    iterations: Annotated[Positive, Field(le=20)] = 3
    """Newton-Schulz iterations for each step, in bfloat16."""


class EarlyStopping(Document):
    """When to give up: a loss has not fallen by ``min_delta`` for ``patience`` epochs."""

    patience: Positive = 10
    """Epochs without improvement that are tolerated."""
    min_delta: Annotated[Real, Field(ge=0)] = 1e-4
    """Smallest fall of the loss, in nats, that counts as improvement."""
    monitor: Literal["validation-loss", "training-loss"] = "validation-loss"
    """Which loss; that on training images keeps falling long behind the point where a network stops getting better."""


class Policy(Document):
    """Operations drawn from a list, such as rotations and changes of contrast, for each image on its own."""

    kind: Literal["trivial-augment", "rand-augment"] = "trivial-augment"
    """One operation at a random strength (Müller and Hutter 2021), or several at a fixed one (Cubuk et al. 2020)."""
    operations: Annotated[Positive, Field(le=16)] = 2
    """Operations for an image in RandAugment; TrivialAugment has one."""
    magnitude: Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=30)] = 9
    """Strength of each in RandAugment, of 0 to 30; TrivialAugment draws it."""


class Mixing(Document):
    """Training images blended with one another, and their labels with them."""

    kind: Literal["mixup", "cutmix"] = "mixup"
    """Both images over each other (Zhang et al. 2018), or a rectangle of one in the other (Yun et al. 2019)."""
    alpha: Annotated[Real, Field(gt=0, le=100)] = 1.0
    """The share of the first image is drawn for each step from Beta(alpha, alpha)."""


class Augmentation(Document):
    """What is done to training images: crop, mirror and policy on their bytes, then cutout and mixing."""

    crop_padding: Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=64)] = 4
    """Pixels added on each side before a crop of the original size at a random place; `padding_mode` says which."""
    flip: bool = True
    """Whether every second image, at random, is mirrored left to right."""
    alternating_flip: bool = False
    """Whether chance decides only in the first epoch, and each image is mirrored in every second epoch from there on
    (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU")."""
    policy: Policy | None = None
    """Operations drawn for each image."""
    cutout: Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=1024)] = 0
    """Side, in pixels, of a square set to the mean colour at a random place (DeVries and Taylor 2017); 0 for none."""
    mixing: Mixing | None = None
    """How images are blended with one another."""
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    """What the pixels added by `crop_padding` hold: zeros, or the image reflected at its border (as in Jordan 2024,
    "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"), for which they must be fewer than the image has."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.alternating_flip and not self.flip:
            raise InputError("alternating_flip", True, "needs flip: true")
        return self


class Resizing(Document):
    """Progressive resizing: training images are small at first and grow epoch by epoch to their full size.

    The side grows linearly and is rounded to a multiple of 4, so that few sizes occur. Images are cropped, mirrored and
    augmented at full size and then resized by antialiased bilinear interpolation. Validation is always at full size.
    As in fast.ai's entries to DAWNBench (Coleman et al. 2017) and in Tan and Le 2021, "EfficientNetV2: Smaller Models
    and Faster Training".
    """

    start: Annotated[int, BeforeValidator(whole_number), Field(ge=8, le=1024)] = 16
    """Side of training images in the first epoch, in pixels: a multiple of 4."""
    until: Annotated[Real, Field(gt=0, le=1)] = 0.5
    """Share of the training's epochs after which training images have their full size."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.start % _SIDE_STEP:
            raise InputError("start", self.start, f"must be a multiple of {_SIDE_STEP}")
        return self

    def side(self, epoch: int, *, epochs: int, full: int) -> int:
        """The side of training images in an epoch, in pixels.

        Args:
            epoch: counted from 1.
            epochs: of the whole training, by its recipe.
            full: side of the images at full size, in pixels.
        """
        share = (epoch - 1) / (self.until * epochs)
        # The product of a share and a whole number may be off in its last digit.
        if share > 1 - 1e-9:
            return full
        exact = self.start + (full - self.start) * share
        return min(_SIDE_STEP * math.floor(exact / _SIDE_STEP + 0.5), full)


_SIDE_STEP = 4
"""What sides of resized images are multiples of, in pixels."""


class ExampleFilter(Document):
    """Training on the hard examples of each batch alone, chosen by a small network that is trained beside.

    The small network, the proxy, sees every batch; on every `backward_every`-th it also learns. The main network trains
    on the share `keep` of each batch on which the proxy's loss is highest (Jordan 2024, "94% on CIFAR-10 in 3.29
    Seconds on a Single GPU", its fastest trainings). The proxy is a residual network of three stages of one block, of
    32, 64 and 64 channels, and is trained by the same recipe. The choice never depends on the main network.
    """

    keep: Annotated[Real, Field(gt=0, lt=1)] = 0.5
    """Share of each batch that the network trains on, rounded to whole images, of at least two."""
    backward_every: Positive = 4
    """The proxy learns from the first batch of each epoch and from every batch this many further on."""

    def kept(self, images: int) -> int:
        """How many images of a batch the network trains on.

        Args:
            images: in the batch.
        """
        return min(images, max(2, math.floor(self.keep * images + 0.5)))


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

NAMED: dict[str, Recipe] = {
    # As the paper is written; the values that it leaves open are those of its public notebook.
    "paper": Recipe(name="paper"),
    # What that notebook did: its scheduler is never stepped, its split drawn anew each epoch, its patience for a loss
    # on training images. It leaks; kept to show by how much.
    "as-run": Recipe(
        name="as-run",
        schedule=Schedule(kind="constant"),
        early_stopping=EarlyStopping(monitor="training-loss"),
        validation_split="each-epoch",
        augmented_validation=True,
    ),
    # Options that paid in a measured comparison (docs/performance.md), for a training of fixed length.
    "modern": Recipe(
        name="modern",
        learning_rate=0.05,
        nesterov=True,
        label_smoothing=0.1,
        test_time_flip=True,
        epochs=60,
        schedule=Schedule(kind="one-cycle", first_cycle=60, warmup_fraction=0.2),
        early_stopping=None,
    ),
    # For candidates of a search: cycles of 2, 4, 8 and 16 epochs, at whose ends they are compared.
    "search": Recipe(
        name="search",
        learning_rate=0.05,
        nesterov=True,
        label_smoothing=0.1,
        epochs=30,
        schedule=Schedule(first_cycle=2, cycle_factor=2),
    ),
    # The paper's optimiser for 8x8 digits: mirrored digits are other signs, and 4 pixels of padding hide half of one.
    "digits": Recipe(
        name="digits",
        learning_rate=0.05,
        epochs=7,
        schedule=Schedule(first_cycle=1, cycle_factor=2),
        augmentation=Augmentation(crop_padding=1, flip=False),
    ),
}


def default_recipe(data: str, *, other: str) -> str:
    """The name of the recipe that a data set is trained by where none is named: the digits have one of their own."""
    return "digits" if data == "digits" else other


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


def named_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: no recipe has that name.
    """
    return look_up(name, NAMED, field="recipe", missing="no such recipe, and no such file")
