"""Budgets: limits on a network's cost, the verdict on a network, and the smallest edits that make it fit."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator

from budgetnet.common.documents import Document, parse_count
from budgetnet.common.errors import OverBudgetError
from budgetnet.model.block_settings import allows_width
from budgetnet.model.cost import Cost, cost_of
from budgetnet.model.spec import ModelSpec


def _limit(value: object) -> int | None:
    return None if value is None else parse_count(value, field="")


Limit = Annotated[int | None, BeforeValidator(_limit, json_schema_input_type=int | str | None)]

Sizing = Literal["fit", "scale", "reject"]
"""Where widths come from. ``fit``: solved for, so that a network uses up the budget. ``scale``: solved for a sampled
share of the budget. ``reject``: sampled, and networks over budget are rejected."""

_WIDTH_STEP = 8
"""Widths that edits suggest are multiples of this where possible, which hardware computes fast."""

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
    def word(self) -> str:
        """``fits``, ``over budget`` or ``no limit given``."""
        return ("fits" if self.fits else "over budget") if self.limits else "no limit given"

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The smallest edits that make the network fit; none are known of a network without a spec."""
        return ()

    def __repr__(self) -> str:
        limits = (f"{limit.used:,} of {limit.allowed:,} {limit.limit}" for limit in self.limits)
        return f"Verdict({', '.join([f'{self.name}: {self.word}', *limits])}{f', {self.note}' if self.note else ''})"

    @property
    def note(self) -> str:
        """A remark on the counts; empty if there is none."""
        frozen = f"{self.frozen_params:,} of {self.cost.params:,} counted params are frozen"
        return "; ".join(([frozen] if self.frozen_params else []) + ["counted by torch: a module, not a spec"])

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
            raise OverBudgetError(f"{self.name}: {'; '.join(parts)}")

    def to_mapping(self) -> dict[str, Any]:
        """Return the verdict as plain data; ``fits`` is None without a limit."""
        return {
            "name": self.name,
            "fits": self.fits if self.limits else None,
            **self.cost._asdict(),
            "frozen_params": self.frozen_params,
            "limits": [{**limit._asdict(), "headroom": limit.headroom} for limit in self.limits],
            "edits": [
                {"description": edit.description, **edit.cost._asdict(), "spec": edit.spec.to_mapping()}
                for edit in self.edits
            ],
        }


class SpecVerdict(Verdict):
    """The cost of a spec's network compared with every limit of a budget."""

    def __init__(self, budget: Budget, spec: ModelSpec, cost: Cost) -> None:
        super().__init__(budget, cost, name=spec.label)
        self.spec = spec
        self.frozen_params = spec.frozen_params

    @cached_property
    def edits(self) -> tuple[Edit, ...]:
        """The smallest edits that make the network fit, one of each kind, by decreasing used share of the budget.

        Widths become multiples of 8 where one fits. Each edit's cost is computed and fits; the next smaller edit of the
        same kind does not. Empty if the network fits or no single edit is enough.
        """
        return () if self.fits else tuple(_smallest_edits(self.spec, self.budget))

    @property
    def note(self) -> str:
        """A remark on the counts; empty if there is none."""
        if not self.frozen_params:
            return ""
        return f"{self.frozen_params:,} of {self.cost.params:,} counted params are frozen whitening weights"

    def to_mapping(self) -> dict[str, Any]:
        """Return the verdict as plain data, with the image shape and number of classes that were counted."""
        image = {"input_shape": list(self.spec.input_shape), "num_classes": self.spec.num_classes}
        return {**super().to_mapping(), **image}


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

    def check(self, spec: ModelSpec) -> SpecVerdict:
        """Check a network by its closed-form cost, without building it."""
        return SpecVerdict(self, spec, cost_of(spec))

    def allows(self, cost: Cost) -> bool:
        """Return whether a cost is within all limits."""
        return all(
            (allowed := getattr(self, f"max_{name}")) is None or used <= allowed
            for name, used in zip(LIMITS, cost, strict=True)
        )

    def share_used(self, cost: Cost) -> float:
        """Return the used share of the tightest limit: 1 is the limit itself; 0 without limits."""
        return max((limit.used / limit.allowed for limit in self.limits(cost)), default=0.0)

    def limits(self, cost: Cost) -> tuple[LimitVerdict, ...]:
        """Compare a cost with every limit that is set."""
        pairs = ((name, getattr(self, f"max_{name}")) for name in LIMITS)
        return tuple(LimitVerdict(name, getattr(cost, name), allowed) for name, allowed in pairs if allowed is not None)


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


def _smallest_edits(spec: ModelSpec, budget: Budget) -> list[Edit]:
    found = (_smallest_edit(family, budget) for family in _families(spec))
    return sorted((edit for edit in found if edit is not None), key=lambda edit: -budget.share_used(edit.cost))


def _smallest_edit(family: _Family, budget: Budget) -> Edit | None:
    def fits(step: int) -> bool:
        return budget.allows(cost_of(family.edit(step)[1]))

    def largest(steps: Sequence[int], uneven: Collection[int]) -> int | None:
        even = sorted(set(steps).difference(uneven), reverse=True)
        place = bisect_left(even, True, key=fits)
        found = [*even[place : place + 1], *islice(filter(fits, sorted(uneven, reverse=True)), 1)]
        return max(found, default=None)

    multiples = [[each for each in steps if each % family.step == 0] for steps in (family.steps, family.uneven)]
    found = largest(*multiples)
    if found is None:
        found = largest(family.steps, family.uneven)
    if found is None:
        return None
    words, edited = family.edit(found)
    return Edit(words, edited, cost_of(edited))


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

    def edit(thousandths: int) -> tuple[str, ModelSpec]:
        pairs = zip(allowed, own, strict=True)
        widths = [each.nearest(top * thousandths // 1000) for each, top in pairs]
        for place in reversed(range(len(spec.stages))):
            if spec.block_settings[place].shortcut.kind == "padding":
                # It cannot narrow.
                widths[place] = min(widths[place], widths[place + 1])
        stem, *stages = widths
        edited = _edited(spec, [{"channels": width} for width in stages], stem=stem)
        return f"all widths x {thousandths / 1000:g}", edited

    return _Family((), edit, uneven=range(1, 1000))


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
        return self._allowed[max(0, bisect_right(self._allowed, width) - 1)]


def _kernels(spec: ModelSpec, which: int) -> _Family:
    """Caps one of the two kernel sizes in every stage; a bottleneck's two entries are one kernel and move together."""
    together = any(each.bottleneck for each in spec.block_settings)
    largest = max(stage.kernel_sizes[which] for stage in spec.stages)
    place = "every" if together else ("every first", "every second")[which]

    def edit(cap: int) -> tuple[str, ModelSpec]:
        sizes = [
            tuple(min(size, cap) if together or at == which else size for at, size in enumerate(stage.kernel_sizes))
            for stage in spec.stages
        ]
        return f"{place} kernel: {largest} -> {cap}", _edited(spec, [{"kernel_sizes": pair} for pair in sizes])

    return _Family(() if together and which else range(1, largest - 1, 2), edit)
