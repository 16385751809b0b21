"""Widths that use up a budget: a draw says how a network is built and how its widths relate, and the budget how wide.

Counting is that of `budgetnet.model.cost`, stage by stage and without a specification for each try, so that a proposal
takes well under a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.common.errors import InputError
from budgetnet.model.budget import LIMITS, Budget
from budgetnet.model.cost import ends_cost, stage_cost
from budgetnet.model.spec import ModelSpec
from budgetnet.study.space import SearchSpace, Sizing
from budgetnet.study.space.smallest import MEASURES
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

FITTING = 1
"""Version of how widths are found; another one may give the same draw another network."""

_MOST_SECANTS = 8
"""Guesses before the search for the common width falls back on halving."""


def fit(
    space: SearchSpace,
    params: Mapping[str, Any],
    *,
    budget: Budget,
    sizing: Sizing,
    input_shape: tuple[int, int, int],
    num_classes: int,
) -> ModelSpec:
    """The network that a draw stands for under a budget.

    `fit` makes the stages as wide as the growth between them and every limit allow, then widens single stages by a step
    while one still fits, the order of widths kept. `scale` does so with each limit times the drawn share of the budget;
    a network that is too large for the share at its narrowest stays at its narrowest. What is over budget at its
    narrowest is made smaller otherwise: fewer blocks, smaller kernels, fewer stages at full size, fewer stages, less
    squeeze-and-excitation; at last it is a smallest network of the space.

    Args:
        space: where the draw is from.
        params: a value for each of `space.proposed(sizing)`.
        budget: the limits.
        sizing: where widths come from.
        input_shape: image as (channels, height, width).
        num_classes: number of classes.

    Returns:
        A network within the budget, unless nothing like it, and no smallest network of the space, is. For `reject`,
        the network that was drawn, whatever it needs.

    Raises:
        InputError: widths shall be solved for and no limit is set.
    """
    image: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
    if sizing == "reject":
        return space.spec(params, **image)
    limits = [getattr(budget, f"max_{name}") for name in LIMITS]
    if limits == [None, None, None]:
        raise InputError("max_params", None, f"{sizing} needs a limit to make networks for")
    share = params["budget_share"] if sizing == "scale" else 1.0
    frame = _Frame(space, params, **image)
    scaled = [None if limit is None else max(1, int(limit * share)) for limit in limits]
    if frame.narrowest(scaled):
        frame.widen(scaled)
    elif not any(frame.narrowest(limits) for _ in frame.smaller(limits)):
        return _smallest(space, budget, image)
    elif sizing == "fit":
        frame.widen(limits)
    return space.spec_of_widths(frame.params, frame.widths, **image)


def _smallest(space: SearchSpace, budget: Budget, image: dict[str, Any]) -> ModelSpec:
    """The first of the smallest networks, one for each measure, that is within the budget; else the first."""
    least = [space.narrowest.smallest(**image, measure=measure) for measure in MEASURES]
    return next((spec for spec in least if budget.admits(spec.cost)), least[0])


class _Frame:
    """A draw whose widths are still open, and what each of its parts costs at the present ones."""

    def __init__(
        self, space: SearchSpace, params: Mapping[str, Any], *, input_shape: tuple[int, int, int], num_classes: int
    ) -> None:
        self._space, self._input_shape, self._num_classes = space, input_shape, num_classes
        self.params = dict(params)
        """The draw, with what was taken away."""
        self.widths: list[int] = []
        """Width of each stage; the stem is as wide as the first."""
        self._stem = stem_of(input_shape)
        self._step = width_step(space.channel_step, params["block"], params["groups"])
        self._area = shortcut_area(params["shortcut"])
        self._relative = [1.0]
        for number in range(2, space.stages[1] + 1):
            self._relative.append(self._relative[-1] * params[f"growth_{number}"])
        self._lay_out()

    def _lay_out(self) -> None:
        """Everything but widths, from the parameters."""
        params = self.params
        self._kind = params["block"]
        self._groups = params["groups"]
        self._count = params["stages"]
        self._blocks = [params[f"blocks_{number}"] for number in range(1, self._count + 1)]
        self._strides = strides_of(self._count, params["full_size_stages"], min(self._input_shape[1:]))
        self._pixels = pixels_of(self._strides, self._input_shape)
        self._kernels = params["first_kernel_size"] ** 2, params["second_kernel_size"] ** 2
        self._ratio = params["squeeze_excitation_ratio"]

    def _stage(self, index: int, entering: int, width: int) -> tuple[int, int, int]:
        return stage_cost(
            self._kind,
            self._groups,
            blocks=self._blocks[index],
            entering=entering,
            width=width,
            inner=inner_width(self._kind, width),
            hidden=hidden_width(width, self._ratio),
            first=self._kernels[0],
            second=self._kernels[1],
            shortcut=self._area if entering != width or self._strides[index] > 1 else 0,
            before=self._pixels[index],
            after=self._pixels[index + 1],
        )

    def _parts(self, widths: list[int]) -> list[tuple[int, int, int]]:
        """What each stage costs, and behind them what stands around them."""
        entering = widths[0]
        parts = []
        for index, width in enumerate(widths):
            parts.append(self._stage(index, entering, width))
            entering = width
        parts.append(self._ends(widths))
        return parts

    def _ends(self, widths: list[int]) -> tuple[int, int, int]:
        return ends_cost(self._kind, self._num_classes, stem=widths[0], last=widths[-1], **self._stem)

    def _use(self, widths: list[int], limits: list[int | None]) -> float:
        return _use(self._parts(widths), limits)

    def narrowest(self, limits: list[int | None]) -> bool:
        """Makes every stage one step wide; tells whether that is within the limits."""
        self.widths = [self._step] * self._count
        return self._use(self.widths, limits) <= 1

    def _scaled(self, width: int) -> list[int]:
        """Width of each stage where the first is so wide."""
        step = self._step
        return [rounded_width(width * relative, step) for relative in self._relative[: self._count]]

    def widen(self, limits: list[int | None]) -> None:
        """Makes the stages as wide as the limits allow, which allow the narrowest."""
        # The narrowest widths fit, whether or not they are those of a common width; nothing is known of the largest.
        low, high = 0, int(MAX_CHANNELS / min(1.0, *self._relative[: self._count])) + 1
        low_root, high_root = 0.0, math.inf
        guess = 4 * self._step
        for tries in range(80):
            if high - low <= 1:
                break
            widths = self._scaled(guess)
            use = self._use(widths, limits)
            if use <= 1:
                low, low_root, self.widths = guess, math.sqrt(use), widths
            else:
                high, high_root = guess, math.sqrt(use)
            guess = _between(low, high, low_root, high_root, halve=tries >= _MOST_SECANTS)
        self._use_up(limits)

    def _use_up(self, limits: list[int | None]) -> None:
        """Widens single stages by a step, those furthest behind their share first, until none fits any more."""
        widths, relative, step = self.widths, self._relative, self._step
        parts = self._parts(widths)
        widened = True
        while widened:
            widened = False
            for index in sorted(range(self._count), key=lambda each: (widths[each] / relative[each], -each)):
                if not self._may_widen(index):
                    continue
                wider = [*widths[:index], widths[index] + step, *widths[index + 1 :]]
                changed = self._with_stage(parts, wider, index)
                if _use(changed, limits) <= 1:
                    self.widths, widths, parts, widened = wider, wider, changed, True
                    break

    def _may_widen(self, index: int) -> bool:
        """Whether a step leaves the stages in the order of their widths that growth gives them."""
        wider = self.widths[index] + self._step
        if wider > MAX_CHANNELS:
            return False
        relative = self._relative
        behind, ahead = index - 1, index + 1
        if behind >= 0 and relative[behind] > relative[index] and wider > self.widths[behind]:
            return False
        return not (ahead < self._count and relative[index] <= relative[ahead] and wider > self.widths[ahead])

    def _with_stage(
        self, parts: list[tuple[int, int, int]], widths: list[int], index: int
    ) -> list[tuple[int, int, int]]:
        """What the parts cost when one width has changed."""
        changed = list(parts)
        changed[index] = self._stage(index, widths[index - 1] if index else widths[0], widths[index])
        if index + 1 < self._count:
            changed[index + 1] = self._stage(index + 1, widths[index], widths[index + 1])
        changed[-1] = self._ends(widths)
        return changed

    def smaller(self, limits: list[int | None]) -> Iterator[None]:
        """Takes one thing after another away from the draw, and stops after each; changes that do not help are undone.

        The first stop is the draw as it is.
        """
        yield
        use = self._use([self._step] * self._count, limits)
        for change in self._reductions():
            before, self.params = self.params, {**self.params, **change}
            self._lay_out()
            now = self._use([self._step] * self._count, limits)
            if now < use:
                use = now
                yield
            else:
                self.params = before
                self._lay_out()

    def _reductions(self) -> Iterator[dict[str, int | float]]:
        """Parameters to change, one after another, each seen from what the ones before came to."""
        space, params = self._space, self.params
        total = sum(params[f"blocks_{number}"] - space.blocks[0] for number in range(1, self._count + 1))
        for _ in range(total):
            most = max(range(1, self._count + 1), key=lambda number: self.params[f"blocks_{number}"])
            yield {f"blocks_{most}": self.params[f"blocks_{most}"] - 1}
        for name, sizes in (
            ("first_kernel_size", space.first_kernel_sizes),
            ("second_kernel_size", space.second_kernel_sizes),
        ):
            if params[name] > min(sizes):
                yield {name: min(sizes)}
        for full in range(params["full_size_stages"] - 1, space.full_size_stages[0] - 1, -1):
            yield {"full_size_stages": full}
        for count in range(params["stages"] - 1, space.stages[0] - 1, -1):
            yield {"stages": count}
        if params["squeeze_excitation_ratio"] > min(space.squeeze_excitation_ratios):
            yield {"squeeze_excitation_ratio": min(space.squeeze_excitation_ratios)}


def _use(parts: list[tuple[int, int, int]], limits: list[int | None]) -> float:
    """Use of the tightest limit, as a share; at most 1 only if every limit holds, to the last digit."""
    use = 0.0
    for total, limit in zip(map(sum, zip(*parts, strict=True)), limits, strict=True):
        if limit is not None:
            # Above 1 whatever the division rounds to.
            use = max(use, total / limit if total <= limit else max(total / limit, 1 + 1e-12))
    return use


def _between(low: int, high: int, low_root: float, high_root: float, *, halve: bool) -> int:
    """A width between two to try next, from the square roots of their use: use grows with the square of the width."""
    if halve:
        guess = (low + high) // 2
    elif not low_root:
        guess = int(high / high_root)
    elif high_root == math.inf:
        # A little less than where the use would be 1, had it no part that grows more slowly.
        guess = int(low / low_root) + 1
    else:
        guess = low + int((high - low) * (1 - low_root) / (high_root - low_root))
    return min(max(guess, low + 1), high - 1)
