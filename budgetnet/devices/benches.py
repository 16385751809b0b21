"""Graphs in which kernels are timed among others, as they are in a network.

How long a kernel takes depends on what the processor's cache holds. Convolutions of a graph read the same map, which is
in the cache as one is that has just been written. Their weights are not: each graph begins with a layer whose weights
displace them, as those of a network's other layers do, and small ones in between displace what is nearest to the
processor. Kernels that keep the channels of a map follow one another, each on the output of the one before, which they
may overwrite. No map is an output: memory for outputs is new each time, and its first use takes longer than most
kernels.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast, get_args

from budgetnet.devices.cells import Cells
from budgetnet.model.deployed.calls import Call, Kernel
from budgetnet.model.deployed.graph import Graph, Node, Op
from budgetnet.model.parts import Activation

_DISPLACING = 1 << 20
"""Weights of the first layer: 4 MB."""
_BETWEEN = 1 << 14
"""Weights of the layers in between: 64 KB."""
_CALLS = 24
"""Timed convolutions in a graph."""
_REPEATS = 3
"""Times that a graph repeats kernels which keep the channels."""
_OPS = {"slice": "subsample", "global-max": "largest"}
"""Operations of a graph, by kinds of kernels with other names."""


class Bench(NamedTuple):
    """A graph, and the calls in it that are timed."""

    graph: Graph
    calls: tuple[Call, ...]


def benches_of(cells: Mapping[Kernel, Cells], *, seed: int = 0) -> Iterator[Bench]:
    """Yield graphs that together contain every cell of a table, in a random order.

    Args:
        cells: the cells of each kernel.
        seed: of the order.
    """
    together: dict[tuple[object, ...], list[Call]] = defaultdict(list)
    for kernel, own in cells.items():
        layered = kernel.is_conv or kernel.kind == "linear"
        for row, column in own.wanted:
            inputs = own.inputs[row]
            outputs = own.outputs[column] if own.outputs else inputs
            together[kernel.before, inputs, layered].append(Call(kernel, inputs, outputs))
    generator = random.Random(seed)  # noqa: S311 - an order, no secret
    for key in sorted(together, key=str):
        calls = sorted(together[key], key=str)
        if not key[-1]:
            yield map_bench(calls)
            continue
        generator.shuffle(calls)
        count = -(-len(calls) // _CALLS)
        for place in range(count):
            yield layer_bench(calls[place::count])


def covered(benches: Iterable[Bench]) -> set[Call]:
    """Return the calls that are timed in graphs."""
    return {call for bench in benches for call in bench.calls}


def layer_bench(calls: Sequence[Call]) -> Bench:
    """Return a graph of convolutions and linear layers that read the same map."""
    inputs, before = calls[0].inputs, calls[0].kernel.before
    graph = Graph((inputs, *before))
    pooled = graph.add(Node("mean", (-1,), inputs, inputs, 1, 1))
    _linear(graph, pooled, max(1, _DISPLACING // inputs))
    source = -1
    if any(call.kernel.layout == "blocked" for call in calls):
        # Computed in the blocked layout.
        source = _conv_of_one_pixel(graph, -1)
    for call in calls:
        if call.kernel.kind == "linear":
            _linear(graph, pooled, call.outputs)
            continue
        _linear(graph, pooled, max(1, _BETWEEN // inputs))
        read = source if call.kernel.layout == "blocked" else -1
        place = graph.same("activation", [_conv(graph, call, read)])
        if call.kernel.adds:
            place = graph.same("activation", [graph.same("add", [_conv(graph, call, read), place])])
        _mean(graph, place)
    return Bench(graph, tuple(calls))


def map_bench(calls: Sequence[Call]) -> Bench:
    """Return a graph of kernels that keep the channels of a map, each on the output of another."""
    channels, before = calls[0].inputs, calls[0].kernel.before
    by_kind = {(call.kernel.kind, call.kernel.layout): call.kernel for call in calls}
    kinds = {kind for kind, _ in by_kind}
    blocked = any(layout == "blocked" for _, layout in by_kind) or not kinds.isdisjoint(("to-blocks", "from-blocks"))
    graph = Graph((channels, *before))
    pooled = _mean(graph, -1)
    place = -1
    for kind in ("subtract", "divide", "times"):
        if kind in kinds:
            place = graph.same(cast(Op, kind), [place])
    for _ in range(_REPEATS):
        earlier = place
        _linear(graph, pooled, max(1, _BETWEEN // channels))
        if blocked:
            place = _conv_of_one_pixel(graph, place)
            for kind, layout in by_kind:
                if layout == "blocked":
                    place = _mapped(graph, kind, place)
            _leaves(graph, [call for call in calls if call.kernel.layout == "blocked"], place)
        _linear(graph, pooled, max(1, _BETWEEN // channels))
        if "sigmoid" in kinds:
            place = graph.same("sigmoid", [place])
        if not kinds.isdisjoint(("multiply", "squeeze", "scale", "mean")):
            place = graph.same("scale", [place, _mean(graph, place)])
        if "add" in kinds:
            place = graph.same("add", [place, earlier])
        for kind, layout in by_kind:
            if layout == "plain":
                place = _mapped(graph, kind, place)
        _leaves(graph, [call for call in calls if call.kernel.layout == "plain"], place)
    _mean(graph, place)
    return Bench(graph, tuple(calls))


def _mapped(graph: Graph, kind: str, place: int) -> int:
    """Append an activation or batch norm, if the kind is one."""
    if kind in get_args(Activation):
        return graph.same("activation", [place], activation=cast(Activation, kind))
    return graph.same("activation", [graph.same("norm", [place])]) if kind == "norm" else place


def _leaves(graph: Graph, calls: Iterable[Call], place: int) -> None:
    """Append kernels whose output has another size, or other channels."""
    for kernel, channels, outputs in calls:
        kind = kernel.kind
        if kind in ("max-pool", "average-pool"):
            padding = -1 if kernel.after[0] < -(-kernel.before[0] // kernel.stride) else 0
            if kernel.kernel_size != kernel.stride:
                padding = kernel.kernel_size // 2
            size, stride = kernel.kernel_size, kernel.stride
            node = Node(cast(Op, kind), (place,), channels, channels, *kernel.after, size, stride, padding=padding)
            _mean(graph, graph.add(node))
        elif kind in ("slice", "subsample", "pad", "global-max", "largest"):
            op = cast(Op, _OPS.get(kind, kind))
            node = Node(op, (place,), channels, outputs, *kernel.after, stride=kernel.stride)
            added = graph.add(node)
            if kernel.after != (1, 1):
                _mean(graph, added)


def _mean(graph: Graph, place: int) -> int:
    channels = graph.shape(place)[0]
    return graph.add(Node("mean", (place,), channels, channels, 1, 1))


def _linear(graph: Graph, source: int, outputs: int) -> None:
    graph.add(Node("linear", (source,), graph.shape(source)[0], outputs, 1, 1))


def _conv_of_one_pixel(graph: Graph, source: int) -> int:
    channels, height, width = graph.shape(source)
    conv = graph.add(Node("conv", (source,), channels, channels, height, width, 1, 1, 1, 0, bias=True))
    return graph.same("activation", [conv])


def _conv(graph: Graph, call: Call, source: int) -> int:
    kernel, inputs, outputs = call
    groups = {"depthwise": inputs, "grouped": inputs // kernel.groups}.get(kernel.kind, kernel.groups)
    unpadded = kernel.after[0] < -(-kernel.before[0] // kernel.stride)
    padding, size, stride = 0 if unpadded else kernel.kernel_size // 2, kernel.kernel_size, kernel.stride
    return graph.add(Node("conv", (source,), inputs, outputs, *kernel.after, size, stride, groups, padding, bias=True))
