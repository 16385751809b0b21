"""Parameters, MACs and activations of a network, without building it.

`cost_of` computes them in closed form from the specification, in microseconds. `plan_cost` adds up the layers of the
plan; summaries print it, and tests compare the closed form with it.

Units, for one image:

* parameters: weights and biases of convolutions and linear layers, scale and shift of batch norm, including frozen
  weights (whitening convolution); without running statistics.
* MACs: multiply-accumulates of convolutions and linear layers; without batch norm, activation functions, pooling,
  residual additions, biases and the channel scaling of squeeze-and-excitation.
* activations: output elements of convolutions and linear layers, a measure of memory traffic (Radosavovic et al. 2020,
  "Designing Network Design Spaces"); without all other layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from budgetnet.model.plan import Layer, Plan, read_input_size
from budgetnet.model.spec import BlockKind, ModelSpec, feature_sizes, whitened_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

Count = TypeVar("Count", int, "NDArray[Any]")
"""Value of one network, or an array of 64-bit integers with the values of several networks."""


class Cost(NamedTuple):
    """Cost of a layer or of a whole network, for one image."""

    params: int
    macs: int
    activations: int


def layer_cost(layer: Layer) -> Cost:
    """Compute the cost of one layer."""
    if layer.kind == "norm":
        return Cost(2 * layer.out_channels, 0, 0)
    if layer.kind == "block":
        return Cost(0, 0, 0)
    weights = layer.in_channels // layer.groups * layer.out_channels * layer.kernel_size**2
    positions = layer.height * layer.width
    bias = layer.out_channels if layer.bias else 0
    return Cost(weights + bias, weights * positions, layer.out_channels * positions)


def plan_cost(plan: Plan) -> Cost:
    """Compute the cost of a network as the sum over its layers."""
    params = macs = activations = 0
    for layer in plan.layers():
        part = layer_cost(layer)
        params += part.params
        macs += part.macs
        activations += part.activations
    return Cost(params, macs, activations)


def stage_cost(
    kind: BlockKind,
    groups: int,
    *,
    blocks: Count,
    in_channels: Count,
    width: Count,
    inner: Count,
    hidden: Count,
    first: Count,
    second: Count,
    shortcut: Count,
    before: Count,
    after: Count,
    computed: Count,
) -> tuple[Count, Count, Count]:
    """Compute parameters, MACs and activations of a stage in closed form, for integers or integer arrays.

    A stage of 0 blocks with the same width and map size as its input costs nothing.

    Args:
        kind: kind of residual block.
        groups: groups of the spatial convolutions.
        blocks: number of blocks.
        in_channels: input channels of the first block.
        width: output channels of every block.
        inner: width of a bottleneck's spatial convolution; ignored for other kinds.
        hidden: hidden width of squeeze-and-excitation; 0 without it.
        first: kernel area of a block's first spatial convolution, in pixels.
        second: kernel area of the second, in pixels; ignored for bottlenecks.
        shortcut: kernel area of the first block's shortcut, in pixels; 0 if it has no convolution.
        before: size of the first block's input map, in pixels.
        after: size of every block's output map, in pixels.
        computed: size of the map that the first block's first spatial convolution computes, in pixels: `after` if the
            convolution is strided, `before` if max pooling follows it.
    """
    inputs = in_channels + (blocks - 1) * width
    outputs = blocks * width
    if kind == "bottleneck":
        # The first block's 1x1 convolution runs on the input map; the stride is on the spatial convolution after it.
        reduction, downsampled = in_channels * inner, inner
        spatial = inner // groups * first * inner
        others = (inputs - in_channels + blocks * (inner // groups * first + width)) * inner
        params = reduction + others + 4 * blocks * inner + 2 * outputs
        macs = reduction * before + others * after
        activations = inner * before + ((2 * blocks - 1) * inner + outputs) * after
    else:
        weights, downsampled = width // groups * (inputs * first + outputs * second), width
        spatial = width // groups * in_channels * first
        # In a pre-activation block, each norm is as wide as the input of the convolution after it.
        params = weights + (2 * (inputs + outputs) if kind == "preact" else 4 * outputs)
        macs = weights * after
        activations = 2 * outputs * after
    projection = shortcut * in_channels * width
    projected = (shortcut > 0) * width
    attention = 2 * outputs * hidden
    attention_outputs = blocks * hidden + (hidden > 0) * outputs
    return (
        params + projection + (0 if kind == "preact" else 2) * projected + attention + attention_outputs,
        macs + spatial * (computed - after) + projection * after + attention,
        activations + downsampled * (computed - after) + projected * after + attention_outputs,
    )


def stem_and_head_cost(
    kind: BlockKind,
    num_classes: int,
    *,
    image_channels: int,
    stem_kernel: int,
    stem_pixels: int,
    stem: Count,
    last: Count,
    whitening_filters: int = 0,
    whitening_kernel: int = 0,
    whitening_pixels: int = 0,
) -> tuple[Count, Count, Count]:
    """Compute parameters, MACs and activations of stem and head in closed form, for integers or integer arrays.

    Args:
        kind: kind of residual block.
        num_classes: number of classes.
        image_channels: channels of the image.
        stem_kernel: kernel area of the stem, in pixels.
        stem_pixels: size of the stem's output map, in pixels.
        stem: width of the stem.
        last: width of the last stage.
        whitening_filters: output channels of the whitening convolution; 0 without it.
        whitening_kernel: kernel area of the whitening convolution, in pixels.
        whitening_pixels: size of its output map, in pixels.
    """
    weights = (whitening_filters or image_channels) * stem_kernel * stem
    whitening = image_channels * whitening_kernel * whitening_filters
    linear = num_classes * last
    # One norm: after the stem, or before the head for pre-activation blocks.
    norm = 2 * (last if kind == "preact" else stem)
    return (
        whitening + whitening_filters + weights + norm + linear + num_classes,
        whitening * whitening_pixels + weights * stem_pixels + linear,
        whitening_filters * whitening_pixels + stem * stem_pixels + num_classes,
    )


def _whitening(spec: ModelSpec, input_size: tuple[int, int] | None) -> dict[str, int]:
    """Return the arguments of `stem_and_head_cost` for the whitening convolution."""
    side = spec.stem.whitening
    if side is None:
        return {}
    height, width = whitened_size(spec, input_size=input_size)
    filters = spec.stem.whitening_filters(spec.input_shape[0])
    return {"whitening_filters": filters, "whitening_kernel": side**2, "whitening_pixels": height * width}


def cost_of(spec: ModelSpec, *, input_size: int | tuple[int, int] | None = None) -> Cost:
    """Compute the cost of a network in closed form.

    Args:
        spec: the network.
        input_size: image side, or (height, width), in pixels; default: the specification's.

    Raises:
        InputError: the input size is below 1, or so small that a stride would shrink a map below one pixel.
    """
    return Cost(*map(sum, zip(*costs_of_parts(spec, input_size=input_size), strict=True)))


def costs_of_parts(
    spec: ModelSpec, *, widths: Sequence[int] | None = None, input_size: int | tuple[int, int] | None = None
) -> list[tuple[int, int, int]]:
    """Count a network part by part, with its own widths or with others.

    Args:
        spec: the network.
        widths: output channels of the stem and of each stage, in place of the specification's own and not checked;
            of fewer stages, only those are counted.
        input_size: as `cost_of` takes it.

    Returns:
        Parameters, MACs and activations: of stem and head together, then of each stage.

    Raises:
        InputError: as `cost_of`.
    """
    if widths is None:
        widths = [spec.stem.channels, *[stage.channels for stage in spec.stages]]
    size = None if input_size is None else read_input_size(input_size)
    pixels = [height * width for height, width in feature_sizes(spec, input_size=size)]
    kind, groups, shortcut = spec.block, spec.groups, spec.shortcut.kernel_area
    has_squeeze_excitation, bottleneck = spec.squeeze_excitation_ratio is not None, kind == "bottleneck"
    pooled = spec.downsampling == "max-pool"
    parts = [
        stem_and_head_cost(
            kind,
            spec.num_classes,
            image_channels=spec.input_shape[0],
            stem_kernel=spec.stem.kernel_size**2,
            stem_pixels=pixels[0],
            stem=widths[0],
            last=widths[-1],
            **_whitening(spec, size),
        )
    ]
    for stage, (in_channels, width), (before, after) in zip(
        spec.stages, pairwise(widths), pairwise(pixels), strict=False
    ):
        first, second = stage.kernel_sizes
        parts.append(
            stage_cost(
                kind,
                groups,
                blocks=stage.blocks,
                in_channels=in_channels,
                width=width,
                inner=spec.inner_channels(width) if bottleneck else width,
                hidden=spec.squeeze_channels(width) if has_squeeze_excitation else 0,
                first=first * first,
                second=second * second,
                shortcut=shortcut if stage.stride > 1 or in_channels != width else 0,
                before=before,
                after=after,
                computed=before if pooled else after,
            )
        )
    return parts
