"""Share of a space that is within a budget, by full enumeration of small spaces, else by sampling."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgetnet.common.errors import OverBudgetError
from budgetnet.model.budget import LIMITS, Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.statistics.intervals import Interval, wilson_interval
from budgetnet.study.space.columns import Columns
from budgetnet.study.space.costs import Costs
from budgetnet.study.space.document import SearchSpace
from budgetnet.study.space.smallest import MEASURES, smallest_deployed

MOST_COUNTED = 2_000_000
"""Largest size of a space that is enumerated, about a second on a laptop."""
SAMPLED = 100_000
"""Size of a sample, for an interval of some tenths of a per cent."""
SAMPLED_ONE_BY_ONE = 1_000
"""Size of a sample whose networks are looked at one by one, and of a space that is enumerated so: some seconds."""
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

    def count(columns: Columns) -> int:
        within = np.flatnonzero(_within(budget, space.costs(columns, **image)))
        if not budget.deployed:
            return len(within)
        specs = (space.spec(space.complete(SearchSpace.params_at(columns, int(row))), **image) for row in within)
        return sum(map(budget.admits, specs))

    # Limits of the deployed network are computed one by one.
    sampled, most = (SAMPLED_ONE_BY_ONE,) * 2 if budget.deployed else (SAMPLED, MOST_COUNTED)
    if space.size > most:
        within = count(space.sample(count=sampled, generator=np.random.default_rng(seed)))
        return ShareWithin(within, sampled, exact=False, interval=wilson_interval(within, sampled))
    within = sum(
        count(space.enumerate(start, min(start + _AT_ONCE, space.size))) for start in range(0, space.size, _AT_ONCE)
    )
    return ShareWithin(within, space.size, exact=True, interval=None)


def _within(budget: Budget, costs: Costs) -> NDArray[np.bool_]:
    """Return which networks are within the limits of the closed-form cost."""
    admitted = np.ones(len(costs.params), dtype=bool)
    for name in LIMITS:
        limit = getattr(budget, f"max_{name}")
        if limit is not None:
            admitted &= getattr(costs, name) <= limit
    return admitted


def smallest_networks(
    space: SearchSpace, budget: Budget, *, input_shape: tuple[int, int, int], num_classes: int, fitted: bool = False
) -> dict[str, ModelSpec]:
    """Return, for each measure and each limit of the deployed network that is set, the network that needs the least.

    Args:
        space: the space.
        budget: the limits.
        input_shape: image as (channels, height, width).
        num_classes: number of classes.
        fitted: whether widths are fitted to the budget, and not those of the space.
    """
    image: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
    widths = space.narrowest if fitted else space
    least: dict[str, ModelSpec] = {measure: widths.smallest(**image, measure=measure) for measure in MEASURES}
    return least | {name: smallest_deployed(space, name, budget, fitted=fitted, **image) for name in budget.deployed}


def require_feasible(
    space: SearchSpace, budget: Budget, *, input_shape: tuple[int, int, int], num_classes: int, fitted: bool = False
) -> dict[str, ModelSpec]:
    """Require that some network of the space is within each limit of a budget.

    Arguments and result are those of `smallest_networks`.

    Raises:
        OverBudgetError: not even the smallest network of the space is within a limit.
        InputError: the device's file lacks an operation of the fastest one.
    """
    least = smallest_networks(space, budget, input_shape=input_shape, num_classes=num_classes, fitted=fitted)
    for measure, spec in least.items():
        try:
            budget.only(measure).check(spec).require()
        except OverBudgetError as error:
            raise OverBudgetError(f"no network of the space fits the budget; the smallest, {error}") from None
    return least
