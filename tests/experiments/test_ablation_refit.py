"""Refitted networks: never above the target, nearest by one step, with unchanged shortcuts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import many_examples, specs

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation import AblationStudy
from budgetnet.model import zoo
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.model.widths import refit

NO_LIMIT = Budget()
STUDIES = Path(__file__).parents[2] / "studies"


def widths_of(spec: ModelSpec) -> list[int]:
    return [spec.stem.channels, *(stage.channels for stage in spec.stages)]


def with_widths(spec: ModelSpec, widths: list[int]) -> ModelSpec | None:
    """The network with these widths, if there may be one."""
    mapping = spec.to_mapping()
    mapping["stem"]["channels"] = widths[0]
    for stage, width in zip(mapping["stages"], widths[1:], strict=True):
        stage["channels"] = width
    try:
        return ModelSpec.from_mapping(mapping)
    except InputError:
        return None


def shortcuts(spec: ModelSpec) -> list[bool]:
    """Whether the first block of each stage has more around it than an identity."""
    pairs = itertools.pairwise(widths_of(spec))
    return [stage.stride > 1 or before != width for stage, (before, width) in zip(spec.stages, pairs, strict=True)]


def in_order(spec: ModelSpec, widths: list[int]) -> bool:
    """Whether no width passes the one before it that the network's own does not pass."""
    both = zip(itertools.pairwise(widths_of(spec)), itertools.pairwise(widths), strict=True)
    return all((before <= after) if own[0] <= own[1] else (before >= after) for own, (before, after) in both)


def same_but_for_widths(spec: ModelSpec, other: ModelSpec) -> bool:
    return with_widths(other, widths_of(spec)) == spec.replace()


def neighbours(spec: ModelSpec, own: ModelSpec) -> Iterator[ModelSpec]:
    """Networks with one width a step wider or narrower, those that an identity joins to it with it."""
    widths, joined = widths_of(spec), [[0]]
    for index, shortcut in enumerate(shortcuts(spec), start=1):
        if shortcut:
            joined.append([index])
        else:
            joined[-1].append(index)
    for members, sign in itertools.product(joined, (1, -1)):
        for step in range(1, 200):
            changed = [width + sign * step * (index in members) for index, width in enumerate(widths)]
            network = with_widths(spec, changed)
            # A stem of a bottleneck takes any width, a stage those that its groups divide: the next that may be.
            if network is None and min(changed) >= 1 and in_order(own, changed):
                continue
            if network is not None and in_order(own, changed) and shortcuts(network) == shortcuts(own):
                yield network
            break


@many_examples
@given(specs(), st.floats(0.3, 6))
def test_refitted_network_is_nearest_without_being_larger(spec: ModelSpec, factor: float) -> None:
    params = int(spec.params * factor)
    try:
        fitted = refit(spec, params=params, budget=NO_LIMIT)
    except InputError as error:
        # At its narrowest: no step back is left that keeps the order, and what there is, is too much.
        assert "even at its narrowest" in error.rule
        assert factor < 1
        return
    assert fitted.params <= params
    assert same_but_for_widths(spec, fitted)
    assert shortcuts(fitted) == shortcuts(spec)
    assert in_order(spec, widths_of(fitted))
    assert not [near for near in neighbours(fitted, spec) if fitted.params < near.params <= params]


SMALL = [
    ModelSpec.resnet(channels=[3, 5, 8], strides=[1, 1, 2], stem=4),
    ModelSpec.resnet(channels=[4, 4, 6], blocks=2),
    ModelSpec.resnet(channels=[12, 7], strides=[1, 1], kernel_sizes=(5, 3), block="preact"),
    ModelSpec.resnet(channels=[4, 8, 9], shortcut={"kind": "padding"}, squeeze_excitation_ratio=0.3),
    ModelSpec.resnet(channels=[16, 32, 24], block="bottleneck", kernel_sizes=5, stem=7),
]


@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: spec.label)
def test_no_width_is_below_that_of_the_largest_common_factor(spec: ModelSpec) -> None:
    scaled = [
        with_widths(spec, [round(width * hundredths / 100) for width in widths_of(spec)]) for hundredths in range(400)
    ]
    like = [
        network
        for network in scaled
        if network is not None and shortcuts(network) == shortcuts(spec) and in_order(spec, widths_of(network))
    ]
    assert len(like) > 200
    for params in range(spec.params // 2, 9 * spec.params, spec.params // 7):
        largest = max((network for network in like if network.params <= params), key=lambda network: network.params)
        fitted = refit(spec, params=params, budget=NO_LIMIT)
        assert all(width >= other for width, other in zip(widths_of(fitted), widths_of(largest), strict=True))


def test_network_of_target_size_is_unchanged() -> None:
    for name in zoo.names():
        spec = zoo.get(name)
        assert refit(spec, params=spec.params, budget=NO_LIMIT).digest == spec.digest


def test_fewer_parameters_than_the_narrowest_network_has_are_refused() -> None:
    # One channel throughout: a 3x3 stem of 3 inputs and its norm, two 3x3 convolutions and norms, a classifier of 10.
    spec = ModelSpec.resnet(channels=[16])
    narrowest = 27 + 2 + 2 * (9 + 2) + 10 + 10
    assert refit(spec, params=narrowest, budget=NO_LIMIT).params == narrowest
    with pytest.raises(InputError, match=r"^params = 70: basic-16x1 is larger, or over budget, even at its narrowest$"):
        refit(spec, params=narrowest - 1, budget=NO_LIMIT)


def test_limits_besides_parameters_hold_too() -> None:
    spec = zoo.get("reference")
    budget = Budget(max_macs="200M")
    fitted = refit(spec, params=spec.params, budget=budget)
    assert budget.allows(fitted.cost)
    assert not [near for near in neighbours(fitted, spec) if near.params > fitted.params and budget.allows(near.cost)]


def test_the_kernels_of_the_shipped_study_are_compared_at_equal_parameters() -> None:
    study = AblationStudy.load(STUDIES / "kernel-size" / "study.yaml")
    variants = study.variants(input_shape=(3, 32, 32), num_classes=10)
    refitted = [variant for variant in variants if variant.refitted]
    assert [variant.settings["spec.kernel_sizes"] for variant in refitted] == [[3, 3], [3, 5], [5, 5], [7, 3]]
    for variant in refitted:
        assert 0.99 * 4_662_346 < variant.spec.params <= 4_662_346
        # Proportions are the reference's, 1-1-2-4-4, to the channel.
        stem, first, second, third, fourth, fifth = widths_of(variant.spec)
        assert stem == first == second
        assert max(abs(third - 2 * first), abs(fourth - 4 * first), abs(fifth - 4 * first)) <= 2
        assert fourth <= fifth
