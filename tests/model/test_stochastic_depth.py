"""Stochastic depth against its published formula, written out for each block."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from budgetnet.model.network import ResNet, build, set_stochastic_depth
from budgetnet.model.spec import ModelSpec

RATE = 0.6


def network_of(**changes: Any) -> ResNet:
    """Return a network of four blocks, of which the third changes the shape."""
    torch.manual_seed(0)
    return build(ModelSpec.resnet(channels=[8, 12], blocks=2, input_shape=(3, 8, 8), **changes))


def by_formula(network: Any, images: Tensor, *, rates: list[float]) -> Tensor:
    """Compute the logits in training mode with each block's branch dropped at random and scaled otherwise."""
    maps = network.stem(images)
    blocks = [block for stage in network.stages for block in stage]
    for block, rate in zip(blocks, rates, strict=True):
        active = torch.relu(block.norm1(maps)) if block.preact else maps
        if block.preact:
            branch = block.conv2(torch.relu(block.norm2(block.conv1(active))))
        else:
            branch = block.norm2(block.conv2(torch.relu(block.norm1(block.conv1(active)))))
        if block.squeeze_excitation is not None:
            branch = block.squeeze_excitation(branch)
        kept = torch.empty(len(images), 1, 1, 1).bernoulli_(1 - rate)
        total = kept * branch / (1 - rate) + (maps if block.shortcut is None else block.shortcut(active))
        maps = total if block.preact else torch.relu(total)
    logits: Tensor = network.head(maps)
    return logits


@pytest.mark.parametrize("block", ["basic", "preact"])
@pytest.mark.parametrize("ratio", [None, 0.25])
def test_logits_equal_the_formula_with_rates_that_grow_with_depth(block: str, ratio: float | None) -> None:
    network = network_of(block=block, squeeze_excitation_ratio=ratio)
    set_stochastic_depth(network, RATE)
    reference = copy.deepcopy(network)
    images = torch.randn(64, 3, 8, 8)
    torch.manual_seed(1)
    found = network.train()(images)
    torch.manual_seed(1)
    expected = by_formula(reference.train(), images, rates=[0.15, 0.3, 0.45, 0.6])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", ["basic", "preact", "bottleneck"])
def test_evaluation_and_a_rate_of_0_change_nothing(block: str) -> None:
    network = network_of(block=block)
    plain = copy.deepcopy(network)
    images = torch.randn(16, 3, 8, 8)
    for rate, training in ((RATE, False), (0.0, True)):
        set_stochastic_depth(network, rate)
        before = torch.get_rng_state()
        assert torch.equal(network.train(training)(images), plain.train(training)(images))
        assert torch.equal(torch.get_rng_state(), before), "no random numbers are used"
    set_stochastic_depth(network, RATE)
    assert not torch.equal(network.train()(images), plain.train()(images))


def test_images_are_dropped_independently_at_the_rate_of_the_block() -> None:
    network = network_of()
    set_stochastic_depth(network, RATE)
    last = network.stages[1][1].train()  # type: ignore[index]
    maps = torch.rand(4000, 12, 2, 2)
    with torch.no_grad():
        dropped = (last(maps) == maps).flatten(1).all(dim=1)
    assert 0.57 < dropped.double().mean() < 0.63
    # As often after another dropped image as after one that is kept.
    assert 0.57 < dropped[1:][dropped[:-1]].double().mean() < 0.63


def test_blocks_without_a_shortcut_are_never_dropped() -> None:
    network = network_of(shortcut={"kind": "none"})
    plain = copy.deepcopy(network)
    set_stochastic_depth(network, RATE)
    images = torch.randn(16, 3, 8, 8)
    torch.testing.assert_close(network.train()(images), plain.train()(images))
