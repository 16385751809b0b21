"""Specifications: fields of single stages, and the digest of a network however it is written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from strategies import many_examples, specs

from budgetnet.common.errors import InputError
from budgetnet.model.lowering import lower
from budgetnet.model.parts import Head, Shortcut, SqueezeExcitation, Stage, Stem
from budgetnet.model.sizes import feature_sizes
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get


def what_it_computes(spec: ModelSpec) -> tuple[Any, ...]:
    """Return all that a network's output depends on, without settings of what it does not have."""
    plan = lower(spec)
    blocks = [
        (
            *(block.convs, block.norms, block.squeeze_excitation, block.inner_attention),
            *(block.shortcut, block.shortcut_conv, block.shortcut_norm, block.output),
            *(block.settings.kind, block.settings.activation, block.settings.dropout, block.settings.linear),
        )
        for stage in plan.stages
        for block in stage
    ]
    return plan.input_shape, plan.stem, blocks, plan.head, plan.activation


@many_examples
@given(specs(), specs())
def test_digests_of_different_networks_differ(first: ModelSpec, second: ModelSpec) -> None:
    if first.model_dump(exclude={"name"}) == second.model_dump(exclude={"name"}):
        assert first.digest == second.digest
    if what_it_computes(first) != what_it_computes(second):
        assert first.digest != second.digest
    assert first.replace(name="another").digest == first.digest


@many_examples
@given(specs())
def test_what_a_stage_inherits_may_also_be_given_to_it(spec: ModelSpec) -> None:
    mapping = spec.to_mapping()
    for stage, settings in zip(mapping["stages"], spec.block_settings, strict=True):
        stage |= {
            "block": settings.kind,
            "squeeze_excitation_ratio": settings.squeeze_ratio,
            "squeeze_excitation": settings.squeeze_excitation.to_mapping(),
            "shortcut": settings.shortcut.to_mapping(),
            "activation": settings.activation,
            "block_dropout": settings.dropout,
            "conv_bias": settings.bias,
        }
    assert ModelSpec.from_mapping(mapping).digest == spec.digest
    assert what_it_computes(ModelSpec.from_mapping(mapping)) == what_it_computes(spec)


def test_lists_set_fields_of_each_stage() -> None:
    spec = ModelSpec.resnet(
        channels=[8, 16, 32],
        block=["basic", "preact", "bottleneck"],
        groups=(1, 2, 4),
        squeeze_excitation_ratio=[None, 0.5, 0],
        shortcut=["padding", {"kind": "projection", "kernel_size": 3}, Shortcut(norm=False)],
        activation="gelu",
    )
    assert [stage.block for stage in spec.stages] == ["basic", "preact", "bottleneck"]
    assert [stage.groups for stage in spec.stages] == [1, 2, 4]
    assert [settings.squeeze_ratio for settings in spec.block_settings] == [0, 0.5, 0]
    shortcuts = [settings.shortcut for settings in spec.block_settings]
    assert shortcuts == [Shortcut(kind="padding"), Shortcut(kernel_size=3), Shortcut(norm=False)]
    assert {settings.activation for settings in spec.block_settings} == {"gelu"}
    assert spec.label == "basic+preact+bottleneck-8x1-16x1-32x1"
    assert spec.replace(groups=[1, 1, 1]).stages[2].groups == 1
    assert spec.replace(conv_bias=True).block_settings[1].bias


def test_digest_is_one_for_a_value_of_all_stages_and_of_the_network() -> None:
    network = ModelSpec.resnet(channels=[8, 16], groups=2)
    assert ModelSpec.resnet(channels=[8, 16], groups=[2, 2]).digest == network.digest
    assert ModelSpec.resnet(channels=[8, 16], groups=[2, 1]).digest != network.digest
    explicit = network.replace(
        shortcut={"norm": True, "bias": False}, head={"norm": False}, stem={"channels": 8, "norm": True}
    )
    assert explicit.digest == network.digest
    assert network.replace(squeeze_excitation={"bias": False}).digest == network.digest


