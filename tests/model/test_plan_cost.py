"""Closed-form cost and plan against built networks: parameters, MACs, activations and output shapes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import event, given
from strategies import examples, many_examples, specs
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from budgetnet.common.errors import InputError
from budgetnet.model.cost import cost_of, layer_cost
from budgetnet.model.lowering import lower
from budgetnet.model.network import build, count_parameters
from budgetnet.model.plan import Layer
from budgetnet.model.spec import ModelSpec
from budgetnet.model.verify import count_built

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from thop import profile


def image_for(spec: ModelSpec) -> Tensor:
    return torch.rand(1, *spec.input_shape)


@contextmanager
def record_output_shapes(network: nn.Module) -> Iterator[dict[str, tuple[int, ...]]]:
    """Record output shapes without the batch by module path, in the order in which modules finish."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add_hook(path: str, module: nn.Module) -> None:
        def record(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert path not in shapes, f"{path} ran twice"
            shapes[path] = tuple(output.shape[1:])

        module.register_forward_hook(record)

    for path, module in network.named_modules():
        add_hook(path, module)
    yield shapes


def describe(spec: ModelSpec) -> None:
    """Report the kind of network in --hypothesis-show-statistics."""
    event(f"{spec.block}, {spec.shortcut.kind}")
    event(f"groups {spec.groups}, squeeze-and-excitation {spec.squeeze_excitation_ratio is not None}")


@many_examples
@given(specs())
def test_params_match_the_built_network(spec: ModelSpec) -> None:
    describe(spec)
    network = spec.build()
    assert spec.params == sum(parameter.numel() for parameter in network.parameters())
    assert count_parameters(network) == spec.params


@many_examples
@given(specs())
def test_macs_are_half_of_the_flops_counted_by_torch(spec: ModelSpec) -> None:
    network = build(spec).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = network(image_for(spec))
    assert 2 * spec.macs == counter.get_total_flops()
    assert logits.shape == (1, spec.num_classes)


@examples(150)
@given(specs(max_side=5))
def test_params_match_thop(spec: ModelSpec) -> None:
    with torch.no_grad():
        _, params = profile(build(spec).eval(), inputs=(image_for(spec),), verbose=False)
    assert int(params) == spec.params


@many_examples
@given(specs())
def test_layers_run_in_the_order_and_with_the_shapes_of_the_plan(spec: ModelSpec) -> None:
    network = build(spec).eval()
    with record_output_shapes(network) as shapes, torch.no_grad():
        network(image_for(spec))
    layers = list(lower(spec).layers())
    planned = {
        layer.path: (layer.out_channels,) if layer.kind == "linear" else (layer.out_channels, layer.height, layer.width)
        for layer in layers
    }
    assert len(planned) == len(layers)
    assert {path: shape for path, shape in shapes.items() if path in planned} == planned
    assert [path for path in shapes if path in planned] == list(planned)


@many_examples
@given(specs())
def test_activations_match_the_outputs_of_convolutions_and_linear_layer(spec: ModelSpec) -> None:
    network = build(spec).eval()
    elements = []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda _module, _inputs, output: elements.append(output.numel()))
    with torch.no_grad():
        network(image_for(spec))
    assert spec.activations == sum(elements)


@examples(100)
@given(specs())
def test_parameter_names_and_counts_match_the_plan(spec: ModelSpec) -> None:
    network = build(spec)
    sizes = {layer.path: layer_cost(layer).params for layer in lower(spec).layers() if layer.kind != "block"}
    built: dict[str, int] = {}
    for name, parameter in network.named_parameters():
        path = name.rpartition(".")[0]
        built[path] = built.get(path, 0) + parameter.numel()
    assert built == sizes


@examples(60)
@given(specs())
def test_every_unfrozen_parameter_receives_a_gradient(spec: ModelSpec) -> None:
    network = build(spec).train()
    logits = network(torch.rand(3, *spec.input_shape))
    assert logits.shape == (3, spec.num_classes)
    logits.sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == (["stem.whitening.weight"] if spec.stem.whitening else [])


@examples(20)
@given(specs(max_side=5))
def test_count_built_matches_the_closed_form(spec: ModelSpec) -> None:
    counted = count_built(spec)
    assert counted == {"built_params": spec.params, "thop_params": spec.params, "torch_macs": spec.macs}


@pytest.mark.parametrize(
    ("layer", "params", "macs", "activations"),
    [
        # 5x5 kernel, 3 input and 8 output channels: 25 * 3 * 8 weights, used at 4 * 6 positions.
        (Layer("x", "conv", 3, 8, 4, 6, kernel_size=5), 600, 14_400, 192),
        # Two groups with 4 input and 3 output channels each: 9 * 4 * 6 weights and 6 biases.
        (Layer("x", "conv", 8, 6, 2, 2, kernel_size=3, groups=2, bias=True), 222, 864, 24),
        (Layer("x", "linear", 64, 10, 1, 1, bias=True), 650, 640, 10),
        (Layer("x", "norm", 7, 7, 9, 9), 14, 0, 0),
        (Layer("x", "block", 7, 7, 9, 9), 0, 0, 0),
    ],
)
def test_layer_cost_by_hand(layer: Layer, params: int, macs: int, activations: int) -> None:
    assert layer_cost(layer) == (params, macs, activations)


@pytest.mark.parametrize(
    ("channels", "ratio", "hidden"), [(16, 0.25, 4), (16, 0.0625, 1), (8, 0.01, 1), (6, 0.3, 2), (10, 0.25, 2)]
)
def test_squeeze_excitation_adds_two_convolutions_with_biases(channels: int, ratio: float, hidden: int) -> None:
    plain = ModelSpec.resnet(channels=[channels], blocks=2)
    squeezed = plain.replace(squeeze_excitation_ratio=ratio)
    assert squeezed.params - plain.params == 2 * (2 * channels * hidden + hidden + channels)
    assert squeezed.macs - plain.macs == 2 * 2 * channels * hidden
    assert squeezed.activations - plain.activations == 2 * (hidden + channels)


def test_input_size_is_a_side_or_a_pair() -> None:
    spec = ModelSpec.resnet(channels=[4, 8])
    assert lower(spec, input_size=9) == lower(spec, input_size=(9, 9))
    assert lower(spec, input_size=(9, 5)).input_shape == (3, 9, 5)
    assert cost_of(spec, input_size=32) == spec.cost
    assert cost_of(spec, input_size=64).macs > spec.macs
    assert cost_of(spec, input_size=64).params == spec.params


@pytest.mark.parametrize("size", [0, -3, (4, 0)])
def test_input_size_below_one_pixel_is_rejected(size: int | tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"input_size = .*at least 1 pixel"):
        lower(ModelSpec.resnet(channels=[4]), input_size=size)


def test_error_names_the_stride_if_the_input_is_too_small() -> None:
    with pytest.raises(InputError) as caught:
        lower(ModelSpec.resnet(channels=[4, 4], strides=[2, 2]), input_size=1)
    assert caught.value.field == "stages[0].stride"
