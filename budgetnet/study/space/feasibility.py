"""Share of a space that is within a budget, by full enumeration of small spaces, else by sampling."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from budgetnet.common.errors import OverBudgetError
from budgetnet.model.budget import LIMITS, Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.statistics.intervals import Interval, wilson_interval
from budgetnet.study.space.costs import Costs
from budgetnet.study.space.document import SearchSpace
from budgetnet.study.space.smallest import MEASURES, Measure

MOST_COUNTED = 2_000_000
"""Largest size of a space that is enumerated, about a second on a laptop."""
SAMPLED = 100_000
"""Size of a sample, for an interval of some tenths of a per cent."""
_AT_ONCE = 100_000


class ShareWithin(NamedTuple):
    """Number of uniform samples of a space's networks that are within a budget."""

    within: int
    """Samples within the budget."""
    samples: int
    """Samples counted."""
    exact: bool
    """Whether the space was enumerated."""
    interval: Interval | None
    """95 % interval of the share, for a sample."""

    @property
    def share(self) -> float:
        """Share of samples within the budget."""
        return self.within / self.samples


def share_within(
    space: SearchSpace, budget: Budget, *, input_shape: tuple[int, int, int], num_classes: int, seed: int = 0
) -> ShareWithin:
    """Count the samples, with sampled widths, that are within a budget.

    Args:
        space: the space.
        budget: the limits.
        input_shape: image as (channels, height, width).
        num_classes: number of classes.
        seed: seed of the sample, if the space is not enumerated.

    Raises:
        InputError: the largest networks of the space may have counts that 64 bits do not hold.
    """
    image: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
    if space.size > MOST_COUNTED:
        sample = space.sample(count=SAMPLED, generator=np.random.default_rng(seed))
        within = _within(budget, space.costs(sample, **image))
        return ShareWithin(within, SAMPLED, exact=False, interval=wilson_interval(within, SAMPLED))
    within = 0
    for start in range(0, space.size, _AT_ONCE):
        columns = space.enumerate(start, min(start + _AT_ONCE, space.size))
        within += _within(budget, space.costs(columns, **image))
    return ShareWithin(within, space.size, exact=True, interval=None)


def _within(budget: Budget, costs: Costs) -> int:
    admitted = np.ones(len(costs.params), dtype=bool)
    for name in LIMITS:
        limit = getattr(budget, f"max_{name}")
        if limit is not None:
            admitted &= getattr(costs, name) <= limit
    return int(admitted.sum())


def require_feasible(
    space: SearchSpace, budget: Budget, *, input_shape: tuple[int, int, int], num_classes: int
) -> dict[Measure, ModelSpec]:
    """Require that some network of the space is within each limit of a budget.

    Args:
        space: the space.
        budget: the limits.
        input_shape: image as (channels, height, width).
        num_classes: number of classes.

    Returns:
        For each measure, the network of the space that needs the least of it.

    Raises:
        OverBudgetError: not even the smallest network of the space is within a limit.
    """
    least: dict[Measure, ModelSpec] = {}
    for measure in MEASURES:
        least[measure] = space.smallest(input_shape=input_shape, num_classes=num_classes, measure=measure)
        limit = Budget(**{f"max_{measure}": getattr(budget, f"max_{measure}")})
        try:
            limit.check(least[measure]).require()
        except OverBudgetError as error:
            raise OverBudgetError(f"no network of the space fits the budget; the smallest, {error}") from None
    return least
