"""`budgetnet.check` of specs by name and file, and of torch modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import TINY
from torch import Tensor, nn

import budgetnet as bn
from budgetnet.data import DataSet
from budgetnet.model.network import build


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10)
    )


def test_module_cost_matches_hand_count() -> None:
    verdict = bn.check(small(), max_params=1522, input_shape=(3, 4, 4))
    # 3 * 8 * 9 + 2 * 8 + 128 * 10 + 10 parameters; a product for each weight and place; 8 * 16 + 10 outputs.
    assert tuple(verdict.cost) == (216 + 16 + 1290, 216 * 16 + 1280, 138)
    assert verdict.fits
    assert not bn.check(small(), max_params=1521, input_shape=(3, 4, 4)).fits
    assert verdict.edits == ()


class Tokens(nn.Module):
    """Hands each pixel to a layer as a token."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        inputs = [tokens] * (3 if isinstance(self.layer, nn.MultiheadAttention) else 1)
        found = self.layer(*inputs)
        features: Tensor = found[0] if isinstance(found, tuple) else found
        return features


ATTENTION = 16 * (24 * 8 + 8 * 8) + 2 * 16 * 16 * 8
"""Projections to queries, keys and values and of the output, for 16 tokens of 8 features, and two products of them."""


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.MultiheadAttention(8, 2, batch_first=True), ATTENTION),
        (nn.TransformerEncoderLayer(8, 2, dim_feedforward=32, batch_first=True), ATTENTION + 2 * 16 * 8 * 32),
        (nn.LSTM(8, 5, batch_first=True), 16 * 4 * 5 * (8 + 5)),
        (nn.GRU(8, 5, batch_first=True), 16 * 3 * 5 * (8 + 5)),
        (nn.RNN(8, 5, batch_first=True), 16 * 5 * (8 + 5)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_fused_layers_are_counted(layer: nn.Module, macs: int) -> None:
    assert bn.check(Tokens(layer), input_shape=(8, 4, 4)).cost.macs == macs
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("name", ["reference", "resnet20", "wrn-16-4"])
def test_a_built_network_counts_as_its_spec(name: str) -> None:
    spec = bn.zoo.get(name)
    assert bn.check(build(spec)).cost == bn.check(spec).cost


def test_a_network_is_checked_for_the_images_of_a_data_set(digits: DataSet) -> None:
    verdict = bn.check("resnet20", data=digits)
    # Of 269,722 parameters for colour images, 16 * 2 * 9 are for red and green.
    assert verdict.cost.params == 269_722 - 288
    assert verdict.cost == bn.check("resnet20", data="digits").cost == bn.check("resnet20", input_shape=(1, 8, 8)).cost
    grey = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert bn.check(grey, data=digits).cost == (650, 640, 10)
    with pytest.raises(bn.InputError, match=r"input_shape .*must not be given with data"):
        bn.check(grey, data=digits, input_shape=(1, 8, 8))


def test_module_is_unchanged() -> None:
    network = small()
    network[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    bn.check(network, input_shape=(3, 4, 4))
    assert [part.training for part in network] == [True, False, True, True, True]
    assert all((network.state_dict()[name] == tensor).all() for name, tensor in before.items())
    assert not any(part._forward_hooks for part in network)


def test_frozen_and_shared_parameters_count_once() -> None:
    shared = nn.Linear(4, 4)
    network = nn.Sequential(nn.Flatten(), shared, shared)
    shared.bias.requires_grad_(False)
    verdict = bn.check(network, input_shape=(1, 2, 2))
    assert tuple(verdict.cost) == (20, 32, 8)
    assert "4 of 20 counted params are frozen" in verdict.note


def test_a_module_that_fails_on_the_image_is_refused_in_one_line() -> None:
    with pytest.raises(bn.InputError, match=r"network.*Sequential.*fails on an image of 3x5x5") as refused:
        bn.check(small(), input_shape=(3, 5, 5))
    assert "\n" not in str(refused.value)


def test_a_spec_is_taken_by_name_and_file(tmp_path: Path) -> None:
    TINY.save(tmp_path / "tiny.yaml")
    assert bn.check(tmp_path / "tiny.yaml").cost == bn.check(str(tmp_path / "tiny.yaml")).cost == TINY.cost
    with pytest.raises(bn.InputError, match="no such network"):
        bn.check("none-such")
    with pytest.raises(bn.InputError, match="must be a spec"):
        bn.check(3)  # type: ignore[arg-type]
