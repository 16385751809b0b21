"""Variants of every design: names, merging and refitting, against hand-written lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation import AblationStudy, Variant
from budgetnet.model import zoo
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import Augmentation
from budgetnet.runs.named_recipes import NAMED
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import Schedule

STUDIES = Path(__file__).parents[2] / "studies"
CIFAR: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
ON_PAPER: dict[str, Any] = {"spec": "reference", "recipe": "paper"}


def variants_of(image: dict[str, Any] = CIFAR, **fields: Any) -> list[Variant]:
    return AblationStudy.from_mapping({**ON_PAPER, **fields}).variants(**image)


def names_of(**fields: Any) -> list[str]:
    return [variant.name for variant in variants_of(**fields)]


def counted(channels: list[int], blocks: list[int], kernels: tuple[int, int] = (5, 3)) -> int:
    """Parameters of a network of the paper's kind, line by line as in its Table 1; strides behind the second stage."""
    in_channels = channels[0]
    total = 3 * 9 * in_channels + 2 * in_channels
    for number, (width, count) in enumerate(zip(channels, blocks, strict=True)):
        for block in range(count):
            total += in_channels * width * kernels[0] ** 2 + 2 * width
            total += width * width * kernels[1] ** 2 + 2 * width
            if block == 0 and (number > 1 or in_channels != width):
                total += in_channels * width + 2 * width
            in_channels = width
    return total + 10 * in_channels + 10


# Differences to the reference's 4,662,346 worked out with pencil and paper; stage 5 alone at 258: 25 * 256 * 2 in its
# first convolution, 9 * (258^2 - 256^2) in its second, 8 in norms, 256 * 2 + 4 around it, 20 in the classifier.
BY_HAND = {
    "base": ([64, 64, 128, 256, 256], [2, 2, 1, 1, 1], 4_662_346),
    "channels=64-64-128-258-258": ([64, 64, 128, 258, 258], [2, 2, 1, 1, 1], 4_714_278),
    "stages[4].channels=258": ([64, 64, 128, 256, 258], [2, 2, 1, 1, 1], 4_662_346 + 22_596),
    "stages[4].channels=128": ([64, 64, 128, 256, 128], [2, 2, 1, 1, 1], 4_662_346 - 1_296_384),
    "blocks=1": ([64, 64, 128, 256, 256], [1, 1, 1, 1, 1], 4_662_346 - 2 * 139_520),
    "blocks=2": ([64, 64, 128, 256, 256], [2, 2, 2, 2, 2], 9_678_410),
    "stages[0].blocks=1": ([64, 64, 128, 256, 256], [1, 2, 1, 1, 1], 4_662_346 - 139_520),
    "stages[1].blocks=1": ([64, 64, 128, 256, 256], [2, 1, 1, 1, 1], 4_662_346 - 139_520),
    "without stages[4]": ([64, 64, 128, 256], [2, 2, 1, 1], 4_662_346 - 2_295_296),
}


def test_the_study_of_stages_has_the_parameters_of_table_1_by_hand() -> None:
    study = AblationStudy.load(STUDIES / "stages" / "study.yaml")
    variants = {variant.name: variant for variant in study.variants(**CIFAR)}
    for name, (channels, blocks, params) in BY_HAND.items():
        assert variants[name].spec.params == counted(channels, blocks) == params
    # Without the second stage both of its blocks are gone, and the third one takes 64 channels as before.
    assert variants.keys() - BY_HAND.keys() == {"without stages[1]"}
    assert variants["without stages[1]"].spec.params == 4_662_346 - 2 * 139_520
    assert [name for name, variant in variants.items() if not variant.fits] == ["blocks=2"]
    assert not any(variant.refitted for variant in variants.values())


def test_the_study_of_kernels_keeps_every_network_as_it_is_and_refitted() -> None:
    study = AblationStudy.load(STUDIES / "kernel-size" / "study.yaml")
    names, fits = [], []
    for variant in study.variants(**CIFAR):
        names.append(variant.name)
        fits.append(variant.fits)
        if not variant.refitted:
            first, second = variant.settings.get("spec.kernel_sizes", (5, 3))
            assert variant.spec.params == counted([64, 64, 128, 256, 256], [2, 2, 1, 1, 1], (first, second))
    assert names == [
        "base",
        *(f"kernel_sizes={size}{ending}" for size in ("3x3", "3x5", "5x5", "7x3") for ending in ("", ", refitted")),
    ]
    # Five million hold 3x3 kernels as they are, and everything refitted.
    assert fits == [True, True, True, False, True, False, True, False, True]


