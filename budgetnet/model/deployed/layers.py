"""Writing of a network's operations layer by layer: layouts, and what is fused or copied."""

from __future__ import annotations

from typing import NamedTuple

from budgetnet.model.deployed.operation import IMAGES, Kind, Operation
from budgetnet.model.plan import Layer

FUSED_BEFORE = frozenset(("relu", "leaky_relu", "relu6", "sigmoid"))
"""Activation functions fused into a convolution that they follow."""

FUSED_BLOCKED = frozenset(("relu", "sigmoid"))
"""Those fused into a blocked convolution with a sum, and into a norm that is computed as a blocked convolution."""

_IN_BLOCKS = frozenset(("relu", "sigmoid", "gelu", "silu"))
"""Those computed in the blocked layout if their input is in it."""

# Where an operation reads two others, the one of the higher rank is executed first. A rank follows from when the
# runtime's optimisations made the operation: exported as it is, fused, laid out in blocks, or added as a copy.
EXPORTED, FUSED, LAID_OUT, COPIED = range(4)

_ALIGNED = 4
"""A blocked convolution without groups reads a multiple of so many channels, or fewer than a block."""


class Open(NamedTuple):
    """A convolution that is yet to be written, as what follows may be fused into it."""

    layer: Layer
    tensor: int
    """Tensor that it reads."""
    source: FeatureMap
    rank: int
    """Rank of the operation that gives this tensor."""
    fused: frozenset[str]
    """Activation functions that can be fused into it."""


class FeatureMap:
    """A feature map, in one layout or in both."""

    __slots__ = ("biased", "channels", "height", "in_blocks", "inside", "open", "plain", "rank", "width")

    def __init__(self, channels: int, height: int, width: int, *, in_blocks: bool, rank: int) -> None:
        self.channels, self.height, self.width = channels, height, width
        self.plain = self.inside = -1
        """Its tensors: in the plain layout and in the blocked one; -1 where there is none yet."""
        self.in_blocks = in_blocks
        """Whether it is computed in the blocked layout."""
        self.rank = rank
        self.open: Open | None = None
        self.biased = False
        """Whether the convolution that computes it has a bias, at least that of a norm folded into it."""


