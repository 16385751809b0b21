"""Tests of predicted operations, peak memory and weights, without a runtime."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from strategies import examples, specs

from budgetnet.model import zoo
from budgetnet.model.deployed.memory import peak_memory, planned_memory
from budgetnet.model.deployed.operations import BLOCK_SIZES, operations
from budgetnet.model.deployed.weights import weight_bytes
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec

# Measured with ONNX Runtime 1.32 and AVX-512.
MEASURED = {
    "reference": 548_864,
    "resnet20": 221_184,
    "wrn-16-4": 876_544,
    "preact-resnet-20x4": 811_008,
    "resnext-29-32x4d": 3_432_448,
    "mobilenet-v2": 1_597_440,
    "mobilenet-v2-224": 6_823_936,
    "zbw-p": 286_720,
    "resnet18": 4_415_488,
    "resnet18-d": 7_626_752,
    "se-resnet18": 4_415_488,
    "resnet50": 5_619_712,
    "regnetx-400mf": 4_415_488,
    "regnety-400mf": 7_626_752,
}


@pytest.mark.parametrize("name", MEASURED)
def test_measured_peaks_of_named_networks(name: str) -> None:
    assert peak_memory(zoo.get(name)) == MEASURED[name]


@examples(200)
@given(specs())
def test_every_tensor_is_written_once_before_it_is_read(spec: ModelSpec) -> None:
    for block_size in BLOCK_SIZES:
        known = {0}
        executed = operations(lower(spec), block_size=block_size)
        for operation in executed:
            assert known.issuperset(operation.inputs)
            assert operation.output not in known
            known.add(operation.output)
        read = {tensor for operation in executed for tensor in operation.inputs}
        assert known - read == {executed[-1].output}


@examples(200)
@given(specs())
def test_peak_holds_the_largest_operation(spec: ModelSpec) -> None:
    executed = operations(lower(spec))
    largest = max((4 * operation.size for operation in executed[:-1]), default=0)
    assert largest <= planned_memory(executed) <= sum(-(-4 * each.size // 256) * 256 for each in executed)


def test_prediction_loads_neither_torch_nor_the_runtime() -> None:
    code = (
        "import sys; from budgetnet.model import zoo; from budgetnet.model.deployed.memory import peak_memory;"
        "peak_memory(zoo.reference); assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@examples(200)
@given(specs())
def test_weights_are_the_parameters_but_for_norms(spec: ModelSpec) -> None:
    norms = sum(layer.out_channels for layer in lower(spec).layers() if layer.kind == "norm")
    # A folded norm leaves a bias, one that is not leaves four numbers for each channel.
    assert 4 * (spec.params - 2 * norms) <= weight_bytes(spec) <= 4 * (spec.params + 2 * norms)
    assert weight_bytes(spec, "float16") * 2 == weight_bytes(spec)


def test_weights_of_a_network_counted_by_hand() -> None:
    # Stem of 3 -> 4 channels, one block of 3x3 convolutions, all with folded norms, and a linear layer 4 -> 10.
    spec = ModelSpec.resnet(channels=[4])
    weights, outputs = 9 * 3 * 4 + 2 * 9 * 4 * 4 + 4 * 10, 3 * 4 + 10
    assert weight_bytes(spec) == 4 * (weights + outputs)
    assert weight_bytes(spec, "int8") == weights + 8 * outputs
    # Norms in front of both blocks' first convolution and of the head are kept, as other things read their input.
    preact = ModelSpec.resnet(channels=[4], block="preact")
    assert weight_bytes(preact, "int8") == weights + 4 * outputs + 4 * (4 + 10) + 16 * 2 * 4
