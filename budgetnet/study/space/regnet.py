"""RegNet's rule for widths and depths: widths that grow linearly with the block, quantised by powers of a number.

Radosavovic et al. 2020, "Designing Network Design Spaces", section 3.3: block j has a width of w_0 + w_a j, rounded to
w_0 times the nearest power of w_m; blocks of equal width are a stage. The rule has four numbers. Here the slope is
w_a / w_0, so that the first width w_0 is only a scale, which can be solved for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from pydantic import Field, model_validator

from budgetnet.common.documents import Document, Positive, Real
from budgetnet.common.errors import InputError

Depth = Annotated[Positive, Field(le=256)]
Slope = Annotated[Real, Field(ge=0, le=8)]
Multiplier = Annotated[Real, Field(ge=1.1, le=8)]


class RegnetRule(Document):
    """Ranges and choices of the rule's numbers."""

    depth: tuple[Depth, Depth] = (4, 16)
    """Minimum and maximum number of blocks of the whole network."""
    slopes: Annotated[tuple[Slope, ...], Field(min_length=1)] = (0.25, 0.5, 0.75, 1.0, 1.5)
    """Increase of the width from block to block, as a share of the first width."""
    multipliers: Annotated[tuple[Multiplier, ...], Field(min_length=1)] = (1.5, 2.0, 2.5)
    """Ratios of successive stages' widths; a steep slope may skip a power."""

    @model_validator(mode="after")
    def _ranges(self) -> RegnetRule:
        if self.depth[0] > self.depth[1]:
            raise InputError("depth", list(self.depth), "must name the smaller number first")
        for field in ("slopes", "multipliers"):
            if len(set(getattr(self, field))) < len(getattr(self, field)):
                raise InputError(field, list(getattr(self, field)), "must not name a choice twice")
        return self

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Distributions of the rule's parameters, by name."""
        return {
            "depth": IntDistribution(*self.depth),
            "width_slope": CategoricalDistribution(self.slopes),
            "width_multiplier": CategoricalDistribution(self.multipliers),
        }

    def widest(self, most: int) -> float:
        """Return the largest width of a stage as a multiple of the first, given the maximum number of stages."""
        last = math.log1p(max(self.slopes) * (self.depth[1] - 1))
        return max(each ** min(round(last / math.log(each)), most - 1) for each in self.multipliers)


def replaced_by_rule(name: str) -> bool:
    """Return whether the rule determines a parameter that is sampled without it."""
    return name == "stages" or name.startswith(("blocks_", "growth_"))


def with_stages(params: Mapping[str, Any], rule: RegnetRule, *, most: int) -> dict[str, Any]:
    """Return a sample with the stages, blocks and growths that the rule determines.

    Args:
        params: a value for each of the rule's parameters, and others.
        rule: the rule, for its maximum depth.
        most: maximum number of stages; further powers are not distinguished.
    """
    return with_depths(params, rule, [params["depth"]], most=most)[0]


def with_depths(
    params: Mapping[str, Any], rule: RegnetRule, depths: Sequence[int], *, most: int
) -> list[dict[str, Any]]:
    """Return a sample as `with_stages` does, with each of several depths in place of its own."""
    values = {name: np.full(len(depths), params[name]) for name in ("width_slope", "width_multiplier")}
    columns = stage_columns({"depth": np.array(depths), **values}, rule, most=most)
    found = {name: column.tolist() for name, column in columns.items()}
    return [
        {**params, "depth": depth, **{name: column[row] for name, column in found.items()}}
        for row, depth in enumerate(depths)
    ]


def stage_columns(columns: Mapping[str, NDArray[Any]], rule: RegnetRule, *, most: int) -> dict[str, NDArray[Any]]:
    """Return stages, blocks and growths of many samples, as columns; stages that a sample lacks have one block.

    Args:
        columns: values `(samples,)` of the rule's parameters.
        rule: the rule, for its maximum depth.
        most: maximum number of stages.
    """
    depth = columns["depth"].astype(np.int64)
    multiplier = columns["width_multiplier"].astype(np.float64)
    blocks = np.arange(rule.depth[1])
    widths = np.log1p(columns["width_slope"].astype(np.float64)[:, None] * blocks)
    powers = np.minimum(np.rint(widths / np.log(multiplier)[:, None]), most - 1).astype(np.int64)
    there = blocks < depth[:, None]
    counts = np.stack([((powers == power) & there).sum(axis=1) for power in range(most)], axis=1)
    # Powers without blocks are no stages; a stable sort moves them behind the others.
    order = np.argsort(counts == 0, axis=1, kind="stable")
    number = (counts > 0).sum(axis=1)
    found: dict[str, NDArray[Any]] = {"stages": number}
    for index in range(most):
        count = np.take_along_axis(counts, order[:, index : index + 1], axis=1)[:, 0]
        found[f"blocks_{index + 1}"] = np.maximum(count, 1)
        if index:
            step = np.where(index < number, order[:, index] - order[:, index - 1], 0)
            found[f"growth_{index + 1}"] = multiplier**step
    return found
