"""Rules between the fields of a search space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.common.errors import InputError
from budgetnet.model.block_settings import DEFAULT_BOTTLENECK_RATIO
from budgetnet.model.parts import Head, Shortcut, Stem
from budgetnet.study.space.networks import check_documents, fixed_fields

if TYPE_CHECKING:
    from budgetnet.study.space.document import SearchSpace

_CHOICES = (
    "growth",
    "first_kernel_sizes",
    "second_kernel_sizes",
    "block_kinds",
    "squeeze_excitation_ratios",
    "groups",
    "shortcuts",
    "bottleneck_ratios",
    "group_widths",
    "shortcut_kernel_sizes",
    "activations",
    "block_dropouts",
    "conv_biases",
)
"""Fields that list choices."""


def check_space(space: SearchSpace) -> None:
    """Check the rules between fields.

    Raises:
        InputError: the first rule that is broken.
    """
    for field in ("stages", "channels", "blocks", "full_size_stages", "budget_shares"):
        low, high = getattr(space, field)
        if low > high:
            raise InputError(field, [low, high], "must name the smaller number first")
    for field in _CHOICES:
        choices = getattr(space, field)
        if len(set(choices)) < len(choices):
            raise InputError(field, list(choices), "must not name a choice twice")
    if space.channels[0] % space.channel_step:
        raise InputError("channels", list(space.channels), f"must start at a multiple of {space.channel_step}")
    _check_growth(space)
    if space.groups != (1,) and space.group_widths != (None,):
        raise InputError("group_widths", list(space.group_widths), "must not be given with groups")
    check_documents(space)
    for field, documents in (
        ("stems", [Stem(**each) for each in space.stems]),
        ("heads", [Head(**each) for each in space.heads]),
    ):
        if len(set(documents)) < len(documents):
            raise InputError(field, list(getattr(space, field)), "must not name a choice twice")
    _check_effects(space)
    for kind in space.block_kinds:
        step = max(space.steps(kind).values())
        if step > MAX_CHANNELS:
            rule = f"makes {kind} blocks multiples of {step:,} channels wide; must be at most {MAX_CHANNELS:,}"
            raise InputError("groups", list(space.groups), rule)


def _check_growth(space: SearchSpace) -> None:
    """Check that widths grow no further than allowed, and shrink only where shortcuts can."""
    most, rule = space.stages[1], space.regnet
    field, choices = ("growth", space.growth) if rule is None else ("regnet.multipliers", rule.multipliers)
    factor = max(1.0, max(space.growth) ** (most - 1)) if rule is None else rule.widest(most)
    if (widest := space.channels[1] * factor) > MAX_CHANNELS:
        broken = f"lets {most} stages grow to {widest:,.0f} channels; must be at most {MAX_CHANNELS:,}"
        raise InputError(field, list(choices), broken)
    if rule is None and "padding" in space.shortcuts and min(space.growth) < 1:
        broken = f"a padding shortcut cannot narrow, and growth may be {min(space.growth):g}"
        raise InputError("shortcuts", list(space.shortcuts), broken)


def _check_effects(space: SearchSpace) -> None:
    """Check that some network of the space has what a field describes."""
    kinds = " and ".join(space.block_kinds)
    if not any(kind.endswith("bottleneck") for kind in space.block_kinds):
        for field, none in (("bottleneck_ratios", (DEFAULT_BOTTLENECK_RATIO,)), ("group_widths", (None,))):
            if (choices := getattr(space, field)) != none:
                raise InputError(field, list(choices), f"is only for bottleneck blocks, not {kinds}")
    for name, value in space.fixed.items():
        if not any(name in fixed_fields(space, kind) for kind in space.block_kinds):
            raise InputError(f"fixed.{name}", value, f"changes nothing in {kinds} blocks")
    if space.shortcut_kernel_sizes != (1,) and not any(Shortcut(kind=kind).has_conv for kind in space.shortcuts):
        rule = f"is only for shortcuts with a convolution, not {' and '.join(space.shortcuts)}"
        raise InputError("shortcut_kernel_sizes", list(space.shortcut_kernel_sizes), rule)
