"""Settings that override a base: paths, on and off, dependent fields and errors, against edits by hand."""

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


def set_at(base: Setup, **settings: Any) -> Setup:
    """Settings by path, with a double underscore for each dot."""
    paths = {path.replace("__", "."): level for path, level in settings.items()}
    return override(base, {path: read_level(path, level) for path, level in paths.items()})


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


def test_a_list_of_blocks_keeps_what_the_bottlenecks_among_them_have() -> None:
    base = Setup(ModelSpec.resnet(channels=[16, 32], block="bottleneck", bottleneck_ratio=0.5), NAMED["paper"])
    changed = override(base, {"spec.block": ["basic", "bottleneck"]})
    assert changed.spec.block_settings[1].ratio == 0.5
    plain = base._replace(spec=base.spec.replace(block_activation=False))
    assert override(plain, {"spec.block": ["preact", "preact-bottleneck"]}).spec.block_activation
    expanding = base._replace(spec=base.spec.replace(equal_expansion=False))
    assert not override(expanding, {"spec.block": ["basic", "bottleneck"]}).spec.equal_expansion
    assert override(expanding, {"spec.block": "basic"}).spec.equal_expansion


def test_a_stem_without_pooling_has_no_stride_of_it() -> None:
    stem = Stem(channels=8, pool_size=4, pool_stride=4)
    base = Setup(ModelSpec.resnet(channels=[8, 16], stem=stem), NAMED["paper"])
    assert override(base, {"spec.stem.pool_size": False}).spec.stem == Stem(channels=8)


def test_fields_that_are_true_or_false_take_both() -> None:
    paths = ("spec.block_activation", "spec.stem.bias", "spec.stem.norm", "spec.head.norm", "spec.shortcut.norm")
    for path in (*paths, "spec.squeeze_excitation.bias"):
        digests = {override(EVERYTHING, {path: read_level(path, level)}).spec.digest for level in ("on", "off")}
        assert len(digests) == 2


def test_every_removable_component_is_tested() -> None:
    assert {*WITHOUT, "spec.stages[]"} == REMOVED.keys()
    assert REMOVED["recipe.augmentation"].keys() == Augmentation.model_fields.keys()
    assert all(pattern_of(path) == path for path in REMOVED)


def test_stages_are_removed_by_the_indexes_of_the_base() -> None:
    settings = {"spec.stages[1]": False, "spec.stages[3]": False, "spec.stages[4].channels": 99}
    spec = override(PAPER, settings).spec
    assert [(stage.channels, stage.blocks, stage.stride) for stage in spec.stages] == [
        (64, 2, 1),
        (128, 1, 2),
        (99, 1, 2),
    ]


def test_optimiser_is_set_by_its_kind_and_what_it_does_not_use_is_reset() -> None:
    base = set_at(PAPER, recipe__momentum=0.8, recipe__nesterov=True)
    changed = set_at(base, recipe__optimizer="adamw").recipe
    assert (changed.optimizer.kind, changed.momentum, changed.nesterov) == ("adamw", 0.9, False)
    tuned = set_at(base, recipe__optimizer={"kind": "adam", "betas": [0.8, 0.9], "epsilon": 1e-6})
    assert set_at(tuned, recipe__optimizer="adamw").recipe.optimizer.betas == (0.8, 0.9)
    assert set_at(tuned, recipe__optimizer="sgd").recipe.optimizer == Recipe().optimizer
    with pytest.raises(InputError, match=r"^recipe.momentum = 0.8: must be omitted for adamw"):
        set_at(base, recipe__optimizer="adamw", recipe__momentum=0.8)


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


def test_string_sets_the_kind_and_keeps_other_fields() -> None:
    base = Setup(
        EVERYTHING.spec,
        Recipe(augmentation=Augmentation(policy=Policy(magnitude=5)), schedule=Schedule(minimum=0.001)),
    )
    augmentation = set_at(base, recipe__augmentation__policy="rand-augment").recipe.augmentation
    assert augmentation.policy == Policy(kind="rand-augment", magnitude=5)
    assert set_at(base, recipe__schedule="constant").recipe.schedule == Schedule(kind="constant", minimum=0.001)
    assert set_at(base, spec__shortcut="average-pool").spec.shortcut == Shortcut(kind="average-pool", kernel_size=3)
    assert set_at(base, spec__shortcut="padding").spec.shortcut == Shortcut(kind="padding")
    # Where there is none yet, the rest are defaults.
    assert set_at(PAPER, recipe__augmentation__mixing="cutmix").recipe.augmentation.mixing == Mixing(kind="cutmix")


def test_bottleneck_ratio_is_reset_without_bottleneck() -> None:
    base = Setup(ModelSpec.resnet(channels=[8], block="bottleneck", bottleneck_ratio=0.5), NAMED["paper"])
    assert set_at(base, spec__block="preact").spec == ModelSpec.resnet(channels=[8], block="preact")


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


def test_fields_named_by_settings_are_not_reset() -> None:
    with pytest.raises(InputError, match=r"^recipe\.nesterov = True: needs a momentum above 0$"):
        set_at(EVERYTHING, recipe__momentum="off", recipe__nesterov="on")


def test_levels_are_copied() -> None:
    level = {"patience": 3}
    settings = {"recipe.early_stopping": level, "recipe.early_stopping.patience": 5}
    assert override(PAPER, settings).recipe.early_stopping == EarlyStopping(patience=5)
    assert level == {"patience": 3}


