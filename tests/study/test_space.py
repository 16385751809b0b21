"""The search space: what it draws, what a draw means, and that its smallest network is the smallest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from support import PAIR_SPACE, TINY_SPACE

from budgetnet.common.errors import InputError
from budgetnet.model.spec import ModelSpec
from budgetnet.study.choices import SPACES as NAMES
from budgetnet.study.config import SearchConfig
from budgetnet.study.space import Measure, SearchSpace
from budgetnet.study.space.named import NAMED, describe_space, named_space

IMAGE: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
MEASURES: tuple[Measure, ...] = ("params", "macs", "activations")
SMALL: dict[str, Any] = {"channels": [8, 8], "full_size_stages": [1, 1], "first_kernel_sizes": [3]}
VARIED = SearchSpace.from_mapping(
    {
        **SMALL,
        "stages": [1, 2],
        "growth": [1.0, 2.0],
        "blocks": [1, 1],
        "block_kinds": ["basic", "bottleneck"],
        "squeeze_excitation_ratios": [0.25],
        "bottleneck_ratios": [0.5, 2.0],
        "group_widths": [None, 1],
        "conv_biases": [True, False],
        "heads": [{}, {"pool_size": 16}, {"channels": 8}],
        "stems": [{}, {"pool_size": 3, "pool_stride": 1}],
    }
)
RULED = SearchSpace.from_mapping(
    {
        **SMALL,
        "channels": [16, 16],
        "stages": [1, 3],
        "block_kinds": ["bottleneck"],
        "bottleneck_ratios": [1.0],
        "group_widths": [8, 16],
        "regnet": {"depth": [3, 5], "slopes": [0.25, 1.0, 2.0], "multipliers": [1.5, 2.5]},
    }
)
SPACES = [SearchSpace(), SearchSpace(**TINY_SPACE), SearchSpace(**PAIR_SPACE), VARIED, RULED]


TWO_FLAT: dict[str, Any] = {
    "stages": [2, 2],
    "full_size_stages": [2, 2],
    "first_kernel_sizes": [1],
    "second_kernel_sizes": [1],
}
"""Two stages on one map, whose convolutions are no larger than a projection."""


def choices(distribution: object) -> list[Any]:
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    assert isinstance(distribution, CategoricalDistribution)
    return list(distribution.choices)


@st.composite
def draws(draw: st.DrawFn) -> tuple[SearchSpace, dict[str, Any]]:
    space = draw(st.sampled_from(SPACES))
    return space, {name: draw(st.sampled_from(choices(where))) for name, where in space.distributions.items()}


def everything(space: SearchSpace, **image: Any) -> Iterator[ModelSpec]:
    names = list(space.distributions)
    for values in itertools.product(*(choices(space.distributions[name]) for name in names)):
        yield space.spec(dict(zip(names, values, strict=True)), **image)


def test_a_draw_means_what_its_parameters_say() -> None:
    params = {"stages": 3, "full_size_stages": 1, "channels": 40, "block": "preact"}
    params |= {"first_kernel_size": 5, "second_kernel_size": 3, "squeeze_excitation_ratio": 0.25}
    params |= {"groups": 1, "shortcut": "projection"}
    params |= {"blocks_1": 2, "blocks_2": 1, "blocks_3": 2, "blocks_4": 2, "blocks_5": 2}
    params |= {"growth_2": 1.5, "growth_3": 2.0, "growth_4": 1.0, "growth_5": 2.0}
    spec = SearchSpace().spec(params, **IMAGE)
    assert [stage.channels for stage in spec.stages] == [40, 64, 120]  # 40, 60 and 120, to multiples of 8
    assert [stage.blocks for stage in spec.stages] == [2, 1, 2]
    assert [stage.stride for stage in spec.stages] == [1, 2, 2]
    assert {stage.kernel_sizes for stage in spec.stages} == {(5, 3)}
    assert (spec.stem.channels, spec.block, spec.squeeze_excitation_ratio) == (40, "preact", 0.25)
    assert (spec.input_shape, spec.num_classes) == ((3, 32, 32), 10)


@given(draws(), st.sampled_from([(1, 1, 1), (1, 8, 8), (3, 3, 9), (3, 32, 32)]))
def test_every_draw_is_a_network_that_never_narrows_and_halves_maps_that_can_be(
    drawn: tuple[SearchSpace, dict[str, Any]], shape: tuple[int, int, int]
) -> None:
    space, params = drawn
    assume(min(shape[1:]) > 1 or "pool_size" not in params.get("stem", ""))
    spec = space.spec(params, input_shape=shape, num_classes=7)
    widths = [stage.channels for stage in spec.stages]
    params = space.complete(params)
    assert widths == sorted(widths)
    assert all(width % space.channel_step == 0 for width in widths)
    assert space.channels[0] <= widths[0] <= space.channels[1]
    assert space.stages[0] <= len(widths) <= space.stages[1]
    side = min(shape[1:])
    for index, stage in enumerate(spec.stages):
        assert stage.stride == (2 if index >= params["full_size_stages"] and side >= 2 else 1)
        side = -(-side // stage.stride)
    assert (spec.input_shape, spec.num_classes) == (shape, 7)


def test_every_parameter_is_drawn_each_time() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        assert list(study.ask(SearchSpace().distributions).params) == list(SearchSpace().distributions)


def test_a_bottleneck_takes_the_first_kernel_size_for_its_only_one() -> None:
    space = SearchSpace(block_kinds=("bottleneck",), first_kernel_sizes=(7,), second_kernel_sizes=(3, 5))
    params = space.params_at(space.sample(count=1, generator=np.random.default_rng(0)), 0)
    assert {stage.kernel_sizes for stage in space.spec(params, **IMAGE).stages} == {(7, 7)}


@pytest.mark.parametrize(
    ("block", "groups", "channels"),
    [
        # 40, 60 and 120 channels to multiples of 8, 24, and of 4 x 6 and 8 together.
        ("basic", 1, [40, 64, 120]),
        ("basic", 4, [40, 64, 120]),
        ("preact", 3, [48, 48, 120]),
        ("bottleneck", 1, [40, 64, 120]),
        ("bottleneck", 4, [32, 64, 128]),
        ("bottleneck", 6, [48, 48, 120]),
        ("basic", 200, [200, 200, 200]),
    ],
)
def test_widths_are_rounded_to_what_groups_divide(block: str, groups: int, channels: list[int]) -> None:
    space = SearchSpace.from_mapping({"block_kinds": [block], "groups": [groups], "growth": [1.5, 2.0]})
    columns = space.sample(count=1, generator=np.random.default_rng(0))
    params = {**space.params_at(columns, 0), "stages": 3, "channels": 40, "growth_2": 1.5, "growth_3": 2.0}
    spec = space.spec(params, **IMAGE)
    assert [stage.channels for stage in spec.stages] == channels
    assert (spec.groups, spec.stem.channels) == (groups, channels[0])


def test_a_sizing_draws_what_it_needs() -> None:
    space = SearchSpace(groups=(1, 2), budget_shares=(0.25, 0.5), recipe={"batch_size": [64, 128]})
    drawn = list(space.distributions)
    assert {"channels", "groups", "shortcut", "recipe.batch_size"} <= set(drawn)
    assert space.proposed("reject") == space.distributions
    assert list(space.proposed("fit")) == [name for name in drawn if name != "channels"]
    assert list(space.proposed("scale")) == [*space.proposed("fit"), "budget_share"]
    assert space.proposed("scale")["budget_share"] == FloatDistribution(0.25, 0.5, log=True)
    assert space.proposed("fit") is space.proposed("fit")


def test_a_space_is_enumerated_draw_by_draw() -> None:
    space = SearchSpace(**PAIR_SPACE, groups=(1, 2))
    assert space.size == 4
    drawn = [space.params_at(space.enumerate(row, row + 1), 0) for row in range(4)]
    assert [(params["channels"], params["groups"]) for params in drawn] == [(8, 1), (8, 2), (16, 1), (16, 2)]
    columns = space.enumerate(0, 4)
    assert [space.params_at(columns, row) for row in range(4)] == drawn


@pytest.mark.parametrize("name", NAMED)
def test_named_spaces_are_drawn_and_written(name: str) -> None:
    space = named_space(name)
    assert space.name == name
    assert SearchSpace.from_mapping(space.to_mapping()) == space
    columns = space.sample(count=20, generator=np.random.default_rng(0))
    for row in range(20):
        assert space.spec(space.params_at(columns, row), **IMAGE).params > 0


def test_a_space_that_nobody_named_is_told_beside_the_nearest() -> None:
    with pytest.raises(InputError, match=r"space = 'resnt': no such space, and no such file; did you mean resnet\?"):
        named_space("resnt")


def test_a_space_without_a_name_has_not_that_of_a_named_one() -> None:
    assert {describe_space(space) for space in NAMED.values()} == set(NAMED)
    assert describe_space(SearchSpace()) == describe_space(SearchSpace(name="")) == "from a file"
    assert describe_space(SearchSpace(name="own")) == "own"


def test_a_search_knows_every_named_space() -> None:
    assert tuple(NAMED) == NAMES
    for name in NAMED:
        assert SearchConfig(max_params=1e6, space=name).space == name


def test_a_widest_width_off_the_grid_is_lowered_to_it() -> None:
    assert choices(SearchSpace(channels=(8, 30)).distributions["channels"]) == [8, 16, 24]


@pytest.mark.parametrize(
    ("changes", "num_classes"),
    [
        ({}, 10),
        ({"block_kinds": ["preact"]}, 10),
        # A stage that halves the map at the same width needs a projection: more parameters, fewer operations.
        ({"stages": [2, 2], "full_size_stages": [1, 2]}, 10),
        ({"growth": [0.875, 1.0], "channels": [64, 64], "first_kernel_sizes": [1], "second_kernel_sizes": [1]}, 10),
        ({"block_kinds": ["bottleneck", "basic"], "second_kernel_sizes": [3]}, 10),
        ({"first_kernel_sizes": [5, 3]}, 10),
        ({"squeeze_excitation_ratios": [0.25, 0.5]}, 10),
        ({"groups": [2, 1], "shortcuts": ["average-pool", "none"]}, 10),
        # Steps of 16 and 48 channels: groups make convolutions small, and projections large beside them.
        ({"groups": [16, 48], "growth": [1.0, 1.25, 2.0], "stages": [2, 3], "channels": [16, 48]}, 10),
        ({"groups": [4], "block_kinds": ["bottleneck"], "growth": [0.5, 1.25], "stages": [1, 3]}, 10),
        ({"growth": [0.5, 1.0], "stages": [3, 3], "blocks": [1, 1], "channels": [16, 64]}, 500),
        # A narrower stage is the larger one, by the projection around it; so is a narrower beginning of two stages.
        ({"growth": [0.875, 1.0], **TWO_FLAT, "channels": [64, 64]}, 10),
        ({"growth": [1.25], **TWO_FLAT, "channels": [40, 48], "groups": [32]}, 10),
        # Widths that fall make the classifier of the deeper network the smaller one.
        ({"growth": [0.125], "channels": [64, 64]}, 100_000),
        ({"growth": [0.5, 1.0], "channels": [64, 64], "stages": [1, 3], "blocks": [1, 1]}, 1_000),
        # A head that pools windows is the smaller one where the last map is no larger than they are.
        (
            {
                "heads": [{"pool_size": 4}, {"pool_size": 2}, {"channels": 8}],
                "stems": [{"bias": True}, {"pool_size": 3}],
                "conv_biases": [True, False],
                "stages": [1, 3],
                "blocks": [1, 1],
            },
            10,
        ),
        (
            {
                "block_kinds": ["bottleneck"],
                "bottleneck_ratios": [2.0, 0.5, 0.375],
                "group_widths": [None, 8, 1],
                "shortcut_kernel_sizes": [3, 1],
                "fixed": {"bottleneck_ratio_of": "input"},
                "blocks": [1, 1],
            },
            10,
        ),
        (
            {
                "block_kinds": ["bottleneck"],
                "bottleneck_ratios": [1.0],
                "group_widths": [8, 16],
                "regnet": {"depth": [3, 5], "slopes": [1.0, 0.25, 2.0], "multipliers": [2.5, 1.5]},
                "stages": [1, 3],
            },
            10,
        ),
    ],
)
def test_the_smallest_network_is_the_smallest_of_all(changes: dict[str, Any], num_classes: int) -> None:
    space = SearchSpace(**{**TINY_SPACE, "channels": [8, 16], **changes})
    image: dict[str, Any] = {"input_shape": (1, 8, 8), "num_classes": num_classes}
    costs = [spec.cost for spec in everything(space, **image)]
    for measure in MEASURES:
        least = min(getattr(cost, measure) for cost in costs)
        assert getattr(space.smallest(**image, measure=measure).cost, measure) == least


def test_the_pair_is_a_pair() -> None:
    image: dict[str, Any] = {"input_shape": (1, 8, 8), "num_classes": 10}
    assert len({spec.digest for spec in everything(SearchSpace(**PAIR_SPACE), **image)}) == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"stages": [3, 2]}, "stages"),
        ({"stages": [1, 33]}, "stages"),
        ({"channels": [64, 32]}, "channels"),
        ({"channels": [30, 64]}, "channels"),
        ({"channels": [0, 64]}, "channels"),
        ({"blocks": [0, 1]}, "blocks"),
        ({"blocks": [1, 257]}, "blocks"),
        ({"full_size_stages": [2, 1]}, "full_size_stages"),
        ({"growth": []}, "growth"),
        ({"growth": [0]}, "growth"),
        ({"growth": [8.0], "stages": [5, 5]}, "growth"),
        ({"first_kernel_sizes": [4]}, "first_kernel_sizes"),
        ({"block_kinds": ["inception"]}, "block_kinds"),
        ({"block_kinds": []}, "block_kinds"),
        ({"block_kinds": ["basic", "basic"]}, "block_kinds"),
        ({"growth": [1, 2, 1.0]}, "growth"),
        ({"first_kernel_sizes": [3, 3]}, "first_kernel_sizes"),
        ({"second_kernel_sizes": [3, 5, 3]}, "second_kernel_sizes"),
        ({"squeeze_excitation_ratios": [0, 0.0]}, "squeeze_excitation_ratios"),
        ({"groups": [2, 2]}, "groups"),
        ({"groups": []}, "groups"),
        ({"groups": [0]}, "groups"),
        ({"groups": [16_385], "block_kinds": ["bottleneck"]}, "groups"),
        ({"shortcuts": ["padding", "padding"]}, "shortcuts"),
        ({"shortcuts": ["padding"], "growth": [1.0, 0.5]}, "shortcuts"),
        ({"shortcuts": ["detour"]}, "shortcuts"),
        ({"budget_shares": [0, 1]}, "budget_shares"),
        ({"budget_shares": [0.5, 1.5]}, "budget_shares"),
        ({"budget_shares": [0.5, 0.25]}, "budget_shares"),
        ({"recipe": {"epochs": [3, 4]}}, "recipe.epochs"),
        ({"squeeze_excitation_ratios": [2]}, "squeeze_excitation_ratios"),
        ({"channel_step": 0}, "channel_step"),
        ({"surprise": 1}, "surprise"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
def test_a_space_that_breaks_a_rule_names_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        SearchSpace.from_mapping(changes)
    assert caught.value.field.startswith(field)
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(draws())
def test_no_draw_needs_less_than_the_smallest_network(drawn: tuple[SearchSpace, dict[str, Any]]) -> None:
    space, params = drawn
    cost = space.spec(params, **IMAGE).cost
    for measure in MEASURES:
        assert getattr(cost, measure) >= getattr(space.smallest(**IMAGE, measure=measure).cost, measure)
