"""Training recipe: all hyperparameters and training options of a run as one document."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from budgetnet.common.documents import Document, Flag, Real, whole_number
from budgetnet.common.errors import InputError
from budgetnet.runs.augmentation import Augmentation, ExampleFilter, Resizing
from budgetnet.runs.optimizer import OptimizerChoice
from budgetnet.runs.schedule import EarlyStopping, Lookahead, Muon, Schedule, UnitFraction

Views = Literal["none", "flip", "flip-and-shifts"]
"""Test-time augmentation: the image alone, with its horizontal flip, or with shifted and flipped copies."""


class Recipe(Document):
    """Hyperparameters and training options; with the model spec, the data and the seed they determine a run.

    Raises:
        InputError: a field is unknown or its value is not allowed.
    """

    document_kind: ClassVar[str] = "recipe"

    schema_version: Literal[1] = 1
    """Version of the file format."""
    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]*$")] = ""
    """Name of the recipe; not part of its digest."""
    learning_rate: Annotated[Real, Field(gt=0, le=1e30)] = 0.01
    """Peak learning rate of the optimiser in each cycle."""
    momentum: UnitFraction = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[Real, Field(ge=0, le=1000)] = 5e-4
    """Weight decay: an L2 penalty added to the gradient, except in AdamW."""
    nesterov: Flag = False
    """Whether to use Nesterov momentum, as in `torch.optim.SGD`."""
    label_smoothing: UnitFraction = 0.0
    """Amount of label smoothing (Szegedy et al. 2016)."""
    batch_size: Annotated[int, BeforeValidator(whole_number), Field(ge=2, le=65_536)] = 128
    """Images per training step."""
    epochs: Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=100_000)] = 150
    """Maximum number of epochs."""
    schedule: Schedule = Schedule()
    """Learning-rate schedule."""
    early_stopping: EarlyStopping | None = EarlyStopping()
    """Early stopping; null for none."""
    augmentation: Augmentation = Augmentation()
    """Augmentation of training images."""
    weight_average: UnitFraction | None = None
    """Decay per step of an exponential moving average of the weights, which is evaluated and saved instead of the
    weights themselves (Polyak and Juditsky 1992); null for none."""
    test_time_flip: Flag = False
    """Whether probabilities are averaged over each image and its horizontal flip in evaluation."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of convolutions and matrix products; ``auto`` is bfloat16 on devices with native support for it."""
    validation_fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.2
    """Fraction of the training images held out for validation, stratified by class."""
    split_seed: Annotated[int, BeforeValidator(whole_number), Field(ge=0, lt=2**32)] = 0
    """Seed of the train/validation split, separate from the run's seed so that all runs of a study share one split."""
    validation_split: Literal["fixed", "each-epoch"] = "fixed"
    """``fixed``: validation images are never trained on. ``each-epoch``: the split is resampled in every epoch, so
    validation images are trained on in other epochs and validation accuracy is biased (data leakage)."""
    augmented_validation: Flag = False
    """Whether validation images are randomly cropped and flipped like training images, resampled in each epoch."""
    test_time_shifts: Flag = False
    """Whether `test_time_flip` averages six views: the image and its flip with weight 1/4 each, and both shifted by one
    pixel along the diagonal in either direction with weight 1/8 each (Jordan 2024)."""
    resizing: Resizing | None = None
    """Progressive resizing of training images; null for full size in every epoch."""
    example_filter: ExampleFilter | None = None
    """Selection of the hardest examples of each batch; null to train on all."""

    per_1024_examples: Flag = False
    """Whether `learning_rate` and `weight_decay` are given per 1,024 examples, independent of batch size and momentum:
    the learning rate of a step is `learning_rate` times batch_size / (1024 (1 + 1 / (1 - momentum))), and weight_decay
    is the decay per 1,024 examples at the peak of the schedule (Jordan 2024, decoupled hyperparameters)."""
    norm_bias_rate: Annotated[Real, Field(gt=0, le=1000)] = 1.0
    """Factor on the learning rate for batch-norm biases; their weight decay per step is that of all parameters, and in
    Adam their L2 penalty is."""
    freeze_norm_scales: Flag = False
    """Whether batch-norm scales are fixed at 1."""
    norm_momentum: Annotated[Real, Field(gt=0, le=1)] = 0.1
    """Momentum of the running statistics of batch norm, as in `torch.nn.BatchNorm2d`."""
    initialisation: Literal["default", "dirac"] = "default"
    """``default``: torch's default initialisation. ``dirac``: the first output channels of each convolution, as many as
    it has input channels, are the identity at first (Zagoruyko and Komodakis 2017; Jordan 2024)."""
    lookahead: Lookahead | None = None
    """Lookahead optimiser; null for none."""
    muon: Muon | None = None
    """Muon optimiser for convolutions instead of `optimizer`; null for none."""
    class_weights: Literal["balanced"] | None = None
    """``balanced``: the loss of an image is weighted by n / (k n_c), for n training images of k classes, n_c of them of
    its class; the loss of a batch is the mean of its weighted losses. Validation is not weighted. Null for none."""
    optimizer: OptimizerChoice = OptimizerChoice()
    """Optimiser, by default SGD."""
    gradient_clipping: Annotated[Real, Field(gt=0, le=1e6)] | None = None
    """Largest norm of the gradient of all parameters together, to which larger ones are scaled (Pascanu et al. 2013),
    as by `torch.nn.utils.clip_grad_norm_`; null for none."""
    stochastic_depth: UnitFraction = 0.0
    """Probability that the last block is dropped for an image in training, so that its shortcut is left; that of others
    is proportional to their depth (Huang et al. 2016). Blocks without a shortcut are never dropped."""

    def with_epochs(self, epochs: int) -> Self:
        """Return the recipe with another number of epochs, and its schedule `Schedule.stretched` to them.

        Training thus ends at the minimum learning rate of cycles, if the schedule has any. The recipe's own number of
        epochs changes nothing.

        Raises:
            InputError: fewer than one epoch, or more than allowed.
        """
        if epochs == self.epochs:
            return self
        # Validated first: a schedule cannot end before the first epoch.
        self.from_mapping({**self.model_dump(exclude={"schedule"}), "epochs": epochs, "schedule": {"kind": "constant"}})
        return self.from_mapping(
            {
                **self.model_dump(),
                "epochs": epochs,
                "schedule": self.schedule.stretched(epochs, own=self.epochs).model_dump(),
            }
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_optimizer()
        if self.nesterov and not self.momentum:
            raise InputError("nesterov", True, "needs a momentum above 0")
        if self.test_time_shifts and not self.test_time_flip:
            raise InputError("test_time_shifts", True, "needs test_time_flip: true")
        if self.class_weights and self.validation_split != "fixed":
            rule = "needs validation_split: fixed, as the weights are those of the training images"
            raise InputError("class_weights", self.class_weights, rule)
        others = self.augmentation.model_copy(update={"crop_padding": 0, "flip": False, "padding_mode": "zeros"})
        if self.augmented_validation and others != Augmentation(crop_padding=0, flip=False):
            raise InputError("augmented_validation", True, "supports crops and flips only, no other augmentation")
        if self.schedule.is_single_cycle and self.schedule.first_cycle != self.epochs:
            rule = f"must equal epochs ({self.epochs}) in a schedule of a single cycle"
            raise InputError("schedule.first_cycle", self.schedule.first_cycle, rule)
        cycles = self.schedule.cycles
        if cycles and sum(cycles) != self.epochs:
            raise InputError("schedule.cycles", list(cycles), f"must add up to epochs ({self.epochs})")
        milestones = self.schedule.milestones
        if milestones and milestones[-1] >= self.epochs:
            raise InputError("schedule.milestones", list(milestones), f"must be below epochs ({self.epochs})")
        if self.example_filter and self.schedule.kind == "plateau":
            # The proxy is shared by networks, whose learning rates differ.
            rule = "needs a schedule that does not depend on validation, not plateau"
            raise InputError("example_filter", self.example_filter.to_mapping(), rule)
        return self

    def _check_optimizer(self) -> None:
        """Raise InputError if an option of SGD is set for another optimiser."""
        kind = self.optimizer.kind
        if kind == "sgd":
            return
        if self.momentum != type(self).model_fields["momentum"].default:
            raise InputError("momentum", self.momentum, f"must be omitted for {kind}, which has optimizer.betas")
        if self.nesterov:
            raise InputError("nesterov", True, f"needs the optimiser sgd, not {kind}")
        if self.per_1024_examples:
            rule = f"needs the optimiser sgd, not {kind}, whose step does not grow with the gradient"
            raise InputError("per_1024_examples", True, rule)

    def check_image_size(self, height: int, width: int) -> None:
        """Raise InputError unless the recipe supports images of this size.

        Args:
            height: height of the training images, in pixels.
            width: width of the training images, in pixels.

        Raises:
            InputError: images are too small for reflection padding or test-time shifts, or not square or too small for
                progressive resizing.
        """
        if self.resizing is not None and height != width:
            raise InputError("resizing", self.resizing.to_mapping(), f"needs square images, not {height}x{width}")
        if self.resizing is not None and self.resizing.start > height:
            raise InputError("resizing.start", self.resizing.start, f"must be at most the image size, {height}")
        if self.test_time_shifts and min(height, width) < 2:
            raise InputError("test_time_shifts", True, f"needs images of at least 2x2 pixels, not {height}x{width}")
        padding = self.augmentation.crop_padding
        if self.augmentation.padding_mode == "reflect" and padding >= min(height, width):
            rule = f"must be less than {min(height, width)} for reflection padding of {height}x{width} images"
            raise InputError("augmentation.crop_padding", padding, rule)

    def check_num_steps(self, images: int) -> None:
        """Raise InputError if the training is too short for Lookahead.

        Args:
            images: number of training images.

        Raises:
            InputError: Lookahead would synchronise fewer than ten times.
        """
        steps = self.epochs * math.ceil(images / self.batch_size)
        if self.lookahead is not None and 10 * self.lookahead.every > steps:
            rule = f"must be at most a tenth of the training's {steps:,} steps"
            raise InputError("lookahead.every", self.lookahead.every, rule)

    def side(self, epoch: int, *, full: int) -> int:
        """Return the side of square training images in an epoch, in pixels.

        Args:
            epoch: epoch, counted from 1.
            full: side of the images at full size, in pixels.
        """
        return full if self.resizing is None else self.resizing.side(epoch, epochs=self.epochs, full=full)

    @property
    def views(self) -> Views:
        """Test-time augmentation: views of an image whose probabilities are averaged."""
        if self.test_time_shifts:
            return "flip-and-shifts"
        return "flip" if self.test_time_flip else "none"

    @property
    def leaks(self) -> bool:
        """Whether validation images are also trained on (data leakage)."""
        return self.validation_split == "each-epoch"

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all fields except the name that differ from their defaults.

        Adding a field that is off by default does not change the digests of existing recipes.
        """
        fields = self.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
        content = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


def unfinished_cycle(recipe: Recipe) -> str | None:
    """Return a line that warns of a training that ends before the learning rate is at its minimum, or None.

    Only recipes whose own numbers do not fit together end so; `Recipe.with_epochs` stretches the schedule.
    """
    schedule, epochs = recipe.schedule, recipe.epochs
    if schedule.ends_anywhere or epochs in schedule.cycle_ends(epochs):
        return None
    rate = schedule.learning_rate(epochs, initial=recipe.learning_rate)
    name = f"recipe {recipe.name}" if recipe.name else "recipe"
    return (
        f"{name}: its {epochs} epochs end in the middle of a cycle, at a learning rate of {rate:.3g} "
        f"(peak {recipe.learning_rate:g}, minimum {schedule.minimum:g})"
    )


LEAKAGE_WARNING = "leaking: validation images are trained on, so validation accuracy is an accuracy on training images"
"""Warning shown with every result of a recipe with data leakage."""


def require_reliable_validation(recipe: Recipe, *, field: str) -> None:
    """Raise InputError if networks cannot be ranked by the recipe's validation accuracy.

    Args:
        recipe: the recipe.
        field: name of the option or field that selects the recipe, for the error.

    Raises:
        InputError: validation images are trained on or randomly augmented.
    """
    if recipe.leaks:
        rule = "cannot rank networks: validation images are also trained on"
        raise InputError(field, recipe.name or "recipe", rule)
    if recipe.augmented_validation:
        rule = "cannot rank networks: validation images are randomly cropped and flipped"
        raise InputError(field, recipe.name or "recipe", rule)
