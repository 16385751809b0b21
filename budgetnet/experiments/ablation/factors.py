"""Factors in which a network and its recipe differ from a base: the settings that set each of them back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from budgetnet.common.documents import Document
from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.overrides import Setup
from budgetnet.experiments.ablation.parsing import OPTION_NAME
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe

Value = TypeVar("Value")

_BLOCK_FIELDS = {
    "block": "kind",
    "bottleneck_ratio": "ratio",
    "groups": "groups",
    "group_width": "group_width",
    "squeeze_excitation_ratio": "squeeze_ratio",
    "squeeze_excitation": "squeeze_excitation",
    "shortcut": "shortcut",
    "activation": "activation",
    "block_dropout": "dropout",
    "conv_bias": "bias",
}
"""Fields of a network that stages may have of their own, and their names in `BlockSettings`."""
_MOST = 64
"""Largest factor of the base's widths that is tried."""


class Factor(NamedTuple):
    """Fields that are set back to the base together."""

    name: str
    """Name with the base's value, such as ``block=basic``."""
    settings: dict[str, Any]
    """The base's values by dotted path."""


def factors_of(own: Setup, base: Setup) -> list[Factor]:
    """Return the factors in which a network and its recipe differ from a base, those of the network first.

    All factors together set a network back to the base. If the numbers of stages differ, ``depth`` gives the network
    the base's stages, each with the width and the blocks of the network's stage at the same relative position; the
    other factors take their values from the base's stages in the same way.

    Args:
        own: network and recipe to set back.
        base: network for the same images and classes, and its recipe.
    """
    return [*_of_network(own.spec, base.spec), *_of_recipe(own.recipe, base.recipe)]


