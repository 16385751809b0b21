"""The plan of a network: every layer in order, with its shapes, as plain data.

Networks are built from the plan and summaries print it. Tests compare the closed-form cost with the plan's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from budgetnet.model.block_settings import BlockSettings

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

    settings: BlockSettings
    """Kind of block and its options."""
    convs: tuple[Layer, ...]
    norms: tuple[Layer, ...]
    squeeze_excitation: tuple[Layer, Layer] | None
    """The two 1x1 convolutions on the pooled map."""
    shortcut: str
    """``identity`` or the specification's shortcut kind; ``none`` where there is no shortcut."""
    shortcut_conv: Layer | None
    shortcut_norm: Layer | None
    output: Layer
    """The residual addition, with the block's output shape."""

    @property
    def inner_attention(self) -> bool:
        """Whether squeeze-and-excitation comes before the block's last convolution."""
        return self.squeeze_excitation is not None and self.settings.squeeze_excitation.place == "inner"

    def layers(self) -> Iterator[Layer]:
        """Iterate over the block's layers in execution order; the shortcut comes last."""
        attention = self.squeeze_excitation or ()
        preact = self.settings.preact
        for number, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True), 1):
            # Before the last convolution, where it is that of a pre-activation block after its norm.
            inner = self.inner_attention and number == len(self.convs)
            if preact:
                yield norm
            if inner:
                yield from attention
            yield conv
            if not preact:
                yield norm
        if not self.inner_attention:
            yield from attention
        if self.shortcut_conv:
            yield self.shortcut_conv
        if self.shortcut_norm:
            yield self.shortcut_norm
        yield self.output


class StemPlan(NamedTuple):
    """Convolutions before the first stage."""

    whitening: Layer | None
    convs: tuple[Layer, ...]
    """Inner convolutions and the last one."""
    inner_norms: tuple[Layer, ...]
    """Batch norm of each inner convolution; the activation follows."""
    norm: Layer | None
    """Batch norm of the last convolution, which the activation follows; None for neither."""
    squeeze_excitation: tuple[Layer, Layer] | None
    pool_size: int | None
    """Side of the windows of max pooling, in pixels; None for none."""
    pool_stride: int

    @property
    def conv(self) -> Layer:
        """The last convolution."""
        return self.convs[-1]

    def layers(self) -> Iterator[Layer]:
        """Iterate over the layers in execution order."""
        if self.whitening:
            yield self.whitening
        for conv, norm in zip(self.convs, (*self.inner_norms, self.norm), strict=True):
            yield conv
            if norm:
                yield norm
        yield from self.squeeze_excitation or ()


class HeadPlan(NamedTuple):
    """Layers after the last stage."""

    norm: Layer | None
    conv: Layer | None
    conv_norm: Layer | None
    linear: Layer
    pooling: str
    pool_size: int | None
    """Side of the pooling's windows, in pixels; None for global pooling."""
    dropout: float
    scale: float
    """Factor of the logits."""

    def layers(self) -> Iterator[Layer]:
        """Iterate over the layers in execution order."""
        yield from (layer for layer in (self.norm, self.conv, self.conv_norm, self.linear) if layer)


class Plan(NamedTuple):
    """All layers and settings of a network."""

    input_shape: tuple[int, int, int]
    """Image as (channels, height, width)."""
    stem: StemPlan
    stages: tuple[tuple[BlockPlan, ...], ...]
    head: HeadPlan
    activation: str
    """Activation function of stem and head."""

    def layers(self) -> Iterator[Layer]:
        """Iterate over all layers in execution order."""
        yield from self.stem.layers()
        for stage in self.stages:
            for block in stage:
                yield from block.layers()
        yield from self.head.layers()
