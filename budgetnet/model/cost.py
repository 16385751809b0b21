"""What a network costs, with nothing built: in closed form stage by stage, or folded over its plan.

`cost_of` needs no plan and answers in microseconds. `plan_cost` adds up the plan's layers; it is what summaries print
and what tests hold the closed form to.

Units, for one image:

* parameters: weights and biases of convolutions and linear layers, scale and shift of batch norm, also where training
  leaves them as they are (a whitening convolution); not the running statistics.
* MACs: multiply-accumulates of convolutions and linear layers. Left out: batch norm, activation functions, pooling,
  the residual sum, biases and the product of squeeze-and-excitation's gate.
* activations: elements that convolutions and linear layers put out (Radosavovic et al. 2020, "Designing Network Design
  Spaces"), a measure of memory traffic. Left out: everything else.
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
"""One network's number, or many networks' as an array of 64-bit integers."""


class Cost(NamedTuple):
    """Cost of a layer or of a whole network, for one image."""

    params: int
    macs: int
    activations: int


def layer_cost(layer: Layer) -> Cost:
    """Cost of one layer of a plan."""
    if layer.kind == "norm":
        return Cost(2 * layer.out_channels, 0, 0)
    if layer.kind == "block":
        return Cost(0, 0, 0)
    weights = layer.in_channels // layer.groups * layer.out_channels * layer.kernel_size**2
    positions = layer.height * layer.width
    bias = layer.out_channels if layer.bias else 0
    return Cost(weights + bias, weights * positions, layer.out_channels * positions)


def plan_cost(plan: Plan) -> Cost:
    """Cost of a whole network, layer by layer."""
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
    entering: Count,
    width: Count,
    inner: Count,
    hidden: Count,
    first: Count,
    second: Count,
    shortcut: Count,
    before: Count,
    after: Count,
) -> tuple[Count, Count, Count]:
    """Parameters, MACs and activations of a stage: its first block and the equal ones behind it.

    Plain arithmetic, so that it takes Python's integers and arrays of them alike. A stage of no blocks whose width and
    map stay what they were costs nothing.

    Args:
        kind: kind of residual block.
        groups: groups of the spatial convolutions.
        blocks: number of blocks.
        entering: channels that enter the first block.
        width: channels that leave every block.
        inner: width of a bottleneck's spatial convolution; other kinds do not read it.
        hidden: hidden width of squeeze-and-excitation; 0 without it.
        first: pixels under the kernel of a block's first spatial convolution.
        second: pixels under the kernel of the second; a bottleneck does not read it.
        shortcut: pixels under the kernel of the first block's shortcut; 0 where that has no convolution.
        before: pixels of the map that enters the first block.
        after: pixels of the map that leaves every block.
    """
    inputs = entering + (blocks - 1) * width
    outputs = blocks * width
    if kind == "bottleneck":
        # The first block's narrowing convolution still runs on the map that enters; its stride comes behind it.
        narrowing = entering * inner
        others = (inputs - entering + blocks * (inner // groups * first + width)) * inner
        params = narrowing + others + 4 * blocks * inner + 2 * outputs
        macs = narrowing * before + others * after
        activations = inner * before + ((2 * blocks - 1) * inner + outputs) * after
    else:
        weights = width // groups * (inputs * first + outputs * second)
        # The norms before a pre-activation block's convolutions are as wide as what enters.
        params = weights + (2 * (inputs + outputs) if kind == "preact" else 4 * outputs)
        macs = weights * after
        activations = 2 * outputs * after
    projection = shortcut * entering * width
    projected = (shortcut > 0) * width
    gates = 2 * outputs * hidden
    gate_outputs = blocks * hidden + (hidden > 0) * outputs
    return (
        params + projection + (0 if kind == "preact" else 2) * projected + gates + gate_outputs,
        macs + projection * after + gates,
        activations + projected * after + gate_outputs,
    )


def ends_cost(
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
    """Parameters, MACs and activations of what stands around the stages; plain arithmetic like `stage_cost`.

    Args:
        kind: kind of residual block.
        num_classes: number of classes.
        image_channels: channels of the image.
        stem_kernel: pixels under the stem's kernel.
        stem_pixels: pixels of the map that leaves the stem.
        stem: width of the stem.
        last: width of the last stage.
        whitening_filters: output channels of the whitening convolution; 0 without it.
        whitening_kernel: pixels under its kernel.
        whitening_pixels: pixels of the map that leaves it.
    """
    weights = (whitening_filters or image_channels) * stem_kernel * stem
    whitening = image_channels * whitening_kernel * whitening_filters
    linear = num_classes * last
    # One norm: behind the stem, or in front of the head where blocks begin with their own.
    norm = 2 * (last if kind == "preact" else stem)
    return (
        whitening + whitening_filters + weights + norm + linear + num_classes,
        whitening * whitening_pixels + weights * stem_pixels + linear,
        whitening_filters * whitening_pixels + stem * stem_pixels + num_classes,
    )


def _whitening(spec: ModelSpec, input_size: tuple[int, int] | None) -> dict[str, int]:
    """The whitening convolution as `ends_cost` takes it."""
    side = spec.stem.whitening
    if side is None:
        return {}
    height, width = whitened_size(spec, input_size=input_size)
    filters = spec.stem.whitening_filters(spec.input_shape[0])
    return {"whitening_filters": filters, "whitening_kernel": side**2, "whitening_pixels": height * width}


def cost_of(spec: ModelSpec, *, input_size: int | tuple[int, int] | None = None) -> Cost:
    """Cost of the network that a specification describes.

    Args:
        spec: the network.
        input_size: image side, or (height, width), in pixels, in place of the specification's own.

    Raises:
        InputError: at this input size a stride would shrink a map below one pixel, or the size is below 1.
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
    gated, bottleneck = spec.squeeze_excitation_ratio is not None, kind == "bottleneck"
    parts = [
        ends_cost(
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
    for stage, (entering, width), (before, after) in zip(spec.stages, pairwise(widths), pairwise(pixels), strict=False):
        first, second = stage.kernel_sizes
        parts.append(
            stage_cost(
                kind,
                groups,
                blocks=stage.blocks,
                entering=entering,
                width=width,
                inner=spec.inner_channels(width) if bottleneck else width,
                hidden=spec.gate_channels(width) if gated else 0,
                first=first * first,
                second=second * second,
                shortcut=shortcut if stage.stride > 1 or entering != width else 0,
                before=before,
                after=after,
            )
        )
    return parts
