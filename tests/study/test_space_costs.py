"""Many draws counted at once: each costs what its specification costs, to the last digit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, IntDistribution
from strategies import examples, squeeze_excitations

from budgetnet.common.errors import InputError
from budgetnet.model.cost import Cost
from budgetnet.model.verify import count_built
from budgetnet.study.space import Costs, SearchSpace

IMAGE: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}


def some(choices: list[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(choices), min_size=1, max_size=3, unique_by=repr)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Spaces of every kind of block, with steps, growths and ratios at which widths fall on halves and below 1."""

    def ends(low: int, high: int) -> list[int]:
        return sorted([draw(st.integers(low, high)), draw(st.integers(low, high))])

    step = draw(st.sampled_from([1, 2, 4, 5, 8]))
    narrowest = step * draw(st.integers(1, 6))
    growth = draw(some([0.1, 0.25, 0.5, 0.875, 1.0, 1.25, 1.5, 2.0, 2.5]))
    shortcuts = ["projection", "average-pool", "identity", "none"] + (["padding"] if min(growth) >= 1 else [])
    kinds = draw(some(["basic", "preact", "bottleneck", "preact-bottleneck"]))
    inner = all(kind.endswith("bottleneck") for kind in kinds)
    others: dict[str, Any] = {}
    chosen = draw(some(shortcuts))
    if draw(st.booleans()):
        squeeze = squeeze_excitations(inner=inner)
        fixed: dict[str, Any] = {"squeeze_excitation": squeeze, "downsampling": st.just("max-pool")}
        if any(kind.endswith("bottleneck") for kind in kinds):
            fixed["bottleneck_ratio_of"] = st.sampled_from(["input", "output"])
            fixed["equal_expansion"] = st.booleans()
            others["group_widths"] = draw(some([None, 1, 2, 3, 8]))
            others["bottleneck_ratios"] = draw(some([0.25, 0.3, 0.5, 1.0, 2.0, 6.0]))
        if not all(kind.startswith("preact") for kind in kinds):
            fixed["block_activation"] = st.booleans()
        if {"projection", "average-pool"} & set(chosen):
            others["shortcut_kernel_sizes"] = draw(some([1, 3]))
        others |= {
            "groups": [1],
            "activations": draw(some(["relu", "gelu"])),
            "block_dropouts": draw(some([0.0, 0.2])),
            "conv_biases": draw(some([False, True])),
            "stems": draw(some([{}, {"inner_channels": [3, 5]}, {"bias": True, "squeeze_excitation_ratio": 0.25}])),
            "heads": draw(some([{}, {"pool_size": 2}, {"channels": 24, "norm": True}, {"pool_size": 4}])),
            "fixed": draw(st.fixed_dictionaries({}, optional=fixed)),
        }
        if draw(st.booleans()):
            slopes, multipliers = draw(some([0.0, 0.3, 1.0, 2.0])), draw(some([1.2, 1.5, 2.0, 3.0]))
            others["regnet"] = {"depth": ends(1, 9), "slopes": slopes, "multipliers": multipliers}
    return SearchSpace.from_mapping(
        {
            "stages": ends(1, 6),
            "channels": [narrowest, narrowest + draw(st.integers(0, 40))],
            "channel_step": step,
            "growth": growth,
            "blocks": ends(1, 5),
            "full_size_stages": ends(1, 7),
            "first_kernel_sizes": draw(some([1, 3, 5, 7])),
            "second_kernel_sizes": draw(some([1, 3, 5])),
            "block_kinds": kinds,
            "groups": draw(some([1, 2, 3, 4, 8, 32])),
            "shortcuts": chosen,
            "squeeze_excitation_ratios": draw(some([0.0, 0.01, 0.0625, 0.25, 0.3, 0.5, 1.0])),
            **others,
        }
    )


def costs_one_by_one(space: SearchSpace, columns: Any, **image: Any) -> list[Cost]:
    rows = range(len(columns["block"]))
    return [space.spec(space.params_at(columns, row), **image).cost for row in rows]


def rows_of(costs: Costs) -> list[Cost]:
    assert {column.dtype for column in costs} == {np.dtype(np.int64)}
    return [Cost(*row) for row in zip(*(column.tolist() for column in costs), strict=True)]


sides = st.sampled_from([1, 2, 3, 5, 7, 8, 9, 17, 32, 33, 100])


@examples(300)
@given(spaces(), st.integers(1, 4), sides, sides, st.integers(2, 1000), st.integers(0, 2**32))
def test_many_draws_cost_what_each_would_alone(
    space: SearchSpace, channels: int, height: int, width: int, num_classes: int, seed: int
) -> None:
    event(", ".join(sorted(space.block_kinds)))
    event(f"groups: {max(space.groups) > 1}, shortcuts: {len(space.shortcuts)}")
    image: dict[str, Any] = {"input_shape": (channels, height, width), "num_classes": num_classes}
    columns = space.sample(count=12, generator=np.random.default_rng(seed))
    assert rows_of(space.costs(columns, **image)) == costs_one_by_one(space, columns, **image)


