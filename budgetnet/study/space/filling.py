"""Use of what is left of a budget: widths near the fitted ones, and one block more or fewer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.model.budget import LIMITS, Budget
from budgetnet.model.part_costs import PartCosts
from budgetnet.model.spec import ModelSpec

ENOUGH = 0.97
"""Share of the tightest limit from which on a network is left as it is."""

_REACHES = (1, 2)
"""Steps by which widths may differ from the fitted ones; the larger number where the smaller is not enough."""

_MOST_NEARBY = 1_000_000
"""Most combinations of widths to look at."""

_EXACT = 2**52
"""Limits below this are compared exactly as float64."""


class Filled(NamedTuple):
    """Widths and numbers of blocks of the stages, and the share of the tightest limit that the network uses."""

    use: float
    widths: list[int]
    blocks: list[int]


def fill(
    spec: ModelSpec,
    fitted: list[int],
    *,
    step: int,
    growths: Sequence[float],
    depths: Iterable[list[list[int]]],
    budget: Budget,
) -> Filled:
    """Find widths and numbers of blocks near those of a fitted network that use more of a budget.

    A network that uses `ENOUGH` is left as it is. Otherwise each width may differ by a step; where that is not enough,
    the numbers of blocks may be others too, the nearest first; where no network uses enough, each width may differ by
    two steps. Of equally near networks within the budget, the one that uses most of its tightest limit is taken. In
    networks so deep that there are more than a million combinations of such widths, nothing is changed.

    Args:
        spec: the network; its widths are not read.
        fitted: width of each stage; the stem is as wide as the first.
        step: every width is a multiple of this, in channels.
        growths: sampled growth of each stage but the first; widths grow and shrink, if they do, where these do.
        depths: other numbers of blocks of each stage, in groups that are ever further from the network's own.
        budget: the limits, at least one of them set.
    """
    costs, own = PartCosts(spec), [stage.blocks for stage in spec.stages]
    best = Filled(budget.share_used(costs.whole([fitted[0], *fitted])), fitted, own)
    if max(getattr(budget, f"max_{name}") or 0 for name in LIMITS) >= _EXACT:
        return best
    groups = [[own], *depths] if best.use < ENOUGH else []
    for reach in _REACHES:
        choices = _choices(fitted, step=step, reach=reach)
        # All networks nearby are counted at once; in deep spaces they are too many.
        if best.use >= ENOUGH or math.prod(map(len, choices)) > _MOST_NEARBY:
            break
        nearby = _Nearby(costs, choices, growths=growths, budget=budget)
        for group in groups:
            for blocks in group:
                best = nearby.fullest(blocks, own, best=best)
            if best.use >= ENOUGH:
                break
    return best


def _choices(widths: Sequence[int], *, step: int, reach: int) -> list[list[int]]:
    """Return, for each width, the widths within a number of steps of it."""
    changes = range(-reach * step, reach * step + 1, step)
    return [[width + each for each in changes if 0 < width + each <= MAX_CHANNELS] for width in widths]


class _Nearby:
    """The counts of all networks with some choices of widths: arrays with an axis for each limit and each stage.

    A stage's cost depends on its own width and the one before, so few parts make up many networks.
    """

    def __init__(self, costs: PartCosts, choices: list[list[int]], *, growths: Sequence[float], budget: Budget) -> None:
        allowed = {place: getattr(budget, f"max_{name}") for place, name in enumerate(LIMITS)}
        self._measures = [place for place, limit in allowed.items() if limit is not None]
        self._limits = np.array([allowed[place] for place in self._measures], dtype=np.float64)
        self._costs, self._choices = costs, choices
        counts = self._along([costs.stage(0, width, width) for width in choices[0]], 0)
        for stage, growth in enumerate(growths, 1):
            before, own = choices[stage - 1], choices[stage]
            parts = [[costs.stage(stage, each, width) for width in own] for each in before]
            pairs = self._along(parts, stage - 1, stage)
            disordered = np.greater.outer(before, own) if growth >= 1 else np.less.outer(before, own)
            pairs[:, disordered.reshape(pairs.shape[1:])] = np.inf
            counts = counts + pairs
        last = len(choices) - 1
        if last:
            ends = [[costs.ends(stem, width) for width in choices[last]] for stem in choices[0]]
            self._counts = counts + self._along(ends, 0, last)
        else:
            self._counts = counts + self._along([costs.ends(width, width) for width in choices[0]], 0)

    def fullest(self, blocks: list[int], own: list[int], *, best: Filled) -> Filled:
        """Return the network with some numbers of blocks that uses most of the budget, unless the best so far does.

        Args:
            blocks: number of blocks of each stage.
            own: those of the network that was counted.
            best: the best so far.
        """
        counts = self._counts
        for stage, (number, counted) in enumerate(zip(blocks, own, strict=True)):
            if number != counted:
                further = [self._costs.further_block(stage, width) for width in self._choices[stage]]
                counts = counts + (number - counted) * self._along(further, stage)
        use = (counts / self._limits.reshape(-1, *[1] * len(own))).max(axis=0)
        use[use > 1] = 0
        at = use.argmax()
        if use.flat[at] <= best.use:
            return best
        places = np.unravel_index(at, use.shape)
        widths = [choices[place] for choices, place in zip(self._choices, places, strict=True)]
        return Filled(float(use.flat[at]), widths, blocks)

    def _along(self, parts: Sequence[Any], *stages: int) -> NDArray[np.float64]:
        """Return the limited counts of parts along the axes of the stages whose widths they depend on."""
        # Limits first, so that the others are added up in one stretch of memory.
        counts = np.moveaxis(np.array(parts, dtype=np.float64), -1, 0)[self._measures]
        shape = [len(self._measures), *[1] * len(self._choices)]
        for stage, size in zip(stages, counts.shape[1:], strict=True):
            shape[stage + 1] = size
        return counts.reshape(shape)
