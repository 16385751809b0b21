"""Batch norm, sum and ReLU in one function beside torch's own modules, bit by bit, and beside float64."""

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


def maps_of(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator) * 2 + 0.5
    return values.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def norm_of(channels: int) -> nn.BatchNorm2d:
    norm, generator = nn.BatchNorm2d(channels), torch.Generator().manual_seed(9)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    return norm


def outcome(
    norm: nn.BatchNorm2d, maps: Tensor, added: Tensor | None, gradient: Tensor, *, own: bool
) -> dict[str, Tensor]:
    """Output, gradients and statistics of one step."""
    norm = copy.deepcopy(norm)
    leaves = [None if each is None else each.clone().requires_grad_() for each in (maps, added)]
    inputs, others = leaves
    assert inputs is not None
    if own:
        output = norm_relu(norm, inputs, others)
    else:
        normed = norm(inputs)
        output = functional.relu(normed if others is None else normed + others)
    torch.autograd.backward(output, gradient)
    gradients = {name: each.grad for name, each in norm.named_parameters()}
    gradients |= {f"gradient {place}": each.grad for place, each in enumerate(leaves) if each is not None}
    assert all(each is not None for each in gradients.values())
    return {"output": output.detach(), **dict(norm.named_buffers()), **gradients}  # type: ignore[dict-item]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sums", [False, True])
def test_every_bit_is_what_the_modules_give(shape: tuple[int, ...], *, sums: bool) -> None:
    maps, added, gradient = (maps_of(shape, seed) for seed in range(3))
    norm = norm_of(shape[1])
    arguments = (norm, maps, added if sums else None, gradient)
    own, theirs = outcome(*arguments, own=True), outcome(*arguments, own=False)
    assert own.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert torch.equal(own[name], expected), name


def test_the_result_is_the_formulas_in_float64() -> None:
    shape = (32, 16, 8, 8)
    maps, added, gradient = (maps_of(shape, seed) for seed in range(3))
    norm = norm_of(16)
    own = outcome(norm, maps, added, gradient, own=True)
    values, rest, back = (each.double() for each in (maps, added, gradient))
    mean, variance = values.mean(dim=(0, 2, 3), keepdim=True), values.var(dim=(0, 2, 3), correction=0, keepdim=True)
    weight, bias = (each.detach().double().view(1, -1, 1, 1) for each in (norm.weight, norm.bias))
    standard = (values - mean) / (variance + 1e-5).sqrt()
    expected = (standard * weight + bias + rest).clamp(min=0)
    torch.testing.assert_close(own["output"].double(), expected, rtol=2**-7, atol=2**-5)
    passed = back * (own["output"] > 0)
    torch.testing.assert_close(own["bias"].double(), passed.sum(dim=(0, 2, 3)), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(own["weight"].double(), (passed * standard).sum(dim=(0, 2, 3)), rtol=1e-4, atol=1e-3)
    centred = passed - passed.mean(dim=(0, 2, 3), keepdim=True)
    projected = standard * (passed * standard).mean(dim=(0, 2, 3), keepdim=True)
    through = weight / (variance + 1e-5).sqrt() * (centred - projected)
    torch.testing.assert_close(own["gradient 0"].double(), through, rtol=2**-7, atol=1e-3)
    torch.testing.assert_close(own["gradient 1"].double(), passed)
    count = maps.numel() / 16
    running = 0.9 + 0.1 * variance.flatten() * count / (count - 1)
    torch.testing.assert_close(own["running_var"].double(), running, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(own["running_mean"].double(), 0.1 * mean.flatten(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_hidden(number: float) -> None:
    # Enough channels for torch's vectorised batch norm, whose NaN has the sign of a number below zero.
    maps = maps_of((4, 32, 4, 4), 0)
    maps[1, 2, 0, 0] = number
    arguments = (norm_of(32), maps, None, maps_of((4, 32, 4, 4), 1))
    own, theirs = outcome(*arguments, own=True)["output"], outcome(*arguments, own=False)["output"]
    assert theirs.isnan().any()
    assert torch.equal(own.isnan(), theirs.isnan())


def test_only_a_training_step_in_bfloat16_with_channels_last_takes_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, maps = norm_of(8), maps_of((4, 8, 3, 3), 0)
    assert is_faster(norm, maps)
    assert not is_faster(norm, maps.float())
    assert not is_faster(norm, maps.contiguous())
    assert not is_faster(norm, maps[:1, :, :1, :1])
    assert not is_faster(norm_of(8).eval(), maps)
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
def test_a_network_learns_the_same_bits_with_and_without(
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
        nodes = " ".join(_names(logits))
        assert ("_NormReLU" in nodes) == (setting == "on" and "activation" not in changes)
        results.append([logits, *(each.grad for each in copied.parameters()), *copied.buffers()])
    for own, theirs in zip(*results, strict=True):
        assert torch.equal(own, theirs)


def _names(logits: Tensor) -> Iterator[str]:
    """Names of the operations that the logits came from."""
    waiting, seen = [logits.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node.name()
        waiting += [each for each, _ in node.next_functions]
