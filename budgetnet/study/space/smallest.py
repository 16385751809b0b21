"""The network of a space that needs the least of something, found without counting all of them."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Literal

from budgetnet.model.cost import ends_cost, stage_cost
from budgetnet.study.space.structure import (
    hidden_width,
    inner_width,
    pixels_of,
    rounded_width,
    shortcut_area,
    stem_of,
    strides_of,
    width_step,
)

if TYPE_CHECKING:
    from budgetnet.study.space.document import SearchSpace

Measure = Literal["params", "macs", "activations"]
MEASURES: tuple[Measure, ...] = ("params", "macs", "activations")
"""Everything that a network may need little of."""


def smallest_of(
    space: SearchSpace, *, input_shape: tuple[int, int, int], num_classes: int, measure: Measure
) -> dict[str, Any]:
    """The draw that needs the least, as `SearchSpace.spec` takes it."""
    search = _Search(space, input_shape, num_classes, MEASURES.index(measure))
    low, high = space.full_size_stages
    # More than there are stages are as good as all.
    fullest = range(low, max(low, min(high, space.stages[1])) + 1)
    for kind, groups, shortcut, full in itertools.product(space.block_kinds, space.groups, space.shortcuts, fullest):
        search.look(kind, groups, shortcut, full)
    return search.best


class _Search:
    """The best draw so far.

    Few blocks, small kernels and little squeeze-and-excitation are always cheaper. Widths are not: a stage as wide as
    the one before it may spare a convolution around it, and where groups make steps wide, a narrower beginning may end
    in more of those. So widths are followed stage by stage, and of all ways to the same one only the cheapest goes on.
    """

    def __init__(self, space: SearchSpace, input_shape: tuple[int, int, int], num_classes: int, measure: int) -> None:
        self._space, self._input_shape, self._num_classes, self._measure = space, input_shape, num_classes, measure
        self._least = math.inf
        self.best: dict[str, Any] = {}

    def look(self, kind: Any, groups: int, shortcut: Any, full: int) -> None:
        """Follows all networks of one kind of block, groups, shortcut and map sizes."""
        space, measure = self._space, self._measure
        step, area = width_step(space.channel_step, kind, groups), shortcut_area(shortcut)
        strides = strides_of(space.stages[1], full, min(self._input_shape[1:]))
        pixels = pixels_of(strides, self._input_shape)
        ratio = min(space.squeeze_excitation_ratios)

        def stage(index: int, entering: int, width: int) -> int:
            changes = entering != width or strides[index] > 1
            return stage_cost(
                kind,
                groups,
                blocks=space.blocks[0],
                entering=entering,
                width=width,
                inner=inner_width(kind, width),
                hidden=hidden_width(width, ratio),
                first=min(space.first_kernel_sizes) ** 2,
                second=min(space.second_kernel_sizes) ** 2,
                shortcut=area if changes else 0,
                before=pixels[index],
                after=pixels[index + 1],
            )[measure]

        low, high = space.channels
        for channels in range(low, high + 1, space.channel_step):
            stem = rounded_width(channels, step)
            first = stage(0, stem, stem)
            # Wider first stages only cost more.
            if first >= self._least:
                break
            ways: dict[float, tuple[int, tuple[float, ...]]] = {float(channels): (first, ())}
            for index in range(space.stages[1]):
                if index:
                    ways = self._onward(ways, lambda *widths, index=index: stage(index, *widths), step)
                if index + 1 >= space.stages[0]:
                    for exact, (total, growths) in ways.items():
                        last = rounded_width(exact, step)
                        ends = ends_cost(kind, self._num_classes, stem=stem, last=last, **stem_of(self._input_shape))
                        if total + ends[measure] < self._least:
                            self._least = total + ends[measure]
                            self.best = self._draw(kind, groups, shortcut, full, channels, growths)

    def _onward(self, ways: Any, stage: Any, step: int) -> dict[float, tuple[int, tuple[float, ...]]]:
        """Every width that one more stage may have, with the cheapest way to it."""
        onward: dict[float, tuple[int, tuple[float, ...]]] = {}
        for exact, (total, growths) in ways.items():
            entering = rounded_width(exact, step)
            for growth in self._space.growth:
                wider = exact * growth
                cost = total + stage(entering, rounded_width(wider, step))
                if cost < self._least and (wider not in onward or cost < onward[wider][0]):
                    onward[wider] = cost, (*growths, growth)
        return onward

    def _draw(
        self, kind: str, groups: int, shortcut: str, full: int, channels: int, growths: tuple[float, ...]
    ) -> dict[str, Any]:
        space = self._space
        count = len(growths) + 1
        # What a network without the last stages leaves unread is still part of a draw.
        padded = (*growths, *[space.growth[0]] * (space.stages[1] - count))
        return {
            "stages": count,
            "full_size_stages": full,
            "channels": channels,
            "block": kind,
            "first_kernel_size": min(space.first_kernel_sizes),
            "second_kernel_size": min(space.second_kernel_sizes),
            "squeeze_excitation_ratio": min(space.squeeze_excitation_ratios),
            "groups": groups,
            "shortcut": shortcut,
            **{f"blocks_{number}": space.blocks[0] for number in range(1, space.stages[1] + 1)},
            **{f"growth_{number}": growth for number, growth in enumerate(padded, 2)},
        }
