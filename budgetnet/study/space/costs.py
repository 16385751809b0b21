"""Costs of many samples at once, given as columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.common.errors import InputError
from budgetnet.model.cost import block_cost, shortcut_cost, stem_and_head_cost
from budgetnet.model.parts import BlockKind, Shortcut
from budgetnet.model.spec import ModelSpec
from budgetnet.study.space.columns import Columns, choices_of
from budgetnet.study.space.networks import choice_text, document_of, fixed_fields, stem_output
from budgetnet.study.space.regnet import stage_columns
from budgetnet.study.space.rows import Rows, at, hidden_widths
from budgetnet.study.space.structure import strides_of

if TYPE_CHECKING:
    from budgetnet.study.space.document import SearchSpace

_CHUNK = 2**13
"""Samples that are counted at a time, to fit the processor's cache."""


class Costs(NamedTuple):
    """Costs of many networks for one image: int64 arrays `(samples,)`, in units of `budgetnet.model.cost`."""

    params: NDArray[np.int64]
    macs: NDArray[np.int64]
    activations: NDArray[np.int64]


def costs_of(space: SearchSpace, columns: Columns, *, input_shape: tuple[int, int, int], num_classes: int) -> Costs:
    """Return the costs of many samples, see `SearchSpace.costs`."""
    count = len(columns["block"])
    costs = Costs(*(np.zeros(count, dtype=np.int64) for _ in Costs._fields))
    # What is not a number, but decides how costs are computed.
    kinds: dict[str, list[Any]] = {
        "block": list(space.block_kinds),
        "stem": list(map(choice_text, space.stems)),
        "head": list(map(choice_text, space.heads)),
        "conv_bias": list(space.conv_biases),
    }
    # Comparing text takes longer than counting: each choice is looked for once.
    places = {
        name: _looked_up(columns[name], {each: place for place, each in enumerate(choices)}, np.int16)
        for name, choices in kinds.items()
        if len(choices) > 1
    }
    numbers = _numbers(space, columns)
    for kind in itertools.product(*(range(len(choices)) for choices in kinds.values())):
        chosen = dict(zip(kinds, kind, strict=True))
        frame = _Frame(space, {name: kinds[name][place] for name, place in chosen.items()}, input_shape, num_classes)
        matches = [column == chosen[name] for name, column in places.items()]
        rows = np.flatnonzero(np.logical_and.reduce(matches)) if matches else np.arange(count)
        if np.ndim(numbers["stages"]):
            # Numbers of few bits are sorted fastest.
            rows = rows[np.argsort(-numbers["stages"][rows].astype(np.int16), kind="stable")]
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            counted = frame.costs({name: _taken(values, chunk) for name, values in numbers.items()}, len(chunk))
            for column, counts in zip(costs, counted, strict=True):
                column[chunk] = counts
    return costs


_UNCOUNTED = ("block", "stem", "head", "conv_bias", "activation", "block_dropout")
"""Parameters that change no cost, or that decide how it is computed."""


def _numbers(space: SearchSpace, columns: Columns) -> dict[str, Any]:
    """Return the other parameters as numbers: a column each, or one number where there is one choice."""
    found: dict[str, Any] = dict(space.defaults)
    for name, where in space.network.items():
        # The first width may be any: what is fitted to a budget is not sampled.
        choices = None if isinstance(where, FloatDistribution) or name == "channels" else choices_of(where)
        found[name] = choices[0] if choices is not None and len(choices) == 1 else columns[name]
    if space.regnet is not None:
        found |= _stages_by_rule(space, columns)
    areas = {kind: int(Shortcut(kind=kind).has_conv) for kind in space.shortcuts}
    found["shortcut"] = _looked_up(found["shortcut"], areas)
    found["group_width"] = _looked_up(found["group_width"], {each: each or 0 for each in space.group_widths})
    return {name: values for name, values in found.items() if name not in _UNCOUNTED}


