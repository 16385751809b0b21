"""Widths changed so that a network has as many parameters as another: a kernel's worth told apart from its parameters'.

`budgetnet.study.space.fitting` finds widths of a sampled network, on its space's grid, for a budget; here a finished
specification keeps what it is, and its widths move in steps of one channel, or of what its groups allow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.common.errors import InputError
from budgetnet.model.budget import Budget
from budgetnet.model.cost import cost_of
from budgetnet.model.spec import ModelSpec

REFITTING = 1
"""Version of how widths are found; another one may give the same network other widths."""


def refit(spec: ModelSpec, *, params: int, budget: Budget) -> ModelSpec:
    """The network with other widths, so that it has as many parameters as another one, or just fewer.

    Stem and stages are first scaled by one factor, the largest that is allowed; then single widths grow by a step,
    those furthest behind that factor first, until none can any more. So what is missing is less than what the cheapest
    step that the order of widths leaves open would add.

    What a shortcut is does not change: neighbours of one width joined by an identity stay of one width and move
    together, those of different widths at a stride of 1 stay different, and nowhere does a stage that is as wide as
    the one before it, or wider, become narrower than that, or the other way round.

    Args:
        spec: the network; also where its own parameters are fewer.
        params: parameters to come near to and not to exceed.
        budget: limits to hold besides; where one of them binds first, more parameters are missing.

    Returns:
        The network, without a name.

    Raises:
        InputError: the network has more parameters, or is over budget, even at its narrowest.
    """
    frame = _Frame(spec)

    def admitted(widths: list[int]) -> bool:
        if max(widths) > MAX_CHANNELS:
            return False
        cost = cost_of(frame.network(widths))
        return cost.params <= params and budget.admits(cost)

    # A width w steps up where the factor is an odd multiple of 1 / 2w: two widths do so at once, or at factors at least
    # 1 / 2w^2 apart, w the widest. Twice as fine, no step is passed over.
    widest = max(frame.widths)
    unit = 4 * widest**2
    factors = range(4 * widest * MAX_CHANNELS + 1)
    count = bisect_left(factors, True, key=lambda factor: not admitted(frame.scaled(factor / unit)))
    if not count:
        raise InputError("params", params, f"{spec.label} is larger, or over budget, even at its narrowest")
    widths = frame.scaled(factors[count - 1] / unit)
    while (wider := next(filter(admitted, frame.widened(widths)), None)) is not None:
        widths = wider
    return frame.network(widths)


class _Frame:
    """A network whose widths are open: which of them move together, and how they may stand to each other."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        all_widths = [spec.stem.channels, *(stage.channels for stage in spec.stages)]
        self._members: list[list[int]] = [[0]]
        """Stem and stages, counted from 0, by the width that they share."""
        self._strict: list[bool] = []
        """Whether a width must differ from the one before, for each but the first."""
        for index, stage in enumerate(spec.stages, start=1):
            if stage.stride == 1 and all_widths[index] == all_widths[index - 1]:
                self._members[-1].append(index)
            else:
                self._members.append([index])
                self._strict.append(stage.stride == 1)
        self.widths = [all_widths[members[0]] for members in self._members]
        """The network's own widths, each once for all that share it."""

    def network(self, widths: list[int]) -> ModelSpec:
        """The network with these widths."""
        all_widths = [width for width, members in zip(widths, self._members, strict=True) for _ in members]
        spec = self._spec
        stem = {**spec.stem.model_dump(), "channels": all_widths[0]}
        return spec.replace(stem=stem, channels=all_widths[1:])

    def scaled(self, factor: float) -> list[int]:
        """All widths times a factor, each the nearest that groups allow; the order kept by raising what falls short."""
        widths = [self._nearest(place, round(width * factor)) for place, width in enumerate(self.widths)]
        # From the stem on where widths grow, and back from the head where they shrink; neither undoes the other.
        for place, strict in enumerate(self._strict, start=1):
            if self._grows(place):
                widths[place] = self._at_least(place, max(widths[place], widths[place - 1] + strict))
        for place, strict in reversed(list(enumerate(self._strict, start=1))):
            if not self._grows(place):
                widths[place - 1] = self._at_least(place - 1, max(widths[place - 1], widths[place] + strict))
        return widths

    def widened(self, widths: list[int]) -> Iterator[list[int]]:
        """Widths of which one is a step wider and the order kept, those furthest behind their share first."""
        for place in sorted(range(len(widths)), key=lambda each: (widths[each] / self.widths[each], -each)):
            wider = [*widths[:place], self._at_least(place, widths[place] + 1), *widths[place + 1 :]]
            if self._in_order(wider):
                yield wider

    def _grows(self, place: int) -> bool:
        return self.widths[place] >= self.widths[place - 1]

    def _in_order(self, widths: list[int]) -> bool:
        pairs = enumerate(zip(pairwise(widths), self._strict, strict=True), start=1)
        return all(
            before + strict <= width if self._grows(place) else width + strict <= before
            for place, ((before, width), strict) in pairs
        )

    def _allowed(self, place: int, width: int) -> bool:
        # A bottleneck's groups bind its stages but not the stem.
        free = self._spec.block == "bottleneck" and self._members[place] == [0]
        return free or self._spec.inner_channels(width) % self._spec.groups == 0

    def _at_least(self, place: int, width: int) -> int:
        """The narrowest allowed width from so many channels on; one that no network may have where there is none."""
        wider = range(width, 2 * MAX_CHANNELS)
        return next((each for each in wider if self._allowed(place, each)), 2 * MAX_CHANNELS)

    def _nearest(self, place: int, width: int) -> int:
        below = next((each for each in range(width, 0, -1) if self._allowed(place, each)), None)
        above = self._at_least(place, max(1, width))
        return above if below is None or above - width < width - below else below
