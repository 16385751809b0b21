"""The plan of a network: every layer in order, with its shapes, as plain data.

Networks are built from the plan and summaries print it. Tests compare the closed-form cost with the plan's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from budgetnet.common.documents import whole_number
from budgetnet.common.errors import InputError
from budgetnet.model.spec import ModelSpec, Stage, feature_sizes, whitened_size

LayerKind = Literal["whitening", "conv", "norm", "linear", "block"]


class Layer(NamedTuple):
    """One layer of the plan."""

    path: str
    """Module path in the built network, such as ``stages.0.1.conv2``."""
    kind: LayerKind
    """``whitening`` is a frozen unpadded convolution, ``block`` the addition at the end of a residual block."""
    in_channels: int
    out_channels: int
    height: int
    """Height of the output before any pooling, in pixels."""
    width: int
    """Width of the output before any pooling, in pixels."""
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    pool: int = 1
    """Side and stride of the max pooling after a convolution, in pixels; 1 for none."""

    @property
    def padding(self) -> int:
        """Zero padding on each side of a convolution's input, in pixels."""
        return 0 if self.kind == "whitening" else self.kernel_size // 2


class BlockPlan(NamedTuple):
    """One residual block."""

    kind: str
    convs: tuple[Layer, ...]
    norms: tuple[Layer, ...]
    squeeze_excitation: tuple[Layer, Layer] | None
    """The two 1x1 convolutions on the pooled map."""
    shortcut: str
    """``identity`` or the specification's shortcut kind."""
    shortcut_conv: Layer | None
    shortcut_norm: Layer | None
    output: Layer
    """The residual addition, with the block's output shape."""

    def layers(self) -> Iterator[Layer]:
        """Iterate over the block's layers in execution order; the shortcut comes last."""
        pairs = zip(self.norms, self.convs, strict=True)
        for norm, conv in pairs:
            yield from (norm, conv) if self.kind == "preact" else (conv, norm)
        yield from self.squeeze_excitation or ()
        if self.shortcut_conv:
            yield self.shortcut_conv
        if self.shortcut_norm:
            yield self.shortcut_norm
        yield self.output


class Plan(NamedTuple):
    """All layers and settings of a network."""

    input_shape: tuple[int, int, int]
    """Image as (channels, height, width)."""
    whitening: Layer | None
    stem_conv: Layer
    stem_norm: Layer | None
    stages: tuple[tuple[BlockPlan, ...], ...]
    head_norm: Layer | None
    linear: Layer
    activation: str
    pooling: str
    dropout: float
    scale: float
    """Factor of the logits."""

    def layers(self) -> Iterator[Layer]:
        """Iterate over all layers in execution order."""
        if self.whitening:
            yield self.whitening
        yield self.stem_conv
        if self.stem_norm:
            yield self.stem_norm
        for stage in self.stages:
            for block in stage:
                yield from block.layers()
        if self.head_norm:
            yield self.head_norm
        yield self.linear


