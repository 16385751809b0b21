"""Verdicts against hand counts, and edits against brute force over all edits of the same kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples, many_examples, specs

import budgetnet
from budgetnet.common.errors import InputError, OverBudgetError
from budgetnet.model import zoo
from budgetnet.model.budget import Budget
from budgetnet.model.cost import Cost, cost_of
from budgetnet.model.deployed.weights import weight_bytes
from budgetnet.model.edits import Edit
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
def test_a_network_exactly_at_the_limit_fits(allowed: int, fits: bool) -> None:
    verdict = budgetnet.check(REFERENCE, max_params=allowed)
    assert verdict.fits is fits
    if fits:
        verdict.require()
        assert verdict.edits == ()
    else:
        with pytest.raises(OverBudgetError, match=r"^reference: 4,662,346 params exceed the 4,662,345 allowed$"):
            verdict.require()


def test_error_names_every_exceeded_limit() -> None:
    verdict = budgetnet.check(REFERENCE, max_params="1M", max_macs="1G", max_activations=10)
    with pytest.raises(OverBudgetError) as caught:
        verdict.require()
    assert str(caught.value) == (
        "reference: 4,662,346 params exceed the 1,000,000 allowed; 749,578 activations exceed the 10 allowed"
    )
    assert caught.value.exit_code == 3


def test_every_network_fits_a_budget_without_limits() -> None:
    verdict = Budget().check(REFERENCE)
    assert verdict.fits
    assert verdict.limits == ()
    assert verdict.edits == ()
    assert Budget().share_used(REFERENCE.cost) == 0


def test_share_used_of_the_tightest_limit() -> None:
    assert Budget(max_params=10, max_macs=40).share_used(Cost(5, 30, 99)) == 0.75


@pytest.mark.parametrize("value", [0, -1, 1.5, "0", "-5M", "few", True, float("nan"), float("inf"), [], "1e-9"])
@pytest.mark.parametrize("field", ["max_params", "max_macs", "max_activations"])
def test_invalid_limits_are_rejected(field: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        Budget.from_mapping({field: value})
    assert caught.value.field == field


def test_without_a_limit_nothing_is_said_to_fit() -> None:
    verdict = Budget().check(REFERENCE)
    assert repr(verdict) == "Verdict(reference: no limit given)"
    assert "no limit given" in verdict._repr_html_()
    assert "fits" not in verdict._repr_html_()
    assert verdict.to_mapping()["fits"] is None


def test_a_use_of_many_times_the_limit_is_not_told_in_per_cent() -> None:
    shown = Budget(max_params=1000, max_macs=7 * 10**8).check(REFERENCE)._repr_html_()
    assert "4,662 x" in shown
    assert "113.3 %" in shown


@pytest.mark.parametrize("limit", [4_600_000, 4_000_000, 1_000_000])
def test_suggested_widths_are_multiples_of_8(limit: int) -> None:
    edits = Budget(max_params=limit).check(REFERENCE).edits
    assert edits
    assert {stage.channels % 8 for edit in edits for stage in edit.spec.stages} == {0}
    assert {edit.spec.stem.channels % 8 for edit in edits} == {0}


def test_verdict_to_mapping() -> None:
    mapping = Budget(max_params=4_600_000).check(REFERENCE).to_mapping()
    assert (mapping["name"], mapping["fits"], mapping["params"]) == ("reference", False, 4_662_346)
    assert mapping["limits"] == [{"limit": "params", "used": 4_662_346, "allowed": 4_600_000, "headroom": -62_346}]
    for edit in mapping["edits"]:
        assert ModelSpec.from_mapping(edit["spec"]).params == edit["params"] <= 4_600_000


# Brute force: for each kind of edit, all edited networks from the smallest change to the largest.


def has_inner_widths(spec: ModelSpec) -> bool:
    return any((stage.block or spec.block) in ("bottleneck", "preact-bottleneck") for stage in spec.stages)


def with_widths(spec: ModelSpec, widths: Sequence[int], **changes: Any) -> ModelSpec:
    """Build the network of other widths of stem and stages, as it is read from a file."""
    pairs = zip(spec.stages, widths[1:], strict=True)
    stages = [{**stage.model_dump(), **changes, "channels": width} for stage, width in pairs]
    stem = {**spec.stem.model_dump(), "channels": widths[0]}
    return ModelSpec.from_mapping({**spec.model_dump(exclude={"name"}), "stages": stages, "stem": stem})


def widths_of(spec: ModelSpec) -> list[int]:
    return [spec.stem.channels, *(stage.channels for stage in spec.stages)]


def allowed_widths(spec: ModelSpec) -> list[list[int]]:
    """List the widths up to its own that stem and stages may have by themselves, whatever their shortcuts allow."""

    def is_allowed(place: int, width: int) -> bool:
        own = widths_of(spec)
        try:
            with_widths(spec, [*own[:place], width, *own[place + 1 :]], shortcut={"kind": "projection"})
        except InputError:
            return False
        return True

    return [
        [width for width in range(1, own + 1) if is_allowed(place, width)] for place, own in enumerate(widths_of(spec))
    ]


def with_stage(spec: ModelSpec, index: int, **changes: Any) -> ModelSpec | None:
    stages = [{**stage.model_dump(), **(changes if i == index else {})} for i, stage in enumerate(spec.stages)]
    try:
        return ModelSpec.from_mapping({**spec.model_dump(exclude={"name"}), "stages": stages})
    except InputError:
        return None


def scaled(spec: ModelSpec, allowed: Sequence[Sequence[int]], thousandths: int) -> ModelSpec | None:
    """Scale all widths, each rounded to one that the groups divide: 8 or more to a multiple of 8, others down."""

    def scaled_width(width: int, options: Sequence[int]) -> int:
        target = max(1, width * thousandths // 1000)
        multiples = [option for option in options if option % 8 == 0]
        if target >= 8 and multiples:
            return min(multiples, key=lambda option: (abs(option - target), option))
        return max([option for option in options if option <= target] or options[:1])

    widths = [scaled_width(*pair) for pair in zip(widths_of(spec), allowed, strict=True)]
    for index in reversed(range(len(spec.stages))):
        if (spec.stages[index].shortcut or spec.shortcut).kind == "padding" and widths[index] > widths[index + 1]:
            below = [option for option in allowed[index] if option <= widths[index + 1]]
            if not below:
                return None
            widths[index] = below[-1]
    return with_widths(spec, widths)


def with_capped_kernels(spec: ModelSpec, indices: tuple[int, ...], cap: int) -> ModelSpec:
    stages = []
    for stage in spec.stages:
        sizes = [min(size, cap) if index in indices else size for index, size in enumerate(stage.kernel_sizes)]
        stages.append({**stage.model_dump(), "kernel_sizes": sizes})
    return ModelSpec.from_mapping({**spec.model_dump(exclude={"name"}), "stages": stages})


def families(spec: ModelSpec) -> Iterator[tuple[str, Iterator[ModelSpec | None]]]:
    """Yield each kind of edit, named as in its descriptions, and all its networks, the smallest change first."""
    for index, stage in enumerate(spec.stages):
        below = range(stage.channels - 1, 0, -1)
        widths = [width for width in below if width % 8 == 0] + [width for width in below if width % 8]
        yield f"stage {index + 1} channels", (with_stage(spec, index, channels=width) for width in widths)
        counts = range(stage.blocks - 1, 0, -1)
        yield f"stage {index + 1} blocks", (with_stage(spec, index, blocks=count) for count in counts)
    allowed = allowed_widths(spec)
    yield "all widths", (scaled(spec, allowed, thousandths) for thousandths in range(999, 0, -1))
    if has_inner_widths(spec):
        kernels: list[tuple[str, tuple[int, ...]]] = [("every kernel", (0, 1))]
    else:
        kernels = [("every first kernel", (0,)), ("every second kernel", (1,))]
    for name, indices in kernels:
        largest = max(stage.kernel_sizes[index] for stage in spec.stages for index in indices)
        yield name, (with_capped_kernels(spec, indices, cap) for cap in range(largest - 2, 0, -2))


def family_of(edit: Edit) -> str:
    stage = re.fullmatch(r"(stage \d+): \d+ -> \d+ (channels|blocks)", edit.description)
    return f"{stage[1]} {stage[2]}" if stage else re.split(r" x |:", edit.description)[0]


def smallest_edits(spec: ModelSpec, fits: Callable[[Cost], bool]) -> dict[str, ModelSpec]:
    smallest = {}
    for name, networks in families(spec):
        first = next((network for network in networks if network is not None and fits(cost_of(network))), None)
        if first is not None:
            smallest[name] = first
    return smallest


@st.composite
def over_budget(draw: st.DrawFn) -> tuple[ModelSpec, Budget]:
    """Generate a network and a limit below its cost, often equal to the cost of one edit to test boundaries."""
    spec = draw(specs(max_side=6))
    kind, used = draw(st.sampled_from(list(spec.cost._asdict().items())))
    index = draw(st.integers(0, len(spec.stages) - 1))
    neighbours = [spec.stem.channels, *(stage.channels for stage in spec.stages)]
    width = draw(st.sampled_from(neighbours) | st.integers(1, spec.stages[index].channels))
    edited = with_stage(spec, index, channels=width) if draw(st.booleans()) else None
    limit = round(used * draw(st.floats(0.02, 1))) if edited is None else cost_of(edited)._asdict()[kind]
    return spec, Budget.from_mapping({f"max_{kind}": max(1, min(used - 1, limit))})


@examples(120)
@given(over_budget())
def test_edits_match_brute_force(pair: tuple[ModelSpec, Budget]) -> None:
    spec, budget = pair
    edits = budget.check(spec).edits
    expected = smallest_edits(spec, budget.allows)
    assert {family_of(edit): edit.spec for edit in edits} == expected
    assert len(edits) == len(expected)


@pytest.mark.parametrize("kind", ["projection", "average-pool", "padding"])
@pytest.mark.parametrize("channels", [[5, 9], [9, 5, 5], [7, 7]])
def test_edits_match_brute_force_at_every_limit(kind: str, channels: list[int]) -> None:
    # With 1x1 convolutions at one resolution, projections dominate, so cost is not monotonic in width.
    if kind == "padding":
        channels = sorted(channels)
    spec = ModelSpec.resnet(channels=channels, stem=5, strides=1, kernel_sizes=1, shortcut={"kind": kind})
    levels = [network for _, networks in families(spec) for network in networks if network is not None]
    for limit in sorted({level.params for level in levels} - {spec.params}):
        budget = Budget(max_params=limit)
        if not budget.allows(spec.cost):
            edits = {family_of(edit): edit.spec for edit in budget.check(spec).edits}
            assert edits == smallest_edits(spec, budget.allows)


@pytest.mark.parametrize(("groups", "widths"), [(3, [24, 15, 16]), (24, [24, 24, 24])])
def test_scaled_widths_are_those_that_the_groups_of_each_stage_divide(groups: int, widths: list[int]) -> None:
    spec = ModelSpec.resnet(channels=[24, 48], groups=[groups, 1], shortcut=["projection", "padding"], stem=24)
    for limit in (spec.params - 1, 14_533, 11_000, 5_000):
        budget = Budget(max_params=limit)
        edits = {family_of(edit): edit.spec for edit in budget.check(spec).edits}
        assert edits == smallest_edits(spec, budget.allows)
        # The shortcut pads, so the first stage is at most as wide as the second, in a width that the groups divide.
        if limit == 14_533:
            assert widths_of(edits["all widths"]) == widths
    # With 24 groups nothing is narrower.
    assert ("all widths" in edits) == (groups == 3)


def test_kernels_of_mixed_blocks_are_capped_from_the_largest_of_both() -> None:
    kernel_sizes = [(3, 7), (3, 3)]
    spec = ModelSpec.resnet(channels=[16, 16], block=["basic", "bottleneck"], kernel_sizes=kernel_sizes)
    budget = Budget(max_params=spec.params - 1)
    edits = budget.check(spec).edits
    assert "every kernel: 7 -> 5" in {edit.description for edit in edits}
    assert {family_of(edit): edit.spec for edit in edits} == smallest_edits(spec, budget.allows)


@many_examples
@given(over_budget())
def test_edits_are_valid_and_fit_and_are_sorted_by_used_share(pair: tuple[ModelSpec, Budget]) -> None:
    spec, budget = pair
    edits = budget.check(spec).edits
    for edit in edits:
        assert ModelSpec.from_mapping(edit.spec.to_mapping()) == edit.spec
        assert edit.cost == cost_of(edit.spec)
        assert budget.check(edit.spec).fits
        assert edit.spec.name == ""
    shares = [budget.share_used(edit.cost) for edit in edits]
    assert shares == sorted(shares, reverse=True)


@examples(60)
@given(specs(), st.integers(1, 10**6), st.integers(1, 10**6))
def test_network_that_fits_a_budget_fits_a_larger_one(spec: ModelSpec, one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert budgetnet.check(spec, max_params=small).fits <= budgetnet.check(spec, max_params=large).fits


def edit_of(spec: ModelSpec, budget: Budget, family: str) -> Edit | None:
    return next((edit for edit in budget.check(spec).edits if family_of(edit) == family), None)


def test_edit_to_a_width_without_projection_is_found() -> None:
    spec = ModelSpec.resnet(channels=[16, 24], strides=1, kernel_sizes=1)
    # As wide as the first stage, the second one needs no projection; one channel less adds a projection and costs more.
    equal, narrower = (spec.replace(channels=[16, width]).params for width in (16, 15))
    assert equal < narrower
    edit = edit_of(spec, Budget(max_params=equal), "stage 2 channels")
    assert edit is not None
    assert edit.description == "stage 2: 24 -> 16 channels"


def test_scaled_bottlenecks_with_groups_and_padding_shortcuts_can_be_built() -> None:
    bottleneck: dict[str, Any] = {"block": "bottleneck", "bottleneck_ratio": 0.5, "groups": 4}
    spec = ModelSpec.resnet(channels=[16], blocks=2, shortcut={"kind": "padding"}, **bottleneck)
    edit = edit_of(spec, Budget(max_params=spec.params // 2), "all widths")
    assert edit is not None
    # A stem wider than the first stage could not be built with a padding shortcut.
    built = sum(parameter.numel() for parameter in edit.spec.build().parameters())
    assert built == edit.cost.params <= spec.params // 2


def test_no_edits_if_no_single_edit_fits() -> None:
    verdict = Budget(max_params=1).check(REFERENCE)
    assert not verdict.fits
    assert verdict.edits == ()


def test_smallest_edits_of_the_reference_one_parameter_over_budget() -> None:
    edits = Budget(max_params=4_662_345).check(REFERENCE).edits
    descriptions = {edit.description for edit in edits}
    assert {
        "stage 5: 256 -> 248 channels",
        "stage 1: 2 -> 1 blocks",
        "every first kernel: 5 -> 3",
    } <= descriptions


def test_limits_of_the_deployed_network_are_checked() -> None:
    budget = Budget(max_weights="4M", weight_precision="int8", max_peak_memory="512K")
    verdict = budget.check(REFERENCE)
    weights, memory = verdict.limits
    assert (weights.limit, weights.used, weights.allowed) == ("weights", weight_bytes(REFERENCE, "int8"), 2**22)
    assert (memory.limit, memory.used, memory.headroom) == ("peak_memory", 548_864, 2**19 - 548_864)
    assert verdict.note == "weights in int8"
    with pytest.raises(OverBudgetError) as caught:
        verdict.require()
    assert str(caught.value) == (
        "reference: 4.461 MiB weights exceed the 4.000 MiB allowed; 536.0 KiB peak memory exceed the 512.0 KiB allowed"
    )
    assert Budget(max_peak_memory=548_864).admits(REFERENCE)
    assert not Budget(max_peak_memory=548_863).admits(REFERENCE)


@pytest.mark.parametrize(
    "limit", [{"max_peak_memory": "512K"}, {"max_weights": "16M"}, {"max_weights": "3M", "weight_precision": "int8"}]
)
def test_edits_hold_limits_of_the_deployed_network(limit: dict[str, Any]) -> None:
    budget = Budget(**limit)
    edits = budget.check(REFERENCE).edits
    assert edits
    for edit in edits:
        assert budget.admits(ModelSpec.from_mapping(edit.spec.to_mapping()))
        assert edit.needs == budget.needs(edit.spec)


def test_unset_limits_of_the_deployed_network_are_not_written() -> None:
    assert set(Budget(max_params=5).to_mapping()) == {"max_params", "max_macs", "max_activations"}
    written = Budget(max_weights="1M", weight_precision="int8").to_mapping()
    assert (written["max_weights"], written["weight_precision"]) == (2**20, "int8")
    assert Budget.from_mapping(written) == Budget(max_weights=2**20, weight_precision="int8")


def test_scaled_limits_are_those_that_are_checked() -> None:
    budget = Budget(max_params=100, max_peak_memory=1000)
    assert budget.allowed == {"params": 100, "peak_memory": 1000}
    assert budget.scaled(0.5).allowed == {"params": 50, "peak_memory": 500}
    assert budget.scaled(1e-9).allowed == {"params": 1, "peak_memory": 1}


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        ({"max_weights": "5X"}, "max_weights = '5X': must be a whole number of bytes"),
        ({"max_peak_memory": 0}, "max_peak_memory = 0: must be a whole number of bytes"),
        ({"weight_precision": "int8"}, "weight_precision = 'int8': needs a limit of weights, max_weights"),
        ({"max_weights": 9, "weight_precision": "int4"}, "weight_precision = 'int4': must be 'float32', 'float16' or"),
    ],
)
def test_invalid_limits_of_the_deployed_network_give_one_line(limits: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as caught:
        budgetnet.check(REFERENCE, **limits)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_module_has_no_limits_of_the_deployed_network() -> None:
    from torch import nn

    with pytest.raises(InputError, match=r"^max_weights = 1024: needs a spec"):
        budgetnet.check(nn.Conv2d(3, 4, 3), max_weights="1K")
