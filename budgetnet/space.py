"""What a search may propose: a flat space whose parameters are all drawn each time, and what a draw stands for."""

from __future__ import annotations

import functools
import itertools
from typing import Annotated, Any, ClassVar, Literal, Self

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from pydantic import Field, model_validator

from budgetnet.errors import InputError
from budgetnet.fields import MAX_CHANNELS, Channels, Document, Positive, Real
from budgetnet.spec import BlockKind, KernelSize, ModelSpec

Measure = Literal["params", "macs", "activations"]
Ratio = Annotated[Real, Field(ge=0, le=1)]
Growth = Annotated[Real, Field(gt=0, le=8)]
StageCount = Annotated[Positive, Field(le=32)]
BlockCount = Annotated[Positive, Field(le=256)]


class SearchSpace(Document):
    """Residual networks to choose from.

    The space is flat: widths and depths are drawn for the largest number of stages, and a network with fewer leaves the
    last ones out, because samplers that model parameters jointly learn badly from spaces whose parameters come and go.

    Raises:
        InputError: a range is empty or a field breaks its rule.
    """

    document_kind: ClassVar[str] = "space"

    schema_version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]*$")] = "resnet"
    """A label for people."""
    stages: tuple[StageCount, StageCount] = (3, 5)
    """Fewest and most stages."""
    channels: tuple[Channels, Channels] = (32, 96)
    """Narrowest and widest first stage; the stem is as wide."""
    channel_step: Positive = 8
    """Widths are multiples of this."""
    growth: Annotated[tuple[Growth, ...], Field(min_length=1)] = (1.0, 1.5, 2.0)
    """Width of a later stage as a multiple of the one before: networks that never narrow need no wide, large maps."""
    blocks: tuple[BlockCount, BlockCount] = (1, 2)
    """Fewest and most blocks of a stage."""
    full_size_stages: tuple[Positive, Positive] = (1, 2)
    """Fewest and most stages at the image's own resolution; each later stage halves the map while it can be halved."""
    first_kernel_sizes: Annotated[tuple[KernelSize, ...], Field(min_length=1)] = (3, 5)
    """Kernel sizes of a block's first convolution."""
    second_kernel_sizes: Annotated[tuple[KernelSize, ...], Field(min_length=1)] = (3,)
    """Kernel sizes of a block's second convolution."""
    block_kinds: Annotated[tuple[BlockKind, ...], Field(min_length=1)] = ("basic", "preact")
    """Kinds of residual block."""
    squeeze_excitation_ratios: Annotated[tuple[Ratio, ...], Field(min_length=1)] = (0.0, 0.25)
    """Ratios of squeeze-and-excitation; 0 is none."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for field in ("stages", "channels", "blocks", "full_size_stages"):
            low, high = getattr(self, field)
            if low > high:
                raise InputError(field, [low, high], "must name the smaller number first")
        if self.channels[0] % self.channel_step:
            raise InputError("channels", list(self.channels), f"must start at a multiple of {self.channel_step}")
        widest = self.channels[1] * max(1.0, max(self.growth) ** (self.stages[1] - 1))
        if widest > MAX_CHANNELS:
            rule = f"lets {self.stages[1]} stages grow to {widest:,.0f} channels; must be at most {MAX_CHANNELS:,}"
            raise InputError("growth", list(self.growth), rule)
        if "bottleneck" in self.block_kinds and set(self.first_kernel_sizes) != set(self.second_kernel_sizes):
            rule = "a bottleneck has one spatial convolution, so both kernel sizes must have the same choices"
            raise InputError("block_kinds", list(self.block_kinds), rule)
        return self

    @functools.cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter of the space, by name."""
        low, high = self.channels
        high -= (high - low) % self.channel_step
        distributions: dict[str, BaseDistribution] = {
            "stages": IntDistribution(*self.stages),
            "full_size_stages": IntDistribution(*self.full_size_stages),
            "channels": IntDistribution(low, high, step=self.channel_step),
            "block": CategoricalDistribution(self.block_kinds),
            "first_kernel_size": CategoricalDistribution(self.first_kernel_sizes),
            "second_kernel_size": CategoricalDistribution(self.second_kernel_sizes),
            "squeeze_excitation_ratio": CategoricalDistribution(self.squeeze_excitation_ratios),
        }
        for number in range(1, self.stages[1] + 1):
            distributions[f"blocks_{number}"] = IntDistribution(*self.blocks)
            if number > 1:
                distributions[f"growth_{number}"] = CategoricalDistribution(self.growth)
        return distributions

    def spec(self, params: dict[str, Any], *, input_shape: tuple[int, int, int], num_classes: int) -> ModelSpec:
        """The network that a draw stands for.

        Args:
            params: a value for each of `distributions`.
            input_shape: image as (channels, height, width).
            num_classes: number of classes.
        """
        count = params["stages"]
        channels, strides, side = [], [], min(input_shape[1:])
        exact = float(params["channels"])
        for index in range(count):
            exact *= params[f"growth_{index + 1}"] if index else 1
            channels.append(max(1, round(exact / self.channel_step)) * self.channel_step)
            stride = 2 if index >= params["full_size_stages"] and side >= 2 else 1
            side = -(-side // stride)
            strides.append(stride)
        first, second = params["first_kernel_size"], params["second_kernel_size"]
        return ModelSpec.resnet(
            channels=channels,
            blocks=[params[f"blocks_{number}"] for number in range(1, count + 1)],
            strides=strides,
            kernel_sizes=(first, first if params["block"] == "bottleneck" else second),
            block=params["block"],
            squeeze_excitation_ratio=params["squeeze_excitation_ratio"] or None,
            input_shape=input_shape,
            num_classes=num_classes,
        )

    def smallest(
        self, *, input_shape: tuple[int, int, int], num_classes: int, measure: Measure = "params"
    ) -> ModelSpec:
        """The network of the space that needs the least: whatever does not fit it, nothing of the space does.

        Args:
            input_shape: image as (channels, height, width).
            num_classes: number of classes.
            measure: what it shall need the least of; few parameters and few multiply-accumulates are rivals, as a
                stage that halves the map is cheap but may need a projection around it.
        """
        params: dict[str, Any] = {
            name: distribution.low if isinstance(distribution, IntDistribution) else min(_choices(distribution))
            for name, distribution in self.distributions.items()
            if name != "block"
        }
        growths = [name for name in params if name.startswith("growth_")]
        # More stages can need less, where widths fall and there are many classes; narrowing needs projections, too.
        structures = itertools.product(
            self.block_kinds, _whole_range(self.stages), _whole_range(self.full_size_stages), self.growth
        )
        candidates = (
            self.spec(
                {**params, "block": kind, "stages": count, "full_size_stages": full} | dict.fromkeys(growths, growth),
                input_shape=input_shape,
                num_classes=num_classes,
            )
            for kind, count, full, growth in structures
            if full <= max(count, self.full_size_stages[0])
        )
        return min(candidates, key=lambda spec: getattr(spec.cost, measure))


def _whole_range(ends: tuple[int, int]) -> range:
    return range(ends[0], ends[1] + 1)


def _choices(distribution: BaseDistribution) -> tuple[Any, ...]:
    return distribution.choices if isinstance(distribution, CategoricalDistribution) else ()
