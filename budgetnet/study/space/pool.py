"""Random candidates of a space within a budget, many at once, with closed-form features of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution

from budgetnet.model.budget import LIMITS, Budget, Sizing
from budgetnet.model.cost import Cost
from budgetnet.study.space.columns import Columns, sample_columns
from budgetnet.study.space.costs import Costs
from budgetnet.study.space.document import SearchSpace
from budgetnet.study.space.regnet import stage_columns

FEATURES = ("log MACs", "log parameters", "log activations", "log blocks")
"""Closed-form features of a candidate, in this order."""
BELOW_SHARE = 0.3
"""Share of the candidates that are fitted to less than the budget, if all would use the whole of it."""

LEAST_SHARE = 0.5
"""Smallest share of the budget that such a candidate is fitted to."""
_STEPS = 6
"""Steps that widths are fitted in: features need the width of a network to a few percent only."""
_SLACK = 1.15
"""Share of the budget that a candidate of the smallest widths may use to be among those that can be fitted."""


class Image(NamedTuple):
    """Images and classes of a data set."""

    input_shape: tuple[int, int, int]
    """Image as (channels, height, width)."""
    num_classes: int
    """Number of classes."""


def features(costs: Costs | Cost, blocks: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Return closed-form features, `(candidates, features)`, or `(features,)` for one candidate.

    Args:
        costs: costs of the candidates.
        blocks: number of residual blocks of each.
    """
    counts = np.stack(np.broadcast_arrays(costs.macs, costs.params, costs.activations, blocks), axis=-1)
    return np.asarray(np.log(np.maximum(counts, 1).astype(np.float64)))


def distributions(space: SearchSpace, sizing: Sizing) -> dict[str, BaseDistribution]:
    """Return the distributions of a candidate's parameters.

    Args:
        space: the search space.
        sizing: how widths are chosen; with `fit` a candidate has a share of the budget too, mostly all of it.
    """
    below = {"budget_share": FloatDistribution(LEAST_SHARE, 1.0)} if sizing == "fit" else {}
    return {**space.proposed(sizing), **below}


def draw(
    space: SearchSpace, budget: Budget, image: Image, *, sizing: Sizing, count: int, generator: np.random.Generator
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """Return random candidates within a budget, as columns, and their features.

    Their widths are fitted approximately, so that `fit` makes networks with almost these features of them.

    Args:
        space: the search space.
        budget: the limits.
        image: images of the candidates.
        sizing: how widths are chosen.
        count: number of samples, of which those that cannot be within the budget are left out.
        generator: random generator.

    Returns:
        Values of each parameter of `distributions`, `(candidates,)`; and features, `(candidates, features)`.
    """
    columns = sample_columns(distributions(space, sizing), count=count, generator=generator)
    if sizing == "fit":
        whole = generator.random(count) >= BELOW_SHARE
        columns["budget_share"] = np.where(whole, 1.0, columns["budget_share"])
    if sizing == "reject":
        costs = space.costs(columns, **image._asdict())
        possible = _used(costs, budget) <= 1
        if budget.deployed:
            specs = (
                space.spec(space.complete(SearchSpace.params_at(columns, row)), **image._asdict())
                for row in range(count)
            )
            possible &= np.fromiter(map(budget.admits, specs), dtype=bool, count=count)
    else:
        costs, used = _fitted(space, columns, budget, image)
        possible = used <= _SLACK * columns["budget_share"]
    found = features(costs, _blocks(space, columns))[possible]
    return {name: column[possible] for name, column in columns.items()}, found


def _fitted(space: SearchSpace, columns: Columns, budget: Budget, image: Image) -> tuple[Costs, NDArray[np.float64]]:
    """Return the costs of samples with about the widths that use their share of the budget, and the share they use."""
    share = columns["budget_share"]
    step = float(space.channel_step)
    narrow = space.narrowest
    width = np.full(len(share), 4 * step)
    costs = narrow.costs({**columns, "channels": width}, **image._asdict())
    needs = _needs(narrow, columns, width, budget, image)
    first, first_params, first_macs = width, costs.params, costs.macs

    def used() -> NDArray[np.float64]:
        # Bytes of weights grow with the parameters, those of maps with the width, time with the MACs.
        growth = {
            "weights": costs.params / first_params,
            "peak_memory": width / first,
            "latency_ms": costs.macs / first_macs,
        }
        deployed = [needs[name] * growth[name] / limit for name, limit in budget.deployed.items()]
        return np.asarray(np.max([_used(costs, budget), *deployed], axis=0))

    for _ in range(_STEPS):
        # A cost grows with the square of the width, or less.
        width = np.maximum(width * np.sqrt(share / used()), 0.5 * step)
        costs = narrow.costs({**columns, "channels": width}, **image._asdict())
    return costs, used()


def _needs(
    space: SearchSpace, columns: Columns, width: NDArray[np.float64], budget: Budget, image: Image
) -> dict[str, NDArray[np.float64]]:
    """Return what samples of a width of their first stage need of each limit of the deployed network that is set."""
    if not budget.deployed:
        return {}
    found = []
    for row, channels in enumerate(width):
        params = space.complete({**SearchSpace.params_at(columns, row), "channels": int(channels)})
        found.append(budget.needs(space.spec(params, **image._asdict())))
    return {name: np.array([each[name] for each in found]) for name in budget.deployed}


def _used(costs: Costs, budget: Budget) -> NDArray[np.float64]:
    """Return the share of the tightest limit that each candidate uses."""
    limits = {name: limit for name in LIMITS if (limit := getattr(budget, f"max_{name}")) is not None}
    none = np.zeros(len(costs.params))
    return np.asarray(np.max([none, *(getattr(costs, name) / limit for name, limit in limits.items())], axis=0))


def _blocks(space: SearchSpace, columns: Columns) -> NDArray[np.int64]:
    full: Mapping[str, NDArray[Any]] = columns
    if space.regnet is not None:
        full = {**columns, **stage_columns(columns, space.regnet, most=space.stages[1])}
    numbers = range(1, space.stages[1] + 1)
    return np.asarray(
        np.sum([full[f"blocks_{each}"] * (each <= full["stages"]) for each in numbers], axis=0, dtype=np.int64)
    )
