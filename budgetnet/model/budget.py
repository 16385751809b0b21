"""Budgets: limits on a network's cost, the verdict on a network, and the smallest edits that make it fit."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache, cached_property
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

from budgetnet.common.documents import Document, parse_count
from budgetnet.common.errors import OverBudgetError
from budgetnet.model.cost import Cost, cost_of
from budgetnet.model.spec import ModelSpec


def _limit(value: object) -> int | None:
    return None if value is None else parse_count(value, field="")


Limit = Annotated[int | None, BeforeValidator(_limit, json_schema_input_type=int | str | None)]

LIMITS = ("params", "macs", "activations")
"""Costs that can be limited: the fields of `Cost`."""


class LimitVerdict(NamedTuple):
    """A network's cost compared with one limit."""

    limit: str
    """``params``, ``macs`` or ``activations``."""
    used: int
    allowed: int

    @property
    def headroom(self) -> int:
        """Allowed minus used; negative if the limit is exceeded."""
        return self.allowed - self.used

    @property
    def violation(self) -> float:
        """Constraint value: used / allowed - 1, at most 0 if the limit holds."""
        return self.used / self.allowed - 1


class Edit(NamedTuple):
    """A change that makes a network fit its budget."""

    description: str
    """Text such as ``stage 5: 256 -> 232 channels``."""
    spec: ModelSpec
    """The edited network."""
    cost: Cost
    """Cost of the edited network."""


class Verdict:
    """A network's cost compared with every limit of a budget."""

    def __init__(self, budget: Budget, spec: ModelSpec, cost: Cost) -> None:
        self.budget = budget
        self.spec = spec
        self.cost = cost
        self.limits = budget.limits(cost)

    @property
    def fits(self) -> bool:
        """Whether every limit holds."""
        return all(limit.headroom >= 0 for limit in self.limits)

    @cached_property
    def edits(self) -> tuple[Edit, ...]:
        """The smallest edits that make the network fit, one of each kind, by decreasing used share of the budget.

        Each edit's cost is computed and fits; the next smaller edit of the same kind does not. Empty if the network
        fits or no single edit is enough.
        """
        return () if self.fits else tuple(_smallest_edits(self.spec, self.budget))

    def __repr__(self) -> str:
        limits = (f"{limit.used:,} of {limit.allowed:,} {limit.limit}" for limit in self.limits)
        return (
            f"Verdict({self.spec.label}: {'fits' if self.fits else 'over budget'}, {', '.join(limits) or 'no limit'}"
            f"{f', {self.note}' if self.note else ''})"
        )

    @property
    def note(self) -> str:
        """A remark on the counts; empty if there is none."""
        frozen, params = self.spec.frozen_params, self.cost.params
        return f"{frozen:,} of {params:,} counted params are frozen whitening weights" if frozen else ""

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import verdict_html

        return verdict_html(self)

    def require(self) -> None:
        """Raise OverBudgetError unless the network fits.

        Raises:
            OverBudgetError: a limit is exceeded; the message names each one with used and allowed counts.
        """
        over = [limit for limit in self.limits if limit.headroom < 0]
        if over:
            parts = [f"{limit.used:,} {limit.limit} exceed the {limit.allowed:,} allowed" for limit in over]
            raise OverBudgetError(f"{self.spec.label}: {'; '.join(parts)}")

    def to_mapping(self) -> dict[str, Any]:
        """Return the verdict as plain data."""
        return {
            "name": self.spec.label,
            "fits": self.fits,
            **self.cost._asdict(),
            "frozen_params": self.spec.frozen_params,
            "limits": [{**limit._asdict(), "headroom": limit.headroom} for limit in self.limits],
            "edits": [
                {"description": edit.description, **edit.cost._asdict(), "spec": edit.spec.to_mapping()}
                for edit in self.edits
            ],
        }


class Budget(Document):
    """Limits on a network's cost; default: no limit. Numbers may be written 5e6, "5M" or 5000000.

    Raises:
        InputError: a limit is not a whole number of at least 1.
    """

    max_params: Limit = None
    """Maximum number of parameters."""
    max_macs: Limit = None
    """Maximum number of multiply-accumulates for one image."""
    max_activations: Limit = None
    """Maximum number of output elements of convolutions and the linear layer for one image."""

    def check(self, spec: ModelSpec) -> Verdict:
        """Check a network by its closed-form cost, without building it."""
        return Verdict(self, spec, cost_of(spec))

    def admits(self, cost: Cost) -> bool:
        """Return whether a cost is within all limits."""
        return all(limit.headroom >= 0 for limit in self.limits(cost))

    def share_used(self, cost: Cost) -> float:
        """Return the used share of the tightest limit: 1 is the limit itself; 0 without limits."""
        return max((limit.used / limit.allowed for limit in self.limits(cost)), default=0.0)

    def limits(self, cost: Cost) -> tuple[LimitVerdict, ...]:
        """Compare a cost with every limit that is set."""
        pairs = ((name, getattr(self, f"max_{name}")) for name in LIMITS)
        return tuple(LimitVerdict(name, getattr(cost, name), allowed) for name, allowed in pairs if allowed is not None)