GROUPED: dict[str, Any] = {
    "stages": [2, 3],
    "channels": [8, 40],
    "block_kinds": ["basic", "preact", "bottleneck"],
    "groups": [1, 2, 3],
    "shortcuts": ["projection", "average-pool", "padding", "none"],
    "second_kernel_sizes": [1, 3],
}


@pytest.mark.parametrize("row", range(12))
def test_many_draws_cost_what_the_built_networks_have(row: int) -> None:
    space = SearchSpace.from_mapping(GROUPED)
    image: dict[str, Any] = {"input_shape": (2, 8, 9), "num_classes": 5}
    columns = space.sample(count=12, generator=np.random.default_rng(4))
    spec = space.spec(space.params_at(columns, row), **image)
    counts = count_built(spec)
    costs = space.costs(columns, **image)
    assert (counts["built_params"], counts["torch_macs"]) == (costs.params[row], costs.macs[row])


def test_the_draws_that_are_built_have_groups_and_shortcuts_of_all_kinds() -> None:
    columns = SearchSpace.from_mapping(GROUPED).sample(count=12, generator=np.random.default_rng(4))
    drawn = set(zip(columns["block"].tolist(), columns["groups"].tolist(), strict=True))
    assert {("basic", 3), ("bottleneck", 2)} <= drawn
    assert set(columns["shortcut"].tolist()) == {"projection", "average-pool", "padding", "none"}


def test_more_draws_than_are_counted_at_a_time_keep_their_order() -> None:
    space = SearchSpace()
    columns = space.sample(count=40_000, generator=np.random.default_rng(0))
    costs = rows_of(space.costs(columns, **IMAGE))
    rows = np.arange(0, 40_000, 97)
    assert [costs[row] for row in rows] == costs_one_by_one(space, {k: v[rows] for k, v in columns.items()}, **IMAGE)


def test_draws_are_uniform_seeded_and_plain_values_of_the_space() -> None:
    space = SearchSpace()
    columns = space.sample(count=20_000, generator=np.random.default_rng(1))
    assert list(columns) == list(space.distributions)
    for name, where in space.distributions.items():
        values, counts = np.unique(columns[name], return_counts=True)
        if isinstance(where, IntDistribution):
            expected: list[Any] = list(range(where.low, where.high + 1, where.step))
        else:
            assert isinstance(where, CategoricalDistribution)
            expected = sorted(where.choices, key=str)
        assert values.tolist() == expected
        assert counts.min() > 0.85 * 20_000 / len(expected)
    again = space.sample(count=20_000, generator=np.random.default_rng(1))
    other = space.sample(count=20_000, generator=np.random.default_rng(2))
    assert all(np.array_equal(columns[name], again[name]) for name in columns)
    assert not np.array_equal(columns["channels"], other["channels"])
    params = space.params_at(columns, 3)
    assert {type(value) for value in params.values()} == {int, float, str}
    assert all(where._contains(where.to_internal_repr(params[name])) for name, where in space.distributions.items())


def test_no_draws_cost_nothing() -> None:
    space = SearchSpace()
    columns = space.sample(count=0, generator=np.random.default_rng(0))
    assert rows_of(space.costs(columns, **IMAGE)) == []


HUGE: dict[str, Any] = {
    "channels": [65_536, 65_536],
    "growth": [1.0],
    "blocks": [256, 256],
    "stages": [5, 5],
    "first_kernel_sizes": [31],
    "second_kernel_sizes": [31],
}


def test_counts_beyond_sixty_four_bits_are_refused() -> None:
    space = SearchSpace(**HUGE)
    columns = space.sample(count=1, generator=np.random.default_rng(0))
    image: dict[str, Any] = {"input_shape": (3, 4096, 4096), "num_classes": 10}
    assert space.spec(space.params_at(columns, 0), **image).macs > 2**63
    with pytest.raises(InputError, match=r"space = 'resnet'.*beyond 64 bits"):
        space.costs(columns, **image)


def test_counts_just_within_sixty_four_bits_are_exact() -> None:
    space = SearchSpace(**HUGE)
    image: dict[str, Any] = {"input_shape": (3, 28, 28), "num_classes": 10}
    columns = space.sample(count=4, generator=np.random.default_rng(0))
    assert max(space.costs(columns, **image).macs) > 2**60
    assert rows_of(space.costs(columns, **image)) == costs_one_by_one(space, columns, **image)


def test_narrow_integers_do_not_wrap_around() -> None:
    space = SearchSpace()
    columns = space.sample(count=50, generator=np.random.default_rng(0))
    narrow = {k: v.astype(np.int8) if v.dtype.kind == "i" else v for k, v in columns.items()}
    assert rows_of(space.costs(narrow, **IMAGE)) == rows_of(space.costs(columns, **IMAGE))
