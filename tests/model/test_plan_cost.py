"""The closed form against the built network: parameters, MACs, activations and the shape of every layer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import event, given, settings
from strategies import specs, thorough
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from budgetnet.common.errors import InputError
from budgetnet.model.cost import cost_of, layer_cost
from budgetnet.model.network import build, count_parameters
from budgetnet.model.plan import Layer, lower
from budgetnet.model.spec import ModelSpec
from budgetnet.model.verify import count_built

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from thop import profile


def image_for(spec: ModelSpec) -> Tensor:
    return torch.rand(1, *spec.input_shape)


@contextmanager
def outputs_seen(network: nn.Module) -> Iterator[dict[str, tuple[int, ...]]]:
    """Output shape, without the batch, of every module by its path, in the order in which they finish."""
    seen: dict[str, tuple[int, ...]] = {}

    def watch(path: str, module: nn.Module) -> None:
        def note(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert path not in seen, f"{path} ran twice"
            seen[path] = tuple(output.shape[1:])

        module.register_forward_hook(note)

    for path, module in network.named_modules():
        watch(path, module)
    yield seen


def describe(spec: ModelSpec) -> None:
    """Lets --hypothesis-show-statistics tell which kinds were drawn."""
    event(f"{spec.block}, {spec.shortcut.kind}")
    event(f"groups {spec.groups}, squeeze-and-excitation {spec.squeeze_excitation_ratio is not None}")


@thorough
@given(specs())
def test_closed_form_parameters_are_the_built_ones(spec: ModelSpec) -> None:
    describe(spec)
    network = spec.build()
    assert spec.params == sum(parameter.numel() for parameter in network.parameters())
    assert count_parameters(network) == spec.params


@thorough
@given(specs())
def test_closed_form_macs_are_half_of_what_torch_counts(spec: ModelSpec) -> None:
    network = build(spec).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = network(image_for(spec))
    assert 2 * spec.macs == counter.get_total_flops()
    assert logits.shape == (1, spec.num_classes)


@settings(thorough, max_examples=150)
@given(specs(max_side=5))
def test_thop_counts_the_same_parameters(spec: ModelSpec) -> None:
    with torch.no_grad():
        _, params = profile(build(spec).eval(), inputs=(image_for(spec),), verbose=False)
    assert int(params) == spec.params


@thorough
@given(specs())
def test_every_layer_of_the_plan_runs_in_its_order_with_its_shape(spec: ModelSpec) -> None:
    network = build(spec).eval()
    with outputs_seen(network) as seen, torch.no_grad():
        network(image_for(spec))
    layers = list(lower(spec).layers())
    ours = {
        layer.path: (layer.out_channels,) if layer.kind == "linear" else (layer.out_channels, layer.height, layer.width)
        for layer in layers
    }
    assert len(ours) == len(layers)
    assert {path: shape for path, shape in seen.items() if path in ours} == ours
    assert [path for path in seen if path in ours] == list(ours)


@thorough
@given(specs())
def test_activations_are_what_convolutions_and_the_linear_layer_put_out(spec: ModelSpec) -> None:
    network = build(spec).eval()
    elements = []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda _module, _inputs, output: elements.append(output.numel()))
    with torch.no_grad():
        network(image_for(spec))
    assert spec.activations == sum(elements)


@settings(thorough, max_examples=100)
@given(specs())
def test_every_tensor_stands_where_the_plan_says(spec: ModelSpec) -> None:
    network = build(spec)
    sizes = {layer.path: layer_cost(layer).params for layer in lower(spec).layers() if layer.kind != "block"}
    built: dict[str, int] = {}
    for name, parameter in network.named_parameters():
        path = name.rpartition(".")[0]
        built[path] = built.get(path, 0) + parameter.numel()
    assert built == sizes


@settings(thorough, max_examples=60)
@given(specs())
def test_a_batch_in_training_gives_gradients_to_every_parameter(spec: ModelSpec) -> None:
    network = build(spec).train()
    logits = network(torch.rand(3, *spec.input_shape))
    assert logits.shape == (3, spec.num_classes)
    logits.sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == (["stem.whitening.weight"] if spec.stem.whitening else [])


@settings(thorough, max_examples=20)
@given(specs(max_side=5))
def test_verification_agrees_with_the_closed_form(spec: ModelSpec) -> None:
    counted = count_built(spec)
    assert counted == {"built_params": spec.params, "thop_params": spec.params, "torch_macs": spec.macs}


@pytest.mark.parametrize(
    ("layer", "params", "macs", "activations"),
    [
        # 5x5 over 3 channels into 8: 25 * 3 * 8 weights at each of 4 * 6 positions.
        (Layer("x", "conv", 3, 8, 4, 6, kernel_size=5), 600, 14_400, 192),
        # Two groups of 4 into 3 each: 9 * 4 * 6 weights, and 6 biases.
        (Layer("x", "conv", 8, 6, 2, 2, kernel_size=3, groups=2, bias=True), 222, 864, 24),
        (Layer("x", "linear", 64, 10, 1, 1, bias=True), 650, 640, 10),
        (Layer("x", "norm", 7, 7, 9, 9), 14, 0, 0),
        (Layer("x", "block", 7, 7, 9, 9), 0, 0, 0),
    ],
)
def test_cost_of_a_layer_by_hand(layer: Layer, params: int, macs: int, activations: int) -> None:
    assert layer_cost(layer) == (params, macs, activations)


@pytest.mark.parametrize(
    ("channels", "ratio", "hidden"), [(16, 0.25, 4), (16, 0.0625, 1), (8, 0.01, 1), (6, 0.3, 2), (10, 0.25, 2)]
)
def test_squeeze_excitation_adds_two_convolutions_with_biases(channels: int, ratio: float, hidden: int) -> None:
    plain = ModelSpec.resnet(channels=[channels], blocks=2)
    gated = plain.replace(squeeze_excitation_ratio=ratio)
    assert gated.params - plain.params == 2 * (2 * channels * hidden + hidden + channels)
    assert gated.macs - plain.macs == 2 * 2 * channels * hidden
    assert gated.activations - plain.activations == 2 * (hidden + channels)


def test_input_size_of_the_plan_may_be_a_side_or_a_pair() -> None:
    spec = ModelSpec.resnet(channels=[4, 8])
    assert lower(spec, input_size=9) == lower(spec, input_size=(9, 9))
    assert lower(spec, input_size=(9, 5)).input_shape == (3, 9, 5)
    assert cost_of(spec, input_size=32) == spec.cost
    assert cost_of(spec, input_size=64).macs > spec.macs
    assert cost_of(spec, input_size=64).params == spec.params


@pytest.mark.parametrize("size", [0, -3, (4, 0)])
def test_an_input_below_one_pixel_is_refused(size: int | tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"input_size = .*at least 1 pixel"):
        lower(ModelSpec.resnet(channels=[4]), input_size=size)


def test_an_input_too_small_for_the_strides_names_the_stride() -> None:
    with pytest.raises(InputError) as caught:
        lower(ModelSpec.resnet(channels=[4, 4], strides=[2, 2]), input_size=1)
    assert caught.value.field == "stages[0].stride"
