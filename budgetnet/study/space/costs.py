"""Costs of many samples at once, as columns: an array with one entry per sample for each parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.common.errors import InputError
from budgetnet.model.cost import stage_cost, stem_and_head_cost
from budgetnet.model.spec import DEFAULT_BOTTLENECK_RATIO, BlockKind
from budgetnet.study.space.structure import shortcut_area, stem_of, strides_of, width_step

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
    costs = Costs(*(np.zeros(len(columns["stages"]), dtype=np.int64) for _ in Costs._fields))
    for kind in space.block_kinds:
        _refuse_overflow(space, kind, input_shape, num_classes)
        rows = np.flatnonzero(columns["block"] == kind)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            part = {name: column[chunk] for name, column in columns.items() if name in space.network}
            counted = _costs_of_kind(space, kind, part, input_shape, num_classes)
            for column, counts in zip(costs, counted, strict=True):
                column[chunk] = counts
    return costs


def _costs_of_kind(
    space: SearchSpace, kind: BlockKind, columns: Columns, input_shape: tuple[int, int, int], num_classes: int
) -> NDArray[np.int64]:
    """Return the costs of samples with one kind of block: `(3, samples)`, in the order of `Costs`."""
    fullest = range(space.full_size_stages[0], space.full_size_stages[1] + 1)
    strides = np.array([strides_of(space.stages[1], full, min(input_shape[1:])) for full in fullest])
    reached = np.cumprod(strides, axis=1)
    # Dividing and rounding up a side gives the same in steps or at once.
    pixels = -(-input_shape[1] // reached) * -(-input_shape[2] // reached)
    row = columns["full_size_stages"] - fullest[0]
    first, second = (columns[f"{which}_kernel_size"].astype(np.int64) ** 2 for which in ("first", "second"))
    ratio = columns["squeeze_excitation_ratio"]
    groups: Any = columns["groups"].astype(np.int64)
    step = _looked_up(groups, {each: width_step(space.channel_step, kind, each) for each in space.groups})
    area = _looked_up(columns["shortcut"], {each: shortcut_area(each) for each in space.shortcuts})
    exact = columns["channels"].astype(np.float64)
    stem = in_channels = width = _widths(exact, step)
    before = np.full_like(width, input_shape[1] * input_shape[2])
    total = np.zeros((len(Costs._fields), len(width)), dtype=np.int64)
    for index in range(space.stages[1]):
        # An omitted stage has no blocks and changes neither width nor map, so it costs nothing.
        there = index < columns["stages"]
        if index:
            exact = exact * columns[f"growth_{index + 1}"]
            width = np.where(there, _widths(exact, step), in_channels)
        after = np.where(there, pixels[row, index], before)
        changes = (width != in_channels) | (there & (strides[row, index] > 1))
        total += stage_cost(
            kind,
            groups,
            blocks=columns[f"blocks_{index + 1}"] * there,
            in_channels=in_channels,
            width=width,
            inner=_rounded(width * DEFAULT_BOTTLENECK_RATIO) if kind == "bottleneck" else width,
            hidden=_rounded(width * ratio) * (ratio > 0),
            first=first,
            second=second,
            shortcut=changes * area,
            before=before,
            after=after,
            computed=after,
        )
        in_channels, before = width, after
    total += stem_and_head_cost(kind, num_classes, stem=stem, last=width, **stem_of(input_shape))
    return total


def _refuse_overflow(space: SearchSpace, kind: BlockKind, input_shape: tuple[int, int, int], num_classes: int) -> None:
    """Require that the counts of the largest networks fit in 64 bits."""
    growth = max(1.0, *space.growth) ** (space.stages[1] - 1)
    steps = [width_step(space.channel_step, kind, groups) for groups in space.groups]
    widest = min(max((int(space.channels[1] * growth) // step + 1) * step for step in steps), MAX_CHANNELS)
    stage = stage_cost(
        kind,
        1,
        blocks=space.blocks[1],
        **dict.fromkeys(("in_channels", "width", "inner", "hidden"), widest),
        first=max(space.first_kernel_sizes) ** 2,
        second=max(space.second_kernel_sizes) ** 2,
        shortcut=1,
        **dict.fromkeys(("before", "after", "computed"), input_shape[1] * input_shape[2]),
    )
    ends = stem_and_head_cost(kind, num_classes, stem=widest, last=widest, **stem_of(input_shape))
    if max(space.stages[1] * part + end for part, end in zip(stage, ends, strict=True)) > np.iinfo(np.int64).max:
        rule = "its largest networks may have counts beyond 64 bits; count its networks one by one"
        raise InputError("space", space.name, rule)


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
