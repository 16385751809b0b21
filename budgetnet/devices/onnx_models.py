"""ONNX models of graphs, with random weights, as `budgetnet export` writes them: batch norm is part of convolutions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgetnet.model.deployed.graph import Graph, Node

_OPSET, _IR_VERSION = 20, 10
_SIMPLE = {"sigmoid": "Sigmoid", "add": "Add", "scale": "Mul"}
_ACTIVATIONS = {"relu": "Relu", "leaky_relu": "LeakyRelu", "gelu": "Gelu"}


def onnx_model(graph: Graph, *, batch: int, seed: int = 0) -> bytes:
    """Return a model of a graph for a batch of images, with random weights; what no node reads is an output.

    Args:
        graph: the operations.
        batch: number of images.
        seed: of the weights, which are scaled so that maps keep their size and no number is denormal.
    """
    return _Writer(graph, batch, seed).model()


class _Writer:
    def __init__(self, graph: Graph, batch: int, seed: int) -> None:
        import onnx

        self._onnx = onnx
        self._graph, self._batch = graph, batch
        self._generator = np.random.default_rng(seed)
        self._uses = Counter(place for node in graph.nodes for place in node.inputs)
        self._classified = {place for node in graph.nodes if node.op == "linear" for place in node.inputs}
        self._normed = {place for node in graph.nodes if self._is_folded(node) for place in node.inputs}
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def model(self) -> bytes:
        helper, graph = self._onnx.helper, self._graph
        names = ["images"]
        for place, node in enumerate(graph.nodes):
            names.append(self._write(place, node, [names[source + 1] for source in node.inputs]))
        kind = self._onnx.TensorProto.FLOAT
        images = helper.make_tensor_value_info("images", kind, [self._batch, *graph.input_shape])
        outputs = []
        for place, name in enumerate(names[1:]):
            if not self._uses[place]:
                channels, *sides = graph.shape(place)
                shape = [channels] if graph.nodes[place].op in ("linear", "times") else [channels, *sides]
                outputs.append(helper.make_tensor_value_info(name, kind, [self._batch, *shape]))
        written = helper.make_graph(self._nodes, "network", [images], outputs, self._constants)
        model = helper.make_model(written, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        found: bytes = model.SerializeToString()
        return found

    def _write(self, place: int, node: Node, sources: list[str]) -> str:
        """Write a node, and return the name of its output."""
        if self._is_folded(node):
            return sources[0]
        name = f"n{place}"
        if node.op == "conv":
            node = node._replace(bias=node.bias or place in self._normed)
        if node.op in ("mean", "largest"):
            kind = {"mean": "ReduceMean", "largest": "ReduceMax"}[node.op]
            axes = self._constant(f"{name}.axes", np.array([2, 3]))
            # Where the linear layer follows, without the two sides of one pixel.
            self._add_node(kind, [*sources, axes], name, keepdims=int(place not in self._classified))
            return name
        if node.op in _SIMPLE:
            self._add_node(_SIMPLE[node.op], sources, name)
        elif node.op == "times":
            self._add_node("Mul", [*sources, self._constant(f"{name}.factor", np.array(0.5, np.float32))], name)
        else:
            getattr(self, f"_{node.op.replace('-', '_')}")(node, sources, name)
        return name

    def _is_folded(self, node: Node) -> bool:
        """Return whether a node is a norm that is part of the convolution before it."""
        source = node.inputs[0]
        return node.op == "norm" and source >= 0 and self._graph.nodes[source].op == "conv" and self._uses[source] == 1

    def _add_node(self, kind: str, sources: list[str], name: str, **attributes: Any) -> None:
        self._nodes.append(self._onnx.helper.make_node(kind, sources, [name], name=name, **attributes))

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self._constants.append(self._onnx.numpy_helper.from_array(values, name))
        return name

    def _weights(self, name: str, *shape: int, scale: float = 1.0) -> str:
        values = self._generator.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        return self._constant(name, values)

    def _conv(self, node: Node, sources: list[str], name: str) -> None:
        inputs, side = node.in_channels // node.groups, node.kernel_size
        weights = self._weights(
            f"{name}.weight", node.channels, inputs, side, side, scale=(2 / (inputs * side**2)) ** 0.5
        )
        bias = [self._weights(f"{name}.bias", node.channels, scale=0.1)] if node.bias else []
        self._add_node(
            "Conv",
            [*sources, weights, *bias],
            name,
            kernel_shape=[side, side],
            strides=[node.stride, node.stride],
            pads=[node.padding] * 4,
            dilations=[1, 1],
            group=node.groups,
        )

    def _norm(self, node: Node, sources: list[str], name: str) -> None:
        count = node.channels
        ones = np.ones(count, dtype=np.float32)
        parts = [self._constant(f"{name}.{part}", ones * value) for part, value in (("scale", 0.7), ("bias", 0.1))]
        parts += [self._constant(f"{name}.{part}", ones * value) for part, value in (("mean", 0.1), ("var", 1.5))]
        self._add_node("BatchNormalization", [*sources, *parts], name, epsilon=1e-5)

    def _activation(self, node: Node, sources: list[str], name: str) -> None:
        if node.activation == "silu":
            self._add_node("Sigmoid", sources, f"{name}.gate")
            self._add_node("Mul", [*sources, f"{name}.gate"], name)
        elif node.activation == "relu6":
            low, high = (self._constant(f"{name}.{each}", np.array(each, np.float32)) for each in (0, 6))
            self._add_node("Clip", [*sources, low, high], name)
        else:
            self._add_node(_ACTIVATIONS[node.activation], sources, name)

    def _subtract(self, node: Node, sources: list[str], name: str) -> None:
        self._normalise("Sub", node, sources, name)

    def _divide(self, node: Node, sources: list[str], name: str) -> None:
        self._normalise("Div", node, sources, name)

    def _normalise(self, kind: str, node: Node, sources: list[str], name: str) -> None:
        values = np.full((1, node.channels, 1, 1), 0.5, dtype=np.float32)
        self._add_node(kind, [*sources, self._constant(f"{name}.values", values)], name)

    def _max_pool(self, node: Node, sources: list[str], name: str) -> None:
        self._pool("MaxPool", node, sources, name)

    def _average_pool(self, node: Node, sources: list[str], name: str) -> None:
        self._pool("AveragePool", node, sources, name, count_include_pad=0)

    def _pool(self, kind: str, node: Node, sources: list[str], name: str, **attributes: Any) -> None:
        self._add_node(
            kind,
            sources,
            name,
            kernel_shape=[node.kernel_size] * 2,
            strides=[node.stride] * 2,
            pads=[max(0, node.padding)] * 4,
            ceil_mode=int(node.padding == 0),
            **attributes,
        )

    def _subsample(self, node: Node, sources: list[str], name: str) -> None:
        far = np.iinfo(np.int64).max
        axis = 2 if node.height < self._graph.shape(node.inputs[0])[1] else 3
        values = {"starts": [0], "ends": [far], "axes": [axis], "steps": [node.stride]}
        parts = [self._constant(f"{name}.{part}", np.array(each)) for part, each in values.items()]
        self._add_node("Slice", [*sources, *parts], name)

    def _pad(self, node: Node, sources: list[str], name: str) -> None:
        pads = np.zeros(8, dtype=np.int64)
        pads[5] = node.channels - node.in_channels
        parts = [self._constant(f"{name}.pads", pads), self._constant(f"{name}.zero", np.array(0, np.float32))]
        self._add_node("Pad", [*sources, *parts], name)

    def _linear(self, node: Node, sources: list[str], name: str) -> None:
        source = self._graph.nodes[node.inputs[0]]
        flat = sources[0]
        if source.op not in ("mean", "largest"):
            flat = f"{name}.flat"
            self._add_node("Flatten", sources, flat, axis=1)
        weights = self._weights(f"{name}.weight", node.channels, node.in_channels, scale=node.in_channels**-0.5)
        bias = self._weights(f"{name}.bias", node.channels, scale=0.1)
        self._add_node("Gemm", [flat, weights, bias], name, transB=1)