def test_the_study_of_schedules_is_every_combination() -> None:
    study = AblationStudy.load(STUDIES / "schedule" / "study.yaml")
    variants = study.variants(**CIFAR)
    recipes = {variant.name: variant.recipe for variant in variants}
    constant, paper = Schedule(kind="constant"), NAMED["paper"]
    assert {name: recipe.digest for name, recipe in recipes.items()} == {
        "base": paper.digest,
        "schedule=constant": Recipe(schedule=constant).digest,
        "schedule=constant, without early_stopping": Recipe(schedule=constant, early_stopping=None).digest,
        "without early_stopping": Recipe(early_stopping=None).digest,
    }
    assert variants[0].settings == {"recipe.schedule": "cosine-restarts", "recipe.early_stopping": True}
    assert [variant.is_base for variant in variants] == [True, False, False, False]
    assert {variant.spec.digest for variant in variants} == {zoo.get("reference").digest}


def test_the_papers_ladder_is_four_named_networks() -> None:
    study = AblationStudy.load(STUDIES / "paper-ladder" / "study.yaml")
    variants = study.variants(**CIFAR)
    assert [(variant.name, variant.spec.name, variant.spec.params) for variant in variants] == [
        ("base", "reference", 4_662_346),
        ("spec=ladder-small", "ladder-small", 2_630_218),
        ("spec=ladder-wide", "ladder-wide", 4_903_242),
        ("spec=ladder-large-kernel", "ladder-large-kernel", 4_243_786),
    ]
    assert variants[1].settings == {"spec": "ladder-small"}


@pytest.mark.parametrize(
    ("name", "recipe"), [("kernel-size", "fast"), ("schedule", "paper"), ("stages", "paper"), ("paper-ladder", "paper")]
)
def test_studies_of_the_reference_have_a_named_recipe_and_three_seeds(name: str, recipe: str) -> None:
    study = AblationStudy.load(STUDIES / name / "study.yaml")
    assert (study.name, study.recipe, study.bases[""].spec) == (name, NAMED[recipe], zoo.get("reference"))
    assert (study.seeds, study.budget.max_params, study.judged_on) == ((0, 1, 2), 5_000_000, "validation")


def test_a_full_factorial_has_the_product_of_its_levels() -> None:
    factors = {
        "spec.kernel_sizes": [[3, 3], [5, 3], 5],
        "spec.stages[4].channels": [256, 64],
        "recipe.momentum": [0.9, "off"],
        "recipe.augmentation": ["on", "off"],
    }
    variants = variants_of(factors=factors, design="full-factorial")
    assert len(variants) == len({variant.key for variant in variants}) == 3 * 2 * 2 * 2
    assert variants[0].name == "base"
    assert variants[0].settings == {
        "spec.kernel_sizes": [5, 3],
        "spec.stages[4].channels": 256,
        "recipe.momentum": 0.9,
        "recipe.augmentation": True,
    }
    last = variants[-1]
    assert last.name == "kernel_sizes=5, stages[4].channels=64, without momentum, without augmentation"
    assert last.spec.params == counted([64, 64, 128, 256, 64], [2, 2, 1, 1, 1], (5, 5))
    assert last.recipe.digest == Recipe(momentum=0, augmentation=Augmentation(crop_padding=0, flip=False)).digest


def test_base_outside_the_factorial_is_trained() -> None:
    variants = variants_of(
        factors={"spec.kernel_sizes": [3, 7], "recipe.learning_rate": [0.1, 0.2]}, design="full-factorial"
    )
    assert [variant.name for variant in variants] == [
        "base",
        "kernel_sizes=3, learning_rate=0.1",
        "kernel_sizes=3, learning_rate=0.2",
        "kernel_sizes=7, learning_rate=0.1",
        "kernel_sizes=7, learning_rate=0.2",
    ]
    assert (variants[0].settings, variants[0].is_base) == ({}, True)


def test_list_of_paths_removes_each_component() -> None:
    factors = ["recipe.early_stopping", "recipe.augmentation.flip", "recipe.label_smoothing", "spec.stages[4]"]
    variants = variants_of(recipe="search", factors=factors, design="leave-one-out")
    assert [variant.name for variant in variants] == [
        "base",
        "without early_stopping",
        "without augmentation.flip",
        "without label_smoothing",
        "without stages[4]",
    ]
    assert [variant.settings for variant in variants[1:]] == [{path: False} for path in factors]
    assert variants[2].recipe.augmentation == Augmentation(flip=False)


def test_one_at_a_time_omits_levels_of_the_base() -> None:
    factors = {"recipe.learning_rate": [0.1, 0.01, 0.001], "recipe.early_stopping": ["on", "off"]}
    assert names_of(factors=factors) == ["base", "learning_rate=0.1", "learning_rate=0.001", "without early_stopping"]


