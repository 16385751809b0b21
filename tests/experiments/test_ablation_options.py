"""Options of a study: variants and comparisons of every design, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from budgetnet.common.errors import InputError
from budgetnet.common.files import write_yaml
from budgetnet.experiments.ablation import AblationStudy, Variant
from budgetnet.experiments.ablation.running import planned_runs
from budgetnet.model import zoo
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import Augmentation
from budgetnet.runs.named_recipes import NAMED
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import Schedule

CIFAR: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
BASE = Recipe(epochs=30, schedule=Schedule(first_cycle=30))
ONE_CYCLE = Schedule(kind="one-cycle", first_cycle=30, warmup_fraction=0.2)
STUDY: dict[str, Any] = {
    "spec": "resnet20",
    "recipe": BASE.to_mapping(),
    "options": {
        "nesterov": {"recipe.nesterov": True},
        "one-cycle": {"recipe.schedule": {"kind": "one-cycle", "first_cycle": 30, "warmup_fraction": 0.2}},
        "mild": {"recipe.augmentation.crop_padding": 2, "recipe.label_smoothing": 0.1},
    },
}
MILD = Augmentation(crop_padding=2)
ALONE: dict[str, dict[str, Any]] = {
    "nesterov": {"nesterov": True},
    "one-cycle": {"schedule": ONE_CYCLE},
    "mild": {"augmentation": MILD, "label_smoothing": 0.1},
}
"""Fields of the recipe that each option sets."""


def recipe_with(*options: str) -> Recipe:
    fields: dict[str, Any] = {"epochs": 30, "schedule": Schedule(first_cycle=30)}
    for option in options:
        fields |= ALONE[option]
    return Recipe(**fields)


def variants_of(**fields: Any) -> list[Variant]:
    return AblationStudy.from_mapping({**STUDY, **fields}).variants(**CIFAR)


def described(variants: list[Variant]) -> list[tuple[str, str, str]]:
    """Name, what it is compared with and the recipe's digest."""
    return [(each.name, each.compared_with, each.recipe.digest) for each in variants]


ALL = ("nesterov", "one-cycle", "mild")
BY_HAND: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {
    "one-at-a-time": [
        ("base", "", ()),
        ("nesterov", "base", ("nesterov",)),
        ("one-cycle", "base", ("one-cycle",)),
        ("mild", "base", ("mild",)),
    ],
    "leave-one-out": [
        ("all", "", ALL),
        ("without nesterov", "all", ("one-cycle", "mild")),
        ("without one-cycle", "all", ("nesterov", "mild")),
        ("without mild", "all", ("nesterov", "one-cycle")),
    ],
    "alone-and-leave-one-out": [
        ("base", "", ()),
        ("nesterov", "base", ("nesterov",)),
        ("one-cycle", "base", ("one-cycle",)),
        ("mild", "base", ("mild",)),
        ("all", "base", ALL),
        ("all without nesterov", "all", ("one-cycle", "mild")),
        ("all without one-cycle", "all", ("nesterov", "mild")),
        ("all without mild", "all", ("nesterov", "one-cycle")),
    ],
    "full-factorial": [
        ("base", "", ()),
        ("mild", "base", ("mild",)),
        ("one-cycle", "base", ("one-cycle",)),
        ("one-cycle, mild", "base", ("one-cycle", "mild")),
        ("nesterov", "base", ("nesterov",)),
        ("nesterov, mild", "base", ("nesterov", "mild")),
        ("nesterov, one-cycle", "base", ("nesterov", "one-cycle")),
        ("nesterov, one-cycle, mild", "base", ALL),
    ],
}
"""Name, what it is compared with, and the options in it."""


@pytest.mark.parametrize("design", BY_HAND)
def test_variants_of_every_design_match_hand_written_lists(design: str) -> None:
    variants = variants_of(design=design)
    expected = [(name, other, recipe_with(*options).digest) for name, other, options in BY_HAND[design]]
    assert described(variants) == expected
    assert [each.is_base for each in variants] == [True, *(False for _ in variants[1:])]
    assert {each.spec.digest for each in variants} == {zoo.get("resnet20").digest}
    assert all(each.also == () for each in variants)


