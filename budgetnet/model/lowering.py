"""Lowering of a specification to its plan: every layer in order, with its shapes."""

from __future__ import annotations

from typing import NamedTuple

from budgetnet.common.documents import whole_number
from budgetnet.common.errors import InputError
from budgetnet.model.block_settings import BlockSettings
from budgetnet.model.parts import Stage
from budgetnet.model.plan import BlockPlan, HeadPlan, Layer, Plan, StemPlan
from budgetnet.model.sizes import feature_sizes, pooled_positions, stem_size, whitened_size
from budgetnet.model.spec import ModelSpec


def lower(spec: ModelSpec, *, input_size: int | tuple[int, int] | None = None) -> Plan:
    """Lower a specification to its plan.

    Args:
        spec: the network.
        input_size: image side, or (height, width), in pixels; default: the specification's.

    Raises:
        InputError: the input size is below 1, or so small that a stride would shrink a map below one pixel, or that the
            head's pooling windows do not fit into the last map.
    """
    size = None if input_size is None else read_input_size(input_size)
    sizes = feature_sizes(spec, input_size=size)
    stages, channels = [], spec.stem.channels
    for index, (stage, settings) in enumerate(zip(spec.stages, spec.block_settings, strict=True)):
        blocks = []
        for position in range(stage.blocks):
            # Only a stage's first block changes the map's size.
            first = position == 0
            before, after = sizes[index if first else index + 1], sizes[index + 1]
            block_input = _BlockInput(
                f"stages.{index}.{position}", channels, stage.stride if first else 1, before, after
            )
            blocks.append(_block(settings, stage, block_input, pooled=spec.downsampling == "max-pool"))
            channels = stage.channels
        stages.append(tuple(blocks))
    return Plan(
        input_shape=(spec.input_shape[0], *(size or spec.input_shape[1:])),
        stem=_stem(spec, size),
        stages=tuple(stages),
        head=_head(spec, channels, sizes[-1]),
        activation=spec.activation,
    )


def _stem(spec: ModelSpec, size: tuple[int, int] | None) -> StemPlan:
    stem, channels, whitening = spec.stem, spec.input_shape[0], None
    if stem.whitening:
        filters, after = stem.whitening_filters(channels), whitened_size(spec, input_size=size)
        whitening = Layer("stem.whitening", "whitening", channels, filters, *after, stem.whitening, bias=True)
        channels = filters
    after, convs, stride = stem_size(spec, input_size=size), [], stem.stride
    paths = [f"stem.inner.{index}" for index in range(len(stem.inner_channels))]
    for path, width in zip([*paths, "stem"], [*stem.inner_channels, stem.channels], strict=True):
        conv = Layer(f"{path}.conv", "conv", channels, width, *after, stem.kernel_size, stride, bias=stem.bias)
        convs.append(conv)
        channels, stride = width, 1
    return StemPlan(
        whitening=whitening,
        convs=tuple(convs),
        inner_norms=tuple(_norm(f"{path}.norm", conv) for path, conv in zip(paths, convs, strict=False)),
        norm=_norm("stem.norm", convs[-1]) if spec.stem_norm else None,
        squeeze_excitation=_squeeze_excitation("stem", channels, spec.stem_hidden(channels)),
        pool_size=stem.pool_size,
        pool_stride=stem.pool_stride,
    )


def _head(spec: ModelSpec, channels: int, last: tuple[int, int]) -> HeadPlan:
    head, conv = spec.head, None
    norm = Layer("head.norm", "norm", channels, channels, *last) if spec.head_norm else None
    if head.channels is not None:
        conv = Layer("head.conv", "conv", channels, head.channels, *last)
        channels = head.channels
    features = channels * pooled_positions(spec, last)
    return HeadPlan(
        norm=norm,
        conv=conv,
        conv_norm=_norm("head.conv_norm", conv) if conv else None,
        linear=Layer("head.linear", "linear", features, spec.num_classes, 1, 1, bias=True),
        pooling=head.pooling,
        pool_size=head.pool_size,
        dropout=head.dropout,
        scale=head.scale,
    )


