"""Fused batch norm, addition and ReLU: bit-identical to torch's modules, and close to float64 formulas."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from budgetnet.model.batch_norm import is_faster, norm_relu
from budgetnet.model.network import build
from budgetnet.model.spec import ModelSpec

SHAPES = [(8, 16, 32, 32), (7, 9, 5, 6), (128, 64, 8, 8), (6, 300, 4, 4), (5, 16, 1, 1)]


def random_maps(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator) * 2 + 0.5
    return values.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def random_norm(channels: int) -> nn.BatchNorm2d:
    norm, generator = nn.BatchNorm2d(channels), torch.Generator().manual_seed(9)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    return norm


def run_step(
    norm: nn.BatchNorm2d, maps: Tensor, added: Tensor | None, gradient: Tensor, *, fused: bool
) -> dict[str, Tensor]:
    """Return output, gradients and running statistics of one step."""
    norm = copy.deepcopy(norm)
    leaves = [None if each is None else each.clone().requires_grad_() for each in (maps, added)]
    inputs, others = leaves
    assert inputs is not None
    if fused:
        output = norm_relu(norm, inputs, others)
    else:
        normalised = norm(inputs)
        output = functional.relu(normalised if others is None else normalised + others)
    torch.autograd.backward(output, gradient)
    gradients = {name: each.grad for name, each in norm.named_parameters()}
    gradients |= {f"gradient {index}": each.grad for index, each in enumerate(leaves) if each is not None}
    assert all(each is not None for each in gradients.values())
    return {"output": output.detach(), **dict(norm.named_buffers()), **gradients}  # type: ignore[dict-item]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("adds", [False, True])
def test_fused_step_is_bit_identical_to_the_modules(shape: tuple[int, ...], *, adds: bool) -> None:
    maps, added, gradient = (random_maps(shape, seed) for seed in range(3))
    norm = random_norm(shape[1])
    arguments = (norm, maps, added if adds else None, gradient)
    fused, modules = run_step(*arguments, fused=True), run_step(*arguments, fused=False)
    assert fused.keys() == modules.keys()
    for name, expected in modules.items():
        assert torch.equal(fused[name], expected), name


def test_fused_step_matches_the_formulas_in_float64() -> None:
    shape = (32, 16, 8, 8)
    maps, added, gradient = (random_maps(shape, seed) for seed in range(3))
    norm = random_norm(16)
    fused = run_step(norm, maps, added, gradient, fused=True)
    values, addend, upstream = (each.double() for each in (maps, added, gradient))
    mean, variance = values.mean(dim=(0, 2, 3), keepdim=True), values.var(dim=(0, 2, 3), correction=0, keepdim=True)
    weight, bias = (each.detach().double().view(1, -1, 1, 1) for each in (norm.weight, norm.bias))
    standard = (values - mean) / (variance + 1e-5).sqrt()
    expected = (standard * weight + bias + addend).clamp(min=0)
    torch.testing.assert_close(fused["output"].double(), expected, rtol=2**-7, atol=2**-5)
    passed = upstream * (fused["output"] > 0)
    torch.testing.assert_close(fused["bias"].double(), passed.sum(dim=(0, 2, 3)), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(fused["weight"].double(), (passed * standard).sum(dim=(0, 2, 3)), rtol=1e-4, atol=1e-3)
    centred = passed - passed.mean(dim=(0, 2, 3), keepdim=True)
    projected = standard * (passed * standard).mean(dim=(0, 2, 3), keepdim=True)
    input_gradient = weight / (variance + 1e-5).sqrt() * (centred - projected)
    torch.testing.assert_close(fused["gradient 0"].double(), input_gradient, rtol=2**-7, atol=1e-3)
    torch.testing.assert_close(fused["gradient 1"].double(), passed)
    count = maps.numel() / 16
    running = 0.9 + 0.1 * variance.flatten() * count / (count - 1)
    torch.testing.assert_close(fused["running_var"].double(), running, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fused["running_mean"].double(), 0.1 * mean.flatten(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_propagated(value: float) -> None:
    # Enough channels for torch's vectorised batch norm, whose NaN has a negative sign.
    maps = random_maps((4, 32, 4, 4), 0)
    maps[1, 2, 0, 0] = value
    arguments = (random_norm(32), maps, None, random_maps((4, 32, 4, 4), 1))
    fused, modules = run_step(*arguments, fused=True)["output"], run_step(*arguments, fused=False)["output"]
    assert modules.isnan().any()
    assert torch.equal(fused.isnan(), modules.isnan())


def test_fused_only_for_training_in_bfloat16_with_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, maps = random_norm(8), random_maps((4, 8, 3, 3), 0)
    assert is_faster(norm, maps)
    assert not is_faster(norm, maps.float())
    assert not is_faster(norm, maps.contiguous())
    assert not is_faster(norm, maps[:1, :, :1, :1])
    assert not is_faster(random_norm(8).eval(), maps)
    monkeypatch.setenv("BUDGETNET_CPU_SETTINGS", "off")
    assert not is_faster(norm, maps)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shortcut": {"kind": "padding", "kernel_size": 1}},
        {"shortcut": {"kind": "none", "kernel_size": 1}},
        {"shortcut": {"kind": "average-pool", "kernel_size": 1}},
        {"block": "preact"},
        {"block": "bottleneck"},
        {"squeeze_excitation_ratio": 0.25},
        {"activation": "silu"},
    ],
    ids=str,
)
def test_network_logits_and_gradients_are_bit_identical_with_and_without_fusion(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    spec = ModelSpec.resnet(channels=[16, 32], blocks=[2, 1], input_shape=(3, 12, 12), num_classes=5, **changes)
    torch.manual_seed(0)
    network, images = build(spec).to(memory_format=torch.channels_last), torch.randn(8, 3, 12, 12)
    images = images.contiguous(memory_format=torch.channels_last)
    results = []
    for setting in ("on", "off"):
        monkeypatch.setenv("BUDGETNET_CPU_SETTINGS", setting)
        copied = copy.deepcopy(network)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = copied(images)
        torch.autograd.backward(functional.cross_entropy(logits.float(), torch.arange(8) % 5))
        nodes = " ".join(_operations(logits))
        assert ("_NormReLU" in nodes) == (setting == "on" and "activation" not in changes)
        results.append([logits, *(each.grad for each in copied.parameters()), *copied.buffers()])
    for fused, modules in zip(*results, strict=True):
        assert torch.equal(fused, modules)


def _operations(logits: Tensor) -> Iterator[str]:
    """Yield the names of all operations in the autograd graph."""
    pending, seen = [logits.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node.name()
        pending += [each for each, _ in node.next_functions]
