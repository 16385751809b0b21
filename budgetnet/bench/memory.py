"""Benchmark of predicted peak memory against what ONNX Runtime plans on this machine, for many networks."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from budgetnet.bench import planned_memory
from budgetnet.bench.measure import Goal
from budgetnet.common.cpu import channels_in_block
from budgetnet.common.seeding import derive_seed
from budgetnet.model import zoo
from budgetnet.model.deployed.memory import peak_memory
from budgetnet.model.spec import ModelSpec
from budgetnet.study.space.named import NAMED

_AT_ONCE = 10
"""Networks written and measured at a time."""

_IMAGE: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}

NEAR, FAR = 0.02, 0.05
"""Errors, as shares of what is measured, within which most networks should be, and which none should be below."""


class Measured(NamedTuple):
    """Peak memory of one network."""

    source: str
    """Space that it is sampled from, or the zoo."""
    architecture: str
    predicted: int
    """Bytes."""
    measured: int

    @property
    def error(self) -> float:
        """Predicted minus measured, as a share of what is measured."""
        return self.predicted / self.measured - 1

    @property
    def is_near(self) -> bool:
        """Whether the error is within `NEAR`."""
        return abs(self.predicted - self.measured) <= NEAR * self.measured

    @property
    def is_under(self) -> bool:
        """Whether more is needed than predicted, by more than `FAR`."""
        return self.measured - self.predicted > FAR * self.measured


class MemoryBenchmark(NamedTuple):
    """Predicted and measured peak memory of many networks."""

    environment: dict[str, Any]
    block_size: int
    """Channels in a block of this CPU's layout."""
    networks: list[Measured]

    @property
    def by_source(self) -> dict[str, list[Measured]]:
        """The networks of each source."""
        found = defaultdict(list)
        for each in self.networks:
            found[each.source].append(each)
        return found

    @property
    def goals(self) -> list[Goal]:
        """Goals, and whether this machine meets them."""
        near = 100 * sum(each.is_near for each in self.networks) / len(self.networks)
        under = sum(each.is_under for each in self.networks)
        return [
            Goal.at_least("networks whose peak memory is predicted within 2 %, %", "percent", near, 95.0),
            Goal.at_most("networks that need over 5 % more than predicted", "networks", under, 0),
        ]

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as plain data; sizes in bytes."""
        return {
            "benchmark": "memory",
            "environment": self.environment,
            "block_size": self.block_size,
            "networks": [{**each._asdict(), "error": each.error} for each in self.networks],
            "goals": [goal._asdict() for goal in self.goals],
        }


def run(*, networks: int, seed: int, progress: Callable[[str], None]) -> MemoryBenchmark:
    """Compare peak memory of named networks and of samples of all named spaces.

    Args:
        networks: number of networks.
        seed: seed of the samples.
        progress: called with a description of each step.

    Raises:
        BudgetnetError: ONNX Runtime fails, or reports nothing of a network.
    """
    import torch

    from budgetnet.training.devices import describe_environment

    block_size, drawn = channels_in_block(), list(draw(networks, seed=seed))
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, networks, _AT_ONCE):
            chunk = drawn[start : start + _AT_ONCE]
            paths = [Path(folder) / f"{number}.onnx" for number in range(len(chunk))]
            for number, ((_, spec), path) in enumerate(zip(chunk, paths, strict=True), start + 1):
                progress(f"network {number} of {networks}: {spec.label}")
                planned_memory.write_model(spec, path)
            for (source, spec), peak in zip(chunk, planned_memory.measure(paths), strict=True):
                measured.append(Measured(source, spec.label, peak_memory(spec, block_size=block_size), peak))
    environment = describe_environment(torch.device("cpu"))
    environment["packages"]["onnxruntime"] = version("onnxruntime")
    return MemoryBenchmark(environment, block_size, measured)


def draw(count: int, *, seed: int) -> Iterator[tuple[str, ModelSpec]]:
    """Yield `count` networks with their sources: by turns one of each space and of the zoo, while it has others."""
    generator = np.random.default_rng(derive_seed(seed, "memory", 0))
    named = iter(zoo.names())
    while count > 0:
        if (name := next(named, None)) is not None:
            yield "zoo", zoo.get(name)
            count -= 1
        for source, space in NAMED.items():
            if count <= 0:
                return
            sample = space.params_at(space.sample(count=1, generator=generator), 0)
            yield source, space.spec(space.complete(sample), **_IMAGE)
            count -= 1
