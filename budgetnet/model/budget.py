"""The budget: what a network may cost, the verdict on one that asks, and the smallest edits that would let it in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache, cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator

from budgetnet.common.documents import Document, parse_count
from budgetnet.common.errors import OverBudgetError
from budgetnet.model.cost import Cost, cost_of
from budgetnet.model.spec import ModelSpec


def _limit(value: object) -> int | None:
    return None if value is None else parse_count(value, field="")


Limit = Annotated[int | None, BeforeValidator(_limit, json_schema_input_type=int | str | None)]

Sizing = Literal["fit", "scale", "reject"]
"""Where widths come from. ``fit``: solved for, so that a network uses up the budget. ``scale``: solved for a sampled
share of the budget. ``reject``: sampled, and networks over budget are rejected."""

LIMITS = ("params", "macs", "activations")
"""What can be limited: the fields of `Cost`."""


class LimitVerdict(NamedTuple):
    """One limit, and how a network stands to it."""

    limit: str
    """``params``, ``macs`` or ``activations``."""
    used: int
    allowed: int

    @property
    def headroom(self) -> int:
        """What is left; negative when over."""
        return self.allowed - self.used

    @property
    def violation(self) -> float:
        """Constraint value: used / allowed - 1, at most 0 when the limit holds."""
        return self.used / self.allowed - 1


class Edit(NamedTuple):
    """One change that would make a network fit."""

    description: str
    """For people: ``stage 5: 256 -> 232 channels``."""
    spec: ModelSpec
    """The edited network."""
    cost: Cost
    """Its cost: the proof that it fits."""


class Verdict:
    """How a network stands to every limit of a budget."""

    frozen_params: int = 0
    """Parameters that are not trained, and count."""

    def __init__(self, budget: Budget, cost: Cost, *, name: str) -> None:
        self.budget = budget
        self.cost = cost
        self.name = name
        self.limits = budget.limits(cost)

    @property
    def fits(self) -> bool:
        """Whether every limit holds."""
        return all(limit.headroom >= 0 for limit in self.limits)

    @property
    def edits(self) -> tuple[Edit, ...]:
        """Return the smallest edits that fit; none are known of a network without a spec."""
        return ()

    def __repr__(self) -> str:
        limits = (f"{limit.used:,} of {limit.allowed:,} {limit.limit}" for limit in self.limits)
        return (
            f"Verdict({self.name}: {'fits' if self.fits else 'over budget'}, {', '.join(limits) or 'no limit'}"
            f"{f', {self.note}' if self.note else ''})"
        )

    @property
    def note(self) -> str:
        """What a reader should know of the counts; empty where there is nothing."""
        if not self.frozen_params:
            return ""
        return f"{self.frozen_params:,} of {self.cost.params:,} params are frozen, and count"

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import verdict_html

        return verdict_html(self)

    def require(self) -> None:
        """Lets a network that fits pass.

        Raises:
            OverBudgetError: a limit does not hold; the message says which and by how much.
        """
        over = [limit for limit in self.limits if limit.headroom < 0]
        if over:
            parts = [f"{limit.used:,} {limit.limit} exceed the {limit.allowed:,} allowed" for limit in over]
            raise OverBudgetError(f"{self.name}: {'; '.join(parts)}")

    def to_mapping(self) -> dict[str, Any]:
        """The verdict as plain data."""
        return {
            "name": self.name,
            "fits": self.fits,
            **self.cost._asdict(),
            "frozen_params": self.frozen_params,
            "limits": [{**limit._asdict(), "headroom": limit.headroom} for limit in self.limits],
            "edits": [
                {"description": edit.description, **edit.cost._asdict(), "spec": edit.spec.to_mapping()}
                for edit in self.edits
            ],
        }


class SpecVerdict(Verdict):
    """How the network of a spec stands to every limit of a budget."""

    def __init__(self, budget: Budget, spec: ModelSpec, cost: Cost) -> None:
        super().__init__(budget, cost, name=spec.label)
        self.spec = spec
        self.frozen_params = spec.frozen_params

    @cached_property
    def edits(self) -> tuple[Edit, ...]:
        """When over: for each way to shrink the network, its smallest step that fits, the least loss first.

        Every edit was counted and fits; the next smaller step of the same kind does not. Empty when the network fits,
        or when no single edit is enough.
        """
        return () if self.fits else tuple(_smallest_edits(self.spec, self.budget))

    @property
    def note(self) -> str:
        """Return what a reader should know of the counts; empty where there is nothing."""
        return super().note.replace("frozen", "frozen whitening weights")


class Budget(Document):
    """What a network may cost; a limit that is left out does not bind. Numbers may be written 5e6, "5M" or 5000000.

    Raises:
        InputError: a limit is not a whole number of at least 1.
    """

    max_params: Limit = None
    """Most trainable parameters."""
    max_macs: Limit = None
    """Most multiply-accumulates for one image."""
    max_activations: Limit = None
    """Most output elements of convolutions and the linear layer for one image."""

    def check(self, spec: ModelSpec) -> SpecVerdict:
        """Return the verdict on a network, from its closed-form cost; builds nothing."""
        return SpecVerdict(self, spec, cost_of(spec))

    def admits(self, cost: Cost) -> bool:
        """Whether a cost is within every limit."""
        return all(limit.headroom >= 0 for limit in self.limits(cost))

    def share_used(self, cost: Cost) -> float:
        """Use of the tightest limit, as a share: 1 is the limit itself; 0 without limits."""
        return max((limit.used / limit.allowed for limit in self.limits(cost)), default=0.0)

    def limits(self, cost: Cost) -> tuple[LimitVerdict, ...]:
        """Every limit that is set, and how a cost stands to it."""
        pairs = ((name, getattr(self, f"max_{name}")) for name in LIMITS)
        return tuple(LimitVerdict(name, getattr(cost, name), allowed) for name, allowed in pairs if allowed is not None)


class _EditFamily(NamedTuple):
    """One way to shrink a network: levels from the smallest step to the largest."""

    levels: Sequence[Any]
    apply: Callable[[Any], ModelSpec]
    describe: Callable[[Any], str]
    pattern: Callable[[Any], Hashable] = lambda _: None
    """Where neighbouring widths are equal. That spares a shortcut its convolution, so a narrower level can cost more
    than such a wider one; among levels of one pattern each is cheaper than the one before."""


def _smallest_edits(spec: ModelSpec, budget: Budget) -> list[Edit]:
    edits = []
    for family in _families(spec):
        edit = _first_that_fits(family, budget)
        if edit is not None:
            edits.append(edit)
    return sorted(edits, key=lambda edit: -budget.share_used(edit.cost))


def _first_that_fits(family: _EditFamily, budget: Budget) -> Edit | None:
    """Bisects the levels of each pattern, along which cost falls, and takes the smallest step of all."""
    patterns: dict[Hashable, list[int]] = {}
    for position, level in enumerate(family.levels):
        patterns.setdefault(family.pattern(level), []).append(position)
    first, found = len(family.levels), None
    for positions in patterns.values():
        low, high = 0, bisect_left(positions, first)
        while low < high:
            middle = (low + high) // 2
            level = family.levels[positions[middle]]
            edited = family.apply(level)
            cost = cost_of(edited)
            if budget.admits(cost):
                high, first, found = middle, positions[middle], Edit(family.describe(level), edited, cost)
            else:
                low = middle + 1
    return found


def _families(spec: ModelSpec) -> Iterator[_EditFamily]:
    for index in range(len(spec.stages)):
        yield _stage_channels(spec, index)
        yield _stage_blocks(spec, index)
    yield _all_widths(spec)
    yield from (_kernels(spec, which) for which in (0, 1))


def _with_stage(spec: ModelSpec, index: int, **changes: Any) -> ModelSpec:
    stages = [stage.model_dump() for stage in spec.stages]
    stages[index].update(changes)
    return spec.replace(stages=stages)


def _divides(spec: ModelSpec, width: int) -> bool:
    """Whether the groups allow a stage this width."""
    return width > 0 and spec.inner_channels(width) % spec.groups == 0


def _stage_channels(spec: ModelSpec, index: int) -> _EditFamily:
    stage = spec.stages[index]
    before = spec.stages[index - 1].channels if index else spec.stem.channels
    after = spec.stages[index + 1].channels if index + 1 < len(spec.stages) else None
    floor = before if spec.shortcut.kind == "padding" else 1
    widths = [width for width in range(stage.channels - 1, floor - 1, -1) if _divides(spec, width)]
    return _EditFamily(
        widths,
        lambda width: _with_stage(spec, index, channels=width),
        lambda width: f"stage {index + 1}: {stage.channels} -> {width} channels",
        lambda width: (width == before, width == after),
    )


def _stage_blocks(spec: ModelSpec, index: int) -> _EditFamily:
    blocks = spec.stages[index].blocks
    return _EditFamily(
        range(blocks - 1, 0, -1),
        lambda count: _with_stage(spec, index, blocks=count),
        lambda count: f"stage {index + 1}: {blocks} -> {count} blocks",
    )


def _all_widths(spec: ModelSpec) -> _EditFamily:
    """Scales stem and stages together, each rounded down to a width that the groups allow."""

    def stem_width(thousandths: int) -> int:
        step = 1 if spec.block == "bottleneck" else spec.groups
        return max(step, spec.stem.channels * thousandths // 1000 // step * step)

    def stage_width(index: int, thousandths: int) -> int:
        widest = spec.stages[index].channels
        target = max(1, widest * thousandths // 1000)
        below = (width for width in range(target, 0, -1) if _divides(spec, width))
        above = (width for width in range(target + 1, widest + 1) if _divides(spec, width))
        return next(below, None) or next(above)

    @cache
    def all_widths(thousandths: int) -> list[int]:
        stages = [stage_width(index, thousandths) for index in range(len(spec.stages))]
        stem = stem_width(thousandths)
        # A bottleneck's groups bind its stages but not the stem, and a padding shortcut cannot narrow.
        return [min(stem, stages[0]) if spec.shortcut.kind == "padding" else stem, *stages]

    def apply(thousandths: int) -> ModelSpec:
        stem, *stages = all_widths(thousandths)
        return spec.replace(stem={**spec.stem.model_dump(), "channels": stem}, channels=stages)

    return _EditFamily(
        range(999, 0, -1),
        apply,
        lambda thousandths: f"all widths x {thousandths / 1000:g}",
        lambda thousandths: tuple(width == narrower for width, narrower in pairwise(all_widths(thousandths))),
    )


def _kernels(spec: ModelSpec, which: int) -> _EditFamily:
    """Caps one of the two kernel sizes in every stage; a bottleneck's two entries are one kernel and move together."""
    largest = max(stage.kernel_sizes[which] for stage in spec.stages)
    together = spec.block == "bottleneck"
    levels = [] if together and which else range(largest - 2, 0, -2)

    def apply(cap: int) -> ModelSpec:
        capped = [
            [min(size, cap) if together or place == which else size for place, size in enumerate(stage.kernel_sizes)]
            for stage in spec.stages
        ]
        return spec.replace(kernel_sizes=capped)

    place = "every" if together else ("every block's first", "every block's second")[which]
    return _EditFamily(levels, apply, lambda cap: f"{place} kernel: {largest} -> {cap}")