def test_digest_depends_on_every_field_except_the_name() -> None:
    base = ModelSpec.resnet(channels=[8, 16])
    changes: dict[str, Any] = {
        "input_shape": (1, 32, 32),
        "num_classes": 11,
        "stem": Stem(channels=8, stride=2),
        "block": "preact",
        "stages": [Stage(channels=8), Stage(channels=16)],
        "groups": 2,
        "squeeze_excitation_ratio": 0.25,
        "shortcut": Shortcut(kernel_size=3),
        "activation": "gelu",
        "head": Head(pooling="max"),
        "downsampling": "max-pool",
        "block_activation": False,
        "block_dropout": 0.1,
        "conv_bias": True,
    }
    digests = {base.replace(**{field: value}).digest for field, value in changes.items()} | {base.digest}
    assert len(digests) == len(changes) + 1
    ratios = {base.replace(block="bottleneck", bottleneck_ratio=ratio).digest for ratio in (0.25, 0.5)}
    assert len(ratios) == 2
    bottleneck = base.replace(block="bottleneck", squeeze_excitation_ratio=0.25)
    changes_of_bottlenecks: dict[str, Any] = {
        "bottleneck_ratio": 0.5,
        "bottleneck_ratio_of": "input",
        "equal_expansion": False,
        "group_width": 1,
        "squeeze_excitation": SqueezeExcitation(bias=False),
    }
    digests = {bottleneck.replace(**{field: value}).digest for field, value in changes_of_bottlenecks.items()}
    assert len(digests | {bottleneck.digest}) == len(changes_of_bottlenecks) + 1
    varied = {"name", "schema_version", *changes, *changes_of_bottlenecks}
    assert varied == set(ModelSpec.model_fields)


PARTS: dict[str, dict[str, Any]] = {
    "stem": {
        "channels": 24,
        "kernel_size": 5,
        "stride": 2,
        "whitening": 2,
        "inner_channels": [4],
        "bias": True,
        "norm": False,
        "squeeze_excitation_ratio": 0.5,
        "pool_size": 3,
    },
    "head": {"pooling": "max", "dropout": 0.5, "scale": 0.5, "norm": True, "channels": 8, "pool_size": 2},
    "shortcut": {"kind": "none", "kernel_size": 3, "norm": False, "bias": True},
    "squeeze_excitation": {"ratio_of": "input", "rounding": "down", "bias": False},
}


@pytest.mark.parametrize("part", PARTS)
def test_digest_depends_on_every_field_of_a_part(part: str) -> None:
    base = ModelSpec.resnet(channels=[16, 32], squeeze_excitation_ratio=0.25)
    own = getattr(base, part).model_dump()
    digests = {base.replace(**{part: {**own, field: value}}).digest for field, value in PARTS[part].items()}
    assert len(digests | {base.digest}) == len(PARTS[part]) + 1
    elsewhere = {"place", "pool_stride"}
    assert set(PARTS[part]) == set(own) - elsewhere


def test_omitted_bottleneck_ratio_has_the_digest_of_its_default() -> None:
    omitted = ModelSpec.resnet(channels=[64, 128], block="bottleneck")
    assert omitted.digest == omitted.replace(bottleneck_ratio=0.25).digest
    assert omitted.digest != omitted.replace(bottleneck_ratio=0.5).digest


@pytest.mark.parametrize(
    ("name", "digest"),
    [("reference", "beb57389dfbb6cb6"), ("wrn-16-4", "d3613d404acada98"), ("resnet20", "6725ae6bf77feefe")],
)
def test_digests_of_named_networks_match_existing_records(name: str, digest: str) -> None:
    assert get(name).digest.startswith(digest)


def test_whitening_convolution_changes_digest_and_map_sizes() -> None:
    plain = ModelSpec.resnet(channels=[8, 16], strides=[2, 2])
    whitened = plain.replace(stem={"channels": 8, "whitening": 3})
    assert plain.replace(stem={"channels": 8, "whitening": None}).digest == plain.digest
    assert whitened.digest != plain.digest
    # 32 - 3 + 1 = 30 pixels, then halved twice.
    assert feature_sizes(whitened) == [(30, 30), (15, 15), (8, 8)]
    with pytest.raises(InputError, match=r"stem.whitening = 5: must be at most the side of the 4x4 image"):
        ModelSpec.resnet(channels=[8], input_shape=(3, 4, 4), stem=Stem(channels=8, whitening=5))
