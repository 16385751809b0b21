"""Initial weights: Dirac initialisation and whitening, checked by their outputs on images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import TINY, prepare, tiny_recipe
from torch import nn

from budgetnet.data import DataSet
from budgetnet.data.on_device import OnDeviceImages, normalise
from budgetnet.model.parts import Stem
from budgetnet.model.spec import ModelSpec
from budgetnet.training import initialisation
from budgetnet.training.initialisation import init_dirac, initialise, whiten, whitening_weights

WHITENED = TINY.replace(stem={"channels": 8, "whitening": 2})


@pytest.mark.parametrize(
    ("before", "after", "groups", "side"), [(3, 8, 1, 3), (8, 3, 1, 5), (4, 8, 2, 3), (6, 4, 2, 1)]
)
def test_dirac_filters_return_their_input_channels(before: int, after: int, groups: int, side: int) -> None:
    conv = nn.Conv2d(before, after, side, padding=side // 2, groups=groups, bias=False)
    untouched = conv.weight.detach().clone()
    init_dirac(conv)
    images = torch.randn(2, before, 5, 6)
    maps = conv(images).detach()
    into, out = before // groups, after // groups
    for group in range(groups):
        for channel in range(out):
            position = group * out + channel
            if channel < into:
                torch.testing.assert_close(maps[:, position], images[:, group * into + channel])
            else:
                assert torch.equal(conv.weight[position], untouched[position])


def test_dirac_initialisation_changes_no_other_layers_and_filters() -> None:
    spec = TINY.replace(squeeze_excitation_ratio=0.5, channels=[16])
    plain, passing = initialise(spec, 3).state_dict(), initialise(spec, 3, method="dirac").state_dict()
    changed = [name for name, value in plain.items() if not torch.equal(value, passing[name])]
    assert changed == [
        "stem.conv.weight",
        *(f"stages.0.0.{name}.weight" for name in ("conv1", "conv2", "shortcut.conv")),
    ]
    assert torch.equal(plain["stages.0.0.conv1.weight"][8:], passing["stages.0.0.conv1.weight"][8:])


def patches_by_loops(images: np.ndarray, side: int) -> np.ndarray:
    """Every patch of every image as a row."""
    _, _, height, width = images.shape
    found = [
        image[:, top : top + side, left : left + side].ravel()
        for image in images
        for top in range(height - side + 1)
        for left in range(width - side + 1)
    ]
    return np.array(found)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_whitened_patches_are_uncorrelated_with_variance_one(side: int) -> None:
    generator = np.random.default_rng(0)
    # Neighbouring pixels and channels are correlated, as in photographs.
    images = np.cumsum(np.cumsum(generator.normal(size=(30, 3, 9, 8)), axis=2), axis=3) + generator.normal(
        size=(1, 3, 1, 1)
    )
    filters = whitening_weights(torch.from_numpy(images).float(), side=side).double().numpy()
    size = 3 * side**2
    assert filters.shape == (2 * size, 3, side, side)
    assert np.array_equal(filters[size:], -filters[:size])
    outputs = patches_by_loops(images, side) @ filters[:size].reshape(size, -1).T
    moments = outputs.T @ outputs / len(outputs)
    # The published epsilon, 5e-4, is small compared with every variance of these images.
    assert np.abs(moments - np.eye(size)).max() < 0.02
    variances = ((patches_by_loops(images, side) @ (filters[:size].reshape(size, -1).T)) ** 2).mean(axis=0)
    norms = np.linalg.norm(filters[:size].reshape(size, -1), axis=1)
    assert np.all(np.diff(norms) > 0), "the direction of the largest variance comes first"
    assert variances == pytest.approx(np.ones(size), abs=0.02)


def test_the_whitening_convolution_is_computed_from_training_images_and_frozen(digits: DataSet) -> None:
    data = prepare(digits, tiny_recipe())
    network = initialise(data.adapt(WHITENED), 0)
    whiten(network, data.train)
    layer = network.stem.whitening
    assert layer is not None and not layer.weight.requires_grad
    images = normalise(data.train.images, data.train.mean, data.train.std).double().numpy()
    patches = patches_by_loops(images, 2)
    outputs = patches @ layer.weight.detach().double().numpy()[:4].reshape(4, -1).T
    variances, _ = np.linalg.eigh(patches.T @ patches / len(patches))
    expected = (variances / (variances + 5e-4))[::-1]
    assert (outputs**2).mean(axis=0) == pytest.approx(expected, rel=1e-3)
    assert layer.bias is not None and layer.bias.requires_grad


@pytest.mark.parametrize(("side", "count"), [(16, 5_000), (32, 5_000), (64, 1_250), (256, 78), (4_000, 1)])
def test_whitening_takes_no_more_pixels_than_of_5000_small_images(
    side: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def count_images(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        taken.append(len(images))
        return normalise(images[:1, :, :4, :4], mean, std)

    monkeypatch.setattr(initialisation, "normalise", count_images)
    # Of images that take no memory, as all are one.
    images = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(6_000, 1, side, side)
    labels = torch.zeros(6_000, dtype=torch.int64)
    data = OnDeviceImages(images=images, labels=labels, mean=torch.zeros(1), std=torch.ones(1))
    whiten(initialise(WHITENED.replace(input_shape=(1, 32, 32)), 0), data)
    assert taken == [count]


def test_whiten_does_not_change_a_network_without_a_whitening_convolution(digits: DataSet) -> None:
    data = prepare(digits, tiny_recipe())
    network = initialise(data.adapt(TINY), 0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    whiten(network, data.train)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_cost_of_a_whitening_convolution() -> None:
    spec = ModelSpec.resnet(channels=[16], stem=Stem(channels=16, whitening=2))
    # 24 filters of 3 x 2 x 2 weights and a bias each, at 31 x 31 positions; then a stem of 3 x 3 x 24 x 16 weights.
    assert spec.frozen_params == 24 * 12
    plain = ModelSpec.resnet(channels=[16], input_shape=(24, 31, 31))
    assert spec.params == plain.params + 24 * 12 + 24
    assert spec.macs == plain.macs + 24 * 12 * 31 * 31
    assert spec.activations == plain.activations + 24 * 31 * 31
