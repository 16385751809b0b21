"""What a search may propose: a flat space whose parameters are all drawn each time, and what a draw stands for.

Many draws are kept as columns: a mapping from each parameter's name to an array with one entry a draw.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from pydantic import Field, model_validator

from budgetnet.cost import ends_cost, stage_cost
from budgetnet.errors import InputError
from budgetnet.fields import MAX_CHANNELS, Channels, Document, Positive, Real
from budgetnet.spec import DEFAULT_BOTTLENECK_RATIO, BlockKind, KernelSize, ModelSpec, Shortcut, Stem

Measure = Literal["params", "macs", "activations"]
Columns = Mapping[str, NDArray[Any]]
"""A value for each draw, as `(draws,)`, under each name of `SearchSpace.distributions`."""
Ratio = Annotated[Real, Field(ge=0, le=1)]
Growth = Annotated[Real, Field(gt=0, le=8)]
StageCount = Annotated[Positive, Field(le=32)]
BlockCount = Annotated[Positive, Field(le=256)]

_CHUNK = 2**14
"""Draws that are counted at a time: few enough for a processor's cache, and little memory for any number."""


class Costs(NamedTuple):
    """Costs of many networks for one image, each array `(draws,)` of 64-bit integers; units as in `budgetnet.cost`."""

    params: NDArray[np.int64]
    macs: NDArray[np.int64]
    activations: NDArray[np.int64]


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
        channels = []
        exact = float(params["channels"])
        for index in range(count):
            exact *= params[f"growth_{index + 1}"] if index else 1
            channels.append(max(1, round(exact / self.channel_step)) * self.channel_step)
        first, second = params["first_kernel_size"], params["second_kernel_size"]
        return ModelSpec.resnet(
            channels=channels,
            blocks=[params[f"blocks_{number}"] for number in range(1, count + 1)],
            strides=_strides(count, params["full_size_stages"], min(input_shape[1:])),
            kernel_sizes=(first, first if params["block"] == "bottleneck" else second),
            block=params["block"],
            squeeze_excitation_ratio=params["squeeze_excitation_ratio"] or None,
            input_shape=input_shape,
            num_classes=num_classes,
        )

    def draw(self, *, count: int, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Draws many networks uniformly, every parameter on its own, as columns; `params_at` gives one of them.

        Args:
            count: how many.
            generator: where the randomness comes from; the same state draws the same.
        """
        columns: dict[str, NDArray[Any]] = {}
        for name, where in self.distributions.items():
            if isinstance(where, IntDistribution):
                steps = generator.integers((where.high - where.low) // where.step + 1, size=count)
                columns[name] = where.low + where.step * steps
            else:
                columns[name] = np.asarray(_choices(where))[generator.integers(len(_choices(where)), size=count)]
        return columns

    @staticmethod
    def params_at(columns: Columns, row: int) -> dict[str, Any]:
        """One draw out of columns, as `spec` takes it."""
        return {name: column[row].item() for name, column in columns.items()}

    def costs(self, columns: Columns, *, input_shape: tuple[int, int, int], num_classes: int) -> Costs:
        """Costs of many draws: for each what the cost of its specification would be, which is not made.

        Args:
            columns: the draws.
            input_shape: image as (channels, height, width).
            num_classes: number of classes.

        Raises:
            InputError: the largest networks of the space may have counts that 64 bits do not hold.
        """
        costs = Costs(*(np.zeros(len(columns["stages"]), dtype=np.int64) for _ in Costs._fields))
        for kind in dict.fromkeys(self.block_kinds):
            self._refuse_overflow(kind, input_shape, num_classes)
            rows = np.flatnonzero(columns["block"] == kind)
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                part = {name: column[chunk] for name, column in columns.items() if name != "block"}
                counted = self._costs_of_kind(kind, part, input_shape, num_classes)
                for column, counts in zip(costs, counted, strict=True):
                    column[chunk] = counts
        return costs

    def _costs_of_kind(
        self, kind: BlockKind, columns: Columns, input_shape: tuple[int, int, int], num_classes: int
    ) -> NDArray[np.int64]:
        """Costs of draws that share their kind of block: `(3, draws)`, in the order of `Costs`."""
        fullest = _whole_range(self.full_size_stages)
        strides = np.array([_strides(self.stages[1], full, min(input_shape[1:])) for full in fullest])
        reached = np.cumprod(strides, axis=1)
        # Step by step or at once, a side that is divided and rounded up comes to the same.
        pixels = -(-input_shape[1] // reached) * -(-input_shape[2] // reached)
        row = columns["full_size_stages"] - fullest[0]
        first, second = (columns[f"{which}_kernel_size"].astype(np.int64) ** 2 for which in ("first", "second"))
        ratio = columns["squeeze_excitation_ratio"]
        exact = columns["channels"].astype(np.float64)
        stem = entering = width = _rounded(exact / self.channel_step) * self.channel_step
        before = np.full_like(width, input_shape[1] * input_shape[2])
        total = np.zeros((len(Costs._fields), len(width)), dtype=np.int64)
        for index in range(self.stages[1]):
            # A stage that is left out has no blocks and changes neither width nor map, so it costs nothing.
            there = index < columns["stages"]
            if index:
                exact = exact * columns[f"growth_{index + 1}"]
                width = np.where(there, _rounded(exact / self.channel_step) * self.channel_step, entering)
            after = np.where(there, pixels[row, index], before)
            changes = (width != entering) | (there & (strides[row, index] > 1))
            total += stage_cost(
                kind,
                1,
                blocks=columns[f"blocks_{index + 1}"] * there,
                entering=entering,
                width=width,
                inner=_rounded(width * DEFAULT_BOTTLENECK_RATIO) if kind == "bottleneck" else width,
                hidden=_rounded(width * ratio) * (ratio > 0),
                first=first,
                second=second,
                shortcut=changes * Shortcut().kernel_area,
                before=before,
                after=after,
            )
            entering, before = width, after
        total += ends_cost(kind, num_classes, stem=stem, last=width, **_stem(input_shape))
        return total

    def _refuse_overflow(self, kind: BlockKind, input_shape: tuple[int, int, int], num_classes: int) -> None:
        """Refuses a space whose largest networks could need more than 64 bits hold, before a count wraps around."""
        growth = max(1.0, *self.growth) ** (self.stages[1] - 1)
        widest = (int(self.channels[1] * growth) // self.channel_step + 1) * self.channel_step
        stage = stage_cost(
            kind,
            1,
            blocks=self.blocks[1],
            **dict.fromkeys(("entering", "width", "inner", "hidden"), widest),
            first=max(self.first_kernel_sizes) ** 2,
            second=max(self.second_kernel_sizes) ** 2,
            shortcut=Shortcut().kernel_area,
            **dict.fromkeys(("before", "after"), input_shape[1] * input_shape[2]),
        )
        ends = ends_cost(kind, num_classes, stem=widest, last=widest, **_stem(input_shape))
        if max(self.stages[1] * part + end for part, end in zip(stage, ends, strict=True)) > np.iinfo(np.int64).max:
            rule = "its largest networks may have counts beyond 64 bits; count its networks one by one"
            raise InputError("space", self.name, rule)

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


def _strides(count: int, full_size_stages: int, side: int) -> list[int]:
    """Strides of so many stages: each behind those at full size halves the map while its smaller side can be halved."""
    strides = []
    for index in range(count):
        stride = 2 if index >= full_size_stages and side >= 2 else 1
        side = -(-side // stride)
        strides.append(stride)
    return strides


def _stem(input_shape: tuple[int, int, int]) -> dict[str, int]:
    """The stem of every network of a space, as `ends_cost` takes it."""
    image_channels, height, width = input_shape
    return {"image_channels": image_channels, "stem_kernel": Stem().kernel_size ** 2, "stem_pixels": height * width}


def _rounded(values: NDArray[Any]) -> NDArray[np.int64]:
    """Widths as whole numbers of at least 1; numpy rounds halves to even, as Python does."""
    whole: NDArray[np.int64] = np.maximum(1, np.rint(values)).astype(np.int64)
    return whole


def _whole_range(ends: tuple[int, int]) -> range:
    return range(ends[0], ends[1] + 1)


def _choices(distribution: BaseDistribution) -> tuple[Any, ...]:
    return distribution.choices if isinstance(distribution, CategoricalDistribution) else ()
