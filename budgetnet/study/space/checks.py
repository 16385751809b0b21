"""Rules between the fields of a search space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.common.errors import InputError
from budgetnet.study.space.networks import check_documents

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
    widest = space.channels[1] * max(1.0, max(space.growth) ** (space.stages[1] - 1))
    if widest > MAX_CHANNELS:
        rule = f"lets {space.stages[1]} stages grow to {widest:,.0f} channels; must be at most {MAX_CHANNELS:,}"
        raise InputError("growth", list(space.growth), rule)
    if "padding" in space.shortcuts and min(space.growth) < 1:
        rule = f"a padding shortcut cannot narrow, and growth may be {min(space.growth):g}"
        raise InputError("shortcuts", list(space.shortcuts), rule)
    if space.groups != (1,) and space.group_widths != (None,):
        raise InputError("group_widths", list(space.group_widths), "must not be given with groups")
    check_documents(space)
    for kind in space.block_kinds:
        step = max(space.steps(kind).values())
        if step > MAX_CHANNELS:
            rule = f"makes {kind} blocks multiples of {step:,} channels wide; must be at most {MAX_CHANNELS:,}"
            raise InputError("groups", list(space.groups), rule)
