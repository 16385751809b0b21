"""The operations that ONNX Runtime executes for a network, in its order, from the plan alone.

They are those of the file that `export` writes as ONNX: its images are normalised first. The rules are those of ONNX
Runtime 1.32 on a CPU with all its optimisations. Norms are folded into the convolution before them and activation
functions fused; where the CPU has a blocked layout, which keeps a block of channels of a pixel together, the runtime
computes in it what it can, with channels padded to whole blocks, and copies a map where one operation needs the other
layout. A residual sum is fused into the convolution whose output it adds to.
"""

from __future__ import annotations

from typing import NamedTuple

from budgetnet.model.deployed.layers import (
    COPIED,
    EXPORTED,
    FUSED_BEFORE,
    FUSED_BLOCKED,
    LAID_OUT,
    FeatureMap,
    LayerWriter,
)
from budgetnet.model.deployed.operation import BLOCK_SIZES, IMAGES, Kind, Operation
from budgetnet.model.plan import BlockPlan, HeadPlan, Plan, StemPlan

__all__ = ["BLOCK_SIZES", "IMAGES", "Operation", "operations"]

_NORMALISATION: tuple[Kind, ...] = ("subtract", "divide")


def operations(plan: Plan, *, block_size: int = 16) -> tuple[Operation, ...]:
    """Return the operations of a network in the order in which they are executed.

    Args:
        plan: the network.
        block_size: channels in a block of the CPU's layout, one of `BLOCK_SIZES`.
    """
    return _NetworkWriter(block_size).network(plan)


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
    writer = _NetworkWriter(block_size)
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
    writer, maps = _NetworkWriter(block_size), _computed(block.output.in_channels, size, in_blocks=in_blocks)
    return writer.part(writer.residual_block(block, maps), normed=normed)


def head_of(plan: Plan, *, in_blocks: bool, block_size: int = 16) -> tuple[Operation, ...]:
    """Return the operations of the head.

    Args:
        plan: the network.
        in_blocks: whether its input is in the blocked layout.
        block_size: as `operations` takes it.
    """
    writer, output = _NetworkWriter(block_size), plan.stages[-1][-1].output
    size = output.height, output.width
    writer.head(plan.head, _computed(output.out_channels, size, in_blocks=in_blocks), plan.activation)
    return tuple(writer.written)


def _computed(channels: int, size: tuple[int, int], *, in_blocks: bool) -> FeatureMap:
    """Return a map that was computed before."""
    maps = FeatureMap(channels, *size, in_blocks=in_blocks, rank=LAID_OUT if in_blocks else EXPORTED)
    maps.plain, maps.inside = (-1, IMAGES) if in_blocks else (IMAGES, -1)
    return maps


