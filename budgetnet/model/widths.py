"""Widths as large as a budget allows, in given proportions: the one solver behind proposals and refitted variants."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.common.errors import InputError
from budgetnet.model.block_settings import allows_width
from budgetnet.model.budget import Budget
from budgetnet.model.part_costs import PartCosts
from budgetnet.model.spec import ModelSpec

REFITTING = 1
"""Version of how `refit` finds widths; another one may give the same network other widths."""


class OpenWidths:
    """A network whose widths are to be found: their proportions, their grid, and which of them are equal."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        members: Sequence[list[int]],
        proportions: Sequence[float],
        distinct: Sequence[bool] = (),
        step: int = 1,
        every_step: bool = False,
    ) -> None:
        """Describe the widths.

        Args:
            spec: the network; its own widths are not read.
            members: stem and stages, counted from 0, grouped by the width that they share.
            proportions: relative width of each group.
            distinct: for each group but the first, whether its width must differ from the one before; none by default.
            step: every width is a multiple of this, in channels.
            every_step: whether groups are known to divide all multiples of the step.
        """
        self._spec = spec
        self._costs = PartCosts(spec)
        self._members = members
        self._proportions = proportions
        self._distinct = distinct or [False] * (len(members) - 1)
        self._step = step
        self._every_step = every_step

    def largest(self, budget: Budget, *, resolution: int = 1) -> ModelSpec | None:
        """Return the widest network in these proportions that a budget admits, see `widest`."""
        widths = self.widest(budget, resolution=resolution)
        return None if widths is None else self.spec_of(widths)

    def widest(self, budget: Budget, *, resolution: int = 1) -> list[int] | None:
        """Find the largest widths in these proportions that a budget admits.

        All widths are first scaled by one factor, the largest that the budget admits; then single widths grow by a
        step, those narrowest for their proportion first, until none can any more without leaving the order of widths
        (`widened`).
        Cost is taken to grow with the factor. Where two widths become equal and a projection is saved, or maps can be
        laid out in whole blocks of channels, it does not quite, so that a slightly larger factor may be missed; what is
        returned is admitted in any case.

        Args:
            budget: the limits.
            resolution: factors tried are multiples of 1 / resolution.

        Returns:
            A width for each group; None where not even the narrowest are admitted.
        """
        factors = range(int(resolution * MAX_CHANNELS / min(1.0, *self._proportions)) + 1)
        count = bisect_left(
            factors, True, key=lambda factor: not self._admitted(self._scaled(factor / resolution), budget)
        )
        if not count:
            return None
        return self.widened(self._scaled(factors[count - 1] / resolution), budget)

    def widened(self, widths: list[int], budget: Budget) -> list[int]:
        """Return widths of which none can grow by a step without leaving their order or the budget.

        With a limit of the deployed network, each grows by a step at most: only the widest maps need memory, so that
        the others could grow out of all proportion.
        """
        if budget.deployed:
            for place in self._narrowest_first(widths):
                stepped = self._stepped(widths, place)
                if self._in_order(stepped) and self._admitted(stepped, budget):
                    widths = stepped
            return widths
        while (wider := next((each for each in self._wider(widths) if self._admitted(each, budget)), None)) is not None:
            widths = wider
        return widths

    def spec_of(self, widths: Sequence[int]) -> ModelSpec:
        """Return the network with a width for each group, without a name."""
        stem, *channels = self._spread(widths)
        return self._spec.replace(stem={**self._spec.stem.model_dump(), "channels": stem}, channels=channels)

    def _spread(self, widths: Sequence[int]) -> list[int]:
        """The width of the stem and of every stage."""
        return [width for width, members in zip(widths, self._members, strict=True) for _ in members]

    def _admitted(self, widths: Sequence[int], budget: Budget) -> bool:
        if max(widths) > MAX_CHANNELS:
            return False
        spread = self._spread(widths)
        if not budget.allows(self._costs.whole(spread)):
            return False
        return not budget.deployed or budget.holds(self._at(spread))

    def _at(self, widths: Sequence[int]) -> ModelSpec:
        """Return the network at the widths of its stem and of each stage; not validated, as most are thrown away."""
        stem, pairs = widths[0], zip(self._spec.stages, widths[1:], strict=True)
        stages = tuple(stage.model_copy(update={"channels": width}) for stage, width in pairs)
        head = self._spec.stem.model_copy(update={"channels": stem})
        return self._spec.model_copy(update={"stem": head, "stages": stages})

    def _scaled(self, factor: float) -> list[int]:
        """All widths times a factor, each the nearest that is allowed; the order is kept by raising some."""
        widths = [self._nearest(place, share * factor) for place, share in enumerate(self._proportions)]
        # From the stem on where widths grow, and back from the head where they shrink; neither undoes the other.
        for place, distinct in enumerate(self._distinct, start=1):
            if self._grows(place) and widths[place] < widths[place - 1] + distinct:
                widths[place] = self._at_least(place, widths[place - 1] + distinct)
        for place, distinct in reversed(list(enumerate(self._distinct, start=1))):
            if not self._grows(place) and widths[place - 1] < widths[place] + distinct:
                widths[place - 1] = self._at_least(place - 1, widths[place] + distinct)
        return widths

    def _wider(self, widths: Sequence[int]) -> Iterator[list[int]]:
        """Widths of which one is a step wider and the order kept, those narrowest for their proportion first."""
        for place in self._narrowest_first(widths):
            wider = self._stepped(widths, place)
            if self._in_order(wider):
                yield wider

    def _narrowest_first(self, widths: Sequence[int]) -> list[int]:
        return sorted(range(len(widths)), key=lambda each: (widths[each] / self._proportions[each], -each))

    def _stepped(self, widths: Sequence[int], place: int) -> list[int]:
        return [*widths[:place], self._at_least(place, widths[place] + 1), *widths[place + 1 :]]

    def _grows(self, place: int) -> bool:
        return self._proportions[place] >= self._proportions[place - 1]

    def _in_order(self, widths: Sequence[int]) -> bool:
        pairs = enumerate(zip(pairwise(widths), self._distinct, strict=True), start=1)
        return all(
            before + distinct <= width if self._grows(place) else width + distinct <= before
            for place, ((before, width), distinct) in pairs
        )

    def _allowed(self, place: int, width: int) -> bool:
        settings = self._spec.block_settings
        return self._every_step or all(allows_width(settings, member, width) for member in self._members[place])

    def _at_least(self, place: int, width: int) -> int:
        """The narrowest allowed width from so many channels on; one that no network may have where there is none."""
        wider = range(-(-width // self._step) * self._step, 2 * MAX_CHANNELS, self._step)
        return next((each for each in wider if self._allowed(place, each)), 2 * MAX_CHANNELS)

    def _nearest(self, place: int, exact: float) -> int:
        step = self._step
        width = min(max(1, round(exact / step)), MAX_CHANNELS // step) * step
        if self._allowed(place, width):
            return width
        below = next((each for each in range(width, 0, -step) if self._allowed(place, each)), None)
        above = self._at_least(place, width)
        return above if below is None or above - width < width - below else below


def refit(spec: ModelSpec, *, params: int, budget: Budget) -> ModelSpec:
    """Change a network's widths so that it has as many parameters as another one, or just fewer.

    What is missing is less than the cheapest step adds that the order of widths leaves open (`OpenWidths.largest`).

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
    widths = [spec.stem.channels, *(stage.channels for stage in spec.stages)]
    members, distinct = [[0]], []
    for index, stage in enumerate(spec.stages, start=1):
        if stage.stride == 1 and widths[index] == widths[index - 1]:
            members[-1].append(index)
        else:
            members.append([index])
            distinct.append(stage.stride == 1)
    proportions = [widths[indices[0]] for indices in members]
    frame = OpenWidths(spec, members=members, proportions=proportions, distinct=distinct)
    limits = budget.model_copy(update={"max_params": min(params, budget.max_params or params)})
    # A width w steps up where the factor is an odd multiple of 1 / 2w: two widths do so at once, or at factors at least
    # 1 / 2w^2 apart, w the widest. Twice as fine, no step is passed over.
    fitted = frame.largest(limits, resolution=4 * max(proportions) ** 2)
    if fitted is None:
        raise InputError("params", params, f"{spec.label} is larger, or over budget, even at its narrowest")
    return fitted
