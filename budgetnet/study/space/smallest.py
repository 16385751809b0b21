"""Cheapest network of a space by one measure, without enumeration."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.model.cost import costs_of_parts
from budgetnet.model.deployed.limits import DEPLOYED
from budgetnet.model.deployed.operations import BLOCK_SIZES
from budgetnet.study.space.networks import choice_text
from budgetnet.study.space.structure import rounded_width

if TYPE_CHECKING:
    from budgetnet.model.budget import Budget
    from budgetnet.model.spec import ModelSpec
    from budgetnet.study.space.document import SearchSpace

Measure = Literal["params", "macs", "activations"]
MEASURES: tuple[Measure, ...] = ("params", "macs", "activations")
"""Measures of cost to minimise."""


def smallest_of(
    space: SearchSpace, *, input_shape: tuple[int, int, int], num_classes: int, measure: Measure
) -> dict[str, Any]:
    """Return the parameters of the cheapest network, for `SearchSpace.spec`.

    Few blocks, small kernels and little squeeze-and-excitation are always cheaper. Widths are not: a stage as wide as
    the one before it may spare a convolution around it, and where groups make steps wide, a narrower beginning may end
    in more of those. So networks grow stage by stage, and of all that have reached the same width only the cheapest
    grows on.
    """
    place = MEASURES.index(measure)
    image: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
    least, smallest = math.inf, dict[str, Any]()
    for params in _frames(space):
        step = space.step_of(params)
        deepest, pools = space.stages[1], "pool_size" in params["head"]
        # What a head pools depends on the number of stages.
        counts = range(1, deepest + 1) if pools else [deepest]
        frames = [space.spec_of_widths(params, [step] * count, **image) for count in counts]
        frames *= 1 if pools else deepest
        for channels in range(space.channels[0], space.channels[1] + 1, space.channel_step):
            if space.regnet is not None:
                names = (f"growth_{number}" for number in range(2, params["stages"] + 1))
                found = iter([tuple(params[name] for name in names)])
            else:
                found = _grown(space, frames, place=place, step=step, channels=channels, least=least)
            for growths in found:
                whole = sum(_costs(frames, growths, place=place, step=step, channels=channels))
                if whole < least:
                    least = whole
                    names = (f"growth_{number}" for number in range(2, len(growths) + 2))
                    own = {"stages": len(growths) + 1, "channels": channels, **dict(zip(names, growths, strict=True))}
                    smallest = {**params, **own}
    return smallest


def smallest_deployed(
    space: SearchSpace,
    limit: str,
    budget: Budget,
    *,
    fitted: bool,
    input_shape: tuple[int, int, int],
    num_classes: int,
) -> ModelSpec:
    """Return the network of a space that needs the least of a limit of the deployed network.

    Of the networks with least blocks, kernels and growth, all kinds, strides and numbers of stages are looked at, and
    the narrowest widths up to a block of channels more: whole blocks may need less memory than narrower maps.

    Args:
        space: the space.
        limit: one of `budgetnet.model.deployed.limits.DEPLOYED`.
        budget: the precision of weights.
        fitted: whether widths are fitted, from one step on, and not those of the space.
        input_shape: image as (channels, height, width).
        num_classes: number of classes.
    """
    image: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
    found: dict[str, ModelSpec] = {}
    low, high = (space.channel_step, MAX_CHANNELS) if fitted else space.channels
    narrow = range(low, min(high, low + max(BLOCK_SIZES)) + 1, space.channel_step)
    for params in _frames(space):
        step, (fewest, most) = space.step_of(params), space.stages
        if space.regnet is not None:
            fewest = most = params["stages"]
        for count, channels in itertools.product(range(fewest, most + 1), narrow):
            growths = [params[f"growth_{number}"] for number in range(2, count + 1)]
            exact = itertools.accumulate(growths, operator.mul, initial=float(channels))
            spec = space.spec_of_widths(params, [rounded_width(width, step) for width in exact], **image)
            found[spec.digest] = spec
    return min(found.values(), key=lambda spec: DEPLOYED[limit].need(spec, budget))


def _frames(space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Yield complete samples that may be the cheapest at some widths, which they do not name."""
    low, high = space.full_size_stages
    # More than there are stages are as good as all.
    fullest = range(low, max(low, min(high, space.stages[1])) + 1)
    rule = space.regnet
    numbers = [(rule.depth[0], *each) for each in itertools.product(rule.slopes, rule.multipliers)] if rule else [None]
    for kind in space.block_kinds:
        inner = kind.endswith("bottleneck")
        for groups, group_width, ratio, shortcut, full, stem, head, number in itertools.product(
            space.groups,
            space.group_widths if inner else space.group_widths[:1],
            space.bottleneck_ratios if inner else space.bottleneck_ratios[:1],
            space.shortcuts,
            fullest,
            map(choice_text, space.stems),
            map(choice_text, space.heads),
            numbers,
        ):
            yield space.complete(
                {
                    "full_size_stages": full,
                    "block": kind,
                    "first_kernel_size": min(space.first_kernel_sizes),
                    "second_kernel_size": min(space.second_kernel_sizes),
                    "squeeze_excitation_ratio": min(space.squeeze_excitation_ratios),
                    "groups": groups,
                    "group_width": group_width,
                    "bottleneck_ratio": ratio,
                    "shortcut": shortcut,
                    "shortcut_kernel_size": min(space.shortcut_kernel_sizes),
                    "activation": space.activations[0],
                    "block_dropout": space.block_dropouts[0],
                    "conv_bias": min(space.conv_biases),
                    "stem": stem,
                    "head": head,
                    **{f"blocks_{place}": space.blocks[0] for place in range(1, space.stages[1] + 1)},
                    # A network without the last stages does not read how they grow.
                    **{f"growth_{place}": space.growth[0] for place in range(2, space.stages[1] + 1)},
                    **(
                        {}
                        if number is None
                        else dict(zip(("depth", "width_slope", "width_multiplier"), number, strict=True))
                    ),
                }
            )


def _grown(
    space: SearchSpace, frames: Sequence[ModelSpec], *, place: int, step: int, channels: int, least: float
) -> Iterator[tuple[float, ...]]:
    """Yield the growths of the cheapest networks of every number of stages, unless they cost more than the least."""
    grown: list[tuple[float, ...]] = [()]
    for count in range(1, space.stages[1] + 1):
        # The cheapest way to each width of the last stage, its head not counted.
        cheapest: dict[float, tuple[int, tuple[float, ...]]] = {}
        for growths in grown:
            exact = math.prod(growths, start=float(channels))
            stages = sum(_costs(frames, growths, place=place, step=step, channels=channels)[1:])
            if stages < cheapest.get(exact, (least,))[0]:
                cheapest[exact] = stages, growths
        if count >= space.stages[0]:
            yield from (growths for _, growths in cheapest.values())
        grown = [(*growths, growth) for _, growths in cheapest.values() for growth in space.growth]


def _costs(
    frames: Sequence[ModelSpec], growths: tuple[float, ...], *, place: int, step: int, channels: int
) -> list[int]:
    """Return one measure of stem with head and of each stage."""
    exact = itertools.accumulate(growths, operator.mul, initial=float(channels))
    widths = [rounded_width(width, step) for width in exact]
    return [part[place] for part in costs_of_parts(frames[len(growths)], widths=[widths[0], *widths])]
