"""Cheapest network of a space by one measure, without enumeration."""

from __future__ import annotations

import itertools
import math
import operator
from typing import TYPE_CHECKING, Any, Literal

from budgetnet.model.cost import costs_of_parts
from budgetnet.study.space.structure import rounded_width, width_step

if TYPE_CHECKING:
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
    least, smallest = math.inf, dict[str, Any]()
    low, high = space.full_size_stages
    # More than there are stages are as good as all.
    fullest = range(low, max(low, min(high, space.stages[1])) + 1)
    for kind, groups, shortcut, full in itertools.product(space.block_kinds, space.groups, space.shortcuts, fullest):
        params: dict[str, Any] = {
            "full_size_stages": full,
            "block": kind,
            "first_kernel_size": min(space.first_kernel_sizes),
            "second_kernel_size": min(space.second_kernel_sizes),
            "squeeze_excitation_ratio": min(space.squeeze_excitation_ratios),
            "groups": groups,
            "shortcut": shortcut,
            **{f"blocks_{number}": space.blocks[0] for number in range(1, space.stages[1] + 1)},
            # A network without the last stages does not read how they grow.
            **{f"growth_{number}": space.growth[0] for number in range(2, space.stages[1] + 1)},
        }
        step = width_step(space.channel_step, kind, groups)
        frame = space.spec_of_widths(params, [step] * space.stages[1], input_shape=input_shape, num_classes=num_classes)
        for channels in range(space.channels[0], space.channels[1] + 1, space.channel_step):
            grown: list[tuple[float, ...]] = [()]
            for count in range(1, space.stages[1] + 1):
                # The cheapest way to each width of the last stage, its head not counted and counted.
                cheapest: dict[float, tuple[int, int, tuple[float, ...]]] = {}
                for growths in grown:
                    exact = list(itertools.accumulate(growths, operator.mul, initial=float(channels)))
                    widths = [rounded_width(width, step) for width in exact]
                    ends, *stages = (part[place] for part in costs_of_parts(frame, widths=[widths[0], *widths]))
                    if sum(stages) < cheapest.get(exact[-1], (least,))[0]:
                        cheapest[exact[-1]] = sum(stages), sum(stages) + ends, growths
                for _, whole, growths in cheapest.values():
                    if count >= space.stages[0] and whole < least:
                        names = (f"growth_{number}" for number in range(2, count + 1))
                        least = whole
                        smallest = {
                            **params,
                            "stages": count,
                            "channels": channels,
                            **dict(zip(names, growths, strict=True)),
                        }
                grown = [(*growths, growth) for _, _, growths in cheapest.values() for growth in space.growth]
    return smallest
