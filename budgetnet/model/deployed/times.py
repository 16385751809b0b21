"""Times of kernels by their channels, interpolated between those that were measured."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from budgetnet.model.deployed.calls import Call, Kernel, by_width


class Times(NamedTuple):
    """Times of one kernel at a grid of channels."""

    inputs: Sequence[int]
    """Input channels, ascending."""
    outputs: Sequence[int]
    """Output channels, ascending; empty for a kernel that keeps the number of channels."""
    seconds: Sequence[Sequence[float | None]]
    """A row for each number of input channels; None where nothing was measured."""

    def at(self, inputs: int, outputs: int) -> float | None:
        """Return the time at numbers of channels, linear between neighbours on the grid; None beyond the measured."""
        row = _place(self.inputs, inputs)
        column = _place(self.outputs, outputs) if self.outputs else (0, 0.0)
        if row is None or column is None:
            return None
        (at, share), (place, part) = row, column
        first = _between(self.seconds[at], place, part)
        if not share or first is None:
            return first
        second = _between(self.seconds[at + 1], place, part)
        return None if second is None else first + share * (second - first)


def _place(axis: Sequence[int], value: int) -> tuple[int, float] | None:
    """Return the place of the last entry up to a value, and the share of the way to the next; None beyond the axis."""
    after = bisect_left(axis, value)
    if after == len(axis):
        return None
    if axis[after] == value:
        return after, 0.0
    if not after:
        return None
    before = axis[after - 1]
    return after - 1, (value - before) / (axis[after] - before)


def _between(row: Sequence[float | None], place: int, part: float) -> float | None:
    first = row[place]
    if not part or first is None:
        return first
    second = row[place + 1]
    return None if second is None else first + part * (second - first)


class KernelTimes:
    """Times of all kernels of a table; every call is looked up once."""

    def __init__(self, times: Mapping[Kernel, Times]) -> None:
        self._times = times
        self._known: dict[Call, float | None] = {}

    def seconds(self, call: Call) -> float | None:
        """Return the time of a call; None if the table has not its kernel or not so many channels."""
        try:
            return self._known[call]
        except KeyError:
            found = self._known[call] = self._looked_up(call)
            return found

    def _looked_up(self, call: Call) -> float | None:
        times = self._times.get(call.kernel)
        if times is None:
            call = by_width(call)
            times = self._times.get(call.kernel)
        return None if times is None else times.at(call.inputs, call.outputs)
