"""Lists with one entry for each stage: their forms, their errors, and what replaces them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import matches

from budgetnet.common.errors import InputError
from budgetnet.model.parts import Shortcut, Stage
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get

SCHEMA: dict[str, Any] = json.loads(json.dumps(ModelSpec.model_json_schema()))
FILES = Path(__file__).parents[2] / "docs" / "files.md"
TWO = [{"channels": 8}, {"channels": 16}]


@pytest.mark.parametrize(
    ("field", "lists"),
    [
        ("groups", [[1, 2], (1, 2), np.array([1, 2]), range(1, 3), iter([1, 2]), [np.int64(1), 2.0]]),
        ("conv_bias", [[True, False], np.array([True, False])]),
        ("block_dropout", [[0, 0.5], np.array([0, 0.5], dtype=np.float32)]),
        ("block", [["preact", "basic"], np.array(["preact", "basic"])]),
        ("kernel_sizes", [[[5, 3], [3, 3]], np.array([[5, 3], [3, 3]]), [(5, 3), 3]]),
        ("shortcut", [["padding", None], [{"kind": "padding"}, Shortcut()], (Shortcut(kind="padding"), "projection")]),
    ],
)
def test_lists_of_every_type_are_the_same(field: str, lists: list[Any]) -> None:
    digests = {ModelSpec.resnet(channels=[8, 16], **{field: each}).digest for each in lists}
    assert len(digests) == 1 and digests != {ModelSpec.resnet(channels=[8, 16]).digest}


@pytest.mark.parametrize(
    ("mapping", "complaint"),
    [
        ({"block": ["basic"]}, "stages = None: missing field"),
        ({"block": ["basic"], "stages": 3}, "stages = 3: must be a list"),
        ({"block": ["basic"], "stages": {"channels": 8}}, "stages = {'channels': 8}: must be a list"),
        ({"block": ["basic"], "stages": ["a"]}, "stages[0] = 'a': must be a mapping of fields"),
        (
            {"block": ["basic", "preact"], "stages": [{"channels": 8, "block": "preact"}, {"channels": 8}]},
            "stages[0].block = 'preact': must not be given where the network has a list for all stages",
        ),
        (
            {"blocks": [1, 2], "stages": TWO},
            "blocks = [1, 2]: unknown field; each of the stages has its own, stages[0].blocks",
        ),
        ({"strides": 2, "stages": TWO}, "strides = 2: unknown field; each of the stages has its own, stages[0].stride"),
        ({"groups": {1, 2}, "stages": TWO}, "groups = {1, 2}: must be a whole number"),
    ],
)
def test_mistakes_in_files_give_one_line(mapping: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(complaint)}$"):
        ModelSpec.from_mapping(mapping)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"stride": [1, 2]}, "stride = [1, 2]: unknown field; did you mean strides?"),
        ({"kernel_size": 3}, "kernel_size = 3: unknown field; did you mean kernel_sizes?"),
        ({"chanels": [8, 8]}, "chanels = [8, 8]: unknown field; did you mean channels?"),
        ({"channels": {8, 16}}, "channels = {8, 16}: must be a list with one entry for each stage"),
        ({"kernel_sizes": [3, 5, 7]}, "kernel_sizes = [3, 5, 7]: must be one pair for all stages, or one for each of"),
        ({"activation": []}, "activation = []: must have one entry for each of the 2 stages"),
    ],
)
def test_mistakes_in_arguments_give_one_line(arguments: dict[str, Any], complaint: str) -> None:
    for create in (ModelSpec.resnet, ModelSpec.resnet(channels=[8, 16]).replace):
        with pytest.raises(InputError) as caught:
            create(**{"channels": [8, 16], **arguments})
        assert str(caught.value).startswith(complaint)


def test_an_array_without_dimensions_is_no_list() -> None:
    with pytest.raises(InputError, match=r"channels = array\(3\): must be a list with one entry for each stage"):
        ModelSpec.resnet(channels=np.array(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("stages", ["abc", 3, [1, 2], None])
def test_replacing_stages_by_others_than_stages_gives_one_line(stages: Any) -> None:
    with pytest.raises(InputError, match=r"^stages"):
        get("reference").replace(stages=stages, channels=[8, 16])


def test_a_single_value_replaces_those_of_stages() -> None:
    spec = get("mobilenet-v2")
    replaced = spec.replace(shortcut="identity")
    assert {settings.shortcut.kind for settings in replaced.block_settings} == {"identity"}
    assert replaced.digest == spec.replace(shortcut=["identity"] * 7).digest
    given = spec.replace(stages=[Stage(channels=8, activation="gelu"), {"channels": 8}], activation="silu")
    assert [settings.activation for settings in given.block_settings] == ["gelu", "silu"]


def test_a_list_replaces_the_values_of_stages_and_no_others() -> None:
    spec = ModelSpec.resnet(channels=[8, 16], activation="silu", block=["basic", "preact"])
    replaced = spec.replace(activation=["gelu", "silu"], block=("preact", "basic"))
    assert [settings.activation for settings in replaced.block_settings] == ["gelu", "silu"]
    assert [settings.kind for settings in replaced.block_settings] == ["preact", "basic"]
    assert replaced.activation == "silu", "of stem and head"


def test_json_schema_accepts_what_the_documentation_writes() -> None:
    examples = re.findall(r'```yaml title="(?:spec|stages)\.yaml"\n(.*?)```', FILES.read_text(encoding="utf-8"), re.S)
    assert len(examples) == 2
    for example in [*map(yaml.safe_load, examples), {"stages": [{"channels": 8, "kernel_sizes": 5}]}]:
        assert ModelSpec.from_mapping(example)
        assert matches(SCHEMA, example, SCHEMA)
    for wrong in ({"block": ["basic", "wide"]}, {"shortcut": "identical"}, {"groups": [0, 1]}):
        assert not matches(SCHEMA, {"stages": TWO, **wrong}, SCHEMA)
