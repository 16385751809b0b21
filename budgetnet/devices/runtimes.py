"""What executes networks and tells how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from budgetnet.common.errors import InputError
from budgetnet.common.extras import require_extra
from budgetnet.model.deployed.calls import Call, RuntimeName
from budgetnet.model.deployed.graph import Graph
from budgetnet.model.spec import ModelSpec


class Runtime(Protocol):
    """What executes networks."""

    name: RuntimeName
    version: str
    threads: int
    batch: int
    block: int
    """Channels in a block of its layout; 1 for none."""

    def time_calls(self, graph: Graph, calls: Sequence[Call], *, runs: int) -> dict[Call, list[float]]:
        """Time the kernels of a graph, each several times."""

    def prepare(self, graph: Graph) -> Callable[[], object]:
        """Return a function that executes a graph once."""

    def network(self, spec: ModelSpec) -> Callable[[], object]:
        """Return a function that classifies a batch once."""


def runtime_of(name: RuntimeName, *, threads: int, batch: int) -> Runtime:
    """Return a runtime.

    Args:
        name: of the runtime.
        threads: threads of an operation.
        batch: images that are classified at once.

    Raises:
        InputError: it is not installed, or there is none of this name.
    """
    if name == "onnxruntime":
        require_extra("export", "onnx", "onnxruntime", field="runtime", value=name)
        from budgetnet.devices.onnxruntime_timing import OnnxRuntime

        return OnnxRuntime(threads=threads, batch=batch)
    if name == "torch":
        from budgetnet.devices.torch_timing import TorchRuntime

        return TorchRuntime(threads=threads, batch=batch)
    raise InputError("runtime", name, "must be onnxruntime or torch")