def test_option_is_the_change_alone_and_omitted() -> None:
    variants = variants_of(design="alone-and-leave-one-out")[1:]
    assert [(each.change, each.is_omission) for each in variants] == [
        *((name, False) for name in (*ALL, "all")),
        *((name, True) for name in ALL),
    ]
    assert variants[2].settings == {"recipe.augmentation.crop_padding": 2, "recipe.label_smoothing": 0.1}


def test_options_and_factors_in_one_study() -> None:
    factors = {"recipe.momentum": [0.9, 0.8], "spec.kernel_sizes": [[5, 3]]}
    alone = variants_of(factors=factors)
    assert [each.name for each in alone] == ["base", "momentum=0.8", "kernel_sizes=5x3", *ALL]
    # The whole has all options, and levels are laid over the whole.
    out = variants_of(factors=factors, design="leave-one-out")
    assert [(each.name, each.compared_with) for each in out] == [
        ("all", ""),
        *((name, "all") for name in ("momentum=0.8", "kernel_sizes=5x3")),
        *((f"without {name}", "all") for name in ALL),
    ]
    assert out[1].recipe.digest == Recipe(**{**dict(recipe_with(*ALL)), "momentum": 0.8, "name": ""}).digest
    crossed = variants_of(factors={"recipe.momentum": [0.9, 0.8]}, design="full-factorial")
    assert len(crossed) == len({each.key for each in crossed}) == 2 * 2**3
    assert crossed[-1].name == "momentum=0.8, nesterov, one-cycle, mild"


def test_equal_variants_of_two_options_are_trained_once() -> None:
    options = {name: STUDY["options"][name] for name in ("nesterov", "mild")}
    study = AblationStudy.from_mapping(
        {**STUDY, "options": options, "design": "alone-and-leave-one-out", "seeds": [4, 7]}
    )
    variants = study.variants(**CIFAR)
    assert [(each.name, each.compared_with) for each in variants] == [
        ("base", ""),
        ("nesterov", "base"),
        ("mild", "base"),
        ("all", "base"),
        ("all without nesterov", "all"),
        ("all without mild", "all"),
    ]
    assert variants[4].key == variants[2].key
    # Four different recipes with two seeds, seed by seed.
    runs = planned_runs(study, variants)
    names = [("base",), ("nesterov",), ("mild",), ("nesterov", "mild")]
    digests = [recipe_with(*(part for part in each if part != "base")).digest for each in names]
    assert [(run.recipe.digest, run.seed) for run in runs] == [(digest, seed) for seed in (4, 7) for digest in digests]


def test_equal_options_are_one_variant_with_two_names() -> None:
    options = {**STUDY["options"], "look ahead": {"recipe.nesterov": "on"}}
    (same,) = [each for each in variants_of(options=options) if each.also]
    assert (same.name, same.also) == ("nesterov", ("look ahead",))


def test_options_may_overlap_where_none_are_combined() -> None:
    paid = {**STUDY["options"]["nesterov"], **STUDY["options"]["one-cycle"], "recipe.label_smoothing": 0.3}
    variants = variants_of(options={**STUDY["options"], "all that paid": paid})
    assert variants[-1].recipe == recipe_with("nesterov", "one-cycle").model_copy(update={"label_smoothing": 0.3})


def test_widths_of_all_options_are_refitted_and_compared_alike() -> None:
    options = {
        "wide": {"spec.channels": [32, 32, 64]},
        "deep": {"spec.blocks": 4},
        "nesterov": {"recipe.nesterov": True},
    }
    for fit, names in (
        (True, ["base", "wide, refitted", "deep, refitted", "nesterov", "all, refitted"]),
        ("both", ["base", "wide", "wide, refitted", "deep", "deep, refitted", "nesterov", "all", "all, refitted"]),
    ):
        variants = variants_of(options=options, design="alone-and-leave-one-out", fit=fit)
        assert [each.name for each in variants if each.compared_with in ("", "base")] == names
        for each in variants:
            if each.is_omission:
                assert each.compared_with == ("all, refitted" if each.refitted else "all")
                assert each.change.endswith(", refitted") is each.refitted
        base = zoo.get("resnet20").params
        assert all(0.97 * base < each.spec.params <= base for each in variants if each.refitted)


