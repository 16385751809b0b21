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

from budgetnet.model.block_settings import BlockSettings
from budgetnet.model.lowering import read_input_size
from budgetnet.model.plan import Layer, Plan
from budgetnet.model.sizes import feature_sizes, pooled_positions, stem_size, whitened_size
from budgetnet.model.spec import ModelSpec

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


def block_cost(
    settings: BlockSettings,
    in_channels: Count,
    width: Count,
    inner: Count,
    grouped: tuple[Count, Count],
    hidden: Count,
    first: Count,
    second: Count,
    pixels: tuple[Count, Count, Count],
) -> tuple[Count, Count, Count]:
    """Compute parameters, MACs and activations of a block without its shortcut, for integers or arrays.

    Args:
        settings: kind of block and its options; the arguments replace its numbers.
        in_channels: input channels.
        width: output channels.
        inner: width of a bottleneck's spatial convolution; ignored for other kinds.
        grouped: input channels of each group of the first spatial convolution, and of the second.
        hidden: hidden width of squeeze-and-excitation; 0 without it.
        first: kernel area of the first spatial convolution, in pixels.
        second: kernel area of the second, in pixels; ignored for bottlenecks.
        pixels: sizes of the input map, of the output map, and of the map that the first spatial convolution computes:
            that of the output if the convolution is strided, of the input if max pooling follows it.
    """
    before, after, computed = pixels
    if settings.bottleneck:
        # Output channels of the first 1x1 convolution; 0 where there is none.
        reduced = inner if settings.equal_expansion else (inner != in_channels) * inner
        reduction, spatial, expansion = in_channels * reduced, grouped[0] * inner * first, inner * width
        params, outputs = reduction + spatial + expansion, reduced + inner + width
        norms = in_channels + reduced + inner if settings.preact else outputs
        macs = reduction * before + spatial * computed + expansion * after
        activations = reduced * before + inner * computed + width * after
    else:
        strided, spatial = grouped[0] * width * first, grouped[1] * width * second
        params, outputs = strided + spatial, 2 * width
        # In a pre-activation block, each norm is as wide as the input of the convolution after it.
        norms = in_channels + width if settings.preact else outputs
        macs = strided * computed + spatial * after
        activations = width * (computed + after)
    params += 2 * norms
    if settings.bias:
        params += outputs
    if settings.squeeze_ratio:
        excitation = settings.squeeze_excitation
        scaled = inner if excitation.place == "inner" else width
        weights, attended = 2 * scaled * hidden, hidden + (hidden > 0) * scaled
        params += weights + attended if excitation.bias else weights
        macs += weights
        activations += attended
    return params, macs, activations


def shortcut_cost(
    settings: BlockSettings, area: Count, in_channels: Count, width: Count, after: Count
) -> tuple[Count, Count, Count]:
    """Compute the cost of a shortcut's convolution with its norm and bias, for integers or integer arrays.

    Args:
        settings: options of the block.
        area: kernel area of the convolution, in pixels; 0 without a convolution.
        in_channels: input channels.
        width: output channels.
        after: size of the output map, in pixels.
    """
    weights, outputs = area * in_channels * width, (area > 0) * width
    others = 2 * settings.shortcut_norm + settings.shortcut_bias
    return weights + others * outputs, weights * after, outputs * after


def stage_cost(spec: ModelSpec, index: int, channels: tuple[int, int], pixels: tuple[int, int]) -> tuple[int, int, int]:
    """Compute the cost of a stage with its own widths or with others.

    Args:
        spec: the network.
        index: the stage, counted from 0.
        channels: of its input and its output.
        pixels: sizes of its input map and its output map.
    """
    stage, settings = spec.stages[index], spec.block_settings[index]
    blocks, (first, second) = stage.blocks, stage.kernel_sizes
    first, second = first * first, second * second
    in_channels, width = channels
    before, after = pixels
    # The first spatial convolution computes the output map if it is strided, the input map if pooling follows it.
    sizes = (before, after, before if spec.downsampling == "max-pool" else after)
    changes_shape = stage.stride > 1 or in_channels != width
    area = settings.shortcut.kernel_area if changes_shape else 0
    params, macs, activations = _block_cost(settings, in_channels, width, first, second, sizes)
    if not area and in_channels == width and before == after:
        return blocks * params, blocks * macs, blocks * activations
    if area:
        projection = shortcut_cost(settings, area, in_channels, width, after)
        params, macs, activations = params + projection[0], macs + projection[1], activations + projection[2]
    if blocks > 1:
        rest, others = _block_cost(settings, width, width, first, second, (after, after, after)), blocks - 1
        return params + others * rest[0], macs + others * rest[1], activations + others * rest[2]
    return params, macs, activations


