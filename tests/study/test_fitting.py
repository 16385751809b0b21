"""Fitted widths: within the budget, maximal, and equal to hand calculations."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from functools import cache
from typing import Any

import optuna
import pytest

from budgetnet.common.errors import InputError, OverBudgetError
from budgetnet.model.budget import Budget
from budgetnet.model.cost import cost_of
from budgetnet.model.spec import ModelSpec
from budgetnet.study.space import SearchSpace, Sizing
from budgetnet.study.space.feasibility import require_feasible
from budgetnet.study.space.fitting import fit
from budgetnet.study.space.named import NAMED

LARGE: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
SMALL: dict[str, Any] = {"input_shape": (1, 8, 8), "num_classes": 10}
BUDGETS = [
    Budget(max_params="5M"),
    Budget(max_params="500k"),
    Budget(max_params="50k"),
    Budget(max_macs="100M"),
    Budget(max_activations="200k"),
    Budget(max_params="5M", max_macs="100M", max_activations="1M"),
    Budget(max_params=2500),
]
SOLVED: tuple[Sizing, ...] = ("fit", "scale")
SPACES = [
    NAMED["resnet"],
    NAMED["paper"],
    NAMED["mobile"],
    NAMED["regnet"],
    SearchSpace(),
    # Networks that narrow, equal ones beside them, and steps that groups make wide.
    SearchSpace.from_mapping(
        {
            "stages": [1, 4],
            "channels": [6, 24],
            "channel_step": 6,
            "growth": [0.5, 1.0, 1.25],
            "block_kinds": ["basic", "bottleneck"],
            "groups": [1, 4, 9],
            "shortcuts": ["none", "projection"],
        }
    ),
    SearchSpace.from_mapping({"shortcuts": ["padding"], "channel_step": 1, "channels": [4, 40], "growth": [1.0, 1.1]}),
]


def proposals(space: SearchSpace, sizing: Sizing, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [study.ask(space.proposed(sizing)).params for _ in range(count)]


def step_of(space: SearchSpace, params: dict[str, Any]) -> int:
    params = space.complete(params)
    if params["group_width"] is not None:
        widths = itertools.count(space.channel_step, space.channel_step)
        return next(width for width in widths if width * params["bottleneck_ratio"] % params["group_width"] == 0)
    groups = params["groups"]
    if groups == 1:
        return space.channel_step
    return math.lcm(space.channel_step, 4 * groups if params["block"] == "bottleneck" else groups)


def in_order(channels: list[int], params: dict[str, Any]) -> bool:
    """Whether stages grow and narrow, if they do, where the draw's do."""
    growths = [params[f"growth_{number}"] for number in range(2, len(channels) + 1)]
    pairs = zip(itertools.pairwise(channels), growths, strict=True)
    return all(before <= after if growth >= 1 else before >= after for (before, after), growth in pairs)


def widened(spec: ModelSpec, params: dict[str, Any], step: int) -> list[ModelSpec]:
    """Every network that has one stage a step wider and stages that still grow and narrow where the draw's do."""
    channels = [stage.channels for stage in spec.stages]
    found = []
    for index in range(len(channels)):
        wider = [width + step * (place == index) for place, width in enumerate(channels)]
        if in_order(wider, params):
            found.append(spec.replace(channels=wider, stem={"channels": wider[0]}))
    return found


@cache
def proposed_to_fit(name: str, count: int) -> list[dict[str, Any]]:
    """Return proposals of a space of `SPACES` or of `NAMED`, by its place or its name, which several tests share."""
    return proposals(SPACES[int(name)] if name.isdigit() else NAMED[name], "fit", count)


def smallest_digests(space: SearchSpace, image: dict[str, Any]) -> set[str]:
    measures: Any = ("params", "macs", "activations")
    return {space.narrowest.smallest(**image, measure=measure).digest for measure in measures}


@pytest.mark.parametrize("image", [LARGE, SMALL], ids=["32x32", "8x8"])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_fitted_widths_are_maximal_within_the_budget(budget: Budget, image: dict[str, Any]) -> None:
    filled = 0
    for place, space in enumerate(SPACES):
        smallest = smallest_digests(space, image)
        for params in proposed_to_fit(str(place), 60):
            spec = fit(space, params, budget=budget, sizing="fit", **image)
            if not budget.allows(spec.cost):
                assert spec.digest in smallest
                continue
            params = space.complete(params)  # noqa: PLW2901 - stages of RegNet's rule
            if (spec.bottleneck_ratio or 0.25) != params["bottleneck_ratio"] and spec.block == "bottleneck":
                # A smaller ratio was needed, with which widths may have other steps.
                continue
            if spec.block == "bottleneck":
                # Narrower groups may have been needed.
                params = {**params, "group_width": spec.group_width}  # noqa: PLW2901
            channels = [stage.channels for stage in spec.stages]
            step = step_of(space, params)
            if spec.stem.channels != channels[0] or any(width % step for width in channels):
                assert spec.digest in smallest
                continue
            if spec.digest not in smallest:
                filled += 1
                assert in_order(channels, params)
                assert not any(budget.allows(cost_of(wider)) for wider in widened(spec, params, step))
    assert filled > 100


