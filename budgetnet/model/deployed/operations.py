"""The operations that ONNX Runtime executes for a network, in its order, from the plan alone.

They are those of the file that `export` writes as ONNX: its images are normalised first. The rules are those of ONNX
Runtime 1.32 on a CPU with all its optimisations. Norms are folded into the convolution before them and activation
functions fused; where the CPU has a blocked layout, which keeps a block of channels of a pixel together, the runtime
computes in it what it can, with channels padded to whole blocks, and copies a map where one operation needs the other
layout. A residual sum is fused into the convolution whose output it adds to.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from budgetnet.model.plan import BlockPlan, HeadPlan, Layer, Plan, StemPlan

Kind = Literal[
    "subtract",
    "divide",
    "conv",
    "norm",
    "activation",
    "add",
    "max-pool",
    "average-pool",
    "squeeze",
    "multiply",
    "slice",
    "pad",
    "to-blocks",
    "from-blocks",
    "global-average",
    "global-max",
    "linear",
    "scale",
]
"""``subtract`` and ``divide`` normalise the images; ``squeeze`` and ``multiply`` are the pooling and the scaling of
squeeze-and-excitation; ``slice`` and ``pad`` make a padding shortcut; ``to-blocks`` and ``from-blocks`` copy a map into
the blocked layout and back; ``scale`` multiplies the logits."""

BLOCK_SIZES = (1, 8, 16)
"""Channels in a block: 16 with AVX-512, 8 with AVX2, 1 on CPUs whose layout is not blocked."""

IMAGES = 0
"""Tensor that holds the images."""


class Operation(NamedTuple):
    """One operation. Channels are those of the network, without padding; sizes are those of one image."""

    kind: Kind
    inputs: tuple[int, ...]
    """Tensors that it reads; of a fused sum, the tensor that is added comes last."""
    output: int
    """Tensor that it writes."""
    in_channels: int
    out_channels: int
    in_height: int
    in_width: int
    height: int
    width: int
    kernel: int
    """Side of the kernel or of the pooled windows, in pixels."""
    stride: int
    groups: int
    activation: str
    """Activation function fused into a convolution, or that of an ``activation``; empty for none."""
    sum: bool
    """Whether a sum is fused into a convolution."""
    blocked: bool
    """Whether the output is in the blocked layout."""
    size: int
    """Elements of the output, with padded channels."""
    bias: bool
    """Whether a convolution or linear layer has a bias, at least that of a norm folded into it."""


_FUSED_BEFORE = frozenset(("relu", "leaky_relu", "relu6", "sigmoid"))
"""Activation functions fused into a convolution that they follow."""

_FUSED_BLOCKED = frozenset(("relu", "sigmoid"))
"""Those fused into a blocked convolution with a sum, and into a norm that is computed as a blocked convolution."""

_IN_BLOCKS = frozenset(("relu", "sigmoid", "gelu", "silu"))
"""Those computed in the blocked layout if their input is in it."""

# Where an operation reads two others, the one of the higher rank is executed first. A rank follows from when the
# runtime's optimisations made the operation: exported as it is, fused, laid out in blocks, or added as a copy.
_EXPORTED, _FUSED, _LAID_OUT, _COPIED = range(4)

_ALIGNED = 4
"""A blocked convolution without groups reads a multiple of so many channels, or fewer than a block."""


class _Open(NamedTuple):
    """A convolution that is yet to be written, as what follows may be fused into it."""

    layer: Layer
    tensor: int
    """Tensor that it reads."""
    source: _Map
    rank: int
    """Rank of the operation that gives this tensor."""
    fused: frozenset[str]
    """Activation functions that can be fused into it."""


class _Map:
    """A feature map, in one layout or in both."""

    __slots__ = ("biased", "channels", "height", "in_blocks", "inside", "open", "plain", "rank", "width")

    def __init__(self, channels: int, height: int, width: int, *, in_blocks: bool, rank: int) -> None:
        self.channels, self.height, self.width = channels, height, width
        self.plain = self.inside = -1
        """Its tensors: in the plain layout and in the blocked one; -1 where there is none yet."""
        self.in_blocks = in_blocks
        """Whether it is computed in the blocked layout."""
        self.rank = rank
        self.open: _Open | None = None
        self.biased = False
        """Whether the convolution that computes it has a bias, at least that of a norm folded into it."""


def operations(plan: Plan, *, block_size: int = 16) -> tuple[Operation, ...]:
    """Return the operations of a network in the order in which they are executed.

    Args:
        plan: the network.
        block_size: channels in a block of the CPU's layout, one of `BLOCK_SIZES`.
    """
    return _Writer(block_size).network(plan)


class Part(NamedTuple):
    """Operations of a part of a network."""

    operations: tuple[Operation, ...]
    in_blocks: bool
    """Whether its output is in the blocked layout."""


def start_of(plan: Plan, *, normed: bool, block_size: int = 16) -> Part | None:
    """Return the operations of the stem and of the first block; None if what follows may join the last of them.

    Args:
        plan: the network.
        normed: whether a norm may follow, which is folded into a convolution.
        block_size: as `operations` takes it.
    """
    writer = _Writer(block_size)
    return writer.part(writer.residual_block(plan.stages[0][0], writer.stem(plan)), normed=normed)


def block_of(
    block: BlockPlan, size: tuple[int, int], *, in_blocks: bool, normed: bool, block_size: int = 16
) -> Part | None:
    """Return the operations of a block but the first; None if what follows may join the last of them.

    Args:
        block: the block.
        size: height and width of its input, in pixels.
        in_blocks: whether its input is in the blocked layout.
        normed: whether a norm may follow, which is folded into a convolution.
        block_size: as `operations` takes it.
    """
    writer, maps = _Writer(block_size), _written(block.output.in_channels, size, in_blocks=in_blocks)
    return writer.part(writer.residual_block(block, maps), normed=normed)


def head_of(plan: Plan, *, in_blocks: bool, block_size: int = 16) -> tuple[Operation, ...]:
    """Return the operations of the head.

    Args:
        plan: the network.
        in_blocks: whether its input is in the blocked layout.
        block_size: as `operations` takes it.
    """
    writer, output = _Writer(block_size), plan.stages[-1][-1].output
    size = output.height, output.width
    writer.head(plan.head, _written(output.out_channels, size, in_blocks=in_blocks), plan.activation)
    return writer.operations


def _written(channels: int, size: tuple[int, int], *, in_blocks: bool) -> _Map:
    """Return a map that was computed before."""
    maps = _Map(channels, *size, in_blocks=in_blocks, rank=_LAID_OUT if in_blocks else _EXPORTED)
    maps.plain, maps.inside = (-1, IMAGES) if in_blocks else (IMAGES, -1)
    return maps


class _Writer:
    """Writes operations, one after the other."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._written: list[Operation] = []
        self._tensors = IMAGES
        self._shared: _Map | None = None
        """The map that both branches of a block read."""
        self._copies: list[Operation] = []
        """Copies of this map in the other layout."""

    def network(self, plan: Plan) -> tuple[Operation, ...]:
        """Write a whole network."""
        maps = self.stem(plan)
        for stage in plan.stages:
            for block in stage:
                maps = self.residual_block(block, maps)
        self.head(plan.head, maps, plan.activation)
        return self.operations

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What was written."""
        return tuple(self._written)

    def part(self, maps: _Map, *, normed: bool) -> Part | None:
        """Return what was written, with a map as its output; None if a norm may be folded into what computes it."""
        if maps.open and normed:
            return None
        self._write_open(maps)
        return Part(self.operations, maps.in_blocks)

    def stem(self, plan: Plan) -> _Map:
        """Write the normalisation of the images and the stem."""
        channels, height, width = plan.input_shape
        images = _Map(channels, height, width, in_blocks=False, rank=_EXPORTED)
        images.plain = IMAGES
        for kind in _NORMALISATION:
            images = self._same(kind, images)
        return self._stem(plan.stem, images, plan.activation)

    # The parts of a network.

    def _stem(self, stem: StemPlan, maps: _Map, activation: str) -> _Map:
        for layer in (*((stem.whitening,) if stem.whitening else ()), *stem.convs[:-1]):
            maps = self._activated(self._norm(self._conv(layer, maps)), activation)
        maps = self._conv(stem.conv, maps)
        if stem.norm:
            maps = self._activated(self._norm(maps), activation)
        if stem.squeeze_excitation:
            maps = self._attended(stem.squeeze_excitation, maps, activation)
        if stem.pool_size is None:
            return maps
        even = stem.pool_size % 2 == 0
        return self._pooled("max-pool", maps, stem.pool_size, stem.pool_size if even else stem.pool_stride)

    def residual_block(self, block: BlockPlan, maps: _Map) -> _Map:
        """Write a residual block."""
        settings, attention, last = block.settings, block.squeeze_excitation, len(block.convs) - 1
        activation, identity = settings.activation, block.shortcut == "identity"
        if settings.preact and not identity:
            # The shortcut, if there is one, begins behind the first norm and activation.
            maps = self._activated(self._norm(maps), activation)
        else:
            self._write_open(maps)
        source, before = maps, self._written
        if block.shortcut != "none":
            self._written, self._shared = [], source
        for number, conv in enumerate(block.convs):
            if settings.preact and (number or identity):
                maps = self._activated(self._norm(maps, alone=number > 0), activation)
            if number == last and block.inner_attention and attention:
                maps = self._attended(attention, maps, activation)
            maps = self._conv(conv, maps)
            if conv.pool > 1:
                maps = self._pooled("max-pool", maps, conv.pool, conv.pool)
            if not settings.preact:
                maps = self._norm(maps)
                if number < last:
                    maps = self._activated(maps, activation)
        if attention and not block.inner_attention:
            maps = self._attended(attention, maps, activation)
        if block.shortcut == "none":
            return maps if settings.linear else self._activated(maps, activation)
        maps = self._joined(block, maps, source, "" if settings.linear else activation)
        self._written, self._shared, self._copies = before + self._written, None, []
        return maps

    def _joined(self, block: BlockPlan, maps: _Map, source: _Map, activation: str) -> _Map:
        """Write the shortcut and the sum; of both branches, the one of the higher rank comes first."""
        main, self._written = self._written, []
        shortcut = self._shortcut(block, source)
        side = self._written
        in_blocks = maps.in_blocks and shortcut.in_blocks
        host = next((each for each in (maps, shortcut) if self._takes_sum(each, in_blocks=in_blocks)), None)
        ranks, tensors = [], []
        for each, written in ((maps, main), (shortcut, side)):
            if each is host and each.open:
                ranks.append(each.open.rank)
                tensors.append(each.open.tensor)
                continue
            self._written = written
            ranks.append(each.rank if each.in_blocks == in_blocks else _COPIED)
            tensors.append(self._tensor(each, in_blocks=in_blocks))
        # Of two equal ranks, the shortcut comes later in the exported file, and was laid out earlier.
        main_first = ranks[0] > ranks[1] or ranks == [_LAID_OUT, _LAID_OUT]
        self._written = main + side if main_first else side + main
        fused = (_FUSED_BLOCKED if in_blocks else _FUSED_BEFORE) if host else frozenset[str]()
        if host:
            added = tensors[1] if host is maps else tensors[0]
            result = self._write_conv(host, activation if activation in fused else "", added=added)
        else:
            result = _Map(maps.channels, maps.height, maps.width, in_blocks=in_blocks, rank=_EXPORTED)
            self._write("add", tuple(tensors), maps, result)
        self._place_copies(tensors)
        return result if not activation or activation in fused else self._activated(result, activation)

    def _place_copies(self, tensors: list[int]) -> None:
        """Insert copies of the map that both branches read: before all else if the sum reads one, else just in time."""
        for copy in self._copies:
            users = (at for at, each in enumerate(self._written) if copy.output in each.inputs)
            self._written.insert(0 if copy.output in tensors else next(users), copy)

    def _takes_sum(self, maps: _Map, *, in_blocks: bool) -> bool:
        """Return whether a sum in a layout can be fused into the convolution that computes a map."""
        return maps.open is not None and maps.in_blocks == in_blocks and (in_blocks or maps.biased)

    def _shortcut(self, block: BlockPlan, source: _Map) -> _Map:
        layer, stride = block.shortcut_conv, block.output.stride
        if layer is not None:
            pools = block.shortcut == "average-pool" and stride > 1
            maps = self._conv(layer, self._pooled("average-pool", source, stride, stride) if pools else source)
            maps.biased = maps.biased or block.shortcut_norm is not None
            return maps
        if block.shortcut != "padding":
            return source
        output, maps = block.output, source
        sizes = ((output.height, source.width), (output.height, output.width)) if stride > 1 else ()
        for height, width in sizes:
            sliced = _Map(source.channels, height, width, in_blocks=False, rank=_EXPORTED)
            self._write("slice", (self._tensor(maps, in_blocks=False),), maps, sliced, stride=stride)
            maps = sliced
        padded = _Map(output.out_channels, output.height, output.width, in_blocks=False, rank=_EXPORTED)
        self._write("pad", (self._tensor(maps, in_blocks=False),), maps, padded)
        return padded

    def head(self, head: HeadPlan, maps: _Map, activation: str) -> None:
        """Write the head."""
        if head.norm:
            maps = self._activated(self._norm(maps), activation)
        if head.conv:
            maps = self._activated(self._norm(self._conv(head.conv, maps)), activation)
        average = head.pooling == "average"
        if head.pool_size is None:
            pooled = _Map(maps.channels, 1, 1, in_blocks=False, rank=_EXPORTED)
            tensor = self._tensor(maps, in_blocks=False)
            self._write("global-average" if average else "global-max", (tensor,), maps, pooled)
            maps = pooled
        else:
            maps = self._pooled(
                "average-pool" if average else "max-pool", maps, head.pool_size, head.pool_size, whole=True
            )
        tensor = self._tensor(maps, in_blocks=False)
        features = _Map(head.linear.in_channels, 1, 1, in_blocks=False, rank=_EXPORTED)
        logits = _Map(head.linear.out_channels, 1, 1, in_blocks=False, rank=_EXPORTED)
        self._write("linear", (tensor,), features, logits, bias=True)
        if head.scale != 1:
            self._same("scale", logits)

    # Single layers.

    def _conv(self, layer: Layer, maps: _Map) -> _Map:
        """Return what a convolution computes, which is not written yet; its norm, if it has one, is folded into it."""
        in_blocks = self._runs_in_blocks(layer)
        reads_blocks = in_blocks and (layer.groups > 1 or layer.in_channels >= self._block)
        tensor = self._tensor(maps, in_blocks=reads_blocks)
        copied = _LAID_OUT if reads_blocks else _COPIED
        rank = maps.rank if maps.in_blocks == reads_blocks else copied
        result = _Map(
            layer.out_channels,
            layer.height,
            layer.width,
            in_blocks=in_blocks,
            rank=_LAID_OUT if in_blocks else _EXPORTED,
        )
        result.open = _Open(layer, tensor, maps, rank, _FUSED_BEFORE)
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

    def _norm(self, maps: _Map, *, alone: bool = True) -> _Map:
        """Return a normed map.

        Args:
            maps: the map.
            alone: whether nothing else reads it, so that the norm is folded into the convolution that computes it.
        """
        if maps.open and alone:
            maps.biased = True
            return maps
        in_blocks, channels = maps.in_blocks, maps.channels
        tensor = self._tensor(maps, in_blocks=in_blocks)
        rank = _LAID_OUT if in_blocks else _EXPORTED
        normed = _Map(channels, maps.height, maps.width, in_blocks=in_blocks, rank=rank)
        if in_blocks:
            layer = Layer("", "conv", channels, channels, maps.height, maps.width, groups=channels, bias=True)
            normed.open = _Open(layer, tensor, maps, maps.rank, _FUSED_BLOCKED)
        else:
            self._write("norm", (tensor,), maps, normed)
        return normed

    def _activated(self, maps: _Map, activation: str) -> _Map:
        if maps.open and activation in maps.open.fused:
            return self._write_conv(maps, activation)
        in_blocks = (maps.in_blocks) and activation in _IN_BLOCKS
        # The runtime makes one operation of the two that compute it.
        rank = _FUSED if activation == "silu" else _EXPORTED
        result = _Map(maps.channels, maps.height, maps.width, in_blocks=in_blocks, rank=rank)
        self._write("activation", (self._tensor(maps, in_blocks=in_blocks),), maps, result, activation=activation)
        return result

    def _attended(self, layers: tuple[Layer, Layer], maps: _Map, activation: str) -> _Map:
        pooled = _Map(maps.channels, 1, 1, in_blocks=False, rank=_EXPORTED)
        self._write("squeeze", (self._tensor(maps, in_blocks=False),), maps, pooled)
        reduced = self._activated(self._conv(layers[0], pooled), activation)
        factors = self._activated(self._conv(layers[1], reduced), "sigmoid")
        # Factors are multiplied in blocks only with maps of one pixel.
        in_blocks = maps.in_blocks and factors.in_blocks and maps.height == maps.width == 1
        inputs = tuple(self._tensor(each, in_blocks=in_blocks) for each in (maps, factors))
        result = _Map(maps.channels, maps.height, maps.width, in_blocks=in_blocks, rank=_EXPORTED)
        self._write("multiply", inputs, maps, result)
        return result

    def _pooled(self, kind: Kind, maps: _Map, side: int, stride: int, *, whole: bool = False) -> _Map:
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
        rank = _LAID_OUT if in_blocks else _EXPORTED
        result = _Map(maps.channels, height, width, in_blocks=in_blocks, rank=rank)
        self._write(kind, (self._tensor(maps, in_blocks=in_blocks),), maps, result, kernel=side, stride=stride)
        return result

    def _same(self, kind: Kind, maps: _Map) -> _Map:
        """Write an operation whose output has the shape of its input."""
        result = _Map(maps.channels, maps.height, maps.width, in_blocks=False, rank=_EXPORTED)
        self._write(kind, (self._tensor(maps, in_blocks=False),), maps, result)
        return result

    # Tensors.

    def _tensor(self, maps: _Map, *, in_blocks: bool) -> int:
        """Return the tensor that holds a map in a layout; it is copied into it if need be."""
        self._write_open(maps)
        known = maps.inside if in_blocks else maps.plain
        if known >= 0:
            return known
        copied = _Map(maps.channels, maps.height, maps.width, in_blocks=in_blocks, rank=_COPIED)
        written = self._written
        if maps is self._shared:
            self._written = self._copies
        inputs = (maps.plain if in_blocks else maps.inside,)
        self._write("to-blocks" if in_blocks else "from-blocks", inputs, maps, copied)
        self._written = written
        maps.plain, maps.inside = max(maps.plain, copied.plain), max(maps.inside, copied.inside)
        return maps.inside if in_blocks else maps.plain

    def _write_open(self, maps: _Map) -> None:
        if maps.open:
            self._write_conv(maps, "")

    def _write_conv(self, maps: _Map, activation: str, *, added: int | None = None) -> _Map:
        """Write the convolution that computes a map, with what is fused into it."""
        assert maps.open is not None  # noqa: S101 - tells the type
        layer, tensor, source, _, _ = maps.open
        maps.open = None
        if activation and not maps.in_blocks:
            maps.rank = _FUSED
        inputs = (tensor,) if added is None else (tensor, added)
        self._write(
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

    def _write(
        self,
        kind: Kind,
        inputs: tuple[int, ...],
        source: _Map,
        result: _Map,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str = "",
        added: bool = False,
        bias: bool = False,
    ) -> None:
        self._tensors += 1
        tensor, channels = self._tensors, result.channels
        if result.in_blocks:
            result.inside = tensor
            channels = -(-channels // self._block) * self._block
        else:
            result.plain = tensor
        self._written.append(
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


_NORMALISATION: tuple[Kind, ...] = ("subtract", "divide")