class LayerWriter:
    """Writes the operations of single layers, one after the other."""

    def __init__(self, block: int) -> None:
        self._block = block
        self.written: list[Operation] = []
        self._tensors = IMAGES
        self.shared: FeatureMap | None = None
        """The map that both branches of a block read."""
        self.copies: list[Operation] = []
        """Copies of this map in the other layout."""

    def conv(self, layer: Layer, maps: FeatureMap) -> FeatureMap:
        """Return what a convolution computes, which is not written yet; its norm, if it has one, is folded into it."""
        in_blocks = self._runs_in_blocks(layer)
        reads_blocks = in_blocks and (layer.groups > 1 or layer.in_channels >= self._block)
        tensor = self.tensor(maps, in_blocks=reads_blocks)
        copied = LAID_OUT if reads_blocks else COPIED
        rank = maps.rank if maps.in_blocks == reads_blocks else copied
        result = FeatureMap(
            layer.out_channels,
            layer.height,
            layer.width,
            in_blocks=in_blocks,
            rank=LAID_OUT if in_blocks else EXPORTED,
        )
        result.open = Open(layer, tensor, maps, rank, FUSED_BEFORE)
        result.biased = layer.bias
        return result

    def _runs_in_blocks(self, layer: Layer) -> bool:
        block, inputs, outputs, groups = self._block, layer.in_channels, layer.out_channels, layer.groups
        if block == 1:
            return False
        if groups == 1:
            return inputs < block or inputs % _ALIGNED == 0
        if groups == inputs == outputs:
            return outputs % _ALIGNED == 0
        return inputs // groups % block == 0 and outputs // groups % block == 0

    def norm(self, maps: FeatureMap, *, alone: bool = True) -> FeatureMap:
        """Return a normed map.

        Args:
            maps: the map.
            alone: whether nothing else reads it, so that the norm is folded into the convolution that computes it.
        """
        if maps.open and alone:
            maps.biased = True
            return maps
        in_blocks, channels = maps.in_blocks, maps.channels
        tensor = self.tensor(maps, in_blocks=in_blocks)
        rank = LAID_OUT if in_blocks else EXPORTED
        normed = FeatureMap(channels, maps.height, maps.width, in_blocks=in_blocks, rank=rank)
        if in_blocks:
            layer = Layer("", "conv", channels, channels, maps.height, maps.width, groups=channels, bias=True)
            normed.open = Open(layer, tensor, maps, maps.rank, FUSED_BLOCKED)
        else:
            self.write("norm", (tensor,), maps, normed)
        return normed

    def activated(self, maps: FeatureMap, activation: str) -> FeatureMap:
        """Write an activation function, fused into the convolution that computes a map if it can be."""
        if maps.open and activation in maps.open.fused:
            return self.write_conv(maps, activation)
        in_blocks = maps.in_blocks and activation in _IN_BLOCKS
        # The runtime makes one operation of the two that compute it.
        rank = FUSED if activation == "silu" else EXPORTED
        result = FeatureMap(maps.channels, maps.height, maps.width, in_blocks=in_blocks, rank=rank)
        self.write("activation", (self.tensor(maps, in_blocks=in_blocks),), maps, result, activation=activation)
        return result

    def attended(self, layers: tuple[Layer, Layer], maps: FeatureMap, activation: str) -> FeatureMap:
        """Write squeeze-and-excitation."""
        pooled = FeatureMap(maps.channels, 1, 1, in_blocks=False, rank=EXPORTED)
        self.write("squeeze", (self.tensor(maps, in_blocks=False),), maps, pooled)
        reduced = self.activated(self.conv(layers[0], pooled), activation)
        factors = self.activated(self.conv(layers[1], reduced), "sigmoid")
        # Factors are multiplied in blocks only with maps of one pixel.
        in_blocks = maps.in_blocks and factors.in_blocks and maps.height == maps.width == 1
        inputs = tuple(self.tensor(each, in_blocks=in_blocks) for each in (maps, factors))
        result = FeatureMap(maps.channels, maps.height, maps.width, in_blocks=in_blocks, rank=EXPORTED)
        self.write("multiply", inputs, maps, result)
        return result

    def pooled(self, kind: Kind, maps: FeatureMap, side: int, stride: int, *, whole: bool = False) -> FeatureMap:
        """Write a pooling.

        Args:
            kind: of pooling.
            maps: its input.
            side: side of the windows, in pixels.
            stride: in pixels.
            whole: whether partial windows at the border are left out.
        """
        height, width = ((each // stride if whole else -(-each // stride)) for each in (maps.height, maps.width))
        in_blocks = self._block > 1 and maps.channels % self._block == 0
        rank = LAID_OUT if in_blocks else EXPORTED
        result = FeatureMap(maps.channels, height, width, in_blocks=in_blocks, rank=rank)
        self.write(kind, (self.tensor(maps, in_blocks=in_blocks),), maps, result, kernel=side, stride=stride)
        return result

    def same(self, kind: Kind, maps: FeatureMap) -> FeatureMap:
        """Write an operation whose output has the shape of its input."""
        result = FeatureMap(maps.channels, maps.height, maps.width, in_blocks=False, rank=EXPORTED)
        self.write(kind, (self.tensor(maps, in_blocks=False),), maps, result)
        return result

    # Tensors.

    def tensor(self, maps: FeatureMap, *, in_blocks: bool) -> int:
        """Return the tensor that holds a map in a layout; it is copied into it if need be."""
        self.write_open(maps)
        known = maps.inside if in_blocks else maps.plain
        if known >= 0:
            return known
        copied = FeatureMap(maps.channels, maps.height, maps.width, in_blocks=in_blocks, rank=COPIED)
        written = self.written
        if maps is self.shared:
            self.written = self.copies
        inputs = (maps.plain if in_blocks else maps.inside,)
        self.write("to-blocks" if in_blocks else "from-blocks", inputs, maps, copied)
        self.written = written
        maps.plain, maps.inside = max(maps.plain, copied.plain), max(maps.inside, copied.inside)
        return maps.inside if in_blocks else maps.plain

    def write_open(self, maps: FeatureMap) -> None:
        """Write the convolution that computes a map if it is yet to be written."""
        if maps.open:
            self.write_conv(maps, "")

    def write_conv(self, maps: FeatureMap, activation: str, *, added: int | None = None) -> FeatureMap:
        """Write the convolution that computes a map, with what is fused into it."""
        assert maps.open is not None  # noqa: S101 - tells the type
        layer, tensor, source, _, _ = maps.open
        maps.open = None
        if activation and not maps.in_blocks:
            maps.rank = FUSED
        inputs = (tensor,) if added is None else (tensor, added)
        self.write(
            "conv",
            inputs,
            source,
            maps,
            kernel=layer.kernel_size,
            stride=layer.stride,
            groups=layer.groups,
            activation=activation,
            added=added is not None,
            bias=maps.biased,
        )
        return maps

    def write(
        self,
        kind: Kind,
        inputs: tuple[int, ...],
        source: FeatureMap,
        result: FeatureMap,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str = "",
        added: bool = False,
        bias: bool = False,
    ) -> None:
        """Write an operation; the arguments are the fields of `Operation`."""
        self._tensors += 1
        tensor, channels = self._tensors, result.channels
        if result.in_blocks:
            result.inside = tensor
            channels = -(-channels // self._block) * self._block
        else:
            result.plain = tensor
        self.written.append(
            Operation(
                kind,
                inputs,
                tensor,
                source.channels,
                result.channels,
                source.height,
                source.width,
                result.height,
                result.width,
                kernel,
                stride,
                groups,
                activation,
                added,
                result.in_blocks,
                channels * result.height * result.width,
                bias,
            )
        )