def test_study_of_options_is_stored_with_its_files(tmp_path: Path) -> None:
    NAMED["modern"].save(tmp_path / "how.yaml")
    path = tmp_path / "study.yaml"
    write_yaml(path, {**STUDY, "options": {"modern": {"recipe": "how.yaml"}, "wide": {"spec": "resnet56"}}})
    study = AblationStudy.load(path)
    assert [each.key for each in study.variants(**CIFAR)[1:]] == [
        (zoo.get("resnet20").digest, NAMED["modern"].digest),
        (zoo.get("resnet56").digest, BASE.digest),
    ]
    study.save(tmp_path / "copy.json")
    assert AblationStudy.load(tmp_path / "copy.json") == study


def test_digest_depends_on_comparisons() -> None:
    study = AblationStudy.from_mapping({**STUDY, "design": "alone-and-leave-one-out"})

    def digest(**changes: Any) -> str:
        return AblationStudy.from_mapping({**study.to_mapping(), **changes}).digest

    renamed = {name.upper(): settings for name, settings in reversed(STUDY["options"].items())}
    assert digest(options=renamed, name="other") == study.digest
    others = {digest(design=design) for design in BY_HAND} | {
        digest(options={**renamed, "x": {"recipe.weight_decay": 0}})
    }
    assert len(others) == 5
    # The same variants, each compared with the base: as a factorial of the same options, or option by option.
    every: dict[str, dict[str, Any]] = {name: {} for name, _, _ in BY_HAND["full-factorial"][1:]}
    for name, _, parts in BY_HAND["full-factorial"][1:]:
        for part in parts:
            every[name].update(STUDY["options"][part])
    named = {name.replace(", ", " and "): settings for name, settings in every.items()}
    assert digest(options=named, design="one-at-a-time") == digest(design="full-factorial")


@pytest.mark.parametrize("epochs", [20, 60])
def test_options_with_first_cycle_adapt_to_epochs(epochs: int) -> None:
    options = {
        **STUDY["options"],
        "short cycle": {"recipe.schedule.first_cycle": 15},
        "by itself": {"recipe.schedule": {"kind": "one-cycle"}},
        "longer": {"recipe.epochs": 40, "recipe.schedule.first_cycle": 40},
    }
    study = AblationStudy.from_mapping({**STUDY, "options": options}).with_epochs(epochs)
    found = {each.name: (each.recipe.epochs, each.recipe.schedule) for each in study.variants(**CIFAR)}
    # The base's one cycle spans the training; a named first cycle stays unless the training is shorter.
    assert found["base"] == found["mild"] == (epochs, Schedule(first_cycle=epochs))
    assert found["one-cycle"] == (epochs, Schedule(kind="one-cycle", first_cycle=epochs, warmup_fraction=0.2))
    assert found["by itself"] == (epochs, Schedule(kind="one-cycle", first_cycle=epochs))
    assert found["short cycle"] == (epochs, Schedule(first_cycle=min(15, epochs)))
    assert found["longer"] == (40, Schedule(first_cycle=40))
    with pytest.raises(InputError, match=r"^options.short cycle = .*: changes nothing in the base$"):
        AblationStudy.from_mapping({**STUDY, "options": options}).with_epochs(12)


@pytest.mark.parametrize(("epochs", "milestones"), [(30, (15, 22)), (60, (30, 44)), (4, (2, 3)), (1, ())])
def test_options_with_milestones_adapt_to_epochs(epochs: int, milestones: tuple[int, ...]) -> None:
    options = {
        "steps": {"recipe.schedule": {"kind": "steps", "milestones": [15, 22]}},
        "by path": {"recipe.schedule.kind": "steps", "recipe.schedule.milestones": [15, 22]},
        "plateau": {"recipe.schedule": {"kind": "plateau", "patience": 3}},
    }
    study = AblationStudy.from_mapping({**STUDY, "options": options}).with_epochs(epochs)
    found = {each.name: each for each in study.variants(**CIFAR)}
    for name in ("steps", "by path"):
        assert found[name].recipe.schedule.milestones == milestones
    assert found["plateau"].recipe.schedule.patience == 3


