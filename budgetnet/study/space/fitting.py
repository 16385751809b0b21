"""Fitting of sampled networks to a budget: a sample has the ratios of widths, the budget their scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from operator import mul
from typing import Any

from budgetnet.common.errors import InputError
from budgetnet.model.budget import LIMITS, Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.model.widths import OpenWidths
from budgetnet.study.space import SearchSpace, Sizing
from budgetnet.study.space.networks import choice_text
from budgetnet.study.space.regnet import with_stages
from budgetnet.study.space.smallest import MEASURES

FITTING = 1
"""Version of the solver; another one may fit other widths to the same sample."""


def fit(
    space: SearchSpace,
    params: Mapping[str, Any],
    *,
    budget: Budget,
    sizing: Sizing,
    input_shape: tuple[int, int, int],
    num_classes: int,
) -> ModelSpec:
    """Return the network of a sample, fitted to a budget.

    `fit` makes the stages as wide as their growth and all limits allow, then widens single stages by one step while
    that fits and keeps the order of widths. With a sampled share of the budget, as for `scale`, each limit is
    multiplied by it; a network that is too large for the share keeps its smallest widths. A network that is over
    budget at its smallest widths is reduced: fewer blocks, smaller kernels, fewer stages at full size, fewer
    stages, less squeeze-and-excitation, smaller bottlenecks, other groups, head and stem; if that is not enough, a
    smallest network of the space replaces it.

    Args:
        space: search space of the sample.
        params: a value for each of `space.proposed(sizing)`.
        budget: the limits.
        sizing: how widths are chosen.
        input_shape: image as (channels, height, width).
        num_classes: number of classes.

    Returns:
        A network within the budget, unless even the smallest networks of the space are over it. For `reject`, the
        sampled network, which may be over budget.

    Raises:
        InputError: widths are to be fitted, but the budget has no limit.
    """
    image: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
    params = space.complete(params)
    if sizing == "reject":
        return space.spec(params, **image)
    limits = {f"max_{name}": limit for name in LIMITS if (limit := getattr(budget, f"max_{name}")) is not None}
    if not limits:
        raise InputError("max_params", None, f"{sizing} needs a limit to fit networks to")
    share = params.get("budget_share", 1.0)
    scaled = {name: max(1, int(limit * share)) for name, limit in limits.items()}
    if (widest := _widest(space, params, budget.model_copy(update=scaled), image)) is not None:
        return widest
    for smaller in _smaller(space, params, budget, image):
        narrowest = _narrowest(space, smaller, image)
        if budget.allows(narrowest.cost):
            return narrowest if share < 1 else _widest(space, smaller, budget, image) or narrowest
    least = [space.narrowest.smallest(**image, measure=measure) for measure in MEASURES]
    return next((spec for spec in least if budget.allows(spec.cost)), least[0])


def _narrowest(space: SearchSpace, params: Mapping[str, Any], image: dict[str, Any]) -> ModelSpec:
    """Return a sample with every stage one step wide."""
    return space.spec_of_widths(params, [space.step_of(params)] * params["stages"], **image)


def _widest(space: SearchSpace, params: Mapping[str, Any], budget: Budget, image: dict[str, Any]) -> ModelSpec | None:
    """Return a sample as wide as a budget allows; None if the narrowest is over it."""
    stages = params["stages"]
    growths = [params[f"growth_{number}"] for number in range(2, stages + 1)]
    # The stem is as wide as the first stage.
    return OpenWidths(
        _narrowest(space, params, image),
        members=[[0, 1], *([number] for number in range(2, stages + 1))],
        proportions=list(accumulate([1.0, *growths], mul)),
        step=space.step_of(params),
    ).largest(budget)


def _smaller(
    space: SearchSpace, params: Mapping[str, Any], budget: Budget, image: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the sample, then ever smaller ones; changes that do not reduce the use of the budget are skipped."""
    kept = dict(params)
    yield kept
    use = budget.share_used(_narrowest(space, kept, image).cost)
    for change in _reductions(space, kept):
        changed = kept | change
        now = budget.share_used(_narrowest(space, changed, image).cost)
        if now < use:
            use = now
            kept.update(change)
            yield kept


def _reductions(space: SearchSpace, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield changes that make a sample smaller, in order; the caller updates `params` after each change it keeps."""
    if space.regnet is not None:
        for depth in range(params["depth"] - 1, space.regnet.depth[0] - 1, -1):
            yield with_stages({**params, "depth": depth}, space.regnet, most=space.stages[1])
    else:
        numbers = range(1, params["stages"] + 1)
        for _ in range(sum(params[f"blocks_{number}"] - space.blocks[0] for number in numbers)):
            most = max(numbers, key=lambda number: params[f"blocks_{number}"])
            yield {f"blocks_{most}": params[f"blocks_{most}"] - 1}
    for name in ("first_kernel_size", "second_kernel_size", "shortcut_kernel_size"):
        if params[name] > (least := min(getattr(space, f"{name}s"))):
            yield {name: least}
    for name in ("full_size_stages",) if space.regnet is not None else ("full_size_stages", "stages"):
        for count in range(params[name] - 1, getattr(space, name)[0] - 1, -1):
            yield {name: count}
    for name in ("squeeze_excitation_ratio", "bottleneck_ratio"):
        if params[name] > (fewest := min(getattr(space, f"{name}s"))):
            yield {name: fewest}
    for name in ("group_width", "head", "stem"):
        yield from ({name: choice_text(each)} for each in getattr(space, f"{name}s"))
