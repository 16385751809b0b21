"""Verdicts by hand, and every edit against brute force over its whole family."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import specs, thorough

import budgetnet
from budgetnet.common.errors import InputError, OverBudgetError
from budgetnet.model import zoo
from budgetnet.model.budget import Budget, Edit
from budgetnet.model.cost import Cost, cost_of
from budgetnet.model.spec import ModelSpec

REFERENCE = zoo.get("reference")


def test_verdict_of_the_reference_by_hand() -> None:
    verdict = Budget(max_params="5M", max_macs=793_446_911).check(REFERENCE)
    params, macs = verdict.limits
    assert (params.limit, params.used, params.allowed, params.headroom) == ("params", 4_662_346, 5_000_000, 337_654)
    assert params.violation == pytest.approx(-0.0675308)
    assert (macs.limit, macs.headroom) == ("macs", -1)
    assert macs.violation > 0
    assert not verdict.fits


@pytest.mark.parametrize(("allowed", "fits"), [(4_662_345, False), (4_662_346, True), (4_662_347, True)])
def test_a_limit_may_be_used_up(allowed: int, fits: bool) -> None:
    verdict = budgetnet.check(REFERENCE, max_params=allowed)
    assert verdict.fits is fits
    if fits:
        verdict.require()
        assert verdict.edits == ()
    else:
        with pytest.raises(OverBudgetError, match=r"^reference: 4,662,346 params exceed the 4,662,345 allowed$"):
            verdict.require()


def test_the_message_names_every_limit_that_does_not_hold() -> None:
    verdict = budgetnet.check(REFERENCE, max_params="1M", max_macs="1G", max_activations=10)
    with pytest.raises(OverBudgetError) as caught:
        verdict.require()
    assert str(caught.value) == (
        "reference: 4,662,346 params exceed the 1,000,000 allowed; 749,578 activations exceed the 10 allowed"
    )
    assert caught.value.exit_code == 3


def test_a_budget_without_limits_admits_everything() -> None:
    verdict = Budget().check(REFERENCE)
    assert verdict.fits
    assert verdict.limits == ()
    assert verdict.edits == ()
    assert Budget().share_used(REFERENCE.cost) == 0


def test_share_used_is_that_of_the_tightest_limit() -> None:
    assert Budget(max_params=10, max_macs=40).share_used(Cost(5, 30, 99)) == 0.75


@pytest.mark.parametrize("value", [0, -1, 1.5, "0", "-5M", "few", True, float("nan"), float("inf"), [], "1e-9"])
@pytest.mark.parametrize("field", ["max_params", "max_macs", "max_activations"])
def test_a_limit_that_is_none_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        Budget.from_mapping({field: value})
    assert caught.value.field == field


def test_the_verdict_as_plain_data() -> None:
    mapping = Budget(max_params=4_600_000).check(REFERENCE).to_mapping()
    assert (mapping["name"], mapping["fits"], mapping["params"]) == ("reference", False, 4_662_346)
    assert mapping["limits"] == [{"limit": "params", "used": 4_662_346, "allowed": 4_600_000, "headroom": -62_346}]
    for edit in mapping["edits"]:
        assert ModelSpec.from_mapping(edit["spec"]).params == edit["params"] <= 4_600_000


# Every family by its description: how strong a level is, and the networks from the smallest step to the largest.


def inner_width(spec: ModelSpec, width: int) -> int:
    return max(1, round(width * (spec.bottleneck_ratio or 0.25))) if spec.block == "bottleneck" else width


def with_stage(spec: ModelSpec, index: int, **changes: Any) -> ModelSpec | None:
    stages = [{**stage.model_dump(), **(changes if i == index else {})} for i, stage in enumerate(spec.stages)]
    try:
        return ModelSpec.from_mapping({**spec.model_dump(exclude={"name"}), "stages": stages})
    except InputError:
        return None


def scaled(spec: ModelSpec, thousandths: int) -> ModelSpec:
    """Each width rounded down to one that the groups allow, or up to the narrowest of those."""

    def fitted(width: int, *, stem: bool) -> int:
        target = max(1, width * thousandths // 1000)
        if stem and spec.block == "bottleneck":
            return target
        allowed = [option for option in range(1, width + 1) if inner_width(spec, option) % spec.groups == 0]
        return max((option for option in allowed if option <= target), default=allowed[0])

    widths = [fitted(stage.channels, stem=False) for stage in spec.stages]
    stem = fitted(spec.stem.channels, stem=True)
    if spec.shortcut.kind == "padding":
        stem = min(stem, widths[0])
    stages = [{**stage.model_dump(), "channels": width} for stage, width in zip(spec.stages, widths, strict=True)]
    mapping = {**spec.model_dump(exclude={"name"}), "stages": stages}
    return ModelSpec.from_mapping({**mapping, "stem": {**spec.stem.model_dump(), "channels": stem}})


def capped(spec: ModelSpec, places: tuple[int, ...], cap: int) -> ModelSpec:
    stages = []
    for stage in spec.stages:
        sizes = [min(size, cap) if place in places else size for place, size in enumerate(stage.kernel_sizes)]
        stages.append({**stage.model_dump(), "kernel_sizes": sizes})
    return ModelSpec.from_mapping({**spec.model_dump(exclude={"name"}), "stages": stages})


def families(spec: ModelSpec) -> Iterator[tuple[str, Iterator[ModelSpec | None]]]:
    """Every family, by the words that its descriptions start with, and all its networks, the smallest step first."""
    for index, stage in enumerate(spec.stages):
        widths = range(stage.channels - 1, 0, -1)
        yield f"stage {index + 1} channels", (with_stage(spec, index, channels=width) for width in widths)
        counts = range(stage.blocks - 1, 0, -1)
        yield f"stage {index + 1} blocks", (with_stage(spec, index, blocks=count) for count in counts)
    yield "all widths", (scaled(spec, thousandths) for thousandths in range(999, 0, -1))
    if spec.block == "bottleneck":
        kernels: list[tuple[str, tuple[int, ...]]] = [("every kernel", (0, 1))]
    else:
        kernels = [("every block's first kernel", (0,)), ("every block's second kernel", (1,))]
    for name, places in kernels:
        largest = max(stage.kernel_sizes[places[0]] for stage in spec.stages)
        yield name, (capped(spec, places, cap) for cap in range(largest - 2, 0, -2))


def family_of(edit: Edit) -> str:
    stage = re.fullmatch(r"(stage \d+): \d+ -> \d+ (channels|blocks)", edit.description)
    return f"{stage[1]} {stage[2]}" if stage else re.split(r" x |:", edit.description)[0]


def smallest_edits(spec: ModelSpec, fits: Callable[[Cost], bool]) -> dict[str, ModelSpec]:
    found = {}
    for name, networks in families(spec):
        first = next((network for network in networks if network is not None and fits(cost_of(network))), None)
        if first is not None:
            found[name] = first
    return found


@st.composite
def over_budget(draw: st.DrawFn) -> tuple[ModelSpec, Budget]:
    """A network and a limit below its cost; often the very cost of one edit, as there a search may step over it."""
    spec = draw(specs(max_side=6))
    kind, used = draw(st.sampled_from(list(spec.cost._asdict().items())))
    index = draw(st.integers(0, len(spec.stages) - 1))
    neighbours = [spec.stem.channels, *(stage.channels for stage in spec.stages)]
    width = draw(st.sampled_from(neighbours) | st.integers(1, spec.stages[index].channels))
    edited = with_stage(spec, index, channels=width) if draw(st.booleans()) else None
    aim = round(used * draw(st.floats(0.02, 1))) if edited is None else cost_of(edited)._asdict()[kind]
    return spec, Budget.from_mapping({f"max_{kind}": max(1, min(used - 1, aim))})


@settings(thorough, max_examples=120)
@given(over_budget())
def test_every_edit_is_the_smallest_of_its_family_and_none_is_missed(pair: tuple[ModelSpec, Budget]) -> None:
    spec, budget = pair
    edits = budget.check(spec).edits
    expected = smallest_edits(spec, budget.admits)
    assert {family_of(edit): edit.spec for edit in edits} == expected
    assert len(edits) == len(expected)


@pytest.mark.parametrize("kind", ["projection", "average-pool", "padding"])
@pytest.mark.parametrize("channels", [[5, 9], [9, 5, 5], [7, 7]])
def test_no_edit_is_stepped_over_at_any_limit(kind: str, channels: list[int]) -> None:
    # Convolutions of 1x1 at one resolution: here the projections weigh most, and cost rises and falls with width.
    if kind == "padding":
        channels = sorted(channels)
    spec = ModelSpec.resnet(channels=channels, stem=5, strides=1, kernel_sizes=1, shortcut={"kind": kind})
    levels = [network for _, networks in families(spec) for network in networks if network is not None]
    for limit in sorted({level.params for level in levels} - {spec.params}):
        budget = Budget(max_params=limit)
        if not budget.admits(spec.cost):
            found = {family_of(edit): edit.spec for edit in budget.check(spec).edits}
            assert found == smallest_edits(spec, budget.admits)


@thorough
@given(over_budget())
def test_every_edit_is_a_network_that_fits_and_the_least_loss_comes_first(pair: tuple[ModelSpec, Budget]) -> None:
    spec, budget = pair
    edits = budget.check(spec).edits
    for edit in edits:
        assert ModelSpec.from_mapping(edit.spec.to_mapping()) == edit.spec
        assert edit.cost == cost_of(edit.spec)
        assert budget.check(edit.spec).fits
        assert edit.spec.name == ""
    shares = [budget.share_used(edit.cost) for edit in edits]
    assert shares == sorted(shares, reverse=True)


@settings(thorough, max_examples=60)
@given(specs(), st.integers(1, 10**6), st.integers(1, 10**6))
def test_what_fits_a_budget_fits_a_larger_one(spec: ModelSpec, one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert budgetnet.check(spec, max_params=small).fits <= budgetnet.check(spec, max_params=large).fits


def edit_named(spec: ModelSpec, budget: Budget, family: str) -> Edit | None:
    return next((edit for edit in budget.check(spec).edits if family_of(edit) == family), None)


def test_a_width_at_which_a_shortcut_loses_its_convolution_is_found() -> None:
    spec = ModelSpec.resnet(channels=[16, 24], strides=1, kernel_sizes=1)
    # As wide as the stage before, the second stage needs no projection: one channel less costs more, not less.
    equal, narrower = (spec.replace(channels=[16, width]).params for width in (16, 15))
    assert equal < narrower
    edit = edit_named(spec, Budget(max_params=equal), "stage 2 channels")
    assert edit is not None
    assert edit.description == "stage 2: 24 -> 16 channels"


def test_scaling_a_grouped_bottleneck_with_padding_shortcuts_never_narrows() -> None:
    settings_of_it: dict[str, Any] = {"block": "bottleneck", "bottleneck_ratio": 0.5, "groups": 4}
    spec = ModelSpec.resnet(channels=[16], blocks=2, shortcut={"kind": "padding"}, **settings_of_it)
    edit = edit_named(spec, Budget(max_params=spec.params // 2), "all widths")
    assert edit is not None
    # Where widths narrowed, the padding shortcut could not be built, and nothing could be counted.
    built = sum(parameter.numel() for parameter in edit.spec.build().parameters())
    assert built == edit.cost.params <= spec.params // 2


def test_no_single_edit_may_be_enough() -> None:
    verdict = Budget(max_params=1).check(REFERENCE)
    assert not verdict.fits
    assert verdict.edits == ()


def test_the_reference_by_a_hair_loses_as_little_as_there_is() -> None:
    edits = Budget(max_params=4_662_345).check(REFERENCE).edits
    descriptions = {edit.description for edit in edits}
    assert {
        "stage 5: 256 -> 255 channels",
        "stage 1: 2 -> 1 blocks",
        "every block's first kernel: 5 -> 3",
    } <= descriptions