def test_every_fitted_network_of_the_named_spaces_is_within_the_budget() -> None:
    for space, budget, image in itertools.product(NAMED.values(), BUDGETS[:4], (LARGE, SMALL)):
        smallest = smallest_digests(space, image)
        for sizing in SOLVED:
            for params in proposals(space, sizing, 40, seed=1):
                spec = fit(space, params, budget=budget, sizing=sizing, **image)
                # The narrowest networks of the paper's space are larger than the smallest of these budgets.
                assert budget.allows(spec.cost) or spec.digest in smallest
                assert budget.allows(spec.cost) or space is NAMED["paper"]


@pytest.mark.parametrize("image", [LARGE, SMALL], ids=["32x32", "8x8"])
@pytest.mark.parametrize("params", ["50k", "200k", "5M"])
@pytest.mark.parametrize("name", NAMED)
def test_median_unused_budget_is_below_three_per_cent(name: str, params: str, image: dict[str, Any]) -> None:
    budget = Budget(max_params=params)
    drawn = proposed_to_fit(name, 200)
    specs = [fit(NAMED[name], each, budget=budget, sizing="fit", **image) for each in drawn]
    assert statistics.median(budget.share_used(spec.cost) for spec in specs) >= 0.97


PLAIN = SearchSpace.from_mapping(
    {
        "stages": [1, 2],
        "channels": [8, 64],
        "growth": [1.0, 2.0],
        "blocks": [1, 2],
        "full_size_stages": [1, 1],
        "first_kernel_sizes": [3, 5],
        "block_kinds": ["basic"],
        "squeeze_excitation_ratios": [0.0],
        "groups": [1, 64],
    }
)
TWO_STAGES: dict[str, Any] = {
    "stages": 2,
    "full_size_stages": 1,
    "block": "basic",
    "first_kernel_size": 3,
    "second_kernel_size": 3,
    "squeeze_excitation_ratio": 0.0,
    "groups": 1,
    "shortcut": "projection",
    "blocks_1": 1,
    "blocks_2": 1,
    "growth_2": 2.0,
}


# Networks with one block in each stage, as wide as it takes.
SHALLOW = SearchSpace.from_mapping({**PLAIN.to_mapping(), "blocks": [1, 1]})


@pytest.mark.parametrize(
    ("limit", "channels"),
    [
        # On grey images a basic network of widths a and b, one block each, has 18aa + 10ab + 9bb + 15a + 16b + 10
        # parameters. One half as wide as the other are at most 36 and 72 within 103,402: 32 and 72 on the grid, 89,770,
        # and a step more is 32 and 80, 103,402.
        (103_402, [32, 80]),
        (106_017, [32, 80]),
        # A common width of 37, and twice that, on the grid.
        (106_018, [40, 72]),
        # 32 and 72 use 97 % of 92,546 and are left as they are.
        (92_546, [32, 72]),
        # They use less of 92,898, which 40 and 64 are.
        (92_898, [40, 64]),
        # A step away only 40 and 64 fit into 100,000, 92.9 %; two steps away 48 and 56 are 98,202.
        (100_000, [48, 56]),
        (2_626, [8, 8]),
        # Nothing is between.
        (5_121, [8, 8]),
        (5_122, [8, 16]),
    ],
)
def test_widths_match_hand_calculation(limit: int, channels: list[int]) -> None:
    a, b = channels
    spec = fit(SHALLOW, TWO_STAGES, budget=Budget(max_params=limit), sizing="fit", **SMALL)
    assert [stage.channels for stage in spec.stages] == channels
    assert spec.params == 18 * a * a + 10 * a * b + 9 * b * b + 15 * a + 16 * b + 10
    assert spec.stem.channels == a


@pytest.mark.parametrize(
    ("limit", "layout"),
    [
        # 8 and 8 channels, one block each, are 2,626 parameters; a further block of either stage is 1,184.
        (3_809, [(8, 1), (8, 1)]),
        (3_810, [(8, 2), (8, 1)]),
        # Enough is used without one.
        (2_707, [(8, 1), (8, 1)]),
    ],
)
def test_a_block_more_uses_what_widths_leave(limit: int, layout: list[tuple[int, int]]) -> None:
    spec = fit(PLAIN, TWO_STAGES, budget=Budget(max_params=limit), sizing="fit", **SMALL)
    assert [(stage.channels, stage.blocks) for stage in spec.stages] == layout