@pytest.mark.parametrize(
    ("epochs", "ends"), [(10, [3, 10]), (5, [2, 5]), (2, [1, 2]), (1, [1])], ids=["same", "half", "short", "one"]
)
def test_options_with_cycles_adapt_to_epochs(epochs: int, ends: list[int]) -> None:
    options = {
        "by path": {"recipe.schedule.cycles": [3, 7], "recipe.weight_decay": 0.0},
        "whole": {"recipe.schedule": {"cycles": [3, 7]}, "recipe.weight_decay": 0.1},
    }
    recipe = {"epochs": 10, "schedule": {"first_cycle": 10}}
    study = AblationStudy.from_mapping({**STUDY, "recipe": recipe, "options": options}).with_epochs(epochs)
    for each in study.variants(**CIFAR)[1:]:
        assert each.recipe.schedule.cycle_ends(epochs) == ends


def test_levels_with_first_cycle_adapt_to_epochs() -> None:
    level = {"kind": "one-cycle", "first_cycle": 30}
    study = AblationStudy.from_mapping({**STUDY, "options": {}, "factors": {"recipe.schedule": [level, "constant"]}})
    schedules = [each.recipe.schedule for each in study.with_epochs(4).variants(**CIFAR)]
    assert schedules[1:] == [Schedule(kind="one-cycle", first_cycle=4), Schedule(kind="constant", first_cycle=4)]


def test_levels_that_are_recipes_are_trained_for_the_epochs() -> None:
    study = AblationStudy.from_mapping({**STUDY, "options": {}, "factors": {"recipe": ["modern", "fast"]}})
    variants = study.with_epochs(4).variants(**CIFAR)
    assert [each.recipe.epochs for each in variants] == [4, 4, 4]
    assert [each.name for each in variants[1:]] == ["recipe=modern", "recipe=fast"]
    assert [each.recipe.schedule.first_cycle for each in variants[1:]] == [4, 4]
    option = {"longer": {"recipe": "modern", "recipe.epochs": 7}, "modern": {"recipe": "modern"}}
    mixed = AblationStudy.from_mapping({**STUDY, "options": option}).with_epochs(4)
    assert [each.recipe.epochs for each in mixed.variants(**CIFAR)] == [4, 7, 4]


def test_levels_that_become_equal_are_kept_once() -> None:
    factors = {"recipe.schedule.first_cycle": [5, 60, 75]}
    study = AblationStudy.from_mapping({**STUDY, "recipe": "paper", "options": {}, "factors": factors})
    variants = study.with_epochs(8).variants(**CIFAR)
    assert [each.recipe.schedule.first_cycle for each in variants] == [8, 5]


