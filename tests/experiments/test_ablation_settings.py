"""Settings that override a base: paths, and components on and off, against edits by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import many_examples, specs

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.levels import REMOVED, read_level
from budgetnet.experiments.ablation.overrides import Setup, override
from budgetnet.experiments.ablation.paths import pattern_of
from budgetnet.model import zoo
from budgetnet.model.parts import Head, Shortcut, Stem
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import Augmentation, ColorJitter, ExampleFilter, Mixing, Policy, Resizing
from budgetnet.runs.named_recipes import NAMED
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import EarlyStopping, Lookahead, Muon, Schedule

PAPER = Setup(zoo.get("reference"), NAMED["paper"])
EVERYTHING = Setup(
    ModelSpec.resnet(
        channels=[8, 16, 32],
        stem=Stem(channels=8, whitening=2, inner_channels=(4,), squeeze_excitation_ratio=0.5, pool_size=3),
        groups=4,
        squeeze_excitation_ratio=0.25,
        shortcut=Shortcut(kind="projection", kernel_size=3),
        head=Head(dropout=0.2, scale=0.125, channels=64, pool_size=2),
        downsampling="max-pool",
        block_dropout=0.1,
        conv_bias=True,
    ),
    Recipe(
        nesterov=True,
        label_smoothing=0.1,
        epochs=20,
        schedule=Schedule(kind="one-cycle", first_cycle=20, minimum=1e-4),
        augmentation=Augmentation(
            alternating_flip=True,
            policy=Policy(),
            cutout=8,
            mixing=Mixing(),
            padding_mode="reflect",
            color_jitter=ColorJitter(hue=0.1),
        ),
        weight_average=0.98,
        class_weights="balanced",
        test_time_flip=True,
        norm_bias_rate=64,
        freeze_norm_scales=True,
        lookahead=Lookahead(),
        muon=Muon(),
        test_time_shifts=True,
        resizing=Resizing(),
        example_filter=ExampleFilter(),
        gradient_clipping=1,
        stochastic_depth=0.1,
    ),
)
"""A base with every component."""


Edit = tuple[str, Any, Callable[[dict[str, Any]], Any]]


@st.composite
def edits(draw: st.DrawFn, spec: ModelSpec) -> Edit:
    """A path, a level that may or may not be valid there, and the same edit by hand."""
    count = len(spec.stages)
    index = draw(st.integers(0, count - 1))
    number = draw(st.integers(0, 9))
    odd = draw(st.sampled_from([1, 2, 3, 5]))
    word = draw(st.sampled_from(["basic", "silu", "max", "none", "projection"]))
    many = draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))

    def each(mapping: dict[str, Any], field: str, values: list[Any]) -> None:
        for stage, value in zip(mapping["stages"], values, strict=True):
            stage[field] = value

    def everywhere(mapping: dict[str, Any], field: str, value: Any) -> None:
        """Set a field of the network, in place of what stages have of their own."""
        mapping[field] = value
        for stage in mapping["stages"]:
            stage.pop(field, None)

    def shortcuts(mapping: dict[str, Any]) -> None:
        for document in (mapping, *mapping["stages"]):
            if document.get("shortcut") is not None:
                document["shortcut"]["kernel_size"] = odd

    known: list[Edit] = [
        (f"spec.stages[{index}].channels", number, lambda m: m["stages"][index].update(channels=number)),
        (f"spec.stages[{index}].blocks", number, lambda m: m["stages"][index].update(blocks=number)),
        (f"spec.stages[{index}].stride", number, lambda m: m["stages"][index].update(stride=number)),
        (f"spec.stages[{index}].kernel_sizes", [odd, 3], lambda m: m["stages"][index].update(kernel_sizes=[odd, 3])),
        (
            f"spec.stages[{index}].kernel_sizes[1]",
            odd,
            lambda m: m["stages"][index]["kernel_sizes"].__setitem__(1, odd),
        ),
        (f"spec.stages[{index}]", False, lambda m: m["stages"].pop(index)),
        ("spec.channels", many, lambda m: each(m, "channels", many)),
        ("spec.blocks", number, lambda m: each(m, "blocks", [number] * count)),
        ("spec.strides", many, lambda m: each(m, "stride", many)),
        ("spec.kernel_sizes", [odd, 1], lambda m: each(m, "kernel_sizes", [[odd, 1]] * count)),
        ("spec.stem.channels", number, lambda m: m["stem"].update(channels=number)),
        ("spec.groups", number, lambda m: everywhere(m, "groups", number)),
        ("spec.activation", word, lambda m: everywhere(m, "activation", word)),
        ("spec.head.pooling", word, lambda m: m["head"].update(pooling=word)),
        ("spec.shortcut.kernel_size", odd, shortcuts),
    ]
    return draw(st.sampled_from(known))


@many_examples
@given(st.data())
def test_setting_equals_edit_by_hand(data: st.DataObject) -> None:
    spec = data.draw(specs())
    path, level, edit = data.draw(edits(spec))
    mapping = spec.to_mapping()
    edit(mapping)
    base = Setup(spec, NAMED["paper"])
    try:
        expected = ModelSpec.from_mapping(mapping)
    except InputError as error:
        with pytest.raises(InputError) as caught:
            override(base, {path: level})
        assert str(caught.value) == f"spec.{error}"
        return
    changed = override(base, {path: level})
    assert changed.spec.digest == expected.digest
    assert changed.spec.name == (spec.name if expected.digest == spec.digest else "")
    assert changed.recipe is base.recipe


AUGMENTATION: dict[str, Any] = {
    "alternating_flip": True,
    "policy": {},
    "cutout": 8,
    "mixing": {},
    "padding_mode": "reflect",
    "color_jitter": {"hue": 0.1},
}
"""Augmentation of `EVERYTHING`."""
STEM: dict[str, Any] = {
    "channels": 8,
    "whitening": 2,
    "inner_channels": [4],
    "squeeze_excitation_ratio": 0.5,
    "pool_size": 3,
}
HEAD: dict[str, Any] = {"dropout": 0.2, "scale": 0.125, "channels": 64, "pool_size": 2}
"""Stem and head of `EVERYTHING`."""
WITHOUT: dict[str, dict[str, Any]] = {
    "spec.stem.whitening": {"stem": {**STEM, "whitening": None}},
    "spec.stem.inner_channels": {"stem": {**STEM, "inner_channels": []}},
    "spec.stem.squeeze_excitation_ratio": {"stem": {**STEM, "squeeze_excitation_ratio": None}},
    "spec.stem.pool_size": {"stem": {**STEM, "pool_size": None}},
    "spec.downsampling": {"downsampling": "stride"},
    "spec.groups": {"groups": 1},
    "spec.block_dropout": {"block_dropout": 0},
    "spec.conv_bias": {"conv_bias": False},
    "spec.squeeze_excitation_ratio": {"squeeze_excitation_ratio": None},
    "spec.shortcut": {"shortcut": {"kind": "none", "kernel_size": 1}},
    "spec.head.dropout": {"head": {**HEAD, "dropout": 0}},
    "spec.head.scale": {"head": {**HEAD, "scale": 1}},
    "spec.head.channels": {"head": {**HEAD, "channels": None}},
    "spec.head.pool_size": {"head": {**HEAD, "pool_size": None}},
    "recipe.momentum": {"momentum": 0, "nesterov": False},
    "recipe.weight_decay": {"weight_decay": 0},
    "recipe.nesterov": {"nesterov": False},
    "recipe.label_smoothing": {"label_smoothing": 0},
    "recipe.schedule": {"schedule": {"kind": "constant", "first_cycle": 20, "minimum": 1e-4}},
    "recipe.schedule.minimum": {"schedule": {"kind": "one-cycle", "first_cycle": 20}},
    "recipe.schedule.warmup_fraction": {
        "schedule": {"kind": "one-cycle", "first_cycle": 20, "minimum": 1e-4, "warmup_fraction": 0}
    },
    "recipe.class_weights": {"class_weights": None},
    "recipe.early_stopping": {"early_stopping": None},
    "recipe.augmentation": {"augmentation": {"crop_padding": 0, "flip": False}},
    "recipe.augmentation.crop_padding": {"augmentation": {**AUGMENTATION, "crop_padding": 0}},
    "recipe.augmentation.flip": {"augmentation": {**AUGMENTATION, "flip": False, "alternating_flip": False}},
    "recipe.augmentation.alternating_flip": {"augmentation": {**AUGMENTATION, "alternating_flip": False}},
    "recipe.augmentation.policy": {"augmentation": {**AUGMENTATION, "policy": None}},
    "recipe.augmentation.cutout": {"augmentation": {**AUGMENTATION, "cutout": 0}},
    "recipe.augmentation.mixing": {"augmentation": {**AUGMENTATION, "mixing": None}},
    "recipe.augmentation.padding_mode": {"augmentation": {**AUGMENTATION, "padding_mode": "zeros"}},
    "recipe.augmentation.color_jitter": {"augmentation": {**AUGMENTATION, "color_jitter": None}},
    "recipe.weight_average": {"weight_average": None},
    "recipe.gradient_clipping": {"gradient_clipping": None},
    "recipe.stochastic_depth": {"stochastic_depth": 0},
    "recipe.norm_bias_rate": {"norm_bias_rate": 1},
    "recipe.freeze_norm_scales": {"freeze_norm_scales": False},
    "recipe.lookahead": {"lookahead": None},
    "recipe.muon": {"muon": None},
    "recipe.test_time_flip": {"test_time_flip": False, "test_time_shifts": False},
    "recipe.test_time_shifts": {"test_time_shifts": False},
    "recipe.resizing": {"resizing": None},
    "recipe.example_filter": {"example_filter": None},
}
"""`EVERYTHING` without each component, written by hand."""


@pytest.mark.parametrize("level", ["off", False, None])
@pytest.mark.parametrize("path", WITHOUT)
def test_off_removes_a_component_and_on_keeps_it(path: str, level: Any) -> None:
    kind, base = path.partition(".")[0], EVERYTHING
    document = base.spec if kind == "spec" else base.recipe
    expected = type(document).from_mapping({**document.to_mapping(), **WITHOUT[path]})
    changed = override(base, {path: read_level(path, level)})
    result, other = (changed.spec, changed.recipe)[:: 1 if kind == "spec" else -1]
    assert result.digest == expected.digest != document.digest
    assert other is (base.recipe if kind == "spec" else base.spec)
    assert override(base, {path: read_level(path, "on")}) == base
    # What is gone cannot be had by saying on, unless it is a plain yes or no.
    if document.to_mapping().get(path.rpartition(".")[2]) is not True and "flip" not in path and "shifts" not in path:
        with pytest.raises(InputError, match="on': is not in the base: give the value to set"):
            override(changed, {path: True})


def test_fields_that_are_true_or_false_take_both() -> None:
    paths = ("spec.block_activation", "spec.stem.bias", "spec.stem.norm", "spec.head.norm", "spec.shortcut.norm")
    for path in (*paths, "spec.squeeze_excitation.bias"):
        digests = {override(EVERYTHING, {path: read_level(path, level)}).spec.digest for level in ("on", "off")}
        assert len(digests) == 2


def test_every_removable_component_is_tested() -> None:
    assert {*WITHOUT, "spec.stages[]"} == REMOVED.keys()
    assert REMOVED["recipe.augmentation"].keys() == Augmentation.model_fields.keys()
    assert all(pattern_of(path) == path for path in REMOVED)


@pytest.mark.parametrize("activation", ["gelu", ["gelu", "silu"]])
def test_fields_of_blocks_are_set_in_the_stages_of_the_same_settings(activation: object) -> None:
    levels = {
        "spec.activation": read_level("spec.activation", activation),
        "spec.stages": read_level("spec.stages", [{"channels": 16, "activation": "relu"}, {"channels": 32}]),
    }
    backwards = dict(reversed(levels.items()))
    expected = ModelSpec.resnet(channels=[16, 32], blocks=[1, 1], activation=activation)
    for settings in (levels, backwards):
        found = override(PAPER, settings).spec
        assert [each.activation for each in found.block_settings] == [
            each.activation for each in expected.block_settings
        ]
        assert len(found.stages) == 2


def test_stages_are_removed_by_the_indexes_of_the_base() -> None:
    settings = {"spec.stages[1]": False, "spec.stages[3]": False, "spec.stages[4].channels": 99}
    spec = override(PAPER, settings).spec
    assert [(stage.channels, stage.blocks, stage.stride) for stage in spec.stages] == [
        (64, 2, 1),
        (128, 1, 2),
        (99, 1, 2),
    ]


def test_narrower_paths_override_in_any_order() -> None:
    settings = {
        "spec.stages[1].channels": 24,
        "spec.channels": [8, 16],
        "spec.stages": [{"channels": 1}, {"channels": 2}],
        "spec": zoo.get("resnet20"),
        "spec.shortcut": "projection",
    }
    for ordered in (settings, dict(reversed(settings.items()))):
        spec = override(PAPER, ordered).spec
        assert ([stage.channels for stage in spec.stages], spec.stem.channels) == ([8, 24], 16)
        assert spec.shortcut.kind == "projection"


def test_whole_documents_keep_their_names() -> None:
    changed = override(PAPER, {"spec": zoo.get("resnet20"), "recipe": NAMED["modern"]})
    assert changed == Setup(zoo.get("resnet20"), NAMED["modern"])


def test_levels_are_copied() -> None:
    level = {"patience": 3}
    settings = {"recipe.early_stopping": level, "recipe.early_stopping.patience": 5}
    assert override(PAPER, settings).recipe.early_stopping == EarlyStopping(patience=5)
    assert level == {"patience": 3}
