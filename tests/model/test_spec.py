"""Specifications: validation errors, digests, saving and loading, copies and JSON schema."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import many_examples, specs
from support import matches

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation import AblationStudy
from budgetnet.model import zoo
from budgetnet.model.budget import Budget
from budgetnet.model.parts import Stage, Stem
from budgetnet.model.sizes import feature_sizes
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get
from budgetnet.runs.recipe import Recipe
from budgetnet.study.space import SearchSpace

STAGE = {"channels": 8}


def validation_error(mapping: dict[str, Any]) -> InputError:
    """Return the error of an invalid mapping, which must be one line."""
    with pytest.raises(InputError) as caught:
        ModelSpec.from_mapping(mapping)
    assert "\n" not in str(caught.value)
    return caught.value


INVALID_NUMBERS = [0, -1, 1.5, "8", True, np.True_, math.nan, math.inf, None, [8], {"a": 8}, 10**400]


@pytest.mark.parametrize("value", INVALID_NUMBERS, ids=lambda value: f"{type(value).__name__} {str(value)[:9]}")
@pytest.mark.parametrize(
    ("field", "wrap"),
    [
        ("stages[1].channels", lambda value: {"stages": [STAGE, {"channels": value}]}),
        ("stages[0].blocks", lambda value: {"stages": [{**STAGE, "blocks": value}]}),
        ("stages[0].stride", lambda value: {"stages": [{**STAGE, "stride": value}]}),
        ("stem.channels", lambda value: {"stages": [STAGE], "stem": {"channels": value}}),
        ("stem.kernel_size", lambda value: {"stages": [STAGE], "stem": {"kernel_size": value}}),
        ("shortcut.kernel_size", lambda value: {"stages": [STAGE], "shortcut": {"kernel_size": value}}),
        ("stages[0].kernel_sizes[1]", lambda value: {"stages": [{**STAGE, "kernel_sizes": [3, value]}]}),
        ("num_classes", lambda value: {"stages": [STAGE], "num_classes": value}),
        ("input_shape[2]", lambda value: {"stages": [STAGE], "input_shape": [3, 32, value]}),
        ("groups", lambda value: {"stages": [STAGE], "groups": [[8]] if value == [8] else value}),
    ],
)
def test_invalid_number_is_rejected_with_its_path(field: str, wrap: Any, value: Any) -> None:
    # A list of values for each stage is none of them.
    assert validation_error(wrap(value)).field in (field, f"stages[0].{field}")


@pytest.mark.parametrize(
    ("field", "rule", "changes"),
    [
        ("channel", "unknown field", {"channel": 3}),
        ("stages[0].chanels", "unknown field", {"stages": [{**STAGE, "chanels": 8}]}),
        ("stages[0].channels", "missing field", {"stages": [{}]}),
        ("head.dropouts", "unknown field", {"head": {"dropouts": 0}}),
        ("stages", "must have at least 1 entries", {"stages": []}),
        ("stages", "must have at most 32 entries", {"stages": [STAGE] * 33}),
        ("stages", "must be a list", {"stages": 3}),
        ("stages[0]", "must be a mapping of fields", {"stages": [8]}),
        ("stem", "must be a mapping of fields", {"stem": 16}),
        ("stages[0].channels", "must be at most 65536", {"stages": [{"channels": 65_537}]}),
        ("stages[0].blocks", "must be at most 256", {"stages": [{**STAGE, "blocks": 257}]}),
        ("stages[0].kernel_sizes[0]", "must be an odd kernel size", {"stages": [{**STAGE, "kernel_sizes": [4, 3]}]}),
        ("stages[0].kernel_sizes[0]", "must be an odd kernel size", {"stages": [{**STAGE, "kernel_sizes": 33}]}),
        ("stages[0].kernel_sizes", "must have at most 2 entries", {"stages": [{**STAGE, "kernel_sizes": [3, 3, 3]}]}),
        ("stages[0].kernel_sizes", "must have 2 entries", {"stages": [{**STAGE, "kernel_sizes": [3]}]}),
        ("stem.kernel_size", "must be an odd kernel size", {"stem": {"channels": 8, "kernel_size": 2}}),
        ("groups", "must divide the 8 input channels of stages[0]", {"groups": 3}),
        ("groups", "must divide stages[1].channels = 9", {"groups": 2, "stages": [STAGE, {"channels": 9}]}),
        ("stem.stride", "would shrink the 2x9 map below 1", {"input_shape": [3, 2, 9], "stem": {"stride": 3}}),
        (
            "stages[1].stride",
            "would shrink the 1x16 map below 1",
            {"input_shape": [3, 2, 32], "stages": [{**STAGE, "stride": 2}, {**STAGE, "stride": 2}]},
        ),
        (
            "stages[1].channels",
            "must be at least the 8 input channels with a padding shortcut",
            {"shortcut": {"kind": "padding"}, "stages": [STAGE, {"channels": 7}]},
        ),
        (
            "stages[0].channels",
            "must be at least the 9 input channels with a padding shortcut",
            {"shortcut": {"kind": "padding"}, "stem": {"channels": 9}},
        ),
        (
            "shortcut.kernel_size",
            "the padding shortcut has no kernel",
            {"shortcut": {"kind": "padding", "kernel_size": 3}},
        ),
        ("shortcut.kernel_size", "the none shortcut has no kernel", {"shortcut": {"kind": "none", "kernel_size": 3}}),
        ("shortcut.kind", "must be 'projection'", {"shortcut": {"kind": "identical"}}),
        ("block", "must be 'basic'", {"block": "wide"}),
        ("activation", "must be 'relu'", {"activation": "tanh"}),
        ("bottleneck_ratio", "is only for bottleneck blocks, not basic", {"bottleneck_ratio": 0.5}),
        ("bottleneck_ratio", "must be greater than 0", {"block": "bottleneck", "bottleneck_ratio": 0}),
        (
            "groups",
            "must divide the 2 inner channels of the bottleneck in stages[0]",
            {"block": "bottleneck", "groups": 4},
        ),
        (
            "stages[0].kernel_sizes",
            "must be equal for bottleneck blocks",
            {"block": "bottleneck", "stages": [{**STAGE, "kernel_sizes": [5, 3]}]},
        ),
        ("bottleneck_ratio_of", "is only for bottleneck blocks, not basic", {"bottleneck_ratio_of": "input"}),
        ("equal_expansion", "is only for bottleneck blocks, not basic", {"equal_expansion": False}),
        ("equal_expansion", "must be true or false", {"block": "bottleneck", "equal_expansion": 0}),
        (
            "stages[0].bottleneck_ratio",
            "is only for bottleneck blocks, not basic",
            {"stages": [{**STAGE, "bottleneck_ratio": 1}]},
        ),
        ("block_activation", "is only for blocks that end", {"block": "preact", "block_activation": False}),
        ("group_width", "is only for bottleneck blocks, not the basic blocks of stages[0]", {"group_width": 2}),
        (
            "group_width",
            "must divide the 2 inner channels of the bottleneck in stages[0]; the nearest stage widths are 14",
            {"block": "bottleneck", "group_width": 4},
        ),
        (
            "stages[0].group_width",
            "must not be given with groups (2)",
            {"block": "bottleneck", "stages": [{**STAGE, "group_width": 1, "groups": 2}]},
        ),
        ("group_width", "must not be given with groups (2)", {"block": "bottleneck", "groups": 2, "group_width": 1}),
        ("stages[0].groups", "must divide the 8 input channels of stages[0]", {"stages": [{**STAGE, "groups": 3}]}),
        ("groupwidth", "unknown field; did you mean group_width?", {"groupwidth": 3}),
        (
            "stages[0].conv_biases",
            "unknown field; did you mean conv_bias?",
            {"stages": [{**STAGE, "conv_biases": True}]},
        ),
        ("head.poolsize", "unknown field; did you mean pool_size?", {"head": {"poolsize": 2}}),
        ("stem.inner_channel", "unknown field; did you mean inner_channels?", {"stem": {"inner_channel": [4]}}),
        ("squeeze_excitation.placed", "unknown field; did you mean place?", {"squeeze_excitation": {"placed": 1}}),
        ("nonsense", "unknown field", {"nonsense": 1}),
        (
            "squeeze_excitation.place",
            "is only for bottleneck blocks, not basic",
            {"squeeze_excitation_ratio": 0.25, "squeeze_excitation": {"place": "inner"}},
        ),
        ("squeeze_excitation.rounding", "must be 'nearest'", {"squeeze_excitation": {"rounding": "up"}}),
        ("squeeze_excitation.bias", "must be true or false", {"squeeze_excitation": {"bias": 1}}),
        ("shortcut.norm", "the none shortcut has no convolution", {"shortcut": {"kind": "none", "norm": True}}),
        ("shortcut.bias", "the identity shortcut has no convolution", {"shortcut": {"kind": "identity", "bias": True}}),
        ("block_dropout", "must be less than 1", {"block_dropout": 1}),
        ("conv_bias", "must be true or false", {"conv_bias": "yes"}),
        ("stem.pool_stride", "must be omitted without pool_size", {"stem": {"channels": 8, "pool_stride": 3}}),
        ("stem.pool_size", "must be odd or equal to pool_stride (2)", {"stem": {"channels": 8, "pool_size": 4}}),
        (
            "stem.pool_stride",
            "would shrink the 2x9 map below 1",
            {"input_shape": [3, 2, 9], "stem": {"pool_size": 3, "pool_stride": 3}},
        ),
        ("stem.inner_channels[1]", "must be at least 1", {"stem": {"inner_channels": [8, 0]}}),
        ("stem.squeeze_excitation_ratio", "must be greater than 0", {"stem": {"squeeze_excitation_ratio": 0}}),
        ("head.pool_size", "must be at most the side of the last map, 32x32", {"head": {"pool_size": 33}}),
        ("head.channels", "must be at least 1", {"head": {"channels": 0}}),
        ("groups", "must have one entry for each of the 1 stages", {"groups": [1, 2]}),
        ("stages[0].groups", "must be a whole number", {"groups": ["two"]}),
        ("squeeze_excitation_ratio", "must be greater than 0", {"squeeze_excitation_ratio": 0}),
        ("squeeze_excitation_ratio", "must be at most 1", {"squeeze_excitation_ratio": 1.01}),
        ("head.dropout", "must be less than 1", {"head": {"dropout": 1}}),
        ("head.pooling", "must be 'average' or 'max'", {"head": {"pooling": "sum"}}),
        ("num_classes", "must be at least 2", {"num_classes": 1}),
        ("name", "", {"name": "two words"}),
        ("name", "", {"name": "line\n"}),
        ("name", "", {"name": "<b>"}),
        ("name", "must be text", {"name": 3}),
        ("name", "", {"name": "x" * 101}),
        ("schema_version", "must be 1", {"schema_version": 2}),
    ],
)
def test_error_names_field_and_rule(field: str, rule: str, changes: dict[str, Any]) -> None:
    error = validation_error({"stages": [STAGE], "stem": {"channels": 8}, **changes})
    assert error.field == field
    assert error.rule.startswith(rule)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("channels", {"channels": 8}),
        ("channels", {"channels": "88"}),
        ("channels", {"channels": None}),
        ("stages", {"channels": []}),
        ("blocks", {"channels": [8, 8], "blocks": [1]}),
        ("blocks", {"channels": [8, 8], "blocks": "11"}),
        ("strides", {"channels": [8, 8], "strides": [1, 2, 2]}),
        ("kernel_sizes", {"channels": [8, 8], "kernel_sizes": [[3, 3]]}),
        ("stages[0].channels", {"channels": [0]}),
        ("stages[0].channels", {"channels": [math.nan]}),
        ("stages[1].blocks", {"channels": [8, 8], "blocks": [1, 0]}),
        ("stem.channels", {"channels": [8], "stem": 0}),
        ("depth", {"channels": [8], "depth": 3}),
    ],
)
def test_resnet_error_names_the_invalid_list(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        ModelSpec.resnet(**arguments)
    assert caught.value.field == field


def test_resnet_accepts_lists_and_single_values() -> None:
    spec = ModelSpec.resnet(channels=list(np.array([16, 32, 64])), blocks=2, kernel_sizes=[(5, 3), 3, [1, 7]], name="x")
    assert spec.stages == (
        Stage(channels=16, blocks=2, stride=1, kernel_sizes=(5, 3)),
        Stage(channels=32, blocks=2, stride=2, kernel_sizes=(3, 3)),
        Stage(channels=64, blocks=2, stride=2, kernel_sizes=(1, 7)),
    )
    assert (spec.stem, spec.name) == (Stem(channels=16), "x")
    assert ModelSpec.resnet(channels=(8,), stem=Stem(channels=4, stride=2)).stem.stride == 2
    assert ModelSpec.resnet(channels=(8,), stem=4).stem == Stem(channels=4)


@many_examples
@given(specs(), st.sampled_from([".yaml", ".yml", ".json"]))
def test_save_and_load_round_trip(tmp_path_factory: pytest.TempPathFactory, spec: ModelSpec, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"spec{suffix}"
    spec.save(path)
    loaded = ModelSpec.load(path)
    assert loaded == spec
    assert loaded.digest == spec.digest
    assert ModelSpec.from_mapping(json.loads(json.dumps(spec.to_mapping()))) == spec


def test_loading_error_names_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("stages:\n- {channels: 8}\n- {channels: 8, kernel_sizes: [2, 3]}\n")
    with pytest.raises(InputError) as caught:
        ModelSpec.load(path)
    assert caught.value.field == f"{path}: stages[1].kernel_sizes[0]"


def test_specification_is_immutable() -> None:
    spec = ModelSpec.resnet(channels=[8])
    for document, field in ((spec, "num_classes"), (spec.stages[0], "channels")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(document, field, 3)
    assert isinstance(spec.stages, tuple)
    assert len({spec, ModelSpec.resnet(channels=[8])}) == 1


def test_replace_changes_fields_validates_them_and_clears_the_name() -> None:
    spec = zoo.get("reference")
    narrow = spec.replace(channels=[32, 32, 64, 64, 64], kernel_sizes=3)
    assert [stage.channels for stage in narrow.stages] == [32, 32, 64, 64, 64]
    assert [stage.blocks for stage in narrow.stages] == [2, 2, 1, 1, 1]
    assert {stage.kernel_sizes for stage in narrow.stages} == {(3, 3)}
    assert (narrow.name, spec.name, spec.replace(name="x").name) == ("", "reference", "x")
    assert narrow.label == "basic-32x2-32x2-64x1-64x1-64x1"
    assert spec.replace(stages=[Stage(channels=8), {"channels": 9}], blocks=3).label == "basic-8x3-9x3"
    invalid: dict[str, dict[str, Any]] = {"groups": {"groups": 7}, "blocks": {"blocks": [1]}, "depth": {"depth": 1}}
    for field, changes in invalid.items():
        with pytest.raises(InputError) as caught:
            spec.replace(**changes)
        assert caught.value.field == field


def test_feature_sizes_are_rounded_up() -> None:
    spec = ModelSpec.resnet(channels=[8, 8, 8], strides=[1, 2, 3], input_shape=(3, 17, 9), stem=Stem(stride=2))
    assert feature_sizes(spec) == [(9, 5), (9, 5), (5, 3), (2, 1)]


SPEC_SCHEMA: dict[str, Any] = json.loads(json.dumps(ModelSpec.model_json_schema()))


@many_examples
@given(specs())
def test_json_schema_accepts_every_specification_and_rejects_invalid_fields(spec: ModelSpec) -> None:
    schema = SPEC_SCHEMA
    mapping = spec.to_mapping()
    assert matches(schema, mapping, schema)
    assert not matches(schema, {**mapping, "extra": 1}, schema)
    assert not matches(schema, {**mapping, "stages": [{**mapping["stages"][0], "channels": 0}]}, schema)
    for invalid in ({"block": "wide"}, {"groups": 0}, {"num_classes": 1}, {"head": {"dropout": 1.0}}):
        assert not matches(schema, {**mapping, **invalid}, schema)


@pytest.mark.parametrize("document", [ModelSpec, Recipe, SearchSpace, AblationStudy])
def test_json_schema_has_a_description_of_every_field(document: Any) -> None:
    schema = document.model_json_schema()
    for part in [schema, *schema["$defs"].values()] if "$defs" in schema else [schema]:
        assert part["additionalProperties"] is False
        assert [name for name, field in part["properties"].items() if not {"description", "$ref"} & field.keys()] == []


def test_verdict_notes_that_frozen_weights_are_counted() -> None:
    whitened = ModelSpec.resnet(channels=[8], stem=Stem(channels=8, whitening=2))
    verdict = Budget(max_params="1M").check(whitened)
    assert verdict.note == f"288 of {whitened.params:,} counted params are frozen whitening weights"
    assert verdict.note in repr(verdict) and verdict.to_mapping()["frozen_params"] == 288
    assert Budget(max_params=whitened.params - 1).check(whitened).fits is False
    assert Budget(max_params="1M").check(get("reference")).note == ""


def test_iterators_give_the_entries_of_stages() -> None:
    expected = ModelSpec.resnet(channels=[8, 16], blocks=[1, 2], kernel_sizes=[(5, 3), (3, 3)])
    lists: dict[str, Any] = {
        "channels": (width for width in (8, 16)),
        "blocks": iter([1, 2]),
        "kernel_sizes": (pair for pair in ((5, 3), (3, 3))),
    }
    assert ModelSpec.resnet(**lists) == expected
    stages: Any = (stage for stage in expected.stages)
    assert ModelSpec(stages=stages, stem=expected.stem) == expected
    assert expected.replace(stages=iter(expected.stages)) == expected
    with pytest.raises(InputError, match=r"stages = .*: must have at least 1 entries"):
        ModelSpec.from_mapping({"stages": iter(())})
