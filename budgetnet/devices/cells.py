"""The cells of a device's table: which kernels a search space needs, and at which numbers of channels."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from budgetnet.model.deployed.calls import Call, Kernel, by_width

_INPUT_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_OUTPUT_STEPS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
"""Channels of the grid, in blocks. Time grows in steps with output blocks, of which a kernel computes a few at once."""
_PLAIN_STEPS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
"""Channels of each group in the plain layout."""
_MARGIN = 1.15
"""How much the region that is measured exceeds what was sampled."""


class Cells(NamedTuple):
    """Numbers of channels at which a kernel is timed."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    """Empty for a kernel that keeps the number of channels."""
    wanted: frozenset[tuple[int, int]]
    """Places in both."""


def keeps_channels(kernel: Kernel) -> bool:
    """Return whether a kernel has as many output as input channels."""
    return kernel.kind not in ("conv", "linear", "pad")


def cells_of(calls: Iterable[Call], *, block: int) -> dict[Kernel, Cells]:
    """Return the cells that cover sampled calls, and others of the same shares of channels and numbers of weights.

    Args:
        calls: of sampled networks.
        block: channels in a block of the runtime's layout.
    """
    seen: dict[Kernel, set[tuple[int, int]]] = defaultdict(set)
    for kernel, inputs, outputs in calls:
        seen[kernel].add((inputs, outputs))
    _add_other_sizes(seen)
    bounds = _bounds({kernel: pairs for kernel, pairs in seen.items() if pairs})
    return {
        kernel: _cells(kernel, pairs, bounds[_family(kernel)], block)
        for kernel, pairs in sorted(seen.items(), key=lambda item: str(item[0]))
    }


def _add_other_sizes(seen: dict[Kernel, set[tuple[int, int]]]) -> None:
    """Add, without channels, convolutions that differ from sampled ones in the size of the kernel."""
    sizes: dict[tuple[int, bool], set[int]] = defaultdict(set)
    spatial = [kernel for kernel in seen if kernel.is_conv and kernel.kernel_size > 1 and _is_padded(kernel)]
    for kernel in spatial:
        sizes[kernel.stride, kernel.adds].add(kernel.kernel_size)
    for kernel in spatial:
        for size in sizes[kernel.stride, kernel.adds]:
            seen.setdefault(kernel._replace(kernel_size=size), set())


def _is_padded(kernel: Kernel) -> bool:
    return kernel.after[0] == -(-kernel.before[0] // kernel.stride)


def grouped_by(calls: Sequence[Call]) -> list[Call]:
    """Return calls under the number of groups of grouped convolutions or, if those are more, the widths of groups."""
    convs = [call for call in calls if call.kernel.kind == "conv" and call.kernel.groups > 1]
    numbers = {call.kernel.groups for call in convs}
    widths = {call.inputs // call.kernel.groups for call in convs}
    square = all(call.inputs == call.outputs for call in convs)
    return [by_width(call) for call in calls] if square and len(widths) < len(numbers) else list(calls)


class _Bounds(NamedTuple):
    """Region of a family of kernels that differ in the size of the kernel."""

    low: tuple[int, int]
    """Fewest input and output channels."""
    weights: float
    """Most weights, of all groups as if there were one."""
    ratios: tuple[float, float]
    """Smallest and largest ratio of output to input channels."""
    high: tuple[int, int]
    """Most input and output channels."""

    @classmethod
    def of(cls, found: Sequence[tuple[int, int, int]]) -> _Bounds:
        """Return the bounds of input channels, output channels and areas of kernels."""
        inputs, outputs = [each[0] for each in found], [each[1] for each in found]
        ratios = [each[1] / each[0] for each in found]
        weights = max(each[0] * each[1] * each[2] for each in found)
        return cls(
            (min(inputs), min(outputs)),
            _MARGIN**2 * weights,
            (min(ratios), max(ratios)),
            (max(inputs), max(outputs)),
        )

    @classmethod
    def joined(cls, bounds: Sequence[_Bounds]) -> _Bounds:
        """Return the bounds of all that some bounds contain."""
        return cls(
            (min(each.low[0] for each in bounds), min(each.low[1] for each in bounds)),
            max(each.weights for each in bounds),
            (min(each.ratios[0] for each in bounds), max(each.ratios[1] for each in bounds)),
            (max(each.high[0] for each in bounds), max(each.high[1] for each in bounds)),
        )


def _family(kernel: Kernel) -> Kernel:
    size = min(kernel.kernel_size, 3) if kernel.is_conv and _is_padded(kernel) else kernel.kernel_size
    # Those that add a map are measured with those that do not.
    return kernel._replace(kernel_size=size, adds=False)


def _bounds(seen: Mapping[Kernel, set[tuple[int, int]]]) -> dict[Kernel, _Bounds]:
    families: dict[Kernel, list[tuple[int, int, int]]] = defaultdict(list)
    for kernel, pairs in seen.items():
        families[_family(kernel)] += [(inputs, outputs, kernel.kernel_size**2) for inputs, outputs in pairs]
    own = {family: _Bounds.of(found) for family, found in families.items()}
    # What a budget allows at a size of map, it allows at a smaller one, even where few networks were sampled.
    return {
        family: _Bounds.joined(
            [other for each, other in own.items() if _is_alike(each, family) and min(each.before) >= min(family.before)]
        )
        for family in own
    }


def _is_alike(family: Kernel, other: Kernel) -> bool:
    """Return whether families differ in the sizes of maps only."""
    return family._replace(before=other.before, after=other.after) == other


def _cells(kernel: Kernel, pairs: set[tuple[int, int]], bounds: _Bounds, block: int) -> Cells:
    if keeps_channels(kernel):
        channels = [*(inputs for inputs, _ in pairs), bounds.high[0]]
        axis = _map_axis(kernel, min(bounds.low[0], *channels), max(channels), block)
        return Cells(tuple(axis), (), frozenset((place, 0) for place in range(len(axis))))
    most = bounds.weights / kernel.kernel_size**2
    low, high = bounds.ratios
    widest = min((most / low) ** 0.5, bounds.high[0] * _MARGIN), min((most * high) ** 0.5, bounds.high[1] * _MARGIN)
    # A kernel that was not sampled may have more weights even at the fewest channels.
    widest = (
        max([widest[0], bounds.low[0], *(pair[0] for pair in pairs)]),
        max([widest[1], bounds.low[1], *(pair[1] for pair in pairs)]),
    )
    rows = _axis(kernel, bounds.low[0], widest[0], block, _INPUT_STEPS, is_input=True)
    columns = _axis(kernel, bounds.low[1], widest[1], block, _OUTPUT_STEPS, is_input=False)
    wanted = {
        corner
        for row, column in product(range(max(1, len(rows) - 1)), range(max(1, len(columns) - 1)))
        if _reaches(rows[row : row + 2], columns[column : column + 2], most, (low, high))
        for corner in product(range(len(rows))[row : row + 2], range(len(columns))[column : column + 2])
    }
    for inputs, outputs in pairs:
        wanted |= set(product(_around(rows, inputs), _around(columns, outputs)))
    return Cells(tuple(rows), tuple(columns), frozenset(wanted))


def _reaches(rows: Sequence[int], columns: Sequence[int], most: float, ratios: tuple[float, float]) -> bool:
    """Return whether a rectangle of the grid has a point of the region."""
    return columns[-1] / rows[0] >= ratios[0] and columns[0] / rows[-1] <= ratios[1] and rows[0] * columns[0] <= most


def _around(axis: Sequence[int], value: int) -> tuple[int, ...]:
    """Return the places of a value on an axis, or of its neighbours."""
    place = bisect_left(axis, value)
    return (place,) if axis[place] == value else (place - 1, place)


def _covering(values: Iterable[int], low: float, high: float) -> list[int]:
    """Return values in order, from the last that is at most `low` to the first that is at least `high`."""
    axis = sorted(set(values))
    first = max(0, bisect_right(axis, low) - 1)
    return axis[first : bisect_left(axis, high) + 1]


def _reaching(steps: Sequence[int], most: float, *, unit: int = 1) -> Sequence[int]:
    """Return steps, with a multiple of the unit added where all are below the most that is needed."""
    return steps if steps[-1] >= most else [*steps, math.ceil(most / unit) * unit]


def _axis(kernel: Kernel, low: int, high: float, block: int, steps: Sequence[int], *, is_input: bool) -> list[int]:
    if low == high or (kernel.kind == "linear" and not is_input):
        return [low]
    groups = kernel.groups
    if kernel.layout == "plain-to-blocked" and is_input:
        # From a whole block on, it would read blocks.
        return _covering([low, *range(1, 4), 4, 6, 8, 12, block - 1], low, min(high, block - 1))
    if kernel.layout != "plain":
        return _covering((groups * block * step for step in _reaching(steps, high / (groups * block))), low, high)
    steps = _reaching(_PLAIN_STEPS, high / groups, unit=block)
    plain = [groups * _allowed_plain(step, kernel, block, is_input=is_input) for step in steps]
    return _covering([*plain, *([low] if low < plain[0] or kernel.kind != "conv" else [])], low, high)


def _allowed_plain(step: int, kernel: Kernel, block: int, *, is_input: bool) -> int:
    """Return channels of a group near a number with which a convolution is not blocked."""
    if kernel.kind != "conv" or block == 1 or not is_input:
        return step
    if kernel.groups > 1:
        return step if step % block else step + block // 2
    return max(step, block) + 2


def _map_axis(kernel: Kernel, low: int, high: int, block: int) -> list[int]:
    if low == high:
        return [low]
    if kernel.layout == "blocked":
        return _covering((block * step for step in _reaching(_INPUT_STEPS, high / block)), low, high)
    steps = _reaching((1, 2, 4, *(8 * step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512))), high, unit=block)
    if kernel.kind in ("max-pool", "average-pool") and block > 1:
        # Whole blocks would be pooled in the blocked layout.
        steps = [step + block // 2 if step % block == 0 else step for step in steps]
    if kernel.kind == "grouped":
        steps = [kernel.groups * step for step in _reaching(_INPUT_STEPS, high / kernel.groups)]
    return _covering(steps, low, high)


def monotone(rows: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """Return times that never fall along a row or a column: the mean of the smallest above and the largest below."""
    above = _cumulated(rows, rising=True)
    below = _cumulated(rows, rising=False)
    return [
        [None if high is None or low is None else (high + low) / 2 for high, low in zip(*pair, strict=True)]
        for pair in zip(above, below, strict=True)
    ]


def _cumulated(rows: Sequence[Sequence[float | None]], *, rising: bool) -> list[list[float | None]]:
    found = [list(row) for row in rows]
    order = range(len(found)) if rising else reversed(range(len(found)))
    extreme = max if rising else min
    for at in order:
        row = found[at]
        places = range(len(row)) if rising else reversed(range(len(row)))
        for place in places:
            value = row[place]
            if value is None:
                continue
            step = -1 if rising else 1
            others = [
                other
                for x, y in ((at + step, place), (at, place + step))
                if 0 <= x < len(found) and 0 <= y < len(row) and (other := found[x][y]) is not None
            ]
            row[place] = extreme([value, *others])
    return found
