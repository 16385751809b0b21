"""Widths against brute force: every common width tried one after another, every step counted as a whole network."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from budgetnet.common.errors import InputError
from budgetnet.model.budget import Budget
from budgetnet.model.cost import cost_of
from budgetnet.model.spec import ModelSpec
from budgetnet.model.widths import refit
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.fitting import fit

IMAGE: dict[str, Any] = {"input_shape": (3, 12, 8), "num_classes": 7}
# Growths away from 1: with neighbours of one width, cost would not rise with every step.
SPACE = SearchSpace.from_mapping(
    {
        "stages": [1, 3],
        "channels": [4, 8],
        "channel_step": 4,
        "growth": [1.5, 2.0],
        "blocks": [1, 2],
        "full_size_stages": [1, 2],
        "block_kinds": ["basic", "preact", "bottleneck"],
        "squeeze_excitation_ratios": [0.0, 0.25],
        "groups": [1, 2],
        "shortcuts": ["projection", "padding"],
    }
)


def networks() -> list[dict[str, Any]]:
    """Some draws of the space: every eleventh combination of what shapes a network."""
    names: dict[str, list[Any]] = {
        "stages": [1, 2, 3],
        "full_size_stages": [1, 2],
        "block": ["basic", "preact", "bottleneck"],
        "first_kernel_size": [3, 5],
        "squeeze_excitation_ratio": [0.0, 0.25],
        "groups": [1, 2],
        "shortcut": ["projection", "padding"],
        "growth_2": [1.5, 2.0],
    }
    rest = {"second_kernel_size": 3, "blocks_1": 1, "blocks_2": 2, "blocks_3": 1, "growth_3": 1.5}
    every = [dict(zip(names, values, strict=True)) for values in itertools.product(*names.values())]
    return [{**params, **rest} for params in every[::11]]


def channels_of(spec: ModelSpec) -> list[int]:
    return [stage.channels for stage in spec.stages]


def step_and_shares(params: dict[str, Any]) -> tuple[int, list[float]]:
    step = 4 if params["groups"] == 1 or params["block"] != "bottleneck" else 8
    return step, [1.0, params["growth_2"], params["growth_2"] * params["growth_3"]][: params["stages"]]


def widest_by_brute_force(params: dict[str, Any], budget: Budget) -> list[int] | None:
    """The widest common width on the grid, then one step at a time."""
    step, shares = step_and_shares(params)
    best = None
    for common in range(1, 400):
        channels = [max(1, round(common * share / step)) * step for share in shares]
        if not budget.allows(cost_of(SPACE.spec_of_widths(params, channels, **IMAGE))):
            break
        best = channels
    return best and widened_by_brute_force(best, params, budget)


def widened_by_brute_force(best: list[int], params: dict[str, Any], budget: Budget) -> list[int]:
    """One step at a time for the stage that is narrowest for its share."""
    step, shares = step_and_shares(params)
    while True:
        steps = []
        for index, width in enumerate(best):
            wider = [*best[:index], width + step, *best[index + 1 :]]
            if wider == sorted(wider) and budget.allows(cost_of(SPACE.spec_of_widths(params, wider, **IMAGE))):
                steps.append((width / shares[index], -index, wider))
        if not steps:
            return best
        best = min(steps)[2]


def by_brute_force(params: dict[str, Any], budget: Budget) -> ModelSpec | None:
    """Of the networks a step away, then with a block more or fewer in a stage, then two steps away: the fullest."""
    fitted = widest_by_brute_force(params, budget)
    if fitted is None:
        return None
    step, _ = step_and_shares(params)
    own = SPACE.spec_of_widths(params, fitted, **IMAGE)
    use, best, depths = budget.share_used(own.cost), fitted, params
    numbers = range(1, params["stages"] + 1)
    counts = [{f"blocks_{number}": 3 - params[f"blocks_{number}"]} for number in numbers]
    # The space has one or two blocks a stage: those that can have one more come first.
    others = sorted(
        ({**params, **each} for each in counts), key=lambda each: -sum(each[f"blocks_{n}"] for n in numbers)
    )
    for reach in (1, 2):
        for group in ([params], others):
            changes = [range(-reach * step, reach * step + 1, step)] * len(fitted)
            for deeper, change in itertools.product(group, itertools.product(*changes)) if use < 0.97 else ():
                channels = [width + more for width, more in zip(fitted, change, strict=True)]
                if min(channels) > 0 and channels == sorted(channels):
                    spec = SPACE.spec_of_widths(deeper, channels, **IMAGE)
                    if use < budget.share_used(spec.cost) <= 1:
                        use, best, depths = budget.share_used(spec.cost), channels, deeper
    return SPACE.spec_of_widths(depths, widened_by_brute_force(best, depths, budget), **IMAGE)


@pytest.mark.parametrize(
    "budget", [Budget(max_params=40_000), Budget(max_macs=900_000, max_params=90_000), Budget(max_activations=9_000)]
)
def test_fitted_widths_are_those_of_brute_force(budget: Budget) -> None:
    found = 0
    for params in networks():
        expected = by_brute_force(params, budget)
        if expected is not None:
            found += 1
            spec = fit(SPACE, params, budget=budget, sizing="fit", **IMAGE)
            assert spec == expected, params
    assert found > 20


@pytest.mark.parametrize("channels", [[6, 9, 14], [8, 8, 5]])
def test_refitted_widths_are_those_of_brute_force(channels: list[int]) -> None:
    # Halved maps throughout, so that every width may be any, in the order of the network's own.
    spec = ModelSpec.resnet(channels=channels, stem=4, strides=2, input_shape=(3, 16, 16))
    own = [4, *channels]

    def ordered(widths: list[int]) -> bool:
        pairs = zip(itertools.pairwise(own), itertools.pairwise(widths), strict=True)
        return all(
            before <= after if first <= second else before >= after for (first, second), (before, after) in pairs
        )

    def params_of(widths: list[int]) -> int:
        return spec.replace(stem={"channels": widths[0]}, channels=widths[1:]).params

    scaled = {tuple(max(1, round(width * factor / 5000)) for width in own) for factor in range(500, 20_000)}
    counted = {widths: params_of(list(widths)) for widths in scaled}
    for params in range(spec.params // 2, 6 * spec.params, spec.params // 5):
        best = list(max((total, widths) for widths, total in counted.items() if total <= params)[1])
        while True:
            wider = [[width + (place == at) for place, width in enumerate(best)] for at in range(len(best))]
            allowed = [at for at, widths in enumerate(wider) if ordered(widths) and params_of(widths) <= params]
            if not allowed:
                break
            best = wider[min(allowed, key=lambda at: (best[at] / own[at], -at))]
        fitted = refit(spec, params=params, budget=Budget())
        assert [fitted.stem.channels, *channels_of(fitted)] == best


def test_refitted_widths_hold_limits_of_the_deployed_network() -> None:
    base = ModelSpec.resnet(channels=[32, 64], blocks=2)
    wider = base.replace(kernel_sizes=5)
    free = refit(wider, params=base.params, budget=Budget())
    budget = Budget(max_peak_memory="192K")
    held = refit(wider, params=base.params, budget=budget)
    assert not budget.admits(free)
    assert budget.admits(held)
    assert held.params < free.params
    with pytest.raises(InputError, match="over budget"):
        refit(wider, params=base.params, budget=Budget(max_peak_memory="1K"))
