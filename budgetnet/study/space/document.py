"""Search space: parameters, their distributions, and the network and recipe of a sample."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BeforeValidator, Field, model_validator

from budgetnet.common.documents import Channels, Document, Flag, Positive, Real
from budgetnet.model.block_settings import DEFAULT_BOTTLENECK_RATIO
from budgetnet.model.budget import Sizing
from budgetnet.model.parts import Activation, BlockKind, BottleneckRatio, Dropout, KernelSize, ShortcutKind
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.study.space.checks import check_space
from budgetnet.study.space.columns import Columns, combinations, enumerated, sample_columns
from budgetnet.study.space.costs import Costs, costs_of
from budgetnet.study.space.networks import OPTIONAL, choice_text, spec_of_widths
from budgetnet.study.space.recipes import PREFIX, RecipeValues, override, read_recipe_values, recipe_distributions
from budgetnet.study.space.regnet import RegnetRule, replaced_by_rule, with_stages
from budgetnet.study.space.smallest import Measure, smallest_of
from budgetnet.study.space.structure import rounded_width, width_step

Ratio = Annotated[Real, Field(ge=0, le=1)]
Growth = Annotated[Real, Field(gt=0, le=8)]
BudgetShare = Annotated[Real, Field(gt=0, le=1)]
StageCount = Annotated[Positive, Field(le=32)]
BlockCount = Annotated[Positive, Field(le=256)]


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
    bottleneck_ratios: Annotated[tuple[BottleneckRatio, ...], Field(min_length=1)] = (DEFAULT_BOTTLENECK_RATIO,)
    """Inner widths of bottlenecks as shares of their width; above 1 they are inverted."""
    group_widths: Annotated[tuple[Channels | None, ...], Field(min_length=1)] = (None,)
    """Channels of each group of a bottleneck's spatial convolution, 1 for depthwise; null for the sampled groups."""
    shortcut_kernel_sizes: Annotated[tuple[KernelSize, ...], Field(min_length=1)] = (1,)
    """Kernel sizes of shortcuts with a convolution."""
    activations: Annotated[tuple[Activation, ...], Field(min_length=1)] = ("relu",)
    """Activation functions."""
    block_dropouts: Annotated[tuple[Dropout, ...], Field(min_length=1)] = (0.0,)
    """Dropout probabilities in blocks."""
    conv_biases: Annotated[tuple[Flag, ...], Field(min_length=1)] = (False,)
    """Whether the blocks' convolutions have biases."""
    stems: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)] = ({},)
    """Stems, each with some fields of a specification's stem, such as ``{inner_channels: [32, 32], pool_size: 3}``;
    its width is that of the first stage."""
    heads: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)] = ({},)
    """Heads, each with some fields of a specification's head, such as ``{channels: 512}``; a ``pool_size`` above the
    side of a network's last map is global pooling."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Other fields of the specification, the same for every network, such as ``block_activation: false``."""
    regnet: RegnetRule | None = None
    """RegNet's rule for widths and depths, in place of `stages` (of which the maximum holds), `growth` and `blocks`."""
    recipe: Annotated[dict[str, RecipeValues], BeforeValidator(read_recipe_values)] = Field(default_factory=dict)
    """Fields of the recipe that vary, with dots as in ``augmentation.cutout``: a list of choices, or a range such as
    ``{low: 0.01, high: 0.2, log: true}``."""
    budget_shares: tuple[BudgetShare, BudgetShare] = (0.1, 1.0)
    """Smallest and largest share of the budget to fit a network to. Used with sizing `scale` only."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_space(self)
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
        if self.regnet is not None:
            network = {name: where for name, where in network.items() if not replaced_by_rule(name)}
            network |= self.regnet.distributions
        for field, name in OPTIONAL.items():
            choices = getattr(self, field)
            if choices != type(self).model_fields[field].default:
                network[name] = CategoricalDistribution(list(map(choice_text, choices)))
        return network

    @functools.cached_property
    def defaults(self) -> dict[str, Any]:
        """Values of the parameters that are not sampled, because there is only the default."""
        every = {name: choice_text(getattr(self, field)[0]) for field, name in OPTIONAL.items()}
        return {name: value for name, value in every.items() if name not in self.network}

    def steps(self, kind: BlockKind) -> dict[tuple[int, int | None, float], int]:
        """Return what widths are multiples of, by the groups, group width and bottleneck ratio of a sample."""
        return {
            (groups, group_width, ratio): width_step(
                self.channel_step, kind, groups, group_width=group_width, ratio=ratio
            )
            for groups in self.groups
            for group_width in self.group_widths
            for ratio in self.bottleneck_ratios
        }

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
    def identity(self) -> dict[str, Any]:
        """Fields as plain data, without the name and without later fields at their defaults, for digests of studies."""
        later = [
            name
            for name in (*OPTIONAL, "fixed", "regnet")
            if getattr(self, name) == type(self).model_fields[name].get_default(call_default_factory=True)
        ]
        return self.model_dump(mode="json", exclude={"name", *later})

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
        params = self.complete(params)
        step = self.step_of(params)
        channels = []
        exact = float(params["channels"])
        for number in range(1, params["stages"] + 1):
            exact *= params[f"growth_{number}"] if number > 1 else 1
            channels.append(rounded_width(exact, step))
        return self.spec_of_widths(params, channels, input_shape=input_shape, num_classes=num_classes)

    def complete(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a sample with the parameters that are not sampled, and with the stages of RegNet's rule."""
        known = {**self.defaults, **params}
        if self.regnet is None or "stages" in known:
            return known
        return with_stages(known, self.regnet, most=self.stages[1])

    def step_of(self, params: Mapping[str, Any]) -> int:
        """Return what the widths of a complete sample are multiples of."""
        key = params["groups"], params["group_width"], params["bottleneck_ratio"]
        return self._steps[params["block"]][key]

    @functools.cached_property
    def _steps(self) -> dict[BlockKind, dict[tuple[int, int | None, float], int]]:
        return {kind: self.steps(kind) for kind in self.block_kinds}

    def spec_of_widths(
        self, params: Mapping[str, Any], channels: list[int], *, input_shape: tuple[int, int, int], num_classes: int
    ) -> ModelSpec:
        """Return the network of a sample with the given widths, one for each stage.

        Args:
            params: a value for each parameter of the network; those for widths are ignored.
            channels: width of each stage; the stem is as wide as the first.
            input_shape: image as (channels, height, width).
            num_classes: number of classes.
        """
        return spec_of_widths(self, self.complete(params), channels, input_shape=input_shape, num_classes=num_classes)

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
