"""The smallest edits of widths, blocks or kernels that make a network fit a budget."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from budgetnet.model.block_settings import allows_width
from budgetnet.model.cost import Cost, cost_of
from budgetnet.model.spec import ModelSpec

if TYPE_CHECKING:
    from budgetnet.model.budget import Budget

_WIDTH_STEP = 8
"""Widths that edits suggest are multiples of this where possible, which hardware computes fast."""


class Edit(NamedTuple):
    """A change that makes a network fit its budget."""

    description: str
    """Text such as ``stage 5: 256 -> 232 channels``."""
    spec: ModelSpec
    """The edited network."""
    cost: Cost
    """Cost of the edited network."""
    needs: Mapping[str, float] = MappingProxyType({})
    """What else is limited of it, see `budgetnet.model.budget.Budget.needs`."""


class _Family(NamedTuple):
    """One way to shrink a network, in steps: the larger the number, the smaller the change."""

    steps: Sequence[int]
    edit: Callable[[int], tuple[str, ModelSpec]]
    """Return what a step changes, for people, and the network."""
    uneven: Collection[int] = ()
    """Steps whose network may cost less than that of a smaller number: where neighbouring widths are equal a shortcut
    spares its convolution."""
    step: int = 1
    """Multiples of this are preferred."""


def smallest_edits(spec: ModelSpec, budget: Budget) -> list[Edit]:
    """Return the smallest edits that make a network fit a budget, see `budgetnet.model.budget.SpecVerdict.edits`."""
    found = (_smallest_edit(family, budget) for family in _families(spec))
    return sorted(
        (edit for edit in found if edit is not None), key=lambda edit: -budget.share_used(edit.cost, edit.needs)
    )


def _smallest_edit(family: _Family, budget: Budget) -> Edit | None:
    def fits(step: int) -> bool:
        return budget.admits(family.edit(step)[1])

    def largest(steps: Sequence[int], uneven: Collection[int]) -> int | None:
        even = sorted(set(steps).difference(uneven), reverse=True)
        place = bisect_left(even, True, key=fits)
        found = [*even[place : place + 1], *islice(filter(fits, sorted(uneven, reverse=True)), 1)]
        return max(found, default=None)

    steps, uneven = family.steps, family.uneven
    if budget.max_latency_ms is not None:
        # The device's file may lack widths between those that it has, and a smaller network may take longer.
        steps, uneven = (), {*steps, *uneven}
    multiples = [[each for each in some if each % family.step == 0] for some in (steps, uneven)]
    found = largest(*multiples)
    if found is None:
        found = largest(steps, uneven)
    if found is None:
        return None
    words, edited = family.edit(found)
    return Edit(words, edited, cost_of(edited), budget.needs(edited))


def _families(spec: ModelSpec) -> Iterator[_Family]:
    for index in range(len(spec.stages)):
        yield _stage_channels(spec, index)
        yield _stage_blocks(spec, index)
    yield _all_widths(spec)
    yield from (_kernels(spec, which) for which in (0, 1))


def _edited(spec: ModelSpec, stages: Sequence[dict[str, Any]], *, stem: int | None = None) -> ModelSpec:
    """The network with fields of its stages, and the width of its stem, changed to what it may have.

    Not checked again, as most are looked at once and thrown away.
    """
    pairs = zip(spec.stages, stages, strict=True)
    changed = [stage.model_copy(update=fields) if fields else stage for stage, fields in pairs]
    head = spec.stem if stem is None else spec.stem.model_copy(update={"channels": stem})
    return spec.model_copy(update={"name": "", "stem": head, "stages": tuple(changed)})


def _in_stage(spec: ModelSpec, index: int, **fields: Any) -> ModelSpec:
    return _edited(spec, [fields if place == index else {} for place in range(len(spec.stages))])


def _stage_channels(spec: ModelSpec, index: int) -> _Family:
    widths = [spec.stem.channels, *[stage.channels for stage in spec.stages]]
    before, width, after = widths[index], widths[index + 1], (*widths, 0)[index + 2]
    settings = spec.block_settings
    narrowest = before if settings[index].shortcut.kind == "padding" else 1
    steps = [each for each in range(narrowest, width) if allows_width(settings, index + 1, each)]

    def edit(channels: int) -> tuple[str, ModelSpec]:
        return f"stage {index + 1}: {width} -> {channels} channels", _in_stage(spec, index, channels=channels)

    # Where a width spares bottlenecks their first convolution, all are looked at.
    uneven = {before, after}.intersection(steps) if spec.equal_expansion else steps
    return _Family(steps, edit, uneven=uneven, step=_WIDTH_STEP)


def _stage_blocks(spec: ModelSpec, index: int) -> _Family:
    blocks = spec.stages[index].blocks

    def edit(count: int) -> tuple[str, ModelSpec]:
        return f"stage {index + 1}: {blocks} -> {count} blocks", _in_stage(spec, index, blocks=count)

    return _Family(range(1, blocks), edit)


def _all_widths(spec: ModelSpec) -> _Family:
    """Scales stem and stages together, each rounded to a width that the groups allow: multiples of 8 where possible."""
    own = [spec.stem.channels, *(stage.channels for stage in spec.stages)]
    allowed = [
        _Widths([each for each in range(1, top + 1) if allows_width(spec.block_settings, place, each)])
        for place, top in enumerate(own)
    ]

    def scaled(thousandths: int) -> list[int] | None:
        widths = [each.nearest(top * thousandths // 1000) for each, top in zip(allowed, own, strict=True)]
        for place in reversed(range(len(spec.stages))):
            if spec.block_settings[place].shortcut.kind == "padding" and widths[place] > widths[place + 1]:
                # It cannot narrow.
                narrower = allowed[place].at_most(widths[place + 1])
                if narrower is None:
                    return None
                widths[place] = narrower
        return widths

    found = {each: widths for each in range(1, 1000) if (widths := scaled(each)) is not None}

    def edit(thousandths: int) -> tuple[str, ModelSpec]:
        stem, *stages = found[thousandths]
        edited = _edited(spec, [{"channels": width} for width in stages], stem=stem)
        return f"all widths x {thousandths / 1000:g}", edited

    return _Family((), edit, uneven=found)


class _Widths:
    """Allowed widths, ascending."""

    def __init__(self, allowed: Sequence[int]) -> None:
        self._allowed = allowed
        self._multiples = [each for each in allowed if each % _WIDTH_STEP == 0]

    def nearest(self, width: int) -> int:
        """Return the nearest multiple of 8 to a width of 8 or more, else the largest width below, or the narrowest."""
        if width >= _WIDTH_STEP and self._multiples:
            at = bisect_right(self._multiples, width)
            return min(self._multiples[max(0, at - 1) : at + 1], key=lambda each: abs(each - width))
        return self.at_most(width) or self._allowed[0]

    def at_most(self, width: int) -> int | None:
        """Return the largest width up to a width; None if there is none."""
        place = bisect_right(self._allowed, width)
        return self._allowed[place - 1] if place else None


def _kernels(spec: ModelSpec, which: int) -> _Family:
    """Caps one of the two kernel sizes in every stage; a bottleneck's two entries are one kernel and move together."""
    together = any(each.bottleneck for each in spec.block_settings)
    largest = max(max(stage.kernel_sizes) if together else stage.kernel_sizes[which] for stage in spec.stages)
    place = "every" if together else ("every first", "every second")[which]

    def edit(cap: int) -> tuple[str, ModelSpec]:
        sizes = [
            tuple(min(size, cap) if together or at == which else size for at, size in enumerate(stage.kernel_sizes))
            for stage in spec.stages
        ]
        return f"{place} kernel: {largest} -> {cap}", _edited(spec, [{"kernel_sizes": pair} for pair in sizes])

    return _Family(() if together and which else range(1, largest - 1, 2), edit)
