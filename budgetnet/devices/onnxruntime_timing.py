"""Timing with ONNX Runtime on the CPU: kernels by its profiler, networks as a whole."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from budgetnet.devices.onnx_models import onnx_model
from budgetnet.model.deployed.calls import Call, RuntimeName, padded
from budgetnet.model.deployed.graph import Graph, Node, graph_of
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec

_WARM_UP = 2
_NAMES = {
    "to-blocks": "ReorderInput",
    "from-blocks": "ReorderOutput",
    "relu": "Relu",
    "silu": "QuickGelu",
    "gelu": "Gelu",
    "relu6": "Clip",
    "leaky_relu": "LeakyRelu",
    "sigmoid": "Sigmoid",
    "add": "Add",
    "multiply": "Mul",
    "scale": "Mul",
    "subtract": "Sub",
    "divide": "Div",
    "squeeze": "ReduceMean",
    "global-max": "ReduceMax",
    "max-pool": "MaxPool",
    "average-pool": "AveragePool",
    "slice": "Slice",
    "pad": "Pad",
    "norm": "BatchNormalization",
    "linear": "Gemm",
}
"""Kernels' names in the profile."""


class Signature(NamedTuple):
    """What a profile tells of a call."""

    name: str
    weights: tuple[int, ...]
    """Shape of a convolution's weights; input and output features of a linear layer; for others, the channels."""
    size: tuple[int, ...]
    """Height and width of the output; of the input of means."""
    adds: bool


def signature(call: Call, block: int) -> Signature:
    """Return what the profile tells of a call.

    Args:
        call: the call.
        block: channels in a block of the runtime's layout.
    """
    kernel, inputs, outputs = call
    name, size = _NAMES.get(kernel.kind, ""), kernel.after
    if kernel.is_conv or (kernel.kind == "norm" and kernel.layout == "blocked"):
        if kernel.kind in ("depthwise", "norm"):
            of_each = 1
        else:
            of_each = kernel.groups if kernel.kind == "grouped" else inputs // kernel.groups
        return Signature("Conv", (outputs, of_each, kernel.kernel_size, kernel.kernel_size), size, kernel.adds)
    if kernel.kind == "linear":
        return Signature(name, (inputs, outputs), (), False)
    if kernel.kind == "scale":
        return Signature(name, (padded(outputs, block),), (), False)
    if name.startswith("Reduce"):
        return Signature(name, (padded(outputs, block),), kernel.before, False)
    return Signature(name, (padded(outputs, block),), size, False)


def _signature_of_event(name: str, inputs: list[Any], outputs: list[Any], block: int) -> Signature:
    shapes = [tuple(shape) for each in inputs for shape in each.values()]
    (output,) = (tuple(shape) for each in outputs[:1] for shape in each.values())
    if "Conv" in name:
        adds = sum(len(shape) == 4 for shape in shapes) > 2
        return Signature("Conv", shapes[1], output[2:], adds)
    if name == "Gemm":
        return Signature(name, (shapes[0][1], output[1]), (), False)
    if name.startswith("Reduce"):
        return Signature(name, (padded(output[1], block),), shapes[0][2:], False)
    return Signature(name, (padded(output[1], block),), output[2:], False)


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    name: RuntimeName = "onnxruntime"

    def __init__(self, *, threads: int, batch: int) -> None:
        """Prepare the runtime.

        Args:
            threads: threads of a kernel.
            batch: number of images that are classified at once.
        """
        import onnxruntime

        self._onnxruntime = onnxruntime
        self.version: str = onnxruntime.__version__
        self.threads, self.batch = threads, batch
        self.block = self._block()

    def time_calls(self, graph: Graph, calls: Sequence[Call], *, runs: int) -> dict[Call, list[float]]:
        """Time the kernels of a graph, in its order and several times.

        Args:
            graph: the graph.
            calls: those to time.
            runs: number of times that the graph is executed, after a warm-up.

        Returns:
            For each call, the seconds it took in each run.
        """
        wanted: dict[Signature, list[Call]] = defaultdict(list)
        for call in calls:
            wanted[signature(call, self.block)].append(call)
        found: dict[Call, list[float]] = {}
        for each, times in self._profiled(graph, runs):
            for call in wanted.get(each, ()):
                found.setdefault(call, []).extend(times)
        return found

    def signatures(self, graph: Graph) -> list[Signature]:
        """Return what the runtime executes for a graph."""
        return [each for each, _ in self._profiled(graph, 1)]

    def prepare(self, graph: Graph) -> Callable[[], object]:
        """Return a function that executes a graph once."""
        session = self._session(graph)
        images = self._images(graph)
        return lambda: session.run(None, images)

    def network(self, spec: ModelSpec) -> Callable[[], object]:
        """Return a function that classifies a batch once."""
        return self.prepare(graph_of(lower(spec)))

    def _images(self, graph: Graph) -> dict[str, Any]:
        shape = (self.batch, *graph.input_shape)
        return {"images": np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}

    def _session(self, graph: Graph, **settings: Any) -> Any:
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for name, value in settings.items():
            setattr(options, name, value)
        model = onnx_model(graph, batch=self.batch)
        return self._onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _profiled(self, graph: Graph, runs: int) -> list[tuple[Signature, list[float]]]:
        """Return the signature of each call, and the seconds it took in each run."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._session(graph, enable_profiling=True, profile_file_prefix=f"{folder}/profile")
            images = self._images(graph)
            for _ in range(runs + _WARM_UP):
                session.run(None, images)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        calls: dict[str, tuple[Signature, list[float]]] = {}
        for event in events:
            name = event["name"]
            if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
                continue
            if name not in calls:
                shapes = event["args"]["input_type_shape"], event["args"]["output_type_shape"]
                calls[name] = _signature_of_event(event["args"]["op_name"], *shapes, self.block), []
            calls[name][1].append(event["dur"] * 1e-6)
        return [(each, times[_WARM_UP:]) for each, times in calls.values()]

    def _block(self) -> int:
        """Return how many channels a block of the blocked layout has; 1 where the runtime has none."""
        self.block = 1
        graph = Graph((4, 4, 4))
        graph.same("activation", [graph.add(Node("conv", (-1,), 4, 4, 4, 4, 3, 1, 1, 1, bias=True))])
        channels = next(each.weights[0] for each in self.signatures(graph) if each.name == "Conv")
        return 1 if channels == 4 else channels