def lower(spec: ModelSpec, *, input_size: int | tuple[int, int] | None = None) -> Plan:
    """Lower a specification to its plan.

    Args:
        spec: the network.
        input_size: image side, or (height, width), in pixels; default: the specification's.

    Raises:
        InputError: the input size is below 1, or so small that a stride would shrink a map below one pixel.
    """
    size = None if input_size is None else read_input_size(input_size)
    sizes = feature_sizes(spec, input_size=size)
    image = (spec.input_shape[0], *(size or spec.input_shape[1:]))
    preact = spec.block == "preact"
    stem, in_channels, whitening = spec.stem, image[0], None
    if stem.whitening:
        in_channels, size_after = stem.whitening_filters(image[0]), whitened_size(spec, input_size=size)
        whitening = Layer(
            "stem.whitening", "whitening", image[0], in_channels, *size_after, kernel_size=stem.whitening, bias=True
        )
    stem_conv = Layer("stem.conv", "conv", in_channels, stem.channels, *sizes[0], stem.kernel_size, stem.stride)
    stages, channels = [], stem.channels
    for index, stage in enumerate(spec.stages):
        blocks = []
        for position in range(stage.blocks):
            # Only a stage's first block changes the map's size.
            first = position == 0
            before, after = sizes[index if first else index + 1], sizes[index + 1]
            block_input = _BlockInput(
                f"stages.{index}.{position}", channels, stage.stride if first else 1, before, after
            )
            blocks.append(_block(spec, stage, block_input))
            channels = stage.channels
        stages.append(tuple(blocks))
    return Plan(
        input_shape=image,
        whitening=whitening,
        stem_conv=stem_conv,
        stem_norm=None if preact else _norm("stem.norm", stem_conv),
        stages=tuple(stages),
        head_norm=Layer("head.norm", "norm", channels, channels, *sizes[-1]) if preact else None,
        linear=Layer("head.linear", "linear", channels, spec.num_classes, 1, 1, bias=True),
        activation=spec.activation,
        pooling=spec.head.pooling,
        dropout=spec.head.dropout,
        scale=spec.head.scale,
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


def _block(spec: ModelSpec, stage: Stage, block_input: _BlockInput) -> BlockPlan:
    path, channels, stride, before, after = block_input
    width, groups = stage.channels, spec.groups
    first, second = stage.kernel_sizes
    # The convolution that reduces the map: its output size, stride and pooling.
    pooled = spec.downsampling == "max-pool"
    computed, conv_stride, pool = (before, 1, stride) if pooled else (after, stride, 1)
    if spec.block == "bottleneck":
        inner = spec.inner_channels(width)
        convs: tuple[Layer, ...] = (
            Layer(f"{path}.conv1", "conv", channels, inner, *before),
            Layer(f"{path}.conv2", "conv", inner, inner, *computed, first, conv_stride, groups, pool=pool),
            Layer(f"{path}.conv3", "conv", inner, width, *after),
        )
    else:
        convs = (
            Layer(f"{path}.conv1", "conv", channels, width, *computed, first, conv_stride, groups, pool=pool),
            Layer(f"{path}.conv2", "conv", width, width, *after, second, 1, groups),
        )
    if spec.block == "preact":
        norms: tuple[Layer, ...] = (
            Layer(f"{path}.norm1", "norm", channels, channels, *before),
            _norm(f"{path}.norm2", convs[0]),
        )
    else:
        norms = tuple(_norm(f"{path}.norm{number}", conv) for number, conv in enumerate(convs, 1))
    changes_shape = stride > 1 or channels != width
    kind = spec.shortcut.kind if changes_shape or spec.shortcut.kind == "none" else "identity"
    shortcut_conv = shortcut_norm = None
    if kind in ("projection", "average-pool"):
        shortcut_stride = stride if kind == "projection" else 1
        shortcut_conv = Layer(
            f"{path}.shortcut.conv", "conv", channels, width, *after, spec.shortcut.kernel_size, shortcut_stride
        )
        # The shortcut of a pre-activation block takes the normalised input and has no norm.
        shortcut_norm = None if spec.block == "preact" else _norm(f"{path}.shortcut.norm", shortcut_conv)
    return BlockPlan(
        kind=spec.block,
        convs=convs,
        norms=norms,
        squeeze_excitation=_squeeze_excitation(path, width, spec.squeeze_channels(width)),
        shortcut=kind,
        shortcut_conv=shortcut_conv,
        shortcut_norm=shortcut_norm,
        output=Layer(path, "block", channels, width, *after, stride=stride),
    )


def _squeeze_excitation(path: str, width: int, hidden: int) -> tuple[Layer, Layer] | None:
    if not hidden:
        return None
    return (
        Layer(f"{path}.squeeze_excitation.reduce", "conv", width, hidden, 1, 1, bias=True),
        Layer(f"{path}.squeeze_excitation.expand", "conv", hidden, width, 1, 1, bias=True),
    )