def resampled(values: Sequence[Value], count: int) -> list[Value]:
    """Return values stretched or shortened to a number: those at the nearest positions, with both ends kept."""
    last = max(1, count - 1)
    return [values[(2 * place * (len(values) - 1) + last - 1) // (2 * last)] for place in range(count)]


def _of_network(own: ModelSpec, base: ModelSpec) -> Iterator[Factor]:
    makers = (_depth, _strides, _widths, _block, _kernels, _shortcut, _groups, _bottleneck_ratio, _squeeze, _stem)
    for make in (*makers, _head, _activation, _downsampling, _dropout, _bias):
        if (factor := make(own, base)) is not None:
            yield factor


def _of_recipe(own: Recipe, base: Recipe) -> Iterator[Factor]:
    """Yield a factor for each field that differs; documents of one kind are compared field by field."""
    before, after = own.to_mapping(), base.to_mapping()
    for name in before:
        if name == "name" or before[name] == after[name]:
            continue
        one, other = before[name], after[name]
        if isinstance(one, dict) and isinstance(other, dict) and one.get("kind") == other.get("kind"):
            for inner in other:
                if one[inner] != other[inner]:
                    yield _factor(f"{name}.{inner}", other[inner], {f"recipe.{name}.{inner}": other[inner]})
        else:
            yield _factor(name, other, {f"recipe.{name}": other})


def _factor(word: str, value: Any, settings: dict[str, Any]) -> Factor:
    """Return a factor, with the value in its name if it is short enough and plain."""
    name = f"{word}={_text(value)}"
    return Factor(name if OPTION_NAME.fullmatch(name) else word, settings)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", value))
    if isinstance(value, (list, tuple)):
        each = ("x".join(map(str, entry)) if isinstance(entry, (list, tuple)) else _text(entry) for entry in value)
        return "-".join(each) or "off"
    return "off" if value is None or value is False else "on" if value is True else str(value)


def _depth(own: ModelSpec, base: ModelSpec) -> Factor | None:
    """Number of blocks of each stage; the stages with their strides if there are more or fewer."""
    blocks = [each.blocks for each in base.stages]
    if len(own.stages) == len(base.stages):
        return _of_lists("depth", "spec.blocks", [each.blocks for each in own.stages], blocks)
    stages = [
        {**_plain(stage), "blocks": like.blocks, "stride": like.stride}
        for stage, like in zip(resampled(own.stages, len(base.stages)), base.stages, strict=True)
    ]
    return _factor("depth", blocks, {"spec.stages": stages})


def _strides(own: ModelSpec, base: ModelSpec) -> Factor | None:
    """Stride of each stage; those of more or fewer stages belong to the depth."""
    if len(own.stages) != len(base.stages):
        return None
    strides = [each.stride for each in base.stages]
    return _of_lists("strides", "spec.strides", [each.stride for each in own.stages], strides)


def _of_lists(word: str, path: str, before: list[int], after: list[int]) -> Factor | None:
    return None if before == after else _factor(word, after, {path: after})


def _widths(own: ModelSpec, base: ModelSpec) -> Factor | None:
    """Widths of stem and stages; only their proportions count, as they are refitted."""
    stages = resampled([each.channels for each in base.stages], len(own.stages))
    if (base.stem.channels, stages) == (own.stem.channels, [each.channels for each in own.stages]):
        return None
    factor = _least_factor(own, [base.stem.channels, *stages])
    channels = [width * factor for width in stages]
    return _factor("widths", stages, {"spec.stem.channels": base.stem.channels * factor, "spec.channels": channels})


def _least_factor(own: ModelSpec, widths: Sequence[int]) -> int:
    """Return the smallest factor of widths at which groups divide all of them; 1 if there is none."""
    for factor in range(1, _MOST + 1):
        stem, *channels = (width * factor for width in widths)
        try:
            own.replace(stem={**_plain(own.stem), "channels": stem}, channels=channels)
        except InputError:
            continue
        return factor
    return 1


def _block(own: ModelSpec, base: ModelSpec) -> Factor | None:
    """Kind of block, with what only bottlenecks have if the network has none."""
    if _same(own, base, "block"):
        return None
    settings = {"spec.block": _value(base, "block", len(own.stages))}
    if _has_bottlenecks(base) and not _has_bottlenecks(own):
        settings |= _settings(own, base, "bottleneck_ratio", "group_width")
        settings["spec.bottleneck_ratio_of"] = base.bottleneck_ratio_of
        if base.group_width is not None:
            # It replaces groups.
            settings["spec.groups"] = base.groups
        if any(len(set(each.kernel_sizes)) > 1 for each in own.stages):
            # A bottleneck has one spatial convolution.
            settings["spec.kernel_sizes"] = [[each.kernel_sizes[0]] * 2 for each in own.stages]
    return _factor("block", settings["spec.block"], settings)


def _kernels(own: ModelSpec, base: ModelSpec) -> Factor | None:
    pairs = [
        [first, first if settings.bottleneck else second]
        for (first, second), settings in zip(
            resampled([each.kernel_sizes for each in base.stages], len(own.stages)), own.block_settings, strict=True
        )
    ]
    if pairs == [list(each.kernel_sizes) for each in own.stages]:
        return None
    alike = all(pair == pairs[0] for pair in pairs)
    return _factor("kernel_sizes", [pairs[0]] if alike else pairs, {"spec.kernel_sizes": pairs[0] if alike else pairs})


def _shortcut(own: ModelSpec, base: ModelSpec) -> Factor | None:
    settings = _settings(own, base, "shortcut")
    if not isinstance(of := settings.get("spec.shortcut"), dict):
        return Factor("shortcut", settings) if settings else None
    kernel = f" {of['kernel_size']}x{of['kernel_size']}" if of["kind"] in ("projection", "average-pool") else ""
    return _factor("shortcut", f"{of['kind']}{kernel}", settings)


def _groups(own: ModelSpec, base: ModelSpec) -> Factor | None:
    """Groups, or channels of each group, one of which replaces the other."""
    names = ["groups", *(["group_width"] if _has_bottlenecks(own) else [])]
    if all(_same(own, base, name) for name in names):
        return None
    count = len(own.stages)
    settings = {f"spec.{name}": _value(base, name, count) for name in names}
    if len(names) == 2 and isinstance(settings["spec.groups"], list) != isinstance(settings["spec.group_width"], list):
        # What each stage has of one replaces the other.
        settings = {f"spec.{name}": resampled(_each(base, name), count) for name in names}
    width = settings.get("spec.group_width")
    if isinstance(width, list):
        pairs = zip(settings["spec.groups"], width, strict=True)
        settings["spec.groups"] = [None if inside else groups for groups, inside in pairs]
    return _factor("group_width" if width else "groups", width or settings["spec.groups"], settings)


def _bottleneck_ratio(own: ModelSpec, base: ModelSpec) -> Factor | None:
    if not (_has_bottlenecks(own) and _has_bottlenecks(base)):
        return None
    settings = _settings(own, base, "bottleneck_ratio")
    if own.bottleneck_ratio_of != base.bottleneck_ratio_of:
        settings["spec.bottleneck_ratio_of"] = base.bottleneck_ratio_of
    if own.equal_expansion != base.equal_expansion:
        settings["spec.equal_expansion"] = base.equal_expansion
    ratio = base.block_settings[0].ratio
    return _factor("bottleneck_ratio", ratio, settings) if settings else None


def _squeeze(own: ModelSpec, base: ModelSpec) -> Factor | None:
    used = any(_each(base, "squeeze_excitation_ratio"))
    if not used and not any(_each(own, "squeeze_excitation_ratio")):
        return None
    settings = _settings(own, base, "squeeze_excitation_ratio", *(["squeeze_excitation"] if used else []))
    ratio = _value(base, "squeeze_excitation_ratio", len(own.stages))
    return _factor("squeeze_excitation", ratio, settings) if settings else None


def _stem(own: ModelSpec, base: ModelSpec) -> Factor | None:
    """Everything of the stem but its width, which belongs to the widths."""
    return _part("stem", _plain(own.stem), {**_plain(base.stem), "channels": own.stem.channels})


def _head(own: ModelSpec, base: ModelSpec) -> Factor | None:
    return _part("head", _plain(own.head), _plain(base.head))


def _part(word: str, before: dict[str, Any], after: dict[str, Any]) -> Factor | None:
    changed = {name: value for name, value in after.items() if value != before[name]}
    if not changed:
        return None
    name = " ".join([word, *(f"{field}={_text(value)}" for field, value in changed.items())])
    return Factor(name if OPTION_NAME.fullmatch(name) else word, {f"spec.{word}": after})


def _activation(own: ModelSpec, base: ModelSpec) -> Factor | None:
    settings = _settings(own, base, "activation")
    if own.activation != base.activation:
        settings.setdefault("spec.activation", base.activation)
    preact = all(each.preact for each in own.block_settings)
    if own.block_activation != base.block_activation and not preact:
        settings["spec.block_activation"] = base.block_activation
    if not settings:
        return None
    path, value = next(iter(settings.items()))
    return _factor(path.removeprefix("spec."), value, settings)


def _downsampling(own: ModelSpec, base: ModelSpec) -> Factor | None:
    if own.downsampling == base.downsampling:
        return None
    return _factor("downsampling", base.downsampling, {"spec.downsampling": base.downsampling})


def _dropout(own: ModelSpec, base: ModelSpec) -> Factor | None:
    settings = _settings(own, base, "block_dropout")
    return _factor("block_dropout", settings["spec.block_dropout"], settings) if settings else None


def _bias(own: ModelSpec, base: ModelSpec) -> Factor | None:
    settings = _settings(own, base, "conv_bias")
    return _factor("conv_bias", settings["spec.conv_bias"], settings) if settings else None


def _settings(own: ModelSpec, base: ModelSpec, *names: str) -> dict[str, Any]:
    """Return the base's values of fields of the blocks, where they differ, by path."""
    return {f"spec.{name}": _value(base, name, len(own.stages)) for name in names if not _same(own, base, name)}


def _same(own: ModelSpec, base: ModelSpec, name: str) -> bool:
    return _each(own, name) == resampled(_each(base, name), len(own.stages))


def _value(base: ModelSpec, name: str, count: int) -> Any:
    """Return the base's value of a field: the network's where all stages have it, else a list by stage."""
    values = _each(base, name)
    if all(getattr(stage, name) is None for stage in base.stages):
        return _plain(getattr(base, name))
    if all(value == values[0] for value in values):
        return None if name == "squeeze_excitation_ratio" and not values[0] else values[0]
    return resampled(values, count)


def _each(spec: ModelSpec, name: str) -> list[Any]:
    """Return the value of a field that each stage's blocks have, as plain data."""
    return [_plain(getattr(settings, _BLOCK_FIELDS[name])) for settings in spec.block_settings]


def _has_bottlenecks(spec: ModelSpec) -> bool:
    return any(settings.bottleneck for settings in spec.block_settings)


def _plain(value: Any) -> Any:
    return value.to_mapping() if isinstance(value, Document) else value
