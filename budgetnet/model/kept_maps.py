"""Bytes that autograd keeps of a forward pass until the backward pass, in closed form, without building a network.

The operations of `budgetnet.model.blocks` are followed in the order of the plan. What each keeps is torch's rule for
its gradient: a convolution and the linear layer their input, and under autocast the rounded weights too; batch norm its
input; ReLU its output and other activation functions their input; max pooling its input and the places of the largest
pixels, 8 bytes each; average pooling its input; a product both factors; dropout its mask. A tensor that several
operations keep is counted once. Parameters and the float32 images are not counted.
"""

from __future__ import annotations

from math import prod
from typing import Literal, NamedTuple

from budgetnet.model.lowering import lower
from budgetnet.model.plan import BlockPlan, HeadPlan, Layer, StemPlan
from budgetnet.model.spec import ModelSpec

Precision = Literal["float32", "bfloat16"]

_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2}
_FLOAT32 = 4
_PLACE = 8
"""Bytes of the place of the largest pixel of a window, and of a label."""
_MASK = 1
"""Bytes of an element of the mask of dropout on a GPU; on a CPU the mask has the precision of the maps."""


class Kept(NamedTuple):
    """Bytes kept for the backward pass."""

    per_image: int
    """Bytes for each image of a batch."""
    fixed: int
    """Bytes whatever the batch: rounded weights, and the statistics of batch norm."""

    def of(self, images: int) -> int:
        """Return the bytes for a batch of images."""
        return images * self.per_image + self.fixed


class _Maps:
    """Feature maps of an image."""

    def __init__(self, channels: int, height: int, width: int, *, element: int) -> None:
        self.shape = channels, height, width
        self.kept = False
        self.bytes = prod(self.shape) * element


def kept_maps(
    spec: ModelSpec, *, precision: Precision, on_gpu: bool = False, losses: int = 1, drops_images: bool = False
) -> Kept:
    """Return the bytes that autograd keeps of the forward pass and the loss.

    Args:
        spec: the network, with the image shape and number of classes of the data.
        precision: precision of convolutions and matrix products.
        on_gpu: whether the network is on a GPU, where the mask of dropout is smaller.
        losses: cross-entropies of a batch: 2 if images are mixed.
        drops_images: whether blocks are dropped for random images (stochastic depth).
    """
    plan = lower(spec)
    walk = _Walk(precision, on_gpu=on_gpu, drops_images=drops_images)
    maps = walk.stem(plan.stem, plan.input_shape, plan.activation)
    for stage in plan.stages:
        for block in stage:
            maps = walk.block(block, maps)
    walk.head(plan.head, maps, plan.activation)
    # Of the loss: the logarithms of the probabilities, the label, and the sum of the weights of all images.
    loss = losses * (_FLOAT32 * spec.num_classes + _PLACE)
    return Kept(walk.per_image + loss, walk.fixed + losses * _FLOAT32)