def read_input_size(input_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of an image given by its side or by both, in pixels.

    Raises:
        InputError: a side is not a whole number of at least 1.
    """
    height, width = input_size if isinstance(input_size, tuple) else (input_size, input_size)
    return _side(height), _side(width)


def _side(value: object) -> int:
    try:
        side = whole_number(value)
    except ValueError:
        side = 0
    if side < 1:
        raise InputError("input_size", value, "must be a whole number of at least 1 pixel")
    return side


def _norm(path: str, layer: Layer) -> Layer:
    """Return the batch norm after a layer."""
    # Partial windows at the border are pooled too, so a side is rounded up as by a stride.
    height, width = -(-layer.height // layer.pool), -(-layer.width // layer.pool)
    return Layer(path, "norm", layer.out_channels, layer.out_channels, height, width)


class _BlockInput(NamedTuple):
    """Position, input channels and map sizes of a block."""

    path: str
    channels: int
    stride: int
    before: tuple[int, int]
    """Height and width of the input map, in pixels."""
    after: tuple[int, int]
    """Height and width of the output map, in pixels."""


def _block(settings: BlockSettings, stage: Stage, block_input: _BlockInput, *, pooled: bool) -> BlockPlan:
    path, channels, stride, before, after = block_input
    width, bias = stage.channels, settings.bias
    inner = settings.inner(channels, width)
    groups = settings.groups_of(inner)
    first, second = stage.kernel_sizes
    # The convolution that reduces the map: its output size, stride and pooling.
    computed, conv_stride, pool = (before, 1, stride) if pooled else (after, stride, 1)
    if settings.bottleneck:
        convs: tuple[Layer, ...] = (
            Layer(f"{path}.conv1", "conv", channels, inner, *before, bias=bias),
            Layer(f"{path}.conv2", "conv", inner, inner, *computed, first, conv_stride, groups, bias, pool),
            Layer(f"{path}.conv3", "conv", inner, width, *after, bias=bias),
        )
    else:
        convs = (
            Layer(f"{path}.conv1", "conv", channels, width, *computed, first, conv_stride, groups, bias, pool),
            Layer(f"{path}.conv2", "conv", width, width, *after, second, 1, groups, bias),
        )
    if settings.bottleneck and not settings.expands(channels, inner):
        convs = tuple(conv._replace(path=f"{path}.conv{number}") for number, conv in enumerate(convs[1:], 1))
    norms = tuple(_norm(f"{path}.norm{number}", conv) for number, conv in enumerate(convs, 1))
    if settings.preact:
        # Each norm is that of the input of its convolution: the block's input, then what the one before puts out.
        first_norm = Layer(f"{path}.norm1", "norm", channels, channels, *before)
        norms = (first_norm, *(norm._replace(path=f"{path}.norm{number}") for number, norm in enumerate(norms[:-1], 2)))
    changes_shape = stride > 1 or channels != width
    kind = settings.shortcut.kind if changes_shape or settings.shortcut.kind == "none" else "identity"
    if changes_shape and kind == "identity":
        kind = "none"
    shortcut_conv = None
    if kind in ("projection", "average-pool"):
        side, shortcut_stride = settings.shortcut.kernel_size, stride if kind == "projection" else 1
        shortcut_path = f"{path}.shortcut.conv"
        shortcut_conv = Layer(
            shortcut_path, "conv", channels, width, *after, side, shortcut_stride, bias=settings.shortcut_bias
        )
    scaled = inner if settings.squeeze_excitation.place == "inner" else width
    return BlockPlan(
        settings=settings,
        convs=convs,
        norms=norms,
        squeeze_excitation=_squeeze_excitation(
            path, scaled, settings.hidden(channels, width, inner), bias=settings.squeeze_excitation.bias
        ),
        shortcut=kind,
        shortcut_conv=shortcut_conv,
        shortcut_norm=_norm(f"{path}.shortcut.norm", shortcut_conv)
        if shortcut_conv and settings.shortcut_norm
        else None,
        output=Layer(path, "block", channels, width, *after, stride=stride),
    )


def _squeeze_excitation(path: str, width: int, hidden: int, *, bias: bool = True) -> tuple[Layer, Layer] | None:
    if not hidden:
        return None
    return (
        Layer(f"{path}.squeeze_excitation.reduce", "conv", width, hidden, 1, 1, bias=bias),
        Layer(f"{path}.squeeze_excitation.expand", "conv", hidden, width, 1, 1, bias=bias),
    )