@pytest.mark.parametrize(
    ("path", "level", "complaint"),
    [
        ("recipe.scheduel", 1, "recipe.scheduel = 1: unknown field; did you mean recipe.schedule?"),
        ("kernel_sizes", 3, "kernel_sizes = 3: unknown field; did you mean spec.kernel_sizes?"),
        (
            "spec.stages[4].chanels",
            8,
            "spec.stages[4].chanels = 8: unknown field; did you mean spec.stages[4].channels?",
        ),
        ("spec.stage.channels", 8, "spec.stage.channels = 8: unknown field; did you mean spec.stages[0].channels?"),
        ("spec.stages[x]", 8, "spec.stages[x] = 8: unknown field; did you mean spec.stages[0]?"),
        (
            "spec.stages.4.channels",
            8,
            "spec.stages.4.channels = 8: unknown field; did you mean spec.stages[0].channels?",
        ),
        ("wat", 8, "wat = 8: unknown field; a path is spec or recipe and their fields, as in spec.stages[4].channels"),
        ("", 8, "'' = 8: unknown field; a path is spec or recipe and their fields"),
        ("spec.block\n", 8, "'spec.block\\n' = 8: unknown field; did you mean spec.block?"),
        ("spec.name", "x", "spec.name = 'x': cannot be varied: it is a label and changes nothing"),
        ("recipe.schema_version", 1, "recipe.schema_version = 1: cannot be varied: it is that of the format"),
        ("spec.input_shape[1]", 8, "spec.input_shape[1] = 8: cannot be varied: it is that of the data"),
        ("spec.num_classes", 8, "spec.num_classes = 8: cannot be varied: it is that of the data"),
        ("spec", "refrence", "spec = 'refrence': no such network, and no such file; did you mean reference?"),
        ("recipe", "papr", "recipe = 'papr': no such recipe, and no such file; did you mean paper?"),
        ("spec", 3, "spec = 3: must be a name, or a mapping of fields"),
        ("spec", {"stages": [{"channels": 0}]}, "spec.stages[0].channels = 0: must be at least 1"),
        ("spec.stages[5].channels", 8, "spec.stages[5].channels = 8: does not exist: spec.stages has 5 entries"),
        ("spec.stages[5]", False, "spec.stages[5] = 'off': does not exist: spec.stages has 5 entries, counted from 0"),
        ("spec.kernel_sizes", [3, 4], "spec.stages[0].kernel_sizes[1] = 4: must be an odd kernel size"),
        ("spec.channels", [1, 2], "spec.channels = [1, 2]: must have one entry for each of the 5 stages"),
        ("spec.groups", 3, "spec.groups = 3: must divide the 64 input channels of stages[0]"),
        ("spec.block", "wide", "spec.block = 'wide': must be 'basic', 'preact', 'bottleneck' or 'preact-bottleneck'"),
        ("spec.block", "bottleneck", "spec.stages[0].kernel_sizes = [5, 3]: must be equal for bottleneck blocks"),
        ("spec.activation", "off", "spec.activation = 'off': cannot be removed: give a value"),
        ("spec.activation", None, "spec.activation = None: cannot be removed: give a value"),
        ("spec.kernel_sizes", "on", "spec.kernel_sizes = 'on': cannot be switched on: give a value"),
        ("spec.groups", "on", "spec.groups = 'on': is not in the base: give the value to set"),
        (
            "recipe.weight_average",
            "on",
            "recipe.weight_average = 'on': is not in the base: give the value to set",
        ),
        ("recipe.schedule", "step", "recipe.schedule.kind = 'step': must be 'cosine-restarts', 'one-cycle'"),
        ("recipe.schedule", 5, "recipe.schedule = 5: must be a mapping of fields"),
        (
            "recipe.augmentation.policy.kind",
            "x",
            "recipe.augmentation.policy.kind = 'x': does not exist: recipe.augmentation.policy is null",
        ),
        ("recipe.momentum", 1, "recipe.momentum = 1: must be less than 1"),
        ("recipe.epochs", "30", "recipe.epochs = '30': must be a whole number"),
        (
            "recipe.schedule",
            {"kind": "one-cycle", "first_cycle": 3},
            "recipe.schedule.first_cycle = 3: must equal epochs",
        ),
    ],
)
def test_invalid_setting_gives_one_line(path: str, level: Any, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        override(PAPER, {path: read_level(path, level)})
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"spec.shortcut": {"kind": "none", "kernel_size": 3}},
            "spec.shortcut.kernel_size = 3: the none shortcut has no",
        ),
        ({"recipe.momentum": False, "recipe.nesterov": True}, "recipe.nesterov = True: needs a momentum above 0"),
        (
            {"recipe.early_stopping": False, "recipe.early_stopping.patience": 3},
            "recipe.early_stopping.patience = 3: does not exist",
        ),
        ({"spec.stages": "x", "spec.channels": 3}, "spec.stages = 'x': must be a list of mappings"),
        (
            {"spec.stages": "x", "spec.stages[0].blocks": 3},
            "spec.stages[0].blocks = 3: does not exist: spec.stages is no",
        ),
        ({"spec.stem": 8, "spec.stem.stride": 2}, "spec.stem.stride = 2: does not exist: spec.stem has no fields"),
        ({"recipe.schedule": 8, "recipe.epochs": 2}, "recipe.schedule = 8: must be a mapping of fields"),
        ({f"spec.stages[{index}]": False for index in range(5)}, "spec.stages = []: must have at least 1 entries"),
    ],
)
def test_contradicting_settings_give_one_line(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        override(PAPER, settings)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)
