"""Closed-form cost against the sum over the plan's layers, also for networks too large to build."""

from __future__ import annotations

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from strategies import examples, specs

from budgetnet.common.errors import InputError
from budgetnet.model.cost import cost_of, costs_of_parts, plan_cost
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get, names


@examples(1000)
@given(specs(max_side=600, max_multiple=40, max_blocks=9))
def test_closed_form_matches_the_sum_over_layers(spec: ModelSpec) -> None:
    event(f"{spec.block}, {spec.shortcut.kind}")
    assert cost_of(spec) == plan_cost(lower(spec))


@pytest.mark.parametrize("name", names())
def test_closed_form_of_named_networks_matches_the_sum_over_layers(name: str) -> None:
    assert cost_of(get(name)) == plan_cost(lower(get(name)))


sides = st.integers(-1, 40)


@examples(600)
@given(specs(), sides | st.tuples(sides, sides))
def test_other_input_sizes_give_the_same_cost_or_error_as_the_plan(
    spec: ModelSpec, size: int | tuple[int, int]
) -> None:
    try:
        expected = plan_cost(lower(spec, input_size=size))
    except InputError as error:
        event(error.field)
        with pytest.raises(InputError) as caught:
            cost_of(spec, input_size=size)
        assert str(caught.value) == str(error)
    else:
        assert cost_of(spec, input_size=size) == expected


def test_cost_of_a_stage_by_hand() -> None:
    # Input of 8 channels and 16 pixels; two blocks of 12 channels and 4 pixels, the first with a projection.
    spec = ModelSpec.resnet(
        channels=[12],
        blocks=2,
        strides=[2],
        kernel_sizes=[(3, 5)],
        stem=8,
        squeeze_excitation_ratio=0.25,
        input_shape=(3, 4, 4),
    )
    convolutions = [9 * 8 * 12, 25 * 12 * 12, 8 * 12, 9 * 12 * 12, 25 * 12 * 12]
    norms, attention_weights, attention_outputs = 5 * 2 * 12, 2 * 2 * 12 * 3, 2 * (12 + 3)
    stage = costs_of_parts(spec)[1]
    assert stage == (
        sum(convolutions) + norms + attention_weights + attention_outputs,
        4 * sum(convolutions) + attention_weights,
        4 * 5 * 12 + attention_outputs,
    )
    # With max pooling, the first convolution computes all 16 pixels of its input map.
    pooled = costs_of_parts(spec.replace(downsampling="max-pool"))[1]
    assert pooled == (stage[0], stage[1] + (16 - 4) * convolutions[0], stage[2] + (16 - 4) * 12)


def test_cost_of_an_inverted_bottleneck_by_hand() -> None:
    # As in MobileNetV2: 8 input channels, six times as many inside, 16 output channels, 5x5 depthwise, no shortcut.
    spec = ModelSpec.resnet(
        channels=[16],
        strides=[2],
        kernel_sizes=5,
        stem=8,
        block="bottleneck",
        bottleneck_ratio=6,
        bottleneck_ratio_of="input",
        group_width=1,
        shortcut="identity",
        block_activation=False,
        conv_bias=True,
        input_shape=(3, 4, 4),
    )
    weights = [8 * 48, 25 * 48, 48 * 16]
    norms_and_biases = 3 * (48 + 48 + 16)
    pixels = [16, 4, 4]
    assert costs_of_parts(spec)[1] == (
        sum(weights) + norms_and_biases,
        sum(weight * size for weight, size in zip(weights, pixels, strict=True)),
        48 * 16 + 48 * 4 + 16 * 4,
    )


def test_cost_without_expansion_to_the_input_width_by_hand() -> None:
    # The first block of MobileNetV2: 5x5 depthwise on the 8 input channels, then 1x1 to 16; the second has 16 inside.
    fields = {"block": "bottleneck", "bottleneck_ratio": 1, "bottleneck_ratio_of": "input", "equal_expansion": False}
    spec = ModelSpec.resnet(
        channels=[16],
        blocks=2,
        strides=[2],
        kernel_sizes=5,
        stem=8,
        group_width=1,
        shortcut="identity",
        input_shape=(3, 4, 4),
        **fields,
    )
    first, second = [25 * 8, 8 * 16], [25 * 16, 16 * 16]
    assert costs_of_parts(spec)[1] == (
        sum(first + second) + 2 * (8 + 16) + 2 * (16 + 16),
        4 * sum(first + second),
        4 * (8 + 16) + 4 * (16 + 16),
    )
    assert [conv.path for conv in lower(spec).stages[0][0].convs] == ["stages.0.0.conv1", "stages.0.0.conv2"]
    # With one channel more inside it begins with a 1x1 convolution like others.
    wider = spec.replace(bottleneck_ratio=1.125, blocks=[1])
    assert costs_of_parts(wider)[1] == costs_of_parts(wider.replace(equal_expansion=True))[1]


def test_cost_of_stem_and_head_by_hand() -> None:
    # Three convolutions of stride 2 for 9x9 images, pooled to 3x3; the head makes 20 channels of 6 and pools 2x2.
    spec = ModelSpec.resnet(
        channels=[6],
        stem={"channels": 6, "inner_channels": [4, 5], "stride": 2, "pool_size": 3, "bias": True},
        head={"channels": 20, "pool_size": 1},
        input_shape=(2, 9, 9),
        num_classes=7,
    )
    stem = [9 * 2 * 4, 9 * 4 * 5, 9 * 5 * 6]
    head, linear = 6 * 20, 20 * 9 * 7
    assert costs_of_parts(spec)[0] == (
        sum(stem) + 3 * (4 + 5 + 6) + head + 2 * 20 + linear + 7,
        25 * sum(stem) + 9 * head + linear,
        25 * (4 + 5 + 6) + 9 * 20 + 7,
    )
