"""Colour jitter against torchvision, with the same factors."""

from __future__ import annotations

import pytest
import torch
from device_support import NoHostSynchronisation
from scipy import stats
from torch import Tensor
from torchvision.transforms import functional as reference

from budgetnet.data.augment.color import jitter_color, sample_color_jitter
from budgetnet.data.batches import BatchLoader
from budgetnet.data.on_device import OnDeviceImages, normalise
from budgetnet.runs.augmentation import Augmentation, ColorJitter

ALL = ColorJitter(brightness=0.8, contrast=1.5, saturation=2, hue=0.5)
ONE_EACH = [
    ColorJitter(brightness=0.9),
    ColorJitter(contrast=0.9),
    ColorJitter(saturation=3),
    ColorJitter(hue=0.5),
]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, channels: int = 3, *, height: int = 20, width: int = 13) -> Tensor:
    """Return noise, of which one third has few levels and one third is grey, with equal channels."""
    shape = (count, channels, height, width)
    noise = torch.randint(256, shape, dtype=torch.uint8, generator=seeded(0))
    noise[::3] = torch.randint(3, noise[::3].shape, dtype=torch.uint8, generator=seeded(1)) * 127
    noise[1::3] = noise[1::3, :1]
    return noise


def by_torchvision(image: Tensor, factors: Tensor, jitter: ColorJitter) -> Tensor:
    brightness, contrast, saturation, hue = factors.tolist()
    if jitter.brightness:
        image = reference.adjust_brightness(image, brightness)
    if jitter.contrast:
        image = reference.adjust_contrast(image, contrast)
    if jitter.saturation:
        image = reference.adjust_saturation(image, saturation)
    if jitter.hue:
        image = reference.adjust_hue(image, hue)
    return image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("jitter", [ALL, *ONE_EACH])
def test_pixels_equal_those_of_torchvision(jitter: ColorJitter, channels: int) -> None:
    batch = images(60, channels)
    factors = sample_color_jitter(60, jitter=jitter, device="cpu", generator=seeded(3))
    found = jitter_color(batch, jitter=jitter, factors=factors)
    expected = torch.stack([by_torchvision(image, each, jitter) for image, each in zip(batch, factors, strict=True)])
    assert found.dtype == torch.uint8
    difference = (found.int() - expected.int()).abs()
    # Hues are computed by another formula, whose rounding may differ by a level.
    assert difference.max() <= (1 if jitter.hue else 0)
    assert (difference > 0).float().mean() < 2e-3
    changes = channels == 3 or jitter.brightness or jitter.contrast
    assert torch.equal(found, batch) == (not changes)


def test_colors_that_are_not_shifted_keep_their_levels() -> None:
    batch, jitter = images(60), ColorJitter(hue=0.5)
    for turn in (0.0, 1.0, -1.0):
        factors = torch.tensor([1.0, 1.0, 1.0, turn]).expand(60, 4)
        assert torch.equal(jitter_color(batch, jitter=jitter, factors=factors), batch)


def test_factors_are_uniform_around_no_change() -> None:
    jitter = ColorJitter(brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1)
    factors = sample_color_jitter(20_000, jitter=jitter, device="cpu", generator=seeded(0)).double()
    # Factors below 0 would invert images: contrast is from 0 to 2.5.
    for values, (low, high) in zip(factors.unbind(1), [(0.6, 1.4), (0, 2.5), (0.8, 1.2), (-0.1, 0.1)], strict=True):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.001
    assert torch.corrcoef(factors.T).fill_diagonal_(0).abs().max() < 0.03


def test_each_image_has_its_own_factors_in_every_epoch() -> None:
    data = OnDeviceImages(images=images(12), labels=torch.arange(12), mean=torch.zeros(3), std=torch.ones(3))
    augmentation = Augmentation(crop_padding=0, flip=False, color_jitter=ALL)
    loader = BatchLoader(data, augmentation, batch_size=12, seed=5)
    epochs = []
    for epoch in (1, 2, 1):
        loader.begin(epoch)
        batch = loader.batch(torch.tensor(0), size=12)
        factors = loader._sampled["factors"]
        expected = jitter_color(data.images[batch.labels], jitter=ALL, factors=factors)
        assert torch.equal(batch.inputs, normalise(expected, data.mean, data.std))
        epochs.append(factors.clone())
    assert torch.equal(epochs[0], epochs[2])
    assert len({tuple(factors) for factors in torch.cat(epochs[:2]).tolist()}) == 24


def test_nothing_waits_for_the_device() -> None:
    batch = images(6)
    factors = sample_color_jitter(6, jitter=ALL, device="cpu", generator=seeded(0))
    with NoHostSynchronisation():  # type: ignore[no-untyped-call]
        jitter_color(batch, jitter=ALL, factors=factors)
