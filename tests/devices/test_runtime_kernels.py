"""Tests that the kernels a prediction adds up are those that ONNX Runtime executes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from strategies import examples, specs

from budgetnet.bench.planned_memory import write_model
from budgetnet.devices.onnx_models import onnx_model
from budgetnet.devices.onnxruntime_timing import OnnxRuntime, signature
from budgetnet.model.deployed.calls import Kernel, calls_of
from budgetnet.model.deployed.graph import graph_of
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec

RUNTIME = OnnxRuntime(threads=1, batch=1)
BASE: dict[str, Any] = {"channels": [16, 24, 40], "blocks": 2, "input_shape": (3, 16, 16)}
NETWORKS: dict[str, dict[str, Any]] = {
    "basic": {},
    "preact": {"block": "preact", "squeeze_excitation_ratio": 0.25},
    "grouped": {"channels": [32, 64], "groups": 2},
    "bottleneck": {"block": "bottleneck", "channels": [64, 88], "shortcut": "average-pool"},
    "inverted": {
        "block": "bottleneck",
        "bottleneck_ratio": 0.75,
        "group_width": 1,
        "block_activation": False,
        "activation": "silu",
    },
    "padding, pooled": {"shortcut": "padding", "downsampling": "max-pool", "stem": {"whitening": 2}},
    "head": {"head": {"channels": 48, "scale": 0.5}, "stem": {"inner_channels": [8], "pool_size": 3}},
}


def executed(spec: ModelSpec) -> Counter[Any]:
    return Counter(RUNTIME.signatures(graph_of(lower(spec))))


def expected(spec: ModelSpec) -> Counter[Any]:
    calls = calls_of(lower(spec), runtime="onnxruntime", block=RUNTIME.block)
    return Counter(signature(call, RUNTIME.block) for call in calls)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_runtime_executes_the_kernels_of_the_prediction(name: str) -> None:
    spec = ModelSpec.resnet(**{**BASE, **NETWORKS[name]})
    found = executed(spec)
    # Copies between shapes, which have no name in the table.
    found = Counter({each: count for each, count in found.items() if each.name not in ("Flatten", "Reshape")})
    assert found == expected(spec)


@pytest.mark.parametrize("name", ["preact", "inverted", "padding, pooled"])
def test_networks_are_written_as_exported(name: str, tmp_path: Path) -> None:
    spec = ModelSpec.resnet(**{**BASE, **NETWORKS[name]})
    write_model(spec, tmp_path / "exported.onnx")
    ours = optimised(onnx_model(graph_of(lower(spec)), batch=1), tmp_path)
    theirs = optimised((tmp_path / "exported.onnx").read_bytes(), tmp_path)
    assert ours == theirs


def optimised(model: bytes, folder: Path) -> Counter[tuple[str, ...]]:
    """Return the operations of a model as the runtime optimises it, with the shapes of their weights."""
    import onnx

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(folder / "optimised.onnx").graph
    shapes = {each.name: str(list(each.dims)) for each in graph.initializer}
    found: Counter[tuple[str, ...]] = Counter()
    for node in graph.node:
        weights = [shapes.get(name, "") for name in node.input[1:2]] if "Conv" in node.op_type else []
        if node.op_type not in ("Flatten", "Reshape"):
            found[node.domain, node.op_type, *weights, str(len(node.input) > 3)] += 1
    return found


@given(spec=specs())
@examples(60)
def test_kernels_are_read_as_they_are_written(spec: ModelSpec) -> None:
    for block in (1, 8, 16):
        for call in calls_of(lower(spec), runtime="onnxruntime", block=block):
            assert Kernel.parse(str(call.kernel)) == call.kernel


def test_weights_are_the_same_for_the_same_seed() -> None:
    graph = graph_of(lower(ModelSpec.resnet(**BASE)))
    assert onnx_model(graph, batch=1, seed=3) == onnx_model(graph, batch=1, seed=3)
    assert onnx_model(graph, batch=1, seed=3) != onnx_model(graph, batch=1, seed=4)
    session = onnxruntime.InferenceSession(onnx_model(graph, batch=2), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": np.ones((2, 3, 16, 16), np.float32)})
    assert logits.shape == (2, 10)
    assert np.isfinite(logits).all()