def test_a_block_fewer_makes_room_for_a_width() -> None:
    # 8 and 8 channels with two blocks each are 4,994 parameters and 8 and 16 are 5,122 + 1,184 + 4,672; with one block
    # less, those are 9,794 or 6,306.
    params = {**TWO_STAGES, "blocks_1": 2, "blocks_2": 2}
    spec = fit(PLAIN, params, budget=Budget(max_params=6_400), sizing="fit", **SMALL)
    assert [(stage.channels, stage.blocks) for stage in spec.stages] == [(8, 2), (16, 1)]
    assert spec.params == 6_306


def test_a_single_stage_is_as_wide_as_the_limit_allows() -> None:
    # 18ww + 25w + 10: 19,242 for 32 channels, 29,810 for 40.
    for limit, width in ((19_241, 24), (19_242, 32), (29_809, 32), (29_810, 40)):
        spec = fit(SHALLOW, {**TWO_STAGES, "stages": 1}, budget=Budget(max_params=limit), sizing="fit", **SMALL)
        assert [stage.channels for stage in spec.stages] == [width]


def test_rest_of_budget_goes_to_stage_furthest_below_its_share() -> None:
    space = SearchSpace.from_mapping({**PLAIN.to_mapping(), "stages": [3, 3]})
    params = {**TWO_STAGES, "stages": 3, "blocks_3": 1, "growth_3": 2.0}
    # Widths a, b and c put out 192a + 48b + 12c + 10 elements. A common width of 42 is 40, 80 and 168 on the grid,
    # which leaves as much as one step of stage 2 or four of stage 3 need.
    spec = fit(space, params, budget=Budget(max_activations=13_930), sizing="fit", **SMALL)
    assert [stage.channels for stage in spec.stages] == [40, 88, 168]
    assert spec.activations == 13_930


def test_widths_stay_within_the_limit_of_specifications() -> None:
    budget = Budget(max_params=10**18)
    spec = fit(PLAIN, TWO_STAGES, budget=budget, sizing="fit", **SMALL)
    assert [stage.channels for stage in spec.stages] == [65_536, 65_536]


def test_the_tightest_of_several_limits_decides() -> None:
    alone = fit(PLAIN, TWO_STAGES, budget=Budget(max_macs="1M"), sizing="fit", **SMALL)
    both = fit(PLAIN, TWO_STAGES, budget=Budget(max_params="5M", max_macs="1M"), sizing="fit", **SMALL)
    assert alone.digest == both.digest
    assert 0.8 * 10**6 < alone.macs <= 10**6


def test_a_share_scales_every_limit() -> None:
    params = {**TWO_STAGES, "budget_share": 0.5}
    spec = fit(PLAIN, params, budget=Budget(max_params=212_036), sizing="scale", **SMALL)
    assert [stage.channels for stage in spec.stages] == [40, 72]
    # Half of one less is rounded down, below the 106,018 of these widths.
    spec = fit(PLAIN, params, budget=Budget(max_params=212_035), sizing="scale", **SMALL)
    assert [stage.channels for stage in spec.stages] == [32, 80]


def test_a_network_too_large_for_its_share_stays_at_its_narrowest() -> None:
    params = {**TWO_STAGES, "blocks_1": 2, "budget_share": 1e-6}
    spec = fit(PLAIN, params, budget=Budget(max_params=100_000), sizing="scale", **SMALL)
    assert [(stage.channels, stage.blocks) for stage in spec.stages] == [(8, 2), (8, 1)]


def narrowest(blocks: list[int], *, first: int = 5) -> ModelSpec:
    strides = [1, 2][: len(blocks)]
    return ModelSpec.resnet(
        channels=[8] * len(blocks), blocks=blocks, strides=strides, kernel_sizes=(first, 3), **SMALL
    )


@pytest.mark.parametrize("sizing", ["fit", "scale"])
def test_too_large_network_is_reduced_step_by_step(sizing: Sizing) -> None:
    params = {**TWO_STAGES, "first_kernel_size": 5, "blocks_1": 2, "blocks_2": 2, "budget_share": 1.0}
    order = [
        narrowest([2, 2]),
        narrowest([1, 2]),
        narrowest([1, 1]),
        narrowest([1, 1], first=3),
        narrowest([1], first=3),
    ]
    for position, expected in enumerate(order):
        for spare in (0, 1):
            budget = Budget(max_params=expected.params + spare)
            assert fit(PLAIN, params, budget=budget, sizing=sizing, **SMALL).digest == expected.digest, position


