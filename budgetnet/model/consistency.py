"""Rules between fields of a specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.common.errors import InputError
from budgetnet.model.block_settings import BlockSettings
from budgetnet.model.parts import Stage
from budgetnet.model.sizes import feature_sizes, pooled_positions

if TYPE_CHECKING:
    from budgetnet.model.spec import ModelSpec


def check_consistency(spec: ModelSpec) -> None:
    """Check the rules between fields.

    Raises:
        InputError: the first rule that is broken.
    """
    settings = spec.block_settings
    if not any(each.bottleneck for each in settings):
        kinds = " and ".join(dict.fromkeys(each.kind for each in settings))
        for field, default in (
            ("bottleneck_ratio", None),
            ("bottleneck_ratio_of", "output"),
            ("equal_expansion", True),
        ):
            if (value := getattr(spec, field)) != default:
                raise InputError(field, value, f"is only for bottleneck blocks, not {kinds}")
    if not spec.block_activation and all(each.preact for each in settings):
        raise InputError("block_activation", False, "is only for blocks that end with an activation, not preact")
    if spec.groups != 1 and spec.group_width is not None:
        raise InputError("group_width", spec.group_width, f"must not be given with groups ({spec.groups})")
    width = spec.stem.channels
    for index, (stage, own) in enumerate(zip(spec.stages, settings, strict=True)):
        _check_stage(f"stages[{index}]", stage, own, width)
        width = stage.channels
    pooled_positions(spec, feature_sizes(spec)[-1])


def _check_stage(path: str, stage: Stage, settings: BlockSettings, in_channels: int) -> None:
    """Check a stage against its input width."""

    def named(field: str) -> str:
        """Return where the stage's value of a field was given: in the stage, or for the whole network."""
        return field if getattr(stage, field) is None else f"{path}.{field}"

    if settings.bottleneck:
        if stage.kernel_sizes[0] != stage.kernel_sizes[1]:
            rule = "must be equal for bottleneck blocks, which have one spatial convolution"
            raise InputError(f"{path}.kernel_sizes", list(stage.kernel_sizes), rule)
    else:
        if stage.bottleneck_ratio is not None:
            rule = f"is only for bottleneck blocks, not {settings.kind}"
            raise InputError(f"{path}.bottleneck_ratio", stage.bottleneck_ratio, rule)
        for field in ("place", "ratio_of"):
            if settings.squeeze_ratio and getattr(settings.squeeze_excitation, field) == "inner":
                rule = f"is only for bottleneck blocks, not {settings.kind}"
                raise InputError(f"{named('squeeze_excitation')}.{field}", "inner", rule)
        if settings.group_width is not None:
            rule = f"is only for bottleneck blocks, not the {settings.kind} blocks of {path}"
            raise InputError(named("group_width"), settings.group_width, rule)
    if stage.groups is not None and stage.group_width is not None:
        raise InputError(f"{path}.group_width", stage.group_width, f"must not be given with groups ({stage.groups})")
    grouping = "groups" if settings.group_width is None else "group_width"
    _check_groups(path, stage, settings, in_channels, field=named(grouping))
    shortcut = settings.shortcut
    if shortcut.kind == "padding" and stage.channels < in_channels:
        rule = f"must be at least the {in_channels} input channels with a padding shortcut"
        raise InputError(f"{path}.channels", stage.channels, rule)


def _check_groups(path: str, stage: Stage, settings: BlockSettings, in_channels: int, *, field: str) -> None:
    """Check that groups, or groups of a width, divide the channels of the spatial convolutions."""
    width, group_width = stage.channels, settings.group_width
    if group_width is not None:
        # The first block of a stage may have another inner width than the others.
        for inner in (settings.inner(in_channels, width), settings.inner(width, width)):
            if inner % group_width:
                nearest = _nearest(width, lambda each: settings.inner(in_channels, each) % group_width == 0)
                rule = f"must divide the {inner} inner channels of the bottleneck in {path}{nearest}"
                raise InputError(field, group_width, rule)
    elif settings.bottleneck:
        for inner in (settings.inner(in_channels, width), settings.inner(width, width)):
            if inner % settings.groups:
                rule = f"must divide the {inner} inner channels of the bottleneck in {path}"
                raise InputError(field, settings.groups, rule)
    elif in_channels % settings.groups:
        raise InputError(field, settings.groups, f"must divide the {in_channels} input channels of {path}")
    elif width % settings.groups:
        raise InputError(field, settings.groups, f"must divide {path}.channels = {width}")


def _nearest(width: int, divides: Callable[[int], bool]) -> str:
    """Return which are the nearest widths of a stage with a property, for an error; empty if there is none."""
    below = next((each for each in range(width, 0, -1) if divides(each)), None)
    above = next((each for each in range(width, MAX_CHANNELS + 1) if divides(each)), None)
    widths = [str(each) for each in (below, above) if each is not None]
    return f"; the nearest stage widths are {' and '.join(widths)}" if below != width and widths else ""
