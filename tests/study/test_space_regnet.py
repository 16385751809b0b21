"""RegNet's rule in a search space against torchvision's RegNets."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest
from torchvision.models.regnet import BlockParams

from budgetnet.common.errors import InputError
from budgetnet.model.budget import Budget
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.fitting import fit
from budgetnet.study.space.named import named_space
from budgetnet.study.space.regnet import RegnetRule, with_stages

IMAGE: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
SMALL: dict[str, Any] = {"input_shape": (1, 8, 8), "num_classes": 10}

# Depth, w_0, w_a and w_m of RegNetX-400MF, -800MF, -1.6GF, -3.2GF and RegNetY-400MF, -800MF (Radosavovic et al. 2020).
PUBLISHED = [
    (22, 24, 24.48, 2.54),
    (16, 56, 35.73, 2.28),
    (18, 80, 34.01, 2.25),
    (25, 88, 26.31, 2.25),
    (16, 48, 27.89, 2.09),
    (14, 56, 38.84, 2.4),
]


@pytest.mark.parametrize(("depth", "first", "slope", "multiplier"), PUBLISHED)
def test_blocks_and_widths_are_those_of_published_networks(
    depth: int, first: int, slope: float, multiplier: float
) -> None:
    theirs = BlockParams.from_init_params(depth=depth, w_0=first, w_a=slope, w_m=multiplier, group_width=8)
    rule = RegnetRule(depth=(depth, 32), slopes=(slope / first,), multipliers=(multiplier,))
    params = {"depth": depth, "width_slope": slope / first, "width_multiplier": multiplier}
    found = with_stages(params, rule, most=4)
    count = len(theirs.depths)
    assert [found[f"blocks_{number}"] for number in range(1, found["stages"] + 1)] == theirs.depths
    growths = [1.0, *(found[f"growth_{number}"] for number in range(2, count + 1))]
    widths = first * np.cumprod(growths)
    # They round to multiples of 8.
    assert np.abs(widths - theirs.widths).max() <= 4


def test_steep_slopes_skip_powers_and_long_networks_end_at_the_last_stage() -> None:
    rule = RegnetRule(depth=(1, 12), slopes=(4.0,), multipliers=(1.5,))
    found = with_stages({"depth": 12, "width_slope": 4.0, "width_multiplier": 1.5}, rule, most=3)
    # Relative widths are 1, 5, 9 and so on: powers 0, 4 and more, of which the third stage takes all that are left.
    assert (found["stages"], found["blocks_1"], found["blocks_2"], found["growth_2"]) == (2, 1, 11, 1.5**2)


def test_a_sample_has_the_numbers_of_the_rule_alone() -> None:
    space = named_space("regnet")
    names = set(space.distributions)
    assert {"depth", "width_slope", "width_multiplier"} <= names
    assert not any(name == "stages" or name.startswith(("blocks_", "growth_")) for name in names)
    columns = space.sample(count=30, generator=np.random.default_rng(0))
    for row in range(30):
        params = space.params_at(columns, row)
        spec = space.spec(params, **IMAGE)
        assert sum(stage.blocks for stage in spec.stages) == params["depth"]
        fitted = fit(space, params, budget=Budget(max_params=300_000), sizing="fit", **IMAGE)
        assert fitted.params <= 300_000


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"depth": [5, 4]}, "regnet.depth = [5, 4]: must name the smaller number first"),
        ({"slopes": [1, 1]}, "regnet.slopes = [1.0, 1.0]: must not name a choice twice"),
        ({"multipliers": [1]}, "regnet.multipliers[0] = 1: must be at least 1.1"),
        ({"slope": [1]}, "regnet.slope = [1]: unknown field"),
    ],
)
def test_invalid_rules_are_refused(rule: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        SearchSpace.from_mapping({"regnet": rule})
    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            {"stems": [{"channels": 8}]},
            "stems[0].channels = 8: must be omitted: the stem is as wide as the first stage",
        ),
        ({"stems": [{"strides": 8}]}, "stems[0].strides = 8: unknown field; did you mean stride?"),
        ({"heads": [{}, {"pooling": "sum"}]}, "heads[1].pooling = 'sum': must be 'average' or 'max'"),
        ({"fixed": {"block": "basic"}}, "fixed.block = 'basic': cannot be fixed: it belongs in block_kinds"),
        ({"fixed": {"downsampling": "none"}}, "fixed.downsampling = 'none': must be 'stride' or 'max-pool'"),
        (
            {"fixed": {"squeeze_excitation": {"place": "inner"}}},
            "fixed.squeeze_excitation.place = 'inner': is only for bottleneck blocks, not basic",
        ),
        ({"groups": [1, 2], "group_widths": [8]}, "group_widths = [8]: must not be given with groups"),
        ({"conv_biases": [True, True]}, "conv_biases = [True, True]: must not name a choice twice"),
        ({"stems": [{}, {"kernel_size": 3}]}, "stems = [{}, {'kernel_size': 3}]: must not name a choice twice"),
        ({"heads": [{}, {"pool_size": None}]}, "heads = [{}, {'pool_size': None}]: must not name a choice twice"),
        ({"fixed": {"kernel_sizes": 3}}, "fixed.kernel_sizes = 3: cannot be fixed: it is sampled"),
        (
            {"fixed": {"bottleneck_ratio_of": "input"}},
            "fixed.bottleneck_ratio_of = 'input': changes nothing in basic and preact blocks",
        ),
        (
            {"block_kinds": ["preact"], "fixed": {"block_activation": False}},
            "fixed.block_activation = False: changes nothing in preact blocks",
        ),
        (
            {"bottleneck_ratios": [0.5, 1]},
            "bottleneck_ratios = [0.5, 1.0]: is only for bottleneck blocks, not basic and preact",
        ),
        ({"group_widths": [8]}, "group_widths = [8]: is only for bottleneck blocks, not basic and preact"),
        (
            {"shortcuts": ["identity", "padding"], "shortcut_kernel_sizes": [3]},
            "shortcut_kernel_sizes = [3]: is only for shortcuts with a convolution, not identity and padding",
        ),
        (
            {"stages": [1, 32], "regnet": {"depth": [4, 256], "slopes": [8], "multipliers": [8]}},
            "regnet.multipliers = [8.0]: lets 32 stages grow to 393,216 channels; must be at most 65,536",
        ),
    ],
)
def test_invalid_choices_are_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        SearchSpace.from_mapping(fields)
    assert str(caught.value) == complaint


def test_what_a_rule_replaces_is_not_checked() -> None:
    space = SearchSpace.from_mapping({"growth": [0.5, 8], "stages": [1, 32], "shortcuts": ["padding"], "regnet": {}})
    assert space.regnet is not None
    # The 16th block is 1 + 1.5 x 15 times as wide, of which 1.5^8, 2^5 and 2.5^3 are the nearest powers.
    assert space.regnet.widest(32) == 2.0**5
    assert space.regnet.widest(3) == 2.5**2


def test_stems_for_large_images_are_accepted() -> None:
    space = SearchSpace.from_mapping({"stems": [{"stride": 64}]})
    assert space.smallest(input_shape=(3, 256, 256), num_classes=10).stem.stride == 64
    complaint = r"stems = {'stride': 64}: stride would shrink the 8x8 map below 1, on images of 8x8 pixels"
    with pytest.raises(InputError, match=complaint):
        space.smallest(**SMALL)
    with pytest.raises(InputError, match=complaint):
        space.costs(space.sample(count=1, generator=np.random.default_rng(0)), **SMALL)


def test_networks_over_a_small_budget_have_other_groups_heads_and_stems() -> None:
    rows = named_space("regnet").sample(count=40, generator=np.random.default_rng(0))
    space = named_space("regnet")
    budget = Budget(max_params=20_000)
    specs = [fit(space, space.params_at(rows, row), budget=budget, sizing="fit", **SMALL) for row in range(40)]
    assert statistics.median(spec.params for spec in specs) > 17_000
    large = {"pool_size": 4, "channels": 512}
    space = SearchSpace.from_mapping({"heads": [large, {}], "stems": [{"inner_channels": [64, 64]}, {}]})
    rows = space.sample(count=40, generator=np.random.default_rng(0))
    budget = Budget(max_params=60_000)
    specs = [fit(space, space.params_at(rows, row), budget=budget, sizing="fit", **SMALL) for row in range(40)]
    assert len({spec.digest for spec in specs}) > 20


def test_parameters_with_one_default_are_not_sampled() -> None:
    space = SearchSpace(conv_biases=(False, True), heads=({}, {"pool_size": 64}))
    assert set(space.distributions) - set(SearchSpace().distributions) == {"conv_bias", "head"}
    columns = space.sample(count=20, generator=np.random.default_rng(0))
    specs = [space.spec(space.params_at(columns, row), **IMAGE) for row in range(20)]
    assert {spec.conv_bias for spec in specs} == {False, True}
    # No map of theirs has 64 pixels a side, so all of them pool globally.
    assert {spec.head.pool_size for spec in specs} == {None}
