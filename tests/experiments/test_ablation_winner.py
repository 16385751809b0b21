"""Factors of a search's winner: which there are, and the networks that they are set back in, counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from record_support import run_record
from support import tiny_recipe

from budgetnet import zoo
from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.config import AblationConfig
from budgetnet.experiments.ablation.factors import factors_of, resampled
from budgetnet.experiments.ablation.overrides import Setup, override
from budgetnet.experiments.ablation.results import ablation_result
from budgetnet.experiments.ablation.winner import SearchWinner, conclusion, winner_study
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import Augmentation
from budgetnet.runs.recipe import Recipe

DIGITS: dict[str, Any] = {"input_shape": (1, 8, 8), "num_classes": 10}
OWN = ModelSpec.resnet(channels=[8, 16], **DIGITS)
# Stem 9 x 8 and norm 16; 2 x (9 x 8 x 8 and norm 16); 9 x 8 x 16, 9 x 16 x 16, 8 x 16 and three norms 32; 160 + 10.
OWN_PARAMS = 88 + 2 * (576 + 16) + (1152 + 2304 + 128 + 3 * 32) + 170
BASE = ModelSpec.resnet(
    name="plain",
    channels=[4, 4, 8],
    blocks=[2, 1, 1],
    strides=[1, 1, 2],
    kernel_sizes=(5, 3),
    shortcut="padding",
    activation="gelu",
)
RECIPE = tiny_recipe(learning_rate=0.1, augmentation=Augmentation(crop_padding=2, flip=False))


def winner(spec: ModelSpec = OWN, recipe: Recipe | None = None, **changes: Any) -> SearchWinner:
    known: dict[str, Any] = {
        "study": "a study",
        "name": "a study#3",
        "trial": "#3",
        "spec": spec,
        "recipe": recipe or tiny_recipe(),
        "search_recipe": RECIPE,
        "seed": 0,
        "budget": Budget(max_params=OWN_PARAMS),
        "data": "digits",
        "fingerprint": "",
    }
    return SearchWinner(**{**known, **changes})


def test_each_factor_is_set_back_alone_and_refitted_to_the_winners_parameters() -> None:
    assert OWN.params == OWN_PARAMS == 5122
    study = winner_study(winner(), BASE)
    variants = study.variants(**DIGITS)
    # Of widths a, twice a, with b = 2a, counted by hand: the last widths before 5,122 is exceeded.
    a, b = 6, 14
    deep = 54 * a * a + 23 * a + 10 * a * b + 9 * b * b + 16 * b + 10
    c, d = 6, 13
    wide_kernel = 34 * c * c + 15 * c + 26 * c * d + 9 * d * d + 16 * d + 10
    e, f = 5, 10
    whole = 102 * e * e + 23 * e + 25 * e * f + 9 * f * f + 14 * f + 10
    assert [(each.name, [stage.channels for stage in each.spec.stages], each.spec.params) for each in variants] == [
        ("winner", [8, 16], 5122),
        ("depth=2-1-1, refitted", [a, a, b], deep),
        ("kernel_sizes=5x3, refitted", [c, d], wide_kernel),
        ("shortcut=padding, refitted", [8, 16], 5122 - 128 - 32),
        ("activation=gelu", [8, 16], 5122),
        ("learning_rate=0.1", [8, 16], 5122),
        ("augmentation.crop_padding=2", [8, 16], 5122),
        ("whole plain, refitted", [e, e, f], whole),
    ]
    assert (deep, wide_kernel, whole) == (4920, 5081, 4965)
    assert all(variant.fits for variant in variants)
    assert {variant.compared_with for variant in variants} == {"", "winner"}
    assert (variants[-1].recipe.learning_rate, variants[-1].recipe.augmentation.crop_padding) == (0.1, 2)
    assert variants[-1].spec.replace(channels=[4, 4, 8], stem={"channels": 4}).digest == BASE.adapted(**DIGITS).digest
    assert study.remarks[-1] == ("widths=4-8: no difference: the winner's own network and recipe, not trained again"), (
        "in the proportions of the base, the winner is as it was"
    )


def test_a_factor_has_only_its_own_fields_of_the_base() -> None:
    factors = factors_of(Setup(OWN, tiny_recipe()), Setup(BASE.adapted(**DIGITS), RECIPE))
    assert {factor.name: factor.settings for factor in factors} == {
        "depth=2-1-1": {
            "spec.stages": [
                {"channels": 8, "blocks": 2, "stride": 1, "kernel_sizes": [3, 3]},
                {"channels": 8, "blocks": 1, "stride": 1, "kernel_sizes": [3, 3]},
                {"channels": 16, "blocks": 1, "stride": 2, "kernel_sizes": [3, 3]},
            ]
        },
        "widths=4-8": {"spec.stem.channels": 4, "spec.channels": [4, 8]},
        "kernel_sizes=5x3": {"spec.kernel_sizes": [5, 3]},
        "shortcut=padding": {"spec.shortcut": {"kind": "padding", "kernel_size": 1, "norm": None, "bias": None}},
        "activation=gelu": {"spec.activation": "gelu"},
        "learning_rate=0.1": {"recipe.learning_rate": 0.1},
        "augmentation.crop_padding=2": {"recipe.augmentation.crop_padding": 2},
    }


# All but those of seven stages, which differ in more than their factors: one is for larger images.
NETWORKS = [name for name in zoo.names() if not name.startswith("mobilenet-v2")]


@pytest.mark.parametrize("name", NETWORKS)
def test_all_factors_together_make_the_base(name: str) -> None:
    image: dict[str, Any] = {"input_shape": (3, 64, 64), "num_classes": 10}
    base = Setup(zoo.get(name).adapted(**image), RECIPE)
    pairs = 0
    for other in NETWORKS:
        own = Setup(zoo.get(other).adapted(**image), tiny_recipe())
        if len(own.spec.stages) != len(base.spec.stages):
            continue
        # A bottleneck takes one kernel of two, and groups that do not divide the base's widths a multiple of these.
        one_kernel = own.spec.block.endswith("bottleneck") and base.spec.stages[0].kernel_sizes == (5, 3)
        if one_kernel or own.spec.groups > 1 or own.spec.group_width:
            continue
        settings: dict[str, Any] = {}
        for factor in factors_of(own, base):
            settings |= factor.settings
        back = override(own, settings)
        assert factors_of(back, base) == []
        assert (back.spec.cost, back.recipe) == (base.spec.cost, base.recipe)
        pairs += 1
    assert pairs


@pytest.mark.parametrize(
    ("values", "count", "expected"),
    [
        ([1, 2, 3], 5, [1, 1, 2, 2, 3]),
        ([1, 2, 3, 4, 5], 3, [1, 3, 5]),
        ([1, 2], 3, [1, 1, 2]),
        ([7], 4, [7, 7, 7, 7]),
        ([1, 2, 3], 1, [1]),
        ([1, 2, 3], 3, [1, 2, 3]),
    ],
)
def test_lists_of_another_length_keep_their_ends(values: list[int], count: int, expected: list[int]) -> None:
    assert resampled(values, count) == expected


def test_widths_that_groups_do_not_divide_keep_their_proportions() -> None:
    own = ModelSpec.resnet(channels=[8, 16], groups=4, **DIGITS)
    base = ModelSpec.resnet(channels=[6, 9], **DIGITS)
    factors = {factor.name: factor.settings for factor in factors_of(Setup(own, RECIPE), Setup(base, RECIPE))}
    assert factors == {
        "widths=6-9": {"spec.stem.channels": 24, "spec.channels": [24, 36]},
        "groups=1": {"spec.groups": 1},
    }


def test_a_kind_of_block_comes_with_what_only_it_has() -> None:
    own = ModelSpec.resnet(channels=[8, 16], kernel_sizes=(5, 3), groups=2, **DIGITS)
    base = ModelSpec.resnet(channels=[8, 16], block="bottleneck", bottleneck_ratio=2, group_width=1, **DIGITS)
    there = {factor.name: factor.settings for factor in factors_of(Setup(own, RECIPE), Setup(base, RECIPE))}
    assert there["block=bottleneck"] == {
        "spec.block": "bottleneck",
        "spec.bottleneck_ratio": 2.0,
        "spec.bottleneck_ratio_of": "output",
        "spec.group_width": 1,
        "spec.groups": 1,
        "spec.kernel_sizes": [[5, 5], [5, 5]],
    }
    back = {factor.name: factor.settings for factor in factors_of(Setup(base, RECIPE), Setup(own, RECIPE))}
    assert list(back) == ["block=basic", "kernel_sizes=5x5", "groups=2"]
    for one, other in ((own, base), (base, own)):
        study = winner_study(winner(one, RECIPE), other)
        assert not [line for line in study.remarks if "skipped" in line]


def test_a_factor_that_cannot_be_set_back_alone_is_named_with_the_reason() -> None:
    base = ModelSpec.resnet(name="pooled", channels=[8, 16], strides=1, head={"pool_size": 8}, **DIGITS)
    study = winner_study(winner(recipe=RECIPE), base)
    assert list(study.options) == ["strides=1-1", "whole pooled"]
    (line,) = [remark for remark in study.remarks if "pool_size" in remark]
    assert line.startswith("head pool_size=8: skipped, as it cannot be set back: spec.head.pool_size = 8: must be")


def test_a_base_that_no_widths_fit_is_skipped() -> None:
    base = ModelSpec.resnet(name="deep", channels=[8, 16], blocks=150, **DIGITS)
    study = winner_study(winner(), base)
    assert list(study.options) == ["learning_rate=0.1", "augmentation.crop_padding=2"]
    lines = [remark for remark in study.remarks if "skipped" in remark]
    assert [line.partition(":")[0] for line in lines] == ["depth=150-150", "whole deep"]
    assert all("even at its narrowest" in line for line in lines)


@pytest.mark.parametrize(
    ("base", "line"),
    [
        (OWN.replace(name="itself"), "base = 'itself': is the winner #3 of a study itself: no factor is left to set"),
        (
            ModelSpec.resnet(name="other", channels=[4, 8], **DIGITS),
            "base = 'other': leaves no factor to set back; widths=4-8: no difference",
        ),
        (
            ModelSpec.resnet(name="large", channels=[8] * 5, strides=2),
            "base = 'large': is not for images of digits: stages[",
        ),
    ],
)
def test_a_base_without_a_factor_is_told_in_one_line(base: ModelSpec, line: str) -> None:
    with pytest.raises(InputError) as caught:
        winner_study(winner(recipe=RECIPE), base)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_base_that_does_not_exist_is_named_as_the_base(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^base = 'nosuch': no such network, and no such file"):
        _ = AblationConfig(of=winner(), base="nosuch").file
    broken = tmp_path / "broken.yaml"
    broken.write_text("stages: []\n")
    with pytest.raises(InputError, match=r"broken\.yaml: stages = "):
        _ = AblationConfig(of=winner(), base=str(broken)).file


def test_the_conclusion_names_the_factors_whose_differences_are_beyond_noise() -> None:
    base = OWN.replace(name="other", activation="gelu", kernel_sizes=(5, 3), squeeze_excitation_ratio=0.5)
    study = winner_study(winner(recipe=RECIPE), base)
    study = study.from_mapping({**study.to_mapping(), "seeds": 4})
    variants = {variant.name: variant for variant in study.variants(**DIGITS)}
    right = {
        "winner": [9_000, 9_010, 9_020, 9_030],
        "kernel_sizes=5x3, refitted": [8_900, 8_911, 8_920, 8_931],
        "squeeze_excitation=0.5, refitted": [9_050, 9_061, 9_070, 9_081],
        "activation=gelu": [9_100, 8_900, 9_000, 9_040],
    }
    assert list(variants) == [*right, "whole other, refitted"]

    def concluded(names: list[str]) -> str:
        records = {
            variants[name].key: [
                run_record(seed=seed, spec=variants[name].spec, recipe=RECIPE, validation_correct=count)
                for seed, count in enumerate(right[name])
            ]
            for name in names
        }
        return conclusion(ablation_result(study, list(variants.values()), records))

    assert concluded(list(right)) == (
        "beyond noise, accuracy falls with kernel_sizes=5x3, refitted (-1.00) "
        "and rises with squeeze_excitation=0.5, refitted (+0.50)"
    )
    assert concluded(["winner"]) == "no factor has a result to compare with the winner's yet"
    assert concluded(["winner", "activation=gelu"]) == (
        "no factor that is set back changes the accuracy beyond noise, over 4 seeds"
    )


def test_expansion_of_equal_width_belongs_to_the_bottleneck_ratio() -> None:
    own = Setup(zoo.get("mobilenet-v2-224"), RECIPE)
    base = Setup(own.spec.replace(equal_expansion=True), RECIPE)
    assert [factor.settings for factor in factors_of(own, base)] == [{"spec.equal_expansion": True}]