class _Walk:
    """Follows a forward pass, and adds up what is kept."""

    def __init__(self, precision: Precision, *, on_gpu: bool, drops_images: bool) -> None:
        self.per_image = self.fixed = 0
        self._element, self._drops_images = _BYTES[precision], drops_images
        self._rounds = precision == "bfloat16"
        self._mask = _MASK if on_gpu else self._element

    def _new(self, channels: int, height: int, width: int) -> _Maps:
        return _Maps(channels, height, width, element=self._element)

    def _like(self, maps: _Maps) -> _Maps:
        return self._new(*maps.shape)

    def _keep(self, maps: _Maps) -> None:
        if not maps.kept:
            maps.kept = True
            self.per_image += maps.bytes

    def _weighted(self, layer: Layer, maps: _Maps) -> None:
        """Keep what a convolution or the linear layer keeps."""
        self._keep(maps)
        if self._rounds:
            weights = layer.in_channels // layer.groups * layer.out_channels * layer.kernel_size**2
            self.fixed += weights * self._element

    def _conv(self, layer: Layer, maps: _Maps) -> _Maps:
        self._weighted(layer, maps)
        output = self._new(layer.out_channels, layer.height, layer.width)
        return self._max_pool(output, layer.pool) if layer.pool > 1 else output

    def _norm(self, maps: _Maps) -> _Maps:
        self._keep(maps)
        # Mean and inverse standard deviation of each channel.
        self.fixed += 2 * _FLOAT32 * maps.shape[0]
        return self._like(maps)

    def _activated(self, maps: _Maps, activation: str) -> _Maps:
        output = self._like(maps)
        self._keep(output if activation == "relu" else maps)
        return output

    def _norm_activated(self, maps: _Maps, activation: str) -> _Maps:
        return self._activated(self._norm(maps), activation)

    def _max_pool(self, maps: _Maps, stride: int) -> _Maps:
        self._keep(maps)
        output = self._pooled(maps, stride)
        self.per_image += _PLACE * prod(output.shape)
        return output

    def _pooled(self, maps: _Maps, stride: int) -> _Maps:
        """Return maps of windows, partial ones at the border included."""
        channels, height, width = maps.shape
        return self._new(channels, -(-height // stride), -(-width // stride))

    def _dropout(self, maps: _Maps, rate: float) -> _Maps:
        if not rate:
            return maps
        self.per_image += self._mask * prod(maps.shape)
        return self._like(maps)

    def _attended(self, layers: tuple[Layer, Layer], maps: _Maps, activation: str) -> _Maps:
        """Squeeze-and-excitation: the mean, two convolutions, a sigmoid and the product."""
        reduce, expand = layers
        hidden = self._conv(reduce, self._new(reduce.in_channels, 1, 1))
        scales = self._conv(expand, self._activated(hidden, activation))
        self._keep(scales)
        self._keep(maps)
        return self._like(maps)

    def stem(self, stem: StemPlan, image: tuple[int, int, int], activation: str) -> _Maps:
        """Follow the stem."""
        maps = self._new(*image)
        # Without autocast, the first convolution keeps the images themselves.
        maps.kept = not self._rounds
        if stem.whitening:
            maps = self._activated(self._conv(stem.whitening, maps), activation)
        for layer in stem.convs[:-1]:
            maps = self._norm_activated(self._conv(layer, maps), activation)
        maps = self._conv(stem.conv, maps)
        if stem.norm:
            maps = self._norm_activated(maps, activation)
        if stem.squeeze_excitation:
            maps = self._attended(stem.squeeze_excitation, maps, activation)
        return maps if stem.pool_size is None else self._max_pool(maps, stem.pool_stride)

    def block(self, block: BlockPlan, maps: _Maps) -> _Maps:
        """Follow a residual block."""
        settings, attention, source = block.settings, block.squeeze_excitation, maps
        activation, last = settings.activation, len(block.convs) - 1
        for number, conv in enumerate(block.convs):
            if settings.preact:
                maps = self._norm_activated(maps, activation)
                if number == 0 and block.shortcut != "identity":
                    source = maps
            if number == last:
                if attention and block.inner_attention:
                    maps = self._attended(attention, maps, activation)
                maps = self._dropout(maps, settings.dropout)
            maps = self._conv(conv, maps)
            if not settings.preact:
                maps = self._norm(maps) if number == last else self._norm_activated(maps, activation)
        if attention and not block.inner_attention:
            maps = self._attended(attention, maps, activation)
        if block.shortcut != "none":
            self._shortcut(block, source)
            if self._drops_images:
                self.per_image += self._element
            maps = self._like(maps)
        return maps if settings.linear else self._activated(maps, activation)

    def _shortcut(self, block: BlockPlan, maps: _Maps) -> None:
        stride = block.output.stride
        if block.shortcut == "average-pool" and stride > 1:
            self._keep(maps)
            maps = self._pooled(maps, stride)
        if block.shortcut_conv:
            maps = self._conv(block.shortcut_conv, maps)
        if block.shortcut_norm:
            self._norm(maps)

    def head(self, head: HeadPlan, maps: _Maps, activation: str) -> None:
        """Follow the head."""
        if head.norm:
            maps = self._norm_activated(maps, activation)
        if head.conv:
            maps = self._norm_activated(self._conv(head.conv, maps), activation)
        features = self._new(head.linear.in_channels, 1, 1)
        largest = head.pooling != "average"
        if largest or head.pool_size is not None:
            self._keep(maps)
        if largest and head.pool_size is None:
            self._keep(features)
        elif largest:
            self.per_image += _PLACE * head.linear.in_channels
        self._weighted(head.linear, self._dropout(features, head.dropout))