def test_changes_are_part_of_the_base() -> None:
    study = AblationStudy.from_mapping(
        {
            **ON_PAPER,
            "changes": {"recipe.epochs": 30, "recipe.early_stopping": "off", "spec.stages[4].channels": 128},
            "factors": {"spec.stages[4].channels": [128, 256]},
        }
    )
    base, other = study.variants(**CIFAR)
    assert base.spec.params == counted([64, 64, 128, 256, 128], [2, 2, 1, 1, 1])
    assert other.name == "stages[4].channels=256"
    assert (other.spec.digest, other.recipe) == (zoo.get("reference").digest, base.recipe)
    assert base.recipe == Recipe(epochs=30, schedule=Schedule(first_cycle=30), early_stopping=None)


def test_equal_variants_are_one_and_keep_their_names() -> None:
    factors = {
        "spec.channels": [[64, 64, 128, 256, 128]],
        "spec.stages[4].channels": [128],
        "spec.kernel_sizes": [[3, 3], 3],
    }
    variants = variants_of(factors=factors)
    assert [(variant.name, variant.also) for variant in variants] == [
        ("base", ()),
        ("channels=64-64-128-256-128", ("stages[4].channels=128",)),
        ("kernel_sizes=3x3", ("kernel_sizes=3",)),
    ]


def test_name_has_only_settings_that_matter() -> None:
    factors = {"spec.stages[4]": ["on", "off"], "spec.stages[4].channels": [256, 128]}
    variants = variants_of(factors=factors, design="full-factorial")
    assert [(variant.name, variant.also) for variant in variants] == [
        ("base", ()),
        ("stages[4].channels=128", ()),
        ("without stages[4]", ()),
    ]


def test_names_stay_short_and_differ() -> None:
    stages = [[{"channels": width, "kernel_sizes": [5, 3]} for width in (64, 128, 256, last)] for last in (8, 9)]
    names = names_of(factors={"spec.stages": stages, "recipe.schedule": [{"kind": "one-cycle", "first_cycle": 150}]})
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 60
    assert names[1].startswith("stages={channels: 64, kernel_sizes: 5x3}-{chan")
    assert names[3] == "schedule={kind: one-cycle, first_cycle: 150}"


def test_variants_have_shape_and_classes_of_the_data() -> None:
    digits: dict[str, Any] = {"input_shape": (1, 8, 8), "num_classes": 7}
    variants = variants_of(digits, factors={"spec": ["resnet20"]}, fit="both")
    for variant in variants:
        assert (variant.spec.input_shape, variant.spec.num_classes) == ((1, 8, 8), 7)
    base, resnet, refitted = variants
    # A grey image and seven classes: two of three input channels of 3x3 weights, three rows of a classifier fewer.
    assert base.spec.params == 4_662_346 - 2 * 9 * 64 - 3 * (256 + 1)
    assert (base.spec.name, resnet.spec.name) == ("reference", "resnet20")
    assert base.spec.params * 0.99 < refitted.spec.params <= base.spec.params


def test_only_variants_of_other_size_are_refitted() -> None:
    factors = {"spec.activation": ["silu"], "recipe.momentum": [0.8], "spec.stages[4].channels": [128]}
    variants = variants_of(factors=factors, fit=True)
    assert [(variant.name, variant.refitted) for variant in variants] == [
        ("base", False),
        ("activation=silu", False),
        ("momentum=0.8", False),
        ("stages[4].channels=128, refitted", True),
    ]


def test_a_variant_that_refitting_turns_into_the_base_is_the_base() -> None:
    mapping = zoo.get("reference").to_mapping()
    mapping["stem"]["channels"] //= 2
    for stage in mapping["stages"]:
        stage["channels"] //= 2
    factors = {"spec": [{**mapping, "name": "half"}]}
    (only,) = variants_of(factors=factors, fit=True)
    assert (only.name, only.also, only.is_base, only.refitted) == ("base", ("spec=half, refitted",), True, False)
    assert [variant.name for variant in variants_of(factors=factors, fit="both")] == ["base", "spec=half"]


def test_other_splits_may_be_compared_on_the_test_set() -> None:
    names = names_of(factors={"recipe.split_seed": [1]}, judged_on="test")
    assert names == ["base", "split_seed=1"]


def test_a_variant_too_deep_for_the_images_is_named() -> None:
    with pytest.raises(InputError) as caught:
        variants_of({"input_shape": (1, 2, 2), "num_classes": 10}, factors={"spec.strides": [1]}, spec="resnet20")
    assert str(caught.value) == ("stages[2].stride = 2: would shrink the 1x1 map below 1 (in the variant base)")
    many = ModelSpec.resnet(channels=[1], num_classes=2)
    with pytest.raises(InputError, match=r"even at its narrowest \(in the variant kernel_sizes=31\)$"):
        variants_of(spec=many.to_mapping(), factors={"spec.kernel_sizes": [31]}, fit=True)
