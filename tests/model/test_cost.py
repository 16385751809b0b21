"""Closed-form cost against the sum over the plan's layers, also for networks too large to build."""

from __future__ import annotations

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from strategies import examples, specs

from budgetnet.common.errors import InputError
from budgetnet.model.cost import cost_of, plan_cost, stage_cost
from budgetnet.model.plan import lower
from budgetnet.model.spec import BlockKind, ModelSpec
from budgetnet.model.zoo import get, names

KINDS: tuple[BlockKind, ...] = ("basic", "preact", "bottleneck")


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


@pytest.mark.parametrize("kind", KINDS)
def test_stage_without_blocks_costs_nothing(kind: BlockKind) -> None:
    sizes = {
        "in_channels": 24,
        "width": 24,
        "inner": 6,
        "hidden": 3,
        "first": 25,
        "second": 9,
        "before": 64,
        "after": 64,
        "computed": 64,
    }
    assert stage_cost(kind, 2, blocks=0, shortcut=0, **sizes) == (0, 0, 0)


def test_stage_cost_by_hand() -> None:
    # Input of 8 channels and 16 pixels; two blocks of 12 channels and 4 pixels, the first with a projection.
    sizes = {
        "in_channels": 8,
        "width": 12,
        "inner": 12,
        "hidden": 3,
        "first": 9,
        "second": 25,
        "before": 16,
        "after": 4,
    }
    cost = stage_cost("basic", 1, blocks=2, shortcut=1, computed=4, **sizes)
    convolutions = [9 * 8 * 12, 25 * 12 * 12, 8 * 12, 9 * 12 * 12, 25 * 12 * 12]
    norms, attention_weights, attention_outputs = 5 * 2 * 12, 2 * 2 * 12 * 3, 2 * (12 + 3)
    assert cost == (
        sum(convolutions) + norms + attention_weights + attention_outputs,
        4 * sum(convolutions) + attention_weights,
        4 * 5 * 12 + attention_outputs,
    )
    # With max pooling, the first convolution computes all 16 pixels of its input map.
    pooled = stage_cost("basic", 1, blocks=2, shortcut=1, computed=16, **sizes)
    assert pooled == (cost[0], cost[1] + (16 - 4) * convolutions[0], cost[2] + (16 - 4) * 12)
