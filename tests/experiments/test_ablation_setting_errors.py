"""Settings that are invalid or contradict each other: one line of error."""

from __future__ import annotations

from typing import Any

import pytest

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.levels import read_level
from budgetnet.experiments.ablation.overrides import Setup, override
from budgetnet.model import zoo
from budgetnet.runs.named_recipes import NAMED

PAPER = Setup(zoo.get("reference"), NAMED["paper"])


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
