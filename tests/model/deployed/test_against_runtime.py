"""Tests of predicted peak memory and weights, against what ONNX Runtime itself plans and stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from strategies import examples, specs

from budgetnet.bench.planned_memory import LAYOUT, measure, write_model
from budgetnet.common.cpu import channels_in_block
from budgetnet.model.deployed.memory import planned_memory
from budgetnet.model.deployed.operations import operations
from budgetnet.model.deployed.weights import weight_bytes
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec
from budgetnet.study.space.named import NAMED

MANY = 64
"""Images in a batch, so that the runtime requests memory for small networks too."""


def network(**fields: Any) -> ModelSpec:
    """Return a small network, most of whose widths are no multiples of a block."""
    defaults: dict[str, Any] = {"channels": [16, 24, 36], "blocks": [2, 1, 1], "input_shape": (3, 12, 10), "stem": 16}
    return ModelSpec.resnet(**{**defaults, **fields})


INNER = {"ratio_of": "input", "place": "inner"}
NETWORKS = {
    "basic": network(),
    "preact, padding": network(block="preact", shortcut={"kind": "padding"}, conv_bias=True),
    "bottleneck, whitening, average-pool": network(
        block="bottleneck",
        bottleneck_ratio=0.5,
        shortcut="average-pool",
        squeeze_excitation_ratio=0.25,
        stem={"channels": 16, "whitening": 2, "inner_channels": [5]},
    ),
    "inverted, silu": network(
        block="bottleneck",
        bottleneck_ratio=2,
        bottleneck_ratio_of="input",
        group_width=1,
        block_activation=False,
        shortcut="identity",
        activation="silu",
        squeeze_excitation_ratio=0.5,
        squeeze_excitation=INNER,
        head={"channels": 40},
    ),
    "preact-bottleneck, grouped, gelu": network(
        block="preact-bottleneck",
        groups=3,
        channels=[12, 36, 96],
        bottleneck_ratio=1,
        activation="gelu",
        stem={"channels": 12, "kernel_size": 5, "pool_size": 3},
        head={"pooling": "max", "scale": 0.5},
    ),
    "no shortcut, relu6, pooled": network(
        shortcut="none",
        activation="relu6",
        downsampling="max-pool",
        groups=2,
        squeeze_excitation_ratio=0.25,
        head={"pool_size": 2},
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """ONNX models of `NETWORKS`, in their order."""
    folder = tmp_path_factory.mktemp("models")
    paths = [folder / f"{number}.onnx" for number in range(len(NETWORKS))]
    for path, spec in zip(paths, NETWORKS.values(), strict=True):
        write_model(spec, path)
    return paths


def predicted(spec: ModelSpec, block_size: int) -> int:
    return planned_memory(operations(lower(spec), block_size=block_size), images=MANY)


def test_the_runtime_plans_what_is_predicted(models: list[Path]) -> None:
    block_size = channels_in_block()
    found = dict(zip(NETWORKS, measure(models, images=MANY), strict=True))
    assert found == {name: predicted(spec, block_size) for name, spec in NETWORKS.items()}


def test_the_runtime_plans_what_is_predicted_without_blocks(models: list[Path]) -> None:
    found = dict(zip(NETWORKS, measure(models, images=MANY, disabled=[LAYOUT]), strict=True))
    assert found == {name: predicted(spec, 1) for name, spec in NETWORKS.items()}


def test_weights_are_those_of_the_runtimes_graph(models: list[Path], tmp_path: Path) -> None:
    found = {
        name: initializer_bytes(path, tmp_path / "optimised.onnx") for name, path in zip(NETWORKS, models, strict=True)
    }
    assert found == {name: weight_bytes(spec) for name, spec in NETWORKS.items()}


def initializer_bytes(model: Path, optimised: Path) -> int:
    """Return the bytes of a network's weights in the graph that the runtime makes of a model, without its layout."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimised)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(optimised).graph.initializer}
    # Without the constants of normalisation, the scale of the logits, and shapes.
    return sum(
        each.nbytes
        for name, each in stored.items()
        if each.dtype == np.float32 and each.ndim and name not in ("mean", "std")
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_runtime_plans_what_is_predicted_for_many_networks(tmp_path: Path) -> None:
    block_size, generator = channels_in_block(), np.random.default_rng(0)
    found: list[ModelSpec] = []
    for space in NAMED.values():
        columns = space.sample(count=5, generator=generator)
        for place in range(5):
            params = {name: column[place] for name, column in columns.items()}
            found.append(space.spec(params, input_shape=(3, 24, 20), num_classes=10))

    @examples(40)
    @given(specs(max_side=20, max_multiple=12))
    def collect(spec: ModelSpec) -> None:
        found.append(spec)

    collect()
    paths = [tmp_path / f"{number}.onnx" for number in range(len(found))]
    for path, spec in zip(paths, found, strict=True):
        write_model(spec, path)
    measured = measure(paths, images=MANY)
    assert measured == [predicted(spec, block_size) for spec in found]