def further_block_cost(spec: ModelSpec, index: int, width: int, after: int) -> tuple[int, int, int]:
    """Compute the cost of any block of a stage but the first, at a width and a size of the output map in pixels."""
    first, second = spec.stages[index].kernel_sizes
    return _block_cost(spec.block_settings[index], width, width, first * first, second * second, (after, after, after))


def _block_cost(
    settings: BlockSettings, in_channels: int, width: int, first: int, second: int, pixels: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Compute the cost of a block from its settings and the arguments of `block_cost`."""
    inner, hidden, groups = width, 0, settings.groups
    if settings.bottleneck:
        inner = settings.inner(in_channels, width)
        grouped = (inner // settings.groups_of(inner),) * 2
    else:
        grouped = in_channels // groups, width // groups
    if settings.squeeze_ratio:
        hidden = settings.hidden(in_channels, width, inner)
    return block_cost(settings, in_channels, width, inner, grouped, hidden, first, second, pixels)


def stem_and_head_cost(
    spec: ModelSpec,
    *,
    stem: Count,
    last: Count,
    hidden: Count,
    pixels: Count,
    positions: Count,
    input_size: tuple[int, int] | None = None,
) -> tuple[Count, Count, Count]:
    """Compute parameters, MACs and activations of stem and head in closed form, for integers or integer arrays.

    Args:
        spec: the network; the widths of its stem and stages are not read.
        stem: output channels of the stem.
        last: width of the last stage.
        hidden: hidden width of the stem's squeeze-and-excitation; 0 without it.
        pixels: size of the last map, in pixels.
        positions: number of windows that the head pools.
        input_size: height and width of the image, in pixels; default: the specification's.
    """
    params: Any = 0
    macs: Any = 0
    activations: Any = 0
    before: Any = spec.input_shape[0]
    if spec.stem.whitening is not None:
        filters, side = spec.stem.whitening_filters(before), spec.stem.whitening
        height, width = whitened_size(spec, input_size=input_size)
        weights = before * side**2 * filters
        params, macs, activations = weights + filters, weights * height * width, filters * height * width
        before = filters
    height, width = stem_size(spec, input_size=input_size)
    area, size = spec.stem.kernel_size**2, height * width
    inner: tuple[Any, ...] = spec.stem.inner_channels
    for channels in (*inner, stem):
        weights = area * before * channels
        params += weights + (channels if spec.stem.bias else 0)
        macs += weights * size
        activations += channels * size
        before = channels
    params += 2 * sum(inner) + (2 * stem if spec.stem_norm else 0)
    if spec.stem.squeeze_excitation_ratio is not None:
        params += 2 * stem * hidden + hidden + stem
        macs += 2 * stem * hidden
        activations += hidden + stem
    if spec.head_norm:
        params += 2 * last
    features: Any = last
    if spec.head.channels is not None:
        features = spec.head.channels
        weights = last * features
        params += weights + 2 * features
        macs += weights * pixels
        activations += features * pixels
    weights = features * positions * spec.num_classes
    return params + weights + spec.num_classes, macs + weights, activations + spec.num_classes


def cost_of(spec: ModelSpec, *, input_size: int | tuple[int, int] | None = None) -> Cost:
    """Compute the cost of a network in closed form.

    Args:
        spec: the network.
        input_size: image side, or (height, width), in pixels; default: the specification's.

    Raises:
        InputError: the input size is below 1, or so small that a stride would shrink a map below one pixel, or that the
            head's pooling windows do not fit into the last map.
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
    sizes = feature_sizes(spec, input_size=size)
    pixels = [height * width for height, width in sizes]
    last = sizes[len(widths) - 1]
    parts = [
        stem_and_head_cost(
            spec,
            stem=widths[0],
            last=widths[-1],
            hidden=spec.stem_hidden(widths[0]),
            pixels=last[0] * last[1],
            positions=pooled_positions(spec, last),
            input_size=size,
        )
    ]
    for index, pair in enumerate(zip(pairwise(widths), pairwise(pixels), strict=False)):
        parts.append(stage_cost(spec, index, *pair))
    return parts