NESTEROV = {"recipe.nesterov": True}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            {"options": {}},
            "factors = {}: must be a mapping of paths to lists of levels, or a list of paths; or give opt",
        ),
        ({"options": [1]}, "options = [1]: must be a mapping of names to mappings of paths to values"),
        ({"options": {"a": {}}}, "options.a = {}: must be a mapping of paths to values"),
        ({"options": {"a": 3}}, "options.a = 3: must be a mapping of paths to values"),
        ({"options": {"base": NESTEROV}}, "options.base = {'recipe.nesterov': True}: is the name of a variant"),
        ({"options": {"all": NESTEROV}}, "options.all = {'recipe.nesterov': True}: is the name of a variant"),
        ({"options": {"a, b": NESTEROV}}, "options.'a, b' = {'recipe.nesterov': True}: must have a name of 1 to 48"),
        ({"options": {"": NESTEROV}}, "options.'' = {'recipe.nesterov': True}: must have a name of 1 to 48"),
        ({"options": {"x" * 49: NESTEROV}}, f"options.'{'x' * 49}' = {{'recipe.nesterov': True}}: must have a name"),
        (
            {"options": {"a": {"recipe.nestrov": True}}},
            "options.a.recipe.nestrov = True: unknown field; did you mean recipe.nesterov?",
        ),
        ({"options": {"a": {"recipe.momentum": 2}}}, "options.a.recipe.momentum = 2: must be less than 1 (in the vari"),
        (
            {"options": {"a b": {"recipe.schedule": {"kind": "one-cycle", "first_cycle": 3}}}},
            "options.a b.recipe.schedule.first_cycle = 3: must equal epochs (30)",
        ),
        (
            {"options": {"a": {"spec.kernel_sizes": 4}}},
            "options.a.spec.stages[0].kernel_sizes[0] = 4: must be an odd kernel size",
        ),
        (
            {"options": {"a": {"recipe": "papr"}}},
            "options.a.recipe = 'papr': no such recipe, and no such file; did you",
        ),
        (
            {"options": {"a": {"recipe.momentum": 0.9}}},
            "options.a = {'recipe.momentum': 0.9}: changes nothing in the base",
        ),
        (
            {"options": {"a": {"recipe.momentum": 0.8}, "b": {"recipe.momentum": 0.7}}, "design": "leave-one-out"},
            "options.b.recipe.momentum = 0.7: is set to another value by options.a, and this design combines them",
        ),
        (
            {
                "options": {"a": {"recipe.momentum": "off"}, "b": {"recipe.momentum": None, "recipe.epochs": 3}},
                "design": "leave-one-out",
            },
            "options.a = {'recipe.momentum': False}: changes nothing: all options together are the same",
        ),
        (
            {"options": {"a": {"recipe.momentum": "off"}, "b": {"recipe.nesterov": True}}, "design": "leave-one-out"},
            "options.b.recipe.nesterov = True: needs a momentum above 0 (in the variant all)",
        ),
        (
            {"options": {"a": NESTEROV}, "design": "alone-and-leave-one-out"},
            "options = ['a']: must be at least two with this design",
        ),
        (
            {"factors": {"recipe.momentum": [0.8]}, "design": "alone-and-leave-one-out"},
            "factors = ['recipe.momentum']: must not be given with this design: it is for options only",
        ),
        (
            {"factors": {"recipe.nesterov": ["on", "off"]}, "design": "full-factorial"},
            "options.nesterov.recipe.nesterov = True: is set by a factor as well",
        ),
        (
            {"options": {"a": {"recipe.split_seed": 1}}},
            "recipe.split_seed = 1: would evaluate the variant a on other images than the base: set judged_on: test",
        ),
        (
            {"options": {"momentum=0.8": NESTEROV}, "factors": {"recipe.momentum": [0.8]}},
            "options = 'momentum=0.8': is the name of two variants",
        ),
        (
            {"options": {f"a{i}": {"recipe.momentum": 0.1 + i / 100} for i in range(10)}, "design": "leave-one-out"},
            "options.a1.recipe.momentum = 0.11: is set to another value by options.a0",
        ),
        (
            {"options": {f"a{i}": {f"spec.stages[{i}].blocks": 1} for i in range(10)}, "design": "full-factorial"},
            "options = 1024: must give at most 1,000 variants",
        ),
    ],
)
def test_invalid_option_gives_one_line(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        AblationStudy.from_mapping({**STUDY, **fields})
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_a_spec_in_an_option_keeps_its_name() -> None:
    spec = {**ModelSpec.resnet(channels=[8, 16]).to_mapping(), "name": "small"}
    variant = variants_of(options={"smaller": {"spec": spec, "recipe.nesterov": True}})[1]
    assert (variant.spec.name, variant.recipe.digest) == ("small", recipe_with("nesterov").digest)
    assert variant.settings == {"spec": "small", "recipe.nesterov": True}


def test_option_invalid_for_the_images_raises_before_training() -> None:
    mapping = {**STUDY, "options": {"small": {"recipe.resizing": {"start": 16}}}, "design": "one-at-a-time"}
    study = AblationStudy.from_mapping(mapping)
    study.variants(input_shape=(1, 16, 16), num_classes=10)
    with pytest.raises(InputError) as caught:
        study.variants(input_shape=(1, 8, 8), num_classes=10)
    assert str(caught.value).endswith("must be at most the image size, 8 (in the variant small)")