def test_smallest_network_of_the_space_is_the_fallback() -> None:
    # Groups of 64 make every width a multiple of 64, and the stem and the classifier wide.
    params = {**TWO_STAGES, "groups": 64}
    smallest = PLAIN.smallest(**SMALL)
    assert smallest.groups == 1
    for limit in (smallest.params, smallest.params - 1):
        spec = fit(PLAIN, params, budget=Budget(max_params=limit), sizing="fit", **SMALL)
        assert spec.digest == smallest.digest
    # The one with fewest parameters has more multiply-accumulates than the one with fewest of those.
    space = SearchSpace.from_mapping({**PLAIN.to_mapping(), "stages": [2, 2], "full_size_stages": [1, 2]})
    params = {**params, "full_size_stages": 2}
    few = space.narrowest.smallest(**SMALL, measure="macs")
    assert few.macs < space.narrowest.smallest(**SMALL).macs
    assert fit(space, params, budget=Budget(max_macs=few.macs), sizing="fit", **SMALL).digest == few.digest


def test_reject_returns_sampled_widths() -> None:
    space = NAMED["resnet"]
    for params in proposals(space, "reject", 20):
        spec = fit(space, params, budget=Budget(max_params=1), sizing="reject", **SMALL)
        assert spec.digest == space.spec(params, **SMALL).digest


@pytest.mark.parametrize("sizing", ["fit", "scale"])
def test_fitting_without_limit_raises(sizing: Sizing) -> None:
    with pytest.raises(InputError, match=rf"max_params = None: {sizing} needs a limit"):
        fit(PLAIN, {**TWO_STAGES, "budget_share": 0.5}, budget=Budget(), sizing=sizing, **SMALL)


def test_fitting_is_deterministic_and_keeps_sampled_values() -> None:
    generator = random.Random(0)
    for params in proposals(NAMED["resnet"], "fit", 20):
        kept = dict(params)
        budget = Budget(max_params=generator.choice([2_000, 20_000, 2_000_000]))
        specs = [fit(NAMED["resnet"], params, budget=budget, sizing="fit", **SMALL) for _ in range(2)]
        assert specs[0] == specs[1]
        assert params == kept


DEPLOYED = [
    Budget(max_peak_memory="256K"),
    Budget(max_weights="200K", weight_precision="int8"),
    Budget(max_params="500k", max_macs="50M", max_weights="1M", max_peak_memory="300K"),
]


@pytest.mark.parametrize("sizing", SOLVED)
@pytest.mark.parametrize("budget", DEPLOYED, ids=str)
def test_fitted_networks_hold_limits_of_the_deployed_network(budget: Budget, sizing: Sizing) -> None:
    for name in ("resnet", "mobile", "regnet"):
        space, uses = NAMED[name], []
        for params in proposals(space, sizing, 12):
            spec = fit(space, params, budget=budget, sizing=sizing, **LARGE)
            assert budget.admits(spec), params
            uses.append(budget.share_used(spec.cost, budget.needs(spec)))
        if sizing == "fit":
            # Blocks of 16 channels make steps of memory wide.
            assert statistics.median(uses) > 0.7


def test_a_limit_of_the_deployed_network_that_nothing_meets_gives_a_smallest_network() -> None:
    space, budget = NAMED["resnet"], Budget(max_peak_memory="1K")
    (params,) = proposals(space, "fit", 1)
    spec = fit(space, params, budget=budget, sizing="fit", **LARGE)
    assert not budget.admits(spec)
    assert spec.params == space.narrowest.smallest(**LARGE, measure="params").params


def test_a_limit_that_only_whole_blocks_of_channels_hold_is_met() -> None:
    space = SearchSpace.from_mapping({"stages": [1, 1], "channels": [8, 8], "channel_step": 8, "blocks": [1, 1]})
    budget = Budget(max_peak_memory="9K")
    (params,) = proposals(space, "fit", 1)
    spec = fit(space, params, budget=budget, sizing="fit", **SMALL)
    assert budget.admits(spec)
    assert spec.stages[0].channels == 16
    least = require_feasible(space, budget, fitted=True, **SMALL)
    assert least["peak_memory"].stages[0].channels == 16
    with pytest.raises(OverBudgetError, match=r"10.50 KiB peak memory exceed the 9.000 KiB allowed$"):
        require_feasible(space, budget, **SMALL)


def test_a_limit_that_does_not_bind_changes_no_network() -> None:
    space = NAMED["paper"]
    for params in proposals(space, "fit", 10):
        plain = fit(space, params, budget=Budget(max_macs="20M"), sizing="fit", **SMALL)
        both = fit(space, params, budget=Budget(max_macs="20M", max_peak_memory="1G"), sizing="fit", **SMALL)
        assert both.macs <= 20_000_000
        assert both.macs > 0.9 * plain.macs