class _EditFamily(NamedTuple):
    """One kind of edit, with its levels from the smallest change to the largest."""

    levels: Sequence[Any]
    apply: Callable[[Any], ModelSpec]
    describe: Callable[[Any], str]
    pattern: Callable[[Any], Hashable] = lambda _: None
    """Key of the pairs of adjacent stages with equal widths, whose shortcuts need no convolution. A narrower level can
    cost more than a wider one with such a pair; among levels of one pattern, cost decreases."""


def _smallest_edits(spec: ModelSpec, budget: Budget) -> list[Edit]:
    edits = []
    for family in _families(spec):
        edit = _smallest_fitting_edit(family, budget)
        if edit is not None:
            edits.append(edit)
    return sorted(edits, key=lambda edit: -budget.share_used(edit.cost))


def _smallest_fitting_edit(family: _EditFamily, budget: Budget) -> Edit | None:
    """Return the smallest edit of a family that fits, by bisection within each pattern."""
    patterns: dict[Hashable, list[int]] = {}
    for position, level in enumerate(family.levels):
        patterns.setdefault(family.pattern(level), []).append(position)
    first, smallest = len(family.levels), None
    for positions in patterns.values():
        low, high = 0, bisect_left(positions, first)
        while low < high:
            middle = (low + high) // 2
            level = family.levels[positions[middle]]
            edited = family.apply(level)
            cost = cost_of(edited)
            if budget.admits(cost):
                high, first, smallest = middle, positions[middle], Edit(family.describe(level), edited, cost)
            else:
                low = middle + 1
    return smallest


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
    """Return whether the number of groups divides the inner width of a stage."""
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
    """Scale stem and stages together, each rounded down to a width that the groups divide."""

    def stem_width(thousandths: int) -> int:
        step = 1 if spec.block == "bottleneck" else spec.groups
        return max(step, spec.stem.channels * thousandths // 1000 // step * step)

    def stage_width(index: int, thousandths: int) -> int:
        widest = spec.stages[index].channels
        target = max(1, widest * thousandths // 1000)
        narrower = (width for width in range(target, 0, -1) if _divides(spec, width))
        wider = (width for width in range(target + 1, widest + 1) if _divides(spec, width))
        return next(narrower, None) or next(wider)

    @cache
    def all_widths(thousandths: int) -> list[int]:
        stages = [stage_width(index, thousandths) for index in range(len(spec.stages))]
        stem = stem_width(thousandths)
        # With padding shortcuts, the stem must not be wider than the first stage. Bottleneck groups do not affect it.
        return [min(stem, stages[0]) if spec.shortcut.kind == "padding" else stem, *stages]

    def apply(thousandths: int) -> ModelSpec:
        stem, *stages = all_widths(thousandths)
        return spec.replace(stem={**spec.stem.model_dump(), "channels": stem}, channels=stages)

    return _EditFamily(
        range(999, 0, -1),
        apply,
        lambda thousandths: f"all widths x {thousandths / 1000:g}",
        lambda thousandths: tuple(width == following for width, following in pairwise(all_widths(thousandths))),
    )


def _kernels(spec: ModelSpec, which: int) -> _EditFamily:
    """Cap one of the two kernel sizes in every stage; a bottleneck's two entries are the same kernel."""
    largest = max(stage.kernel_sizes[which] for stage in spec.stages)
    single = spec.block == "bottleneck"
    levels = [] if single and which else range(largest - 2, 0, -2)

    def apply(cap: int) -> ModelSpec:
        capped = [
            [min(size, cap) if single or index == which else size for index, size in enumerate(stage.kernel_sizes)]
            for stage in spec.stages
        ]
        return spec.replace(kernel_sizes=capped)

    subject = "every" if single else ("every block's first", "every block's second")[which]
    return _EditFamily(levels, apply, lambda cap: f"{subject} kernel: {largest} -> {cap}")
