"""Fitting of sampled networks to a budget: a sample has the ratios of widths, the budget their scale."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, groupby
from operator import mul
from typing import Any, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.model.widths import OpenWidths
from budgetnet.study.space import SearchSpace, Sizing
from budgetnet.study.space.filling import fill
from budgetnet.study.space.networks import choice_text
from budgetnet.study.space.regnet import with_depths
from budgetnet.study.space.smallest import MEASURES, smallest_deployed

FITTING = 2
"""Version of the solver; another one may fit other widths to the same sample."""

_DEPTHS = ("blocks_", "growth_", "depth")
"""Beginnings of the names of parameters that a narrowest network has as numbers of blocks, or not at all."""


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
    that fits and keeps the order of widths. Where that uses less than 97 % of the tightest limit, widths and numbers of
    blocks near these are taken that use more, see `budgetnet.study.space.filling.fill`. With a sampled share of the
    budget, as for `scale`, each limit is multiplied by it; a network that is too large for the share keeps its smallest
    widths. A network that is over budget at its smallest widths is reduced: fewer blocks, smaller kernels, fewer stages
    at full size, fewer stages, less squeeze-and-excitation, smaller bottlenecks, other groups, head and stem; if that
    is not enough, a smallest network of the space replaces it.

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
    if not budget.allowed:
        raise InputError("max_params", None, f"{sizing} needs a limit to fit networks to")
    share = params.get("budget_share", 1.0)
    scaled = budget.scaled(share)
    frame = _Frame(params, _narrowest(space, params, image))
    if scaled.admits(frame.narrowest):
        return _widest(space, frame, scaled, image)
    for smaller in _smaller(space, frame, budget, image):
        if budget.admits(smaller.narrowest):
            if share < 1:
                return _narrowest(space, smaller.params, image)
            return _widest(space, smaller, budget, image)
    least = [space.narrowest.smallest(**image, measure=measure) for measure in MEASURES]
    least += [smallest_deployed(space, name, budget, fitted=True, **image) for name in budget.deployed]
    return next((spec for spec in least if budget.admits(spec)), least[0])


class _Frame(NamedTuple):
    """A complete sample, and its network with every stage one step wide."""

    params: dict[str, Any]
    narrowest: ModelSpec

    def use(self, budget: Budget) -> float:
        """Return the share of the tightest limit that the narrowest network uses."""
        return budget.share_used(self.narrowest.cost, budget.needs(self.narrowest))


def _narrowest(space: SearchSpace, params: Mapping[str, Any], image: dict[str, Any]) -> ModelSpec:
    """Return a sample with every stage one step wide."""
    return space.spec_of_widths(params, [space.step_of(params)] * params["stages"], **image)


def _widest(space: SearchSpace, frame: _Frame, budget: Budget, image: dict[str, Any]) -> ModelSpec:
    """Return a sample as wide as a budget allows, which admits the narrowest."""
    params, narrowest = frame.params, frame.narrowest
    numbers, step = range(1, params["stages"] + 1), space.step_of(params)
    growths = [params[f"growth_{number}"] for number in numbers[1:]]

    def open_widths(spec: ModelSpec) -> OpenWidths:
        # The stem is as wide as the first stage.
        members = [[0, 1], *([number] for number in numbers[1:])]
        proportions = list(accumulate([1.0, *growths], mul))
        return OpenWidths(spec, members=members, proportions=proportions, step=step, every_step=True)

    widths = open_widths(narrowest).widest(budget)
    assert widths is not None  # noqa: S101 - tells the type
    if len(budget.deployed) == len(budget.allowed):
        return space.spec_of_widths(params, widths, **image)
    depths = _other_depths(space, params)
    filled = fill(narrowest, widths, step=step, growths=growths, depths=depths, budget=budget)
    if (filled.widths, filled.blocks) != (widths, [stage.blocks for stage in narrowest.stages]):
        changed = {**params, **{f"blocks_{number}": count for number, count in enumerate(filled.blocks, 1)}}
        # Only what is counted in closed form was looked at.
        if not budget.deployed or budget.holds(space.spec_of_widths(changed, filled.widths, **image)):
            params = changed
            widths = open_widths(_with_blocks(narrowest, filled.blocks)).widened(filled.widths, budget)
    return space.spec_of_widths(params, widths, **image)


def _with_blocks(spec: ModelSpec, blocks: Iterable[int]) -> ModelSpec:
    """Return a network with other numbers of blocks; not validated, as most are counted once and thrown away."""
    pairs = zip(spec.stages, blocks, strict=True)
    stages = tuple(stage.model_copy(update={"blocks": count}) for stage, count in pairs)
    return spec.model_copy(update={"stages": stages})


def _other_depths(space: SearchSpace, params: dict[str, Any]) -> Iterator[list[list[int]]]:
    """Yield other numbers of blocks of a sample's stages, in groups that are ever further from its own.

    One stage has a block more or fewer; by RegNet's rule the network has any other depth that leaves it its stages.
    """
    numbers = range(1, params["stages"] + 1)
    own = [params[f"blocks_{number}"] for number in numbers]
    if space.regnet is None:
        changes = [(index, change) for change in (1, -1) for index in range(len(own))]
        low, high = space.blocks
        yield [
            [*own[:index], count, *own[index + 1 :]]
            for index, change in changes
            if low <= (count := own[index] + change) <= high
        ]
        return
    low, high = space.regnet.depth
    kept = ("stages", *(f"growth_{number}" for number in numbers[1:]))
    every = with_depths(params, space.regnet, range(low, high + 1), most=space.stages[1])
    alike = [each for each in every if all(each[name] == params[name] for name in kept)]

    def away(each: dict[str, Any]) -> int:
        return abs(int(each["depth"] - params["depth"]))

    for _, group in groupby(sorted(alike, key=away), key=away):
        yield [[each[f"blocks_{number}"] for number in numbers] for each in group]


def _smaller(space: SearchSpace, frame: _Frame, budget: Budget, image: dict[str, Any]) -> Iterator[_Frame]:
    """Yield the sample, then ever smaller ones; changes that do not reduce the use of the budget are skipped."""
    kept = dict(frame.params)
    yield frame
    use = frame.use(budget)
    for change in _reductions(space, kept):
        changed = kept | change
        if all(name.startswith(_DEPTHS) for name, value in change.items() if kept[name] != value):
            blocks = (changed[f"blocks_{number}"] for number in range(1, changed["stages"] + 1))
            narrowest = _with_blocks(frame.narrowest, blocks)
        else:
            narrowest = _narrowest(space, changed, image)
        smaller = _Frame(changed, narrowest)
        now = smaller.use(budget)
        if now < use:
            use, frame = now, smaller
            kept.update(change)
            yield smaller


def _reductions(space: SearchSpace, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield changes that make a sample smaller, in order; the caller updates `params` after each change it keeps."""
    if space.regnet is not None:
        depths = range(params["depth"] - 1, space.regnet.depth[0] - 1, -1)
        yield from with_depths(params, space.regnet, depths, most=space.stages[1])
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
