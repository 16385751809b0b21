"""The graph of a network's operations, before a runtime fuses them: what is computed for one batch, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from budgetnet.model.parts import Activation
from budgetnet.model.plan import BlockPlan, HeadPlan, Layer, Plan, StemPlan

Op = Literal[
    "conv", "norm", "activation", "sigmoid", "add", "scale", "mean", "largest", "max-pool", "average-pool",
    "subsample", "pad", "linear", "times", "subtract", "divide",
]  # fmt: skip
"""``scale``: channels times their gates; ``mean`` and ``largest``: of whole maps; ``times``: logits times a number;
``subtract`` and ``divide`` normalise the images;
``subsample`` takes every so many rows, or columns."""


class Node(NamedTuple):
    """An operation with one output."""

    op: Op
    inputs: tuple[int, ...]
    """Places of the nodes that it takes its inputs from; -1 is the image."""
    in_channels: int
    channels: int
    """Channels of the output; features of a linear layer."""
    height: int
    width: int
    """Size of the output, in pixels."""
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    padding: int = 0
    """Zeros on each side of a convolution's or pooling's input, in pixels; -1 for pooling without partial windows."""
    bias: bool = False
    activation: Activation = "relu"


class Graph:
    """Nodes in the order of execution, each added behind those it needs."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        self.input_shape = input_shape
        self.nodes: list[Node] = []

    def add(self, node: Node) -> int:
        """Append a node and return its place."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def shape(self, place: int) -> tuple[int, int, int]:
        """Return (channels, height, width) of an output; of the image for -1."""
        if place < 0:
            return self.input_shape
        node = self.nodes[place]
        return node.channels, node.height, node.width

    def conv(self, layer: Layer, source: int) -> int:
        """Append a convolution, and the max pooling after it."""
        place = self.add(
            Node(
                "conv",
                (source,),
                layer.in_channels,
                layer.out_channels,
                layer.height,
                layer.width,
                layer.kernel_size,
                layer.stride,
                layer.groups,
                layer.padding,
                layer.bias,
            )
        )
        return self.pool("max-pool", place, layer.pool) if layer.pool > 1 else place

    def same(self, op: Op, sources: Sequence[int], *, activation: Activation = "relu") -> int:
        """Append a node whose output has the shape of its first input."""
        channels, height, width = self.shape(sources[0])
        return self.add(Node(op, tuple(sources), channels, channels, height, width, activation=activation))

    def pool(self, op: Op, source: int, side: int, *, stride: int | None = None, padding: int = 0) -> int:
        """Append a pooling; partial windows at the border count where nothing is padded."""
        channels, height, width = self.shape(source)
        step = stride or side
        if padding:
            height, width = ((each + 2 * padding - side) // step + 1 for each in (height, width))
        else:
            height, width = -(-height // step), -(-width // step)
        return self.add(Node(op, (source,), channels, channels, height, width, side, step, padding=padding))

    def squeeze_excitation(self, layers: tuple[Layer, Layer], source: int, activation: Activation) -> int:
        """Append the gates of channels, and their product with the channels."""
        channels = self.shape(source)[0]
        pooled = self.add(Node("mean", (source,), channels, channels, 1, 1))
        hidden = self.same("activation", [self.conv(layers[0], pooled)], activation=activation)
        gates = self.same("sigmoid", [self.conv(layers[1], hidden)])
        return self.same("scale", [source, gates])


def graph_of(plan: Plan) -> Graph:
    """Return the operations of a plan's network when it classifies, without what only training does."""
    graph = Graph(plan.input_shape)
    place = graph.same("divide", [graph.same("subtract", [-1])])
    place = add_stem(graph, plan.stem, place, plan.activation)  # type: ignore[arg-type]
    for stage in plan.stages:
        for block in stage:
            place = add_block(graph, block, place)
    add_head(graph, plan.head, place, plan.activation)  # type: ignore[arg-type]
    return graph


def add_stem(graph: Graph, stem: StemPlan, place: int, activation: Activation) -> int:
    """Append the stem behind the place of its images, and return the place of its output."""
    if stem.whitening:
        place = graph.same("activation", [graph.conv(stem.whitening, place)], activation=activation)
    for conv, norm in zip(stem.convs, (*stem.inner_norms, stem.norm), strict=True):
        place = graph.conv(conv, place)
        if norm:
            place = graph.same("activation", [graph.same("norm", [place])], activation=activation)
    if stem.squeeze_excitation:
        place = graph.squeeze_excitation(stem.squeeze_excitation, place, activation)
    if stem.pool_size is None:
        return place
    if stem.pool_size % 2 == 0:
        return graph.pool("max-pool", place, stem.pool_size)
    return graph.pool("max-pool", place, stem.pool_size, stride=stem.pool_stride, padding=stem.pool_size // 2)


def add_block(graph: Graph, block: BlockPlan, place: int) -> int:
    """Append a residual block behind the place of its input, and return the place of its output."""
    settings, source = block.settings, place
    own_shortcut = block.shortcut not in ("identity", "none")
    attention = block.squeeze_excitation
    last = len(block.convs) - 1
    for number, conv in enumerate(block.convs):
        if settings.preact:
            place = graph.same("activation", [graph.same("norm", [place])], activation=settings.activation)
            if not number and own_shortcut:
                source = place
        if number == last and attention and block.inner_attention:
            place = graph.squeeze_excitation(attention, place, settings.activation)
        place = graph.conv(conv, place)
        if not settings.preact:
            place = graph.same("norm", [place])
            if number < last:
                place = graph.same("activation", [place], activation=settings.activation)
    if attention and not block.inner_attention:
        place = graph.squeeze_excitation(attention, place, settings.activation)
    if block.shortcut != "none":
        place = graph.same("add", [place, _shortcut(graph, block, source) if own_shortcut else source])
    return place if settings.linear else graph.same("activation", [place], activation=settings.activation)


def _shortcut(graph: Graph, block: BlockPlan, place: int) -> int:
    stride, output = block.output.stride, block.output
    if block.shortcut == "padding":
        channels, _, width = graph.shape(place)
        for size in ((output.height, width), (output.height, output.width)) if stride > 1 else ():
            place = graph.add(Node("subsample", (place,), channels, channels, *size, stride=stride))
        return graph.add(Node("pad", (place,), channels, output.out_channels, output.height, output.width))
    if block.shortcut == "average-pool" and stride > 1:
        place = graph.pool("average-pool", place, stride)
    if block.shortcut_conv:
        place = graph.conv(block.shortcut_conv, place)
    return graph.same("norm", [place]) if block.shortcut_norm else place


def add_head(graph: Graph, head: HeadPlan, place: int, activation: Activation) -> int:
    """Append the head, and return the place of the logits."""
    if head.norm:
        place = graph.same("activation", [graph.same("norm", [place])], activation=activation)
    if head.conv:
        place = graph.same("norm", [graph.conv(head.conv, place)])
        place = graph.same("activation", [place], activation=activation)
    channels, height, width = graph.shape(place)
    average = head.pooling == "average"
    if head.pool_size is None:
        place = graph.add(Node("mean" if average else "largest", (place,), channels, channels, 1, 1))
    else:
        rows, columns = height // head.pool_size, width // head.pool_size
        op: Op = "average-pool" if average else "max-pool"
        place = graph.add(
            Node(op, (place,), channels, channels, rows, columns, head.pool_size, head.pool_size, padding=-1)
        )
    linear = head.linear
    place = graph.add(Node("linear", (place,), linear.in_channels, linear.out_channels, 1, 1))
    return place if head.scale == 1 else graph.same("times", [place])
