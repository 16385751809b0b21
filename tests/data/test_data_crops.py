"""Random crops and flips against torchvision and torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision import transforms
from torchvision.transforms import functional

from budgetnet.data.augment.crops import Crops, PaddingMode, crop, sample_crops


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images_of(count: int, channels: int, height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=seeded(seed))


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 6), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)),
    padding=st.integers(0, 4),
    flip=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_crops_and_flips_equal_torchvision(
    *, shape: tuple[int, int, int, int], padding: int, flip: bool, seed: int
) -> None:
    count, _, height, width = shape
    batch = images_of(*shape, seed=seed)
    before = batch.clone()
    crops = sample_crops(count, crop_padding=padding, flip=flip, device="cpu", generator=seeded(seed))
    result = crop(batch, crops, crop_padding=padding)
    assert torch.equal(batch, before)
    assert result.dtype == torch.uint8
    for position, image in enumerate(batch):
        top, left = int(crops.top[position]), int(crops.left[position])
        expected = functional.crop(functional.pad(image, [padding]), top, left, height, width)
        if crops.flipped[position]:
            expected = functional.hflip(expected)
        assert torch.equal(result[position], expected)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(3, 9), st.integers(3, 9)),
    padding=st.integers(0, 2),
    seed=st.integers(0, 1000),
)
def test_reflection_padding_equals_torch(*, shape: tuple[int, int, int, int], padding: int, seed: int) -> None:
    count, _, height, width = shape
    batch = images_of(*shape, seed=seed)
    crops = sample_crops(count, crop_padding=padding, flip=True, device="cpu", generator=seeded(seed))
    result = crop(batch, crops, crop_padding=padding, padding_mode="reflect")
    assert result.dtype == torch.uint8
    for position, image in enumerate(batch):
        # torch reflects floating-point images only.
        padded = torch.nn.functional.pad(image.float()[None], [padding] * 4, mode="reflect")[0].to(torch.uint8)
        top, left = int(crops.top[position]), int(crops.left[position])
        expected = padded[:, top : top + height, left : left + width]
        assert torch.equal(result[position], expected.flip(2) if crops.flipped[position] else expected)


def test_crops_and_flips_are_uniform() -> None:
    crops = sample_crops(20_000, crop_padding=2, flip=True, device="cpu", generator=seeded(0))
    cell = (crops.top * 5 + crops.left) * 2 + crops.flipped
    counts = torch.bincount(cell, minlength=50)
    assert len(counts) == 50
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


def test_possible_crops_are_those_of_torchvision() -> None:
    image = torch.arange(1, 13, dtype=torch.uint8).reshape(1, 3, 4)
    theirs_crop = transforms.RandomCrop((3, 4), padding=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = {tuple(theirs_crop(image).flatten().tolist()) for _ in range(300)}
    crops = sample_crops(300, crop_padding=1, flip=False, device="cpu", generator=seeded(0))
    ours = crop(image.expand(300, 1, 3, 4), crops, crop_padding=1)
    assert {tuple(cropped.flatten().tolist()) for cropped in ours} == theirs
    assert len(theirs) == 9


def test_flip_reverses_columns_only() -> None:
    batch = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2).repeat(2, 1, 1, 1)
    zeros = torch.zeros(2, dtype=torch.int64)
    crops = Crops(top=zeros, left=zeros, flipped=torch.tensor([False, True]))
    assert crop(batch, crops, crop_padding=0).tolist() == [[[[0, 1], [2, 3]]], [[[1, 0], [3, 2]]]]


@pytest.mark.gpu
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_crops_on_the_device_equal_those_on_the_cpu(padding_mode: PaddingMode) -> None:
    batch = images_of(64, 3, 32, 32)
    crops = sample_crops(64, crop_padding=4, flip=True, device="cpu", generator=seeded(0))
    on_device = Crops(top=crops.top.cuda(), left=crops.left.cuda(), flipped=crops.flipped.cuda())
    expected = crop(batch, crops, crop_padding=4, padding_mode=padding_mode)
    assert torch.equal(crop(batch.cuda(), on_device, crop_padding=4, padding_mode=padding_mode).cpu(), expected)