def _stages_by_rule(space: SearchSpace, columns: Columns) -> dict[str, NDArray[Any]]:
    """Return the columns of RegNet's rule, for many samples from a table of all combinations of its parameters."""
    assert space.regnet is not None  # noqa: S101 - tells the type
    choices = {name: np.sort(choices_of(where)) for name, where in space.regnet.distributions.items()}
    shape = [len(values) for values in choices.values()]
    if math.prod(shape) > len(columns["block"]):
        return stage_columns(columns, space.regnet, most=space.stages[1])
    every = dict(zip(choices, map(np.ravel, np.meshgrid(*choices.values(), indexing="ij")), strict=True))
    table = stage_columns(every, space.regnet, most=space.stages[1])
    rows = np.ravel_multi_index([np.searchsorted(values, columns[name]) for name, values in choices.items()], shape)
    return {name: column[rows] for name, column in table.items()}


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
        # Floats are multiplied faster, and are exact where the largest counts are below 2^53.
        self.number: Any = np.float64 if self._most() < 2**53 else np.int64
        self.fullest = range(space.full_size_stages[0], space.full_size_stages[1] + 1)
        # By stages at full size, then by stage.
        self.strides = np.array([strides_of(space.stages[1], full, min(self.after_stem)) for full in self.fullest])
        reached = np.cumprod(self.strides, axis=1)
        # Dividing and rounding up a side gives the same in steps or at once.
        self.heights, self.sides = (-(-side // reached) for side in self.after_stem)

    def costs(self, columns: Mapping[str, Any], count: int) -> list[NDArray[np.int64]]:
        """Return the costs of samples in the order of `Costs`; samples with more stages come first.

        Args:
            columns: the parameters; each may be one number for all samples.
            count: number of samples.
        """
        spec, number = self.spec, self.number
        settings, sizes = spec.block_settings[0], (self.heights * self.sides).astype(number)
        stages = np.broadcast_to(columns["stages"], count)
        exact = np.broadcast_to(np.asarray(columns["channels"], dtype=np.float64), count)
        full = columns["full_size_stages"] - self.fullest[0]
        rows = Rows(settings, columns, step=self._steps(columns), number=number)
        inputs, before = rows.widths(exact), sizes[0, 0]
        stem, last, pixels = inputs.width, inputs.width.copy(), np.full(count, before)
        totals = [np.zeros(count, dtype=number) for _ in Costs._fields]
        for index in range(self.space.stages[1]):
            there = slice(int(np.count_nonzero(stages > index)))
            rows.keep(there)
            inputs, exact, before, full = inputs.at(there), exact[there], at(before, there), at(full, there)
            own, after = inputs, _of_rows(sizes[:, index], full)
            blocks = np.asarray(at(columns[f"blocks_{index + 1}"], there), dtype=number)
            # The first stage is as wide as the stem and has its map, so its first block is like the others.
            if index:
                exact = exact * at(columns[f"growth_{index + 1}"], there)
                own = rows.widths(exact)
                computed = before if spec.downsampling == "max-pool" else after
                _add(totals, there, rows.block_costs(inputs, own, (before, after, computed)))
                if np.any(rows.shortcut_area):
                    strided = _of_rows(self.strides[:, index] > 1, full)
                    changes = strided if np.all(strided) else strided | (own.width != inputs.width)
                    area = changes * rows.shortcut_area
                    _add(totals, there, shortcut_cost(settings, area, inputs.width, own.width, after))
                blocks = blocks - 1
            _add(totals, there, rows.block_costs(own, own, (after, after, after)), times=blocks)
            inputs, before = own, after
            last[there], pixels[there] = own.width, after
        positions = self._positions(columns["full_size_stages"] - self.fullest[0], stages)
        hidden = hidden_widths(stem, np.float64(spec.stem.squeeze_excitation_ratio or 0.0), "nearest")
        ends = stem_and_head_cost(spec, stem=stem, last=last, hidden=hidden, pixels=pixels, positions=positions)
        return [(total + end).astype(np.int64) for total, end in zip(totals, ends, strict=True)]

    def _positions(self, full: Any, stages: NDArray[Any]) -> Any:
        """Return the number of windows that the head pools, for each sample or for all."""
        if self.pool_size is None:
            return 1
        # As many stages as there are have reduced the map.
        height, side = self.heights[full, stages - 1], self.sides[full, stages - 1]
        fits = np.minimum(height, side) >= self.pool_size
        return np.where(fits, (height // self.pool_size) * (side // self.pool_size), 1).astype(self.number)

    def _steps(self, columns: Mapping[str, Any]) -> NDArray[np.int64]:
        """Return what widths are multiples of, for each sample or for all."""
        space = self.space
        choices: dict[str, list[Any]] = {
            "groups": list(space.groups),
            "group_width": [each or 0 for each in space.group_widths],
            "bottleneck_ratio": list(space.bottleneck_ratios),
        }
        steps = np.array(list(space.steps(self.kind).values()))
        if (steps == steps[0]).all():
            return np.asarray(steps[0])
        table = steps.reshape([len(values) for values in choices.values()])
        return np.asarray(table[tuple(_places(columns[name], values) for name, values in choices.items())])

    def _most(self) -> int:
        """Return a bound of the counts of the largest networks.

        Raises:
            InputError: it does not fit in 64 bits.
        """
        space, spec = self.space, self.spec
        growth = max(1.0, *space.growth) ** (space.stages[1] - 1)
        if space.regnet is not None:
            growth = space.regnet.widest(space.stages[1])
        steps = space.steps(self.kind).values()
        widest = min(max((int(space.channels[1] * growth) // step + 1) * step for step in steps), MAX_CHANNELS)
        height, width = spec.input_shape[1:]
        blocks = space.regnet.depth[1] if space.regnet is not None else space.blocks[1] * space.stages[1]
        inner = math.ceil(widest * max(1.0, *space.bottleneck_ratios))
        block = block_cost(
            spec.block_settings[0],
            widest,
            widest,
            inner,
            (inner, inner),
            max(inner, 8),
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
        return int(most)


def _add(totals: list[NDArray[Any]], rows: slice, counts: tuple[Any, Any, Any], *, times: Any = None) -> None:
    """Add counts, or multiples of them, to some rows of the totals."""
    for total, each in zip(totals, counts, strict=True):
        total[rows] += each if times is None else times * each


def _taken(values: Any, rows: NDArray[np.intp]) -> Any:
    """Return rows of a column, all of which it has; one value for all as it is."""
    return values.take(rows, mode="clip") if np.ndim(values) else values


def _of_rows(choices: NDArray[Any], rows: Any) -> Any:
    """Return the choice that each row names; one for all where they are equal."""
    return choices[0] if (choices == choices[0]).all() else choices[rows]


def _places(column: Any, choices: list[Any]) -> Any:
    """Return the place of each number of a column among its choices; 0 for all where there is one."""
    if len(choices) == 1:
        return 0
    order = np.argsort(choices)
    return order[np.sum([column > choices[place] for place in order[:-1]], axis=0, dtype=np.int16)]


def _looked_up(column: Any, known: Mapping[Any, int], number: Any = np.int64) -> Any:
    """Return the value of each entry of a column; one for all where all values are equal."""
    first, *others = dict.fromkeys(known.values())
    if not others:
        return first
    values = np.full(len(column), first, dtype=number)
    for entry, value in known.items():
        if value != first:
            values[column == entry] = value
    return values
