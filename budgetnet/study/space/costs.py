"""Costs of many samples at once, as columns: an array with one entry per sample for each parameter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.common.errors import InputError
from budgetnet.model.cost import block_cost, shortcut_cost, stem_and_head_cost
from budgetnet.model.parts import BlockKind
from budgetnet.model.spec import ModelSpec
from budgetnet.study.space.networks import choice_text, document_of, fixed_fields, stem_output
from budgetnet.study.space.regnet import stage_columns
from budgetnet.study.space.structure import shortcut_area, strides_of

if TYPE_CHECKING:
    from budgetnet.study.space.document import SearchSpace

Columns = Mapping[str, NDArray[Any]]
"""Values as `(samples,)` by each name of `SearchSpace.distributions`."""

_CHUNK = 2**14
"""Samples that are counted at a time, to fit the processor's cache."""


class Costs(NamedTuple):
    """Costs of many networks for one image: int64 arrays `(samples,)`, in units of `budgetnet.model.cost`."""

    params: NDArray[np.int64]
    macs: NDArray[np.int64]
    activations: NDArray[np.int64]


def sample_columns(
    distributions: Mapping[str, BaseDistribution], *, count: int, generator: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Sample every parameter independently from its distribution, as columns."""
    return {name: _column(where, count, generator) for name, where in distributions.items()}


def _column(where: BaseDistribution, count: int, generator: np.random.Generator) -> NDArray[Any]:
    if isinstance(where, CategoricalDistribution):
        values = choices_of(where)
        return values[generator.integers(len(values), size=count)]
    if isinstance(where, IntDistribution) and not where.log:
        return choices_of(where)[generator.integers((where.high - where.low) // where.step + 1, size=count)]
    assert isinstance(where, (FloatDistribution, IntDistribution))  # noqa: S101 - tells the type
    # An integer has the interval from half below it to half above, as in Optuna's samplers.
    margin = 0.5 if isinstance(where, IntDistribution) else 0.0
    low, high = where.low - margin, where.high + margin
    if where.log:
        values = np.exp(generator.uniform(math.log(low), math.log(high), count))
    else:
        values = generator.uniform(low, high, count)
    if isinstance(where, IntDistribution):
        values = np.rint(values).astype(np.int64)
    return np.clip(values, where.low, where.high)


def choices_of(where: BaseDistribution) -> NDArray[Any]:
    """Return all values of a distribution of choices or integers, in order."""
    if isinstance(where, IntDistribution):
        return np.arange(where.low, where.high + 1, where.step)
    assert isinstance(where, CategoricalDistribution)  # noqa: S101 - tells the type
    # An array of numbers has no None.
    return np.asarray(where.choices, dtype=object if None in where.choices else None)


def costs_of(space: SearchSpace, columns: Columns, *, input_shape: tuple[int, int, int], num_classes: int) -> Costs:
    """Return the costs of many samples, see `SearchSpace.costs`."""
    count = len(columns["block"])
    costs = Costs(*(np.zeros(count, dtype=np.int64) for _ in Costs._fields))
    full = {name: column for name, column in columns.items() if name in space.network}
    if space.regnet is not None:
        full |= stage_columns(full, space.regnet, most=space.stages[1])
    # What is not a number, but decides how costs are computed.
    kinds: dict[str, list[Any]] = {
        "block": list(space.block_kinds),
        "stem": list(map(choice_text, space.stems)),
        "head": list(map(choice_text, space.heads)),
        "conv_bias": list(space.conv_biases),
    }
    for kind in itertools.product(*kinds.values()):
        frame = _Frame(space, dict(zip(kinds, kind, strict=True)), input_shape, num_classes)
        # Comparing text takes longer than counting, so it is left out where there is one choice.
        chosen = [full[name] == value for name, value in zip(kinds, kind, strict=True) if len(kinds[name]) > 1]
        rows = np.flatnonzero(np.logical_and.reduce(chosen)) if chosen else np.arange(count)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            counted = frame.costs(space.defaults | {name: column[chunk] for name, column in full.items()})
            for column, counts in zip(costs, counted, strict=True):
                column[chunk] = counts
    return costs


class _Frame:
    """What networks with one kind of block, stem and head, with or without biases, have in common."""

    def __init__(
        self, space: SearchSpace, choices: dict[str, Any], input_shape: tuple[int, int, int], num_classes: int
    ) -> None:
        self.space = space
        self.kind: BlockKind = choices["block"]
        self.after_stem = stem_output(choices["stem"], input_shape)
        head = dict(document_of(choices["head"]))
        self.pool_size: int | None = head.pop("pool_size", None)
        self.spec = ModelSpec.from_mapping(
            {
                **fixed_fields(space, self.kind),
                "input_shape": input_shape,
                "num_classes": num_classes,
                "stages": [{"channels": 1}],
                "block": self.kind,
                "stem": document_of(choices["stem"]),
                "head": head,
                "conv_bias": choices["conv_bias"],
                # Only whether there is squeeze-and-excitation is read, and how it is computed.
                "squeeze_excitation_ratio": 1.0 if max(space.squeeze_excitation_ratios) else None,
            }
        )
        self._refuse_overflow()

    def costs(self, columns: Mapping[str, Any]) -> list[NDArray[np.int64]]:
        """Return the costs of samples, in the order of `Costs`; a parameter may have one value for all of them."""
        space, spec = self.space, self.spec
        settings = spec.block_settings[0]
        fullest = range(space.full_size_stages[0], space.full_size_stages[1] + 1)
        strides = np.array([strides_of(space.stages[1], full, min(self.after_stem)) for full in fullest])
        reached = np.cumprod(strides, axis=1)
        # Dividing and rounding up a side gives the same in steps or at once.
        heights, widths = (-(-side // reached) for side in self.after_stem)
        sizes = heights * widths
        row = columns["full_size_stages"] - fullest[0]
        first, second = (columns[f"{which}_kernel_size"].astype(np.int64) ** 2 for which in ("first", "second"))
        step, groups, group_width = self._steps(columns)
        area = _looked_up(columns["shortcut"], {each: shortcut_area(each) for each in space.shortcuts})
        area *= np.asarray(columns["shortcut_kernel_size"], dtype=np.int64) ** 2
        ratio = np.asarray(columns["bottleneck_ratio"], dtype=np.float64)
        squeeze = columns["squeeze_excitation_ratio"].astype(np.float64)

        def block(inputs: NDArray[np.int64], width: NDArray[np.int64], pixels: tuple[Any, Any, Any]) -> Any:
            inner, own = width, groups
            if settings.bottleneck:
                inner = _rounded((inputs if settings.ratio_of_input else width) * ratio)
                if group_width is not None:
                    own = np.where(group_width > 0, inner // np.maximum(group_width, 1), groups)
            hidden: Any = 0
            if settings.squeeze_ratio:
                of = {"output": width, "input": inputs, "inner": inner}[settings.squeeze_excitation.ratio_of]
                hidden = _hidden(of, squeeze, settings.squeeze_excitation.rounding)
            return block_cost(settings, inputs, width, inner, own, hidden, first, second, pixels)

        exact = columns["channels"].astype(np.float64)
        stem = in_channels = width = _widths(exact, step)
        before: Any = self.after_stem[0] * self.after_stem[1]
        totals = [np.zeros(len(width), dtype=np.int64) for _ in Costs._fields]
        for index in range(space.stages[1]):
            # An omitted stage has no blocks and changes neither width nor map, so it costs nothing.
            there = index < columns["stages"]
            after = sizes[row, index]
            if index:
                exact = exact * columns[f"growth_{index + 1}"]
                width = np.where(there, _widths(exact, step), in_channels)
                after = np.where(there, after, before)
            changes = (width != in_channels) | (there & (strides[row, index] > 1))
            computed = before if spec.downsampling == "max-pool" else after
            others = np.maximum(columns[f"blocks_{index + 1}"] * there - 1, 0)
            parts = (
                block(in_channels, width, (before, after, computed)),
                shortcut_cost(settings, changes * area, in_channels, width, after),
                block(width, width, (after, after, after)),
            )
            for total, one, shortcut, rest in zip(totals, *parts, strict=True):
                np.add(total, there * one + shortcut + others * rest, out=total)
            in_channels, before = width, after
        # As many stages as there are have reduced the map.
        last = np.minimum(columns["stages"], space.stages[1]) - 1
        positions: Any = 1
        if self.pool_size is not None:
            height, across = heights[row, last], widths[row, last]
            fits = np.minimum(height, across) >= self.pool_size
            positions = np.where(fits, (height // self.pool_size) * (across // self.pool_size), 1)
        hidden = _hidden(stem, np.float64(spec.stem.squeeze_excitation_ratio or 0.0), "nearest")
        ends = stem_and_head_cost(spec, stem=stem, last=width, hidden=hidden, pixels=before, positions=positions)
        return [total + end for total, end in zip(totals, ends, strict=True)]

    def _steps(self, columns: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Return what widths are multiples of, the groups, and the group widths: 0 for none, None if none has one."""
        groups, ratio = columns["groups"].astype(np.int64), columns["bottleneck_ratio"]
        steps, choices = self.space.steps(self.kind), self.space.group_widths
        if not self.spec.block_settings[0].bottleneck:
            return _looked_up(groups, {count: value for (count, _, _), value in steps.items()}), groups, None
        widths = None
        if choices != (None,):
            given = np.broadcast_to(np.asarray(columns["group_width"], dtype=object), groups.shape)
            widths = _looked_up(given, {each: each or 0 for each in choices})
        step = np.zeros_like(groups)
        for (count, width, share), value in steps.items():
            match = (groups == count) & (ratio == share)
            step[match if widths is None else match & (widths == (width or 0))] = value
        return step, groups, widths

    def _refuse_overflow(self) -> None:
        """Require that the counts of the largest networks fit in 64 bits."""
        space, spec = self.space, self.spec
        growth = max(1.0, *space.growth) ** (space.stages[1] - 1)
        if space.regnet is not None:
            growth = space.regnet.widest(space.stages[1])
        steps = space.steps(self.kind).values()
        widest = min(max((int(space.channels[1] * growth) // step + 1) * step for step in steps), MAX_CHANNELS)
        height, width = spec.input_shape[1:]
        blocks = space.regnet.depth[1] if space.regnet is not None else space.blocks[1] * space.stages[1]
        block = block_cost(
            spec.block_settings[0],
            widest,
            widest,
            math.ceil(widest * max(1.0, *space.bottleneck_ratios)),
            1,
            widest,
            max(space.first_kernel_sizes) ** 2,
            max(space.second_kernel_sizes) ** 2,
            (height * width,) * 3,
        )
        area = max(space.shortcut_kernel_sizes) ** 2
        shortcut = shortcut_cost(spec.block_settings[0], area, widest, widest, height * width)
        ends = stem_and_head_cost(
            spec, stem=widest, last=widest, hidden=widest, pixels=height * width, positions=height * width
        )
        most = max(
            blocks * each + space.stages[1] * short + end
            for each, short, end in zip(block, shortcut, ends, strict=True)
        )
        if most > np.iinfo(np.int64).max:
            rule = "its largest networks may have counts beyond 64 bits; count its networks one by one"
            raise InputError("space", space.name, rule)


def _hidden(widths: Any, ratio: Any, rounding: str) -> Any:
    """Return hidden widths as `SqueezeExcitation.hidden` does; 0 for a ratio of 0."""
    if rounding == "multiple-of-8":
        hidden = np.maximum(8, (widths * ratio / 8 + 0.5).astype(np.int64) * 8)
    elif rounding == "down":
        hidden = np.maximum(1, (widths * ratio).astype(np.int64))
    else:
        hidden = _rounded(widths * ratio)
    return hidden * (ratio > 0)


def enumerated(distributions: Mapping[str, BaseDistribution], start: int, stop: int) -> dict[str, NDArray[Any]]:
    """Return the combinations of choices in a range of indexes, as columns; the last parameter changes fastest."""
    choices = {name: choices_of(where) for name, where in distributions.items()}
    places = np.unravel_index(np.arange(start, stop), [len(values) for values in choices.values()])
    return {name: values[place] for (name, values), place in zip(choices.items(), places, strict=True)}


def combinations(distributions: Mapping[str, BaseDistribution]) -> int:
    """Return the number of combinations of choices."""
    return math.prod(
        (where.high - where.low) // where.step + 1 if isinstance(where, IntDistribution) else len(where.choices)
        for where in distributions.values()
        if isinstance(where, (IntDistribution, CategoricalDistribution))
    )


def _looked_up(column: NDArray[Any], known: Mapping[Any, int]) -> NDArray[np.int64]:
    """Return the value of each entry of a column."""
    values = np.zeros(len(column), dtype=np.int64)
    for entry, value in known.items():
        values[column == entry] = value
    return values


def _widths(exact: NDArray[np.float64], step: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return widths as `rounded_width` does."""
    return np.minimum(_rounded(exact / step), MAX_CHANNELS // step) * step


def _rounded(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return widths as integers of at least 1; numpy rounds halves to even, as Python does."""
    whole: NDArray[np.int64] = np.maximum(1, np.rint(values)).astype(np.int64)
    return whole
