"""Timing with torch on the CPU: the operations of a graph one by one, networks as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from budgetnet.exporting.classifier import Classifier
from budgetnet.model.blocks import ACTIVATIONS
from budgetnet.model.deployed.calls import Call, RuntimeName, call_of_node
from budgetnet.model.deployed.graph import Graph, Node
from budgetnet.model.spec import ModelSpec

_WARM_UP = 2


class TorchRuntime:
    """torch on the CPU, in the channels-last layout in which budgetnet evaluates networks."""

    name: RuntimeName = "torch"
    block = 1

    def __init__(self, *, threads: int, batch: int) -> None:
        """Prepare the runtime.

        Args:
            threads: threads of an operation, set for this process.
            batch: images that are classified at once.
        """
        self.version: str = torch.__version__
        self.threads, self.batch = threads, batch
        torch.set_num_threads(threads)

    @torch.inference_mode()
    def time_calls(self, graph: Graph, calls: Sequence[Call], *, runs: int) -> dict[Call, list[float]]:
        """Time the operations of a graph one by one, each several times.

        Args:
            graph: the graph.
            calls: those to time.
            runs: number of times that the graph is executed, after a warm-up.

        Returns:
            For each call, the seconds it took in each run.
        """
        wanted, steps = set(calls), self._steps(graph)
        found: dict[Call, list[float]] = {}
        for number in range(runs + _WARM_UP):
            maps = {-1: self._images(graph.input_shape)}
            for place, (node, call, function) in enumerate(steps):
                inputs = [maps[source] for source in node.inputs]
                start = time.perf_counter()
                maps[place] = function(*inputs)
                seconds = time.perf_counter() - start
                if call in wanted and number >= _WARM_UP:
                    found.setdefault(call, []).append(seconds)
        return found

    def prepare(self, graph: Graph) -> Callable[[], object]:
        """Return a function that executes a graph once."""
        steps, images = self._steps(graph), self._images(graph.input_shape)

        @torch.inference_mode()
        def run() -> None:
            maps = {-1: images}
            for place, (node, _, function) in enumerate(steps):
                maps[place] = function(*(maps[source] for source in node.inputs))

        return run

    def network(self, spec: ModelSpec) -> Callable[[], object]:
        """Return a function that classifies a batch once."""
        channels = spec.input_shape[0]
        network = Classifier(spec.build(), mean=[0.5] * channels, std=[0.25] * channels).eval()
        network = network.to(memory_format=torch.channels_last)
        images = self._images(spec.input_shape)

        @torch.inference_mode()
        def run() -> None:
            network(images)

        return run

    def _images(self, shape: tuple[int, int, int]) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch, *shape, generator=generator)
        return images.contiguous(memory_format=torch.channels_last)

    def _steps(self, graph: Graph) -> list[tuple[Node, Call, Callable[..., Tensor]]]:
        generator = torch.Generator().manual_seed(0)
        return [
            (node, call_of_node(node, graph.shape(node.inputs[0])), _function(node, generator)) for node in graph.nodes
        ]


def _function(node: Node, generator: torch.Generator) -> Callable[..., Tensor]:  # noqa: PLR0911 - one for each
    """Return what computes a node, with random weights."""

    def random(*shape: int, scale: float = 0.1) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    count, side = node.channels, node.kernel_size
    match node.op:
        case "conv":
            inputs = node.in_channels // node.groups
            weights = random(count, inputs, side, side, scale=(2 / (inputs * side**2)) ** 0.5)
            weights = weights.contiguous(memory_format=torch.channels_last)
            bias = random(count) if node.bias else None
            options: dict[str, Any] = {"stride": node.stride, "padding": node.padding, "groups": node.groups}
            return lambda maps: functional.conv2d(maps, weights, bias, **options)
        case "norm":
            mean, variance, scale, shift = random(count), random(count).square() + 1, random(count) + 1, random(count)
            return lambda maps: functional.batch_norm(maps, mean, variance, scale, shift)
        case "activation":
            return ACTIVATIONS[node.activation]
        case "linear":
            weights, bias = random(count, node.in_channels), random(count)
            return lambda features: functional.linear(features.flatten(1), weights, bias)
        case "max-pool" | "average-pool":
            return _pooling(node)
        case "subtract" | "divide":
            values = torch.full((1, count, 1, 1), 0.5)
            return (lambda maps: maps - values) if node.op == "subtract" else (lambda maps: maps / values)
        case "pad":
            added = count - node.in_channels
            return lambda maps: functional.pad(maps, (0, 0, 0, 0, 0, added))
    simple: dict[str, Callable[..., Tensor]] = {
        "sigmoid": torch.sigmoid,
        "add": torch.add,
        "scale": torch.mul,
        "mean": lambda maps: maps.mean(dim=(2, 3), keepdim=True),
        "largest": lambda maps: maps.amax(dim=(2, 3), keepdim=True),
        "subsample": lambda maps: (
            maps[:, :, :: node.stride] if node.height < maps.shape[2] else maps[:, :, :, :: node.stride]
        ),
        "times": lambda logits: logits * 0.5,
    }
    return simple[node.op]


def _pooling(node: Node) -> Callable[[Tensor], Tensor]:
    side, stride, padding = node.kernel_size, node.stride, max(0, node.padding)
    partial = node.padding == 0
    if node.op == "max-pool":
        return lambda maps: functional.max_pool2d(maps, side, stride, padding=padding, ceil_mode=partial)
    return lambda maps: functional.avg_pool2d(maps, side, stride, ceil_mode=partial, count_include_pad=False)
