"""Settings of fields that others depend on: what adapts, what is reset and what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.levels import read_level
from budgetnet.experiments.ablation.overrides import Setup, override
from budgetnet.model import zoo
from budgetnet.model.parts import Shortcut, Stem
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import Augmentation, Mixing, Policy
from budgetnet.runs.named_recipes import NAMED
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import Schedule

PAPER = Setup(zoo.get("reference"), NAMED["paper"])


def set_at(base: Setup, **settings: Any) -> Setup:
    """Settings by path, with a double underscore for each dot."""
    paths = {path.replace("__", "."): level for path, level in settings.items()}
    return override(base, {path: read_level(path, level) for path, level in paths.items()})


def test_a_list_of_blocks_keeps_what_the_bottlenecks_among_them_have() -> None:
    base = Setup(ModelSpec.resnet(channels=[16, 32], block="bottleneck", bottleneck_ratio=0.5), NAMED["paper"])
    changed = override(base, {"spec.block": ["basic", "bottleneck"]})
    assert changed.spec.block_settings[1].ratio == 0.5
    assert override(base, {"spec.block": "preact"}).spec == ModelSpec.resnet(channels=[16, 32], block="preact")
    plain = base._replace(spec=base.spec.replace(block_activation=False))
    assert override(plain, {"spec.block": ["preact", "preact-bottleneck"]}).spec.block_activation
    expanding = base._replace(spec=base.spec.replace(equal_expansion=False))
    assert not override(expanding, {"spec.block": ["basic", "bottleneck"]}).spec.equal_expansion
    assert override(expanding, {"spec.block": "basic"}).spec.equal_expansion


def test_a_stem_without_pooling_has_no_stride_of_it() -> None:
    stem = Stem(channels=8, pool_size=4, pool_stride=4)
    base = Setup(ModelSpec.resnet(channels=[8, 16], stem=stem), NAMED["paper"])
    assert override(base, {"spec.stem.pool_size": False}).spec.stem == Stem(channels=8)


def test_optimiser_is_set_by_its_kind_and_what_it_does_not_use_is_reset() -> None:
    base = set_at(PAPER, recipe__momentum=0.8, recipe__nesterov=True)
    changed = set_at(base, recipe__optimizer="adamw").recipe
    assert (changed.optimizer.kind, changed.momentum, changed.nesterov) == ("adamw", 0.9, False)
    tuned = set_at(base, recipe__optimizer={"kind": "adam", "betas": [0.8, 0.9], "epsilon": 1e-6})
    assert set_at(tuned, recipe__optimizer="adamw").recipe.optimizer.betas == (0.8, 0.9)
    assert set_at(tuned, recipe__optimizer="sgd").recipe.optimizer == Recipe().optimizer
    with pytest.raises(InputError, match=r"^recipe.momentum = 0.8: must be omitted for adamw"):
        set_at(base, recipe__optimizer="adamw", recipe__momentum=0.8)
    with pytest.raises(InputError, match=r"^recipe\.nesterov = True: needs a momentum above 0$"):
        set_at(base, recipe__momentum="off", recipe__nesterov="on")


STEPS = {"kind": "steps", "milestones": [75, 112], "factor": 0.2}


@pytest.mark.parametrize(
    ("settings", "kind", "milestones"),
    [
        ({"recipe__epochs": 20}, "steps", (10, 15)),
        ({"recipe__epochs": 20, "recipe__schedule__milestones": [3]}, "steps", (3,)),
        ({"recipe__schedule": "cosine-restarts"}, "cosine-restarts", None),
        ({"recipe__schedule": "off"}, "constant", None),
        ({"recipe__schedule__kind": "plateau", "recipe__epochs": 20}, "plateau", None),
        ({"recipe__schedule": {**STEPS, "milestones": [140]}}, "steps", (140,)),
    ],
)
def test_milestones_adapt_to_epochs_and_schedule(
    settings: dict[str, Any], kind: str, milestones: tuple[int, ...] | None
) -> None:
    base = Setup(PAPER.spec, Recipe.from_mapping({"epochs": 150, "schedule": STEPS}))
    schedule = set_at(base, **settings).recipe.schedule
    assert (schedule.kind, schedule.milestones, schedule.factor) == (kind, milestones, 0.2)


@pytest.mark.parametrize(
    ("base", "settings", "schedule"),
    [
        # (kind, epochs, first cycle) that come of it.
        ({"epochs": 150}, {"recipe__schedule": "one-cycle"}, ("one-cycle", 150, 150)),
        ({"epochs": 150}, {"recipe__epochs": 30}, ("cosine-restarts", 30, 30)),
        ({"epochs": 150}, {"recipe__epochs": 120}, ("cosine-restarts", 120, 120)),
        ({"epochs": 150}, {"recipe__epochs": 30, "recipe__schedule": "one-cycle"}, ("one-cycle", 30, 30)),
        ({"epochs": 150}, {"recipe__epochs": 30, "recipe__schedule__first_cycle": 50}, ("cosine-restarts", 30, 50)),
        (
            {"epochs": 150},
            {"recipe__epochs": 30, "recipe__schedule": {"first_cycle": 100}},
            ("cosine-restarts", 30, 100),
        ),
        ({"epochs": 150}, {"recipe": "modern", "recipe__epochs": 12}, ("one-cycle", 12, 12)),
        (
            {"epochs": 60, "schedule": {"kind": "one-cycle", "first_cycle": 60}},
            {"recipe__schedule": "cosine-restarts"},
            ("cosine-restarts", 60, 60),
        ),
        (
            {"epochs": 60, "schedule": {"kind": "constant"}},
            {"recipe__schedule": "cosine-restarts"},
            ("cosine-restarts", 60, 60),
        ),
        # What the base has stays as it is, though a cycle outlasts the training.
        ({"epochs": 60}, {"recipe__schedule": "cosine-restarts"}, ("cosine-restarts", 60, 100)),
        ({"epochs": 60}, {"recipe__momentum": 0.5}, ("cosine-restarts", 60, 100)),
    ],
)
def test_first_cycle_adapts_to_epochs_and_schedule(
    base: dict[str, Any], settings: dict[str, Any], schedule: tuple[str, int, int]
) -> None:
    recipe = set_at(Setup(PAPER.spec, Recipe.from_mapping(base)), **settings).recipe
    assert (recipe.schedule.kind, recipe.epochs, recipe.schedule.first_cycle) == schedule


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({"recipe__weight_decay": 0.1}, [1, 4, 9, 20]),
        ({"recipe__schedule__first_cycle": 5}, [5, 15]),
        ({"recipe__schedule__first_cycle": 1}, [1, 3, 7, 15]),
        ({"recipe__schedule": {"first_cycle": 10, "cycle_factor": 2}}, [10]),
        ({"recipe__schedule__cycle_factor": 3}, [2, 8]),
        ({"recipe__schedule__first_cycle": 5, "recipe__schedule__cycles": [8, 12]}, [8, 20]),
        ({"recipe__schedule": {"first_cycle": 5, "cycles": [1, 3, 5, 11]}}, [1, 4, 9, 20]),
    ],
)
def test_a_first_cycle_or_cycle_factor_replaces_inherited_cycles(settings: dict[str, Any], ends: list[int]) -> None:
    # The cycles of 2, 4, 8 and 16 epochs of this recipe are rounded to 1, 3, 5 and 11.
    base = Setup(PAPER.spec, NAMED["search"].with_epochs(20))
    assert base.recipe.schedule.cycle_ends(20) == [1, 4, 9, 20]
    assert set_at(base, **settings).recipe.schedule.cycle_ends(20) == ends


def test_string_sets_the_kind_and_keeps_other_fields() -> None:
    base = Setup(
        ModelSpec.resnet(channels=[8, 16], shortcut=Shortcut(kind="projection", kernel_size=3)),
        Recipe(augmentation=Augmentation(policy=Policy(magnitude=5)), schedule=Schedule(minimum=0.001)),
    )
    augmentation = set_at(base, recipe__augmentation__policy="rand-augment").recipe.augmentation
    assert augmentation.policy == Policy(kind="rand-augment", magnitude=5)
    assert set_at(base, recipe__schedule="constant").recipe.schedule == Schedule(kind="constant", minimum=0.001)
    assert set_at(base, spec__shortcut="average-pool").spec.shortcut == Shortcut(kind="average-pool", kernel_size=3)
    assert set_at(base, spec__shortcut="padding").spec.shortcut == Shortcut(kind="padding")
    # Where there is none yet, the rest are defaults.
    assert set_at(PAPER, recipe__augmentation__mixing="cutmix").recipe.augmentation.mixing == Mixing(kind="cutmix")


@pytest.mark.parametrize(("block", "kept"), [("basic", "input"), ("bottleneck", "inner")])
def test_squeezed_channels_are_reset_only_where_they_are_invalid(block: str, kept: str) -> None:
    spec = ModelSpec.resnet(channels=[8, 8], block=block, squeeze_excitation_ratio=0.5)
    spec = spec.replace(squeeze_excitation={"ratio_of": kept})
    base = Setup(spec, NAMED["paper"])
    # One stage fewer has the same kinds of block.
    one = override(base, {"spec.stages": [stage.model_dump() for stage in spec.stages[:1]]}).spec
    assert one.squeeze_excitation.ratio_of == kept
    other = "preact" if block == "basic" else "basic"
    changed = set_at(base, spec__block=other).spec.squeeze_excitation.ratio_of
    assert changed == ("input" if block == "basic" else "output")


MIXED = Setup(
    ModelSpec.resnet(
        channels=[16, 32, 64],
        block=["basic", "bottleneck", "bottleneck"],
        bottleneck_ratio=[None, 0.5, 4],
        group_width=[None, 8, 1],
        squeeze_excitation_ratio=[0, 0.25, 0.25],
        shortcut=["padding", {"kind": "projection", "kernel_size": 3}, "identity"],
        activation=["relu", "silu", "silu"],
    ),
    NAMED["paper"],
)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"spec.activation": "gelu"}, {"activation": "gelu"}),
        ({"spec.activation": ["gelu", "silu", "relu"]}, {"activation": ["gelu", "silu", "relu"]}),
        (
            {"spec.activation": ["gelu"] * 3, "spec.stages[1].activation": "relu"},
            {"activation": ["gelu", "relu", "gelu"]},
        ),
        ({"spec.shortcut": "identity"}, {"shortcut": "identity"}),
        (
            {"spec.shortcut.kind": "identity"},
            {"shortcut": "identity"},
        ),
        ({"spec.stages[1].shortcut": "none"}, {"shortcut": ["padding", "none", "identity"]}),
        ({"spec.squeeze_excitation_ratio": False}, {"squeeze_excitation_ratio": None}),
        ({"spec.squeeze_excitation_ratio": True}, {}),
        ({"spec.bottleneck_ratio": [None, 2, 2]}, {"bottleneck_ratio": [None, 2, 2]}),
        ({"spec.block": "basic"}, {"block": "basic", "bottleneck_ratio": None, "group_width": None}),
        (
            {"spec.block": ["bottleneck", "preact", "bottleneck"]},
            {
                "block": ["bottleneck", "preact", "bottleneck"],
                "bottleneck_ratio": [None, None, 4],
                "group_width": [None, None, 1],
            },
        ),
        (
            {"spec.stages[1].block": "preact"},
            {
                "block": ["basic", "preact", "bottleneck"],
                "bottleneck_ratio": [None, None, 4],
                "group_width": [None, None, 1],
            },
        ),
    ],
)
def test_fields_of_blocks_are_set_in_all_stages(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    levels = {path: read_level(path, level) for path, level in settings.items()}
    assert override(MIXED, levels).spec.digest == MIXED.spec.replace(**changes).digest