class _NetworkWriter(LayerWriter):
    """Writes the operations of stem, residual blocks and head."""

    def network(self, plan: Plan) -> tuple[Operation, ...]:
        """Write a whole network."""
        maps = self.stem(plan)
        for stage in plan.stages:
            for block in stage:
                maps = self.residual_block(block, maps)
        self.head(plan.head, maps, plan.activation)
        return tuple(self.written)

    def part(self, maps: FeatureMap, *, normed: bool) -> Part | None:
        """Return what was written, with a map as its output; None if a norm may be folded into what computes it."""
        if maps.open and normed:
            return None
        self.write_open(maps)
        return Part(tuple(self.written), maps.in_blocks)

    def stem(self, plan: Plan) -> FeatureMap:
        """Write the normalisation of the images and the stem."""
        channels, height, width = plan.input_shape
        images = FeatureMap(channels, height, width, in_blocks=False, rank=EXPORTED)
        images.plain = IMAGES
        for kind in _NORMALISATION:
            images = self.same(kind, images)
        return self._stem(plan.stem, images, plan.activation)

    def _stem(self, stem: StemPlan, maps: FeatureMap, activation: str) -> FeatureMap:
        for layer in (*((stem.whitening,) if stem.whitening else ()), *stem.convs[:-1]):
            maps = self.activated(self.norm(self.conv(layer, maps)), activation)
        maps = self.conv(stem.conv, maps)
        if stem.norm:
            maps = self.activated(self.norm(maps), activation)
        if stem.squeeze_excitation:
            maps = self.attended(stem.squeeze_excitation, maps, activation)
        if stem.pool_size is None:
            return maps
        return self.pooled("max-pool", maps, stem.pool_size, stem.pool_stride)

    def residual_block(self, block: BlockPlan, maps: FeatureMap) -> FeatureMap:
        """Write a residual block."""
        settings, attention, last = block.settings, block.squeeze_excitation, len(block.convs) - 1
        activation, identity = settings.activation, block.shortcut == "identity"
        if settings.preact and not identity:
            # The shortcut, if there is one, begins behind the first norm and activation.
            maps = self.activated(self.norm(maps), activation)
        else:
            self.write_open(maps)
        source, before = maps, self.written
        if block.shortcut != "none":
            self.written, self.shared = [], source
        for number, conv in enumerate(block.convs):
            if settings.preact and (number or identity):
                maps = self.activated(self.norm(maps, alone=number > 0), activation)
            if number == last and block.inner_attention and attention:
                maps = self.attended(attention, maps, activation)
            maps = self.conv(conv, maps)
            if conv.pool > 1:
                maps = self.pooled("max-pool", maps, conv.pool, conv.pool)
            if not settings.preact:
                maps = self.norm(maps)
                if number < last:
                    maps = self.activated(maps, activation)
        if attention and not block.inner_attention:
            maps = self.attended(attention, maps, activation)
        if block.shortcut == "none":
            return maps if settings.linear else self.activated(maps, activation)
        maps = self._joined(block, maps, source, "" if settings.linear else activation)
        self.written, self.shared, self.copies = before + self.written, None, []
        return maps

    def _joined(self, block: BlockPlan, maps: FeatureMap, source: FeatureMap, activation: str) -> FeatureMap:
        """Write the shortcut and the sum; of both branches, the one of the higher rank comes first."""
        main, self.written = self.written, []
        shortcut = self._shortcut(block, source)
        side = self.written
        in_blocks = maps.in_blocks and shortcut.in_blocks
        host = next((each for each in (maps, shortcut) if self._takes_sum(each, in_blocks=in_blocks)), None)
        ranks, tensors = [], []
        for each, written in ((maps, main), (shortcut, side)):
            if each is host and each.open:
                ranks.append(each.open.rank)
                tensors.append(each.open.tensor)
                continue
            self.written = written
            ranks.append(each.rank if each.in_blocks == in_blocks else COPIED)
            tensors.append(self.tensor(each, in_blocks=in_blocks))
        # Of two equal ranks, the shortcut comes later in the exported file, and was laid out earlier.
        main_first = ranks[0] > ranks[1] or ranks == [LAID_OUT, LAID_OUT]
        self.written = main + side if main_first else side + main
        fused = (FUSED_BLOCKED if in_blocks else FUSED_BEFORE) if host else frozenset[str]()
        if host:
            added = tensors[1] if host is maps else tensors[0]
            result = self.write_conv(host, activation if activation in fused else "", added=added)
        else:
            result = FeatureMap(maps.channels, maps.height, maps.width, in_blocks=in_blocks, rank=EXPORTED)
            self.write("add", tuple(tensors), maps, result)
        self._place_copies(tensors)
        return result if not activation or activation in fused else self.activated(result, activation)

    def _place_copies(self, tensors: list[int]) -> None:
        """Insert copies of the map that both branches read: before all else if the sum reads one, else just in time."""
        for copy in self.copies:
            users = (at for at, each in enumerate(self.written) if copy.output in each.inputs)
            self.written.insert(0 if copy.output in tensors else next(users), copy)

    def _takes_sum(self, maps: FeatureMap, *, in_blocks: bool) -> bool:
        """Return whether a sum in a layout can be fused into the convolution that computes a map."""
        return maps.open is not None and maps.in_blocks == in_blocks and (in_blocks or maps.biased)

    def _shortcut(self, block: BlockPlan, source: FeatureMap) -> FeatureMap:
        layer, stride = block.shortcut_conv, block.output.stride
        if layer is not None:
            pools = block.shortcut == "average-pool" and stride > 1
            maps = self.conv(layer, self.pooled("average-pool", source, stride, stride) if pools else source)
            maps.biased = maps.biased or block.shortcut_norm is not None
            return maps
        if block.shortcut != "padding":
            return source
        output, maps = block.output, source
        sizes = ((output.height, source.width), (output.height, output.width)) if stride > 1 else ()
        for height, width in sizes:
            sliced = FeatureMap(source.channels, height, width, in_blocks=False, rank=EXPORTED)
            self.write("slice", (self.tensor(maps, in_blocks=False),), maps, sliced, stride=stride)
            maps = sliced
        padded = FeatureMap(output.out_channels, output.height, output.width, in_blocks=False, rank=EXPORTED)
        self.write("pad", (self.tensor(maps, in_blocks=False),), maps, padded)
        return padded

    def head(self, head: HeadPlan, maps: FeatureMap, activation: str) -> None:
        """Write the head."""
        if head.norm:
            maps = self.activated(self.norm(maps), activation)
        if head.conv:
            maps = self.activated(self.norm(self.conv(head.conv, maps)), activation)
        average = head.pooling == "average"
        if head.pool_size is None:
            pooled = FeatureMap(maps.channels, 1, 1, in_blocks=False, rank=EXPORTED)
            tensor = self.tensor(maps, in_blocks=False)
            self.write("global-average" if average else "global-max", (tensor,), maps, pooled)
            maps = pooled
        else:
            maps = self.pooled(
                "average-pool" if average else "max-pool", maps, head.pool_size, head.pool_size, whole=True
            )
        tensor = self.tensor(maps, in_blocks=False)
        features = FeatureMap(head.linear.in_channels, 1, 1, in_blocks=False, rank=EXPORTED)
        logits = FeatureMap(head.linear.out_channels, 1, 1, in_blocks=False, rank=EXPORTED)
        self.write("linear", (tensor,), features, logits, bias=True)
        if head.scale != 1:
            self.same("scale", logits)
