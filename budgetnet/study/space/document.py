"""Search space: parameters, their distributions, and the network and recipe of a sample."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BeforeValidator, Field, model_validator

from budgetnet.common.documents import MAX_CHANNELS, Channels, Document, Positive, Real
from budgetnet.common.errors import InputError
from budgetnet.model.budget import Sizing
from budgetnet.model.spec import BlockKind, KernelSize, ModelSpec, ShortcutKind
from budgetnet.runs.recipe import Recipe
from budgetnet.study.space.costs import Columns, Costs, combinations, costs_of, enumerated, sample_columns
from budgetnet.study.space.recipes import PREFIX, RecipeValues, override, read_recipe_values, recipe_distributions
from budgetnet.study.space.smallest import Measure, smallest_of
from budgetnet.study.space.structure import rounded_width, strides_of, width_step

Ratio = Annotated[Real, Field(ge=0, le=1)]
Growth = Annotated[Real, Field(gt=0, le=8)]
BudgetShare = Annotated[Real, Field(gt=0, le=1)]
StageCount = Annotated[Positive, Field(le=32)]
BlockCount = Annotated[Positive, Field(le=256)]


_CHOICES = (
    "growth",
    "first_kernel_sizes",
    "second_kernel_sizes",
    "block_kinds",
    "squeeze_excitation_ratios",
    "groups",
    "shortcuts",
)
"""Fields that list choices."""


class SearchSpace(Document):
    """Search space of residual networks and values of their recipe.

    Widths and depths are sampled for the largest number of stages; a network with fewer stages ignores the last ones,
    because samplers that model parameters jointly learn badly if the set of parameters varies.

    Raises:
        InputError: a range is empty, or a field is unknown or invalid.
    """

    document_kind: ClassVar[str] = "space"

    schema_version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]*$")] = "resnet"
    """Label of the space."""
    stages: tuple[StageCount, StageCount] = (3, 5)
    """Minimum and maximum number of stages."""
    channels: tuple[Channels, Channels] = (32, 96)
    """Minimum and maximum width of the first stage; the stem is as wide. Used with sizing `reject` only."""
    channel_step: Positive = 8
    """Widths are multiples of this."""
    growth: Annotated[tuple[Growth, ...], Field(min_length=1)] = (1.0, 1.5, 2.0)
    """Width of each later stage as a multiple of the previous one."""
    blocks: tuple[BlockCount, BlockCount] = (1, 2)
    """Minimum and maximum number of blocks per stage."""
    full_size_stages: tuple[StageCount, StageCount] = (1, 2)
    """Minimum and maximum number of stages with stride 1; each later stage has stride 2 while the map can be halved."""
    first_kernel_sizes: Annotated[tuple[KernelSize, ...], Field(min_length=1)] = (3, 5)
    """Kernel sizes of a block's first convolution."""
    second_kernel_sizes: Annotated[tuple[KernelSize, ...], Field(min_length=1)] = (3,)
    """Kernel sizes of a block's second convolution."""
    block_kinds: Annotated[tuple[BlockKind, ...], Field(min_length=1)] = ("basic", "preact")
    """Kinds of residual block."""
    squeeze_excitation_ratios: Annotated[tuple[Ratio, ...], Field(min_length=1)] = (0.0, 0.25)
    """Ratios of squeeze-and-excitation; 0 for none."""
    groups: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1,)
    """Groups of the spatial convolutions. Widths are also rounded to multiples of the sampled groups; in a bottleneck,
    groups divide the inner width, a quarter of the width."""
    shortcuts: Annotated[tuple[ShortcutKind, ...], Field(min_length=1)] = ("projection",)
    """Kinds of shortcut of blocks that change the shape."""
    recipe: Annotated[dict[str, RecipeValues], BeforeValidator(read_recipe_values)] = Field(default_factory=dict)
    """Fields of the recipe that vary, with dots as in ``augmentation.cutout``: a list of choices, or a range such as
    ``{low: 0.01, high: 0.2, log: true}``."""
    budget_shares: tuple[BudgetShare, BudgetShare] = (0.1, 1.0)
    """Smallest and largest share of the budget to fit a network to. Used with sizing `scale` only."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for field in ("stages", "channels", "blocks", "full_size_stages", "budget_shares"):
            low, high = getattr(self, field)
            if low > high:
                raise InputError(field, [low, high], "must name the smaller number first")
        for field in _CHOICES:
            choices = getattr(self, field)
            if len(set(choices)) < len(choices):
                raise InputError(field, list(choices), "must not name a choice twice")
        if self.channels[0] % self.channel_step:
            raise InputError("channels", list(self.channels), f"must start at a multiple of {self.channel_step}")
        widest = self.channels[1] * max(1.0, max(self.growth) ** (self.stages[1] - 1))
        if widest > MAX_CHANNELS:
            rule = f"lets {self.stages[1]} stages grow to {widest:,.0f} channels; must be at most {MAX_CHANNELS:,}"
            raise InputError("growth", list(self.growth), rule)
        if "padding" in self.shortcuts and min(self.growth) < 1:
            rule = f"a padding shortcut cannot narrow, and growth may be {min(self.growth):g}"
            raise InputError("shortcuts", list(self.shortcuts), rule)
        for kind in self.block_kinds:
            step = max(width_step(self.channel_step, kind, groups) for groups in self.groups)
            if step > MAX_CHANNELS:
                rule = f"makes {kind} blocks multiples of {step:,} channels wide; must be at most {MAX_CHANNELS:,}"
                raise InputError("groups", list(self.groups), rule)
        return self

    @functools.cached_property
    def network(self) -> dict[str, BaseDistribution]:
        """Distributions of the network's parameters, by name."""
        low, high = self.channels
        high -= (high - low) % self.channel_step
        network: dict[str, BaseDistribution] = {
            "stages": IntDistribution(*self.stages),
            "full_size_stages": IntDistribution(*self.full_size_stages),
            "channels": IntDistribution(low, high, step=self.channel_step),
            "block": CategoricalDistribution(self.block_kinds),
            "first_kernel_size": CategoricalDistribution(self.first_kernel_sizes),
            "second_kernel_size": CategoricalDistribution(self.second_kernel_sizes),
            "squeeze_excitation_ratio": CategoricalDistribution(self.squeeze_excitation_ratios),
            "groups": CategoricalDistribution(self.groups),
            "shortcut": CategoricalDistribution(self.shortcuts),
        }
        for number in range(1, self.stages[1] + 1):
            network[f"blocks_{number}"] = IntDistribution(*self.blocks)
            if number > 1:
                network[f"growth_{number}"] = CategoricalDistribution(self.growth)
        return network

    @functools.cached_property
    def narrowest(self) -> SearchSpace:
        """The space of `fit` and `scale` for small budgets: the first stage has the smallest width."""
        return self.from_mapping({**self.model_dump(), "channels": [self.channel_step, self.channel_step]})

    @functools.cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Distributions of all parameters by name, of the network, then of the recipe."""
        return self.network | recipe_distributions(self.recipe)

    def proposed(self, sizing: Sizing) -> dict[str, BaseDistribution]:
        """Return the distributions to sample: without widths if these are fitted, with a budget share for `scale`.

        Args:
            sizing: how widths are chosen.
        """
        return self._proposed[sizing]

    @functools.cached_property
    def _proposed(self) -> dict[str, dict[str, BaseDistribution]]:
        fit = {name: where for name, where in self.distributions.items() if name != "channels"}
        scale = {"budget_share": FloatDistribution(*self.budget_shares, log=True)}
        return {"fit": fit, "scale": fit | scale, "reject": self.distributions}

    @property
    def size(self) -> int:
        """Number of combinations of the network's parameters, including those of unused stages."""
        return combinations(self.network)

    def spec(self, params: Mapping[str, Any], *, input_shape: tuple[int, int, int], num_classes: int) -> ModelSpec:
        """Return the network of a sample.

        Args:
            params: a value for each of `distributions`; those of the recipe are ignored.
            input_shape: image as (channels, height, width).
            num_classes: number of classes.
        """
        step = width_step(self.channel_step, params["block"], params["groups"])
        channels = []
        exact = float(params["channels"])
        for number in range(1, params["stages"] + 1):
            exact *= params[f"growth_{number}"] if number > 1 else 1
            channels.append(rounded_width(exact, step))
        return self.spec_of_widths(params, channels, input_shape=input_shape, num_classes=num_classes)

    @staticmethod
    def spec_of_widths(
        params: Mapping[str, Any], channels: list[int], *, input_shape: tuple[int, int, int], num_classes: int
    ) -> ModelSpec:
        """Return the network of a sample with the given widths, one for each stage.

        Args:
            params: a value for each parameter of the network; those for widths are ignored.
            channels: width of each stage; the stem is as wide as the first.
            input_shape: image as (channels, height, width).
            num_classes: number of classes.
        """
        count = len(channels)
        first, second = params["first_kernel_size"], params["second_kernel_size"]
        return ModelSpec.resnet(
            channels=channels,
            blocks=[params[f"blocks_{number}"] for number in range(1, count + 1)],
            strides=strides_of(count, params["full_size_stages"], min(input_shape[1:])),
            # A bottleneck has one spatial convolution.
            kernel_sizes=(first, first if params["block"] == "bottleneck" else second),
            block=params["block"],
            groups=params["groups"],
            squeeze_excitation_ratio=params["squeeze_excitation_ratio"] or None,
            shortcut={"kind": params["shortcut"]},
            input_shape=input_shape,
            num_classes=num_classes,
        )

    def recipe_for(self, params: Mapping[str, Any], *, base: Recipe) -> Recipe:
        """Return the recipe of a sample; the base itself if the space varies none of its values.

        An option is turned off if one that it needs is off: Nesterov momentum without momentum, alternating flips
        without flips, test-time shifts without test-time flips.

        Args:
            params: a value for each of `distributions`.
            base: values that are not sampled; the result loses its name.
        """
        if not self.recipe:
            return base
        return override(base, {name: params[PREFIX + name] for name in self.recipe})

    def sample(self, *, count: int, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Sample many networks and recipes, every parameter independently, as columns; see `params_at`.

        Args:
            count: number of samples.
            generator: random generator.
        """
        return sample_columns(self.distributions, count=count, generator=generator)

    def enumerate(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return combinations of the network's parameters in a fixed order, as columns, with indexes below `size`.

        Args:
            start: index of the first combination.
            stop: index after the last.
        """
        return enumerated(self.network, start, stop)

    @staticmethod
    def params_at(columns: Columns, row: int) -> dict[str, Any]:
        """Return one sample from columns, as parameters of `spec`."""
        cells = {name: column[row] for name, column in columns.items()}
        return {name: cell.item() if isinstance(cell, np.generic) else cell for name, cell in cells.items()}

    def costs(self, columns: Columns, *, input_shape: tuple[int, int, int], num_classes: int) -> Costs:
        """Return the costs of many samples, without creating their specifications.

        Args:
            columns: the samples.
            input_shape: image as (channels, height, width).
            num_classes: number of classes.

        Raises:
            InputError: counts of the largest networks of the space may exceed 64 bits.
        """
        return costs_of(self, columns, input_shape=input_shape, num_classes=num_classes)

    def smallest(
        self, *, input_shape: tuple[int, int, int], num_classes: int, measure: Measure = "params"
    ) -> ModelSpec:
        """Return the network of the space with the lowest cost.

        Args:
            input_shape: image as (channels, height, width).
            num_classes: number of classes.
            measure: the cost to minimise. The network with the fewest parameters may not have the fewest MACs: a stage
                that halves the map has fewer MACs but may need a projection.
        """
        key = (*input_shape, num_classes, measure)
        if key not in self._known_smallest:
            image: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
            self._known_smallest[key] = self.spec(smallest_of(self, **image, measure=measure), **image)
        return self._known_smallest[key]

    @functools.cached_property
    def _known_smallest(self) -> dict[tuple[int | str, ...], ModelSpec]:
        """Found once: looking takes some milliseconds, and a proposal for a small budget may ask."""
        return {}
