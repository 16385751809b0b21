from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision import transforms
from torchvision.transforms import functional

from budgetnet.data import device as device_module
from budgetnet.data.device import Draws, ResidentImages, augment, batches, draw, normalise, resident


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
def test_augmentation_is_what_torchvision_does_image_by_image(
    *, shape: tuple[int, int, int, int], padding: int, flip: bool, seed: int
) -> None:
    count, _, height, width = shape
    batch = images_of(*shape, seed=seed)
    before = batch.clone()
    draws = draw(count, crop_padding=padding, flip=flip, device="cpu", generator=seeded(seed))
    result = device_module.apply(batch, draws, crop_padding=padding)
    assert torch.equal(batch, before)
    assert result.dtype == torch.uint8
    assert torch.equal(augment(batch, crop_padding=padding, flip=flip, generator=seeded(seed)), result)
    for position, image in enumerate(batch):
        top, left = int(draws.top[position]), int(draws.left[position])
        expected = functional.crop(functional.pad(image, [padding]), top, left, height, width)
        if draws.flipped[position]:
            expected = functional.hflip(expected)
        assert torch.equal(result[position], expected)


def test_every_crop_and_mirror_image_comes_equally_often() -> None:
    draws = draw(20_000, crop_padding=2, flip=True, device="cpu", generator=seeded(0))
    cell = (draws.top * 5 + draws.left) * 2 + draws.flipped
    counts = torch.bincount(cell, minlength=50)
    assert len(counts) == 50
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


def test_crops_are_those_that_torchvision_draws() -> None:
    image = torch.arange(1, 13, dtype=torch.uint8).reshape(1, 3, 4)
    crop = transforms.RandomCrop((3, 4), padding=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = {tuple(crop(image).flatten().tolist()) for _ in range(300)}
    ours = augment(image.expand(300, 1, 3, 4), crop_padding=1, flip=False, generator=seeded(0))
    assert {tuple(crop.flatten().tolist()) for crop in ours} == theirs
    assert len(theirs) == 9


def test_without_padding_and_mirror_nothing_changes_and_nothing_is_drawn() -> None:
    generator = seeded(0)
    state = generator.get_state()
    batch = images_of(3, 3, 4, 4)
    assert torch.equal(augment(batch, crop_padding=0, flip=False, generator=generator), batch)
    assert torch.equal(generator.get_state(), state)


def test_without_a_generator_the_global_one_is_used() -> None:
    batch = images_of(8, 3, 6, 6)
    results = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(augment(batch, crop_padding=2, flip=True, generator=None))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_normalise_is_what_torchvision_does() -> None:
    batch = images_of(5, 3, 7, 6)
    before = batch.clone()
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    expected = functional.normalize(functional.convert_image_dtype(batch, torch.float32), mean, std)
    for channels_last in (True, False):
        result = normalise(batch, torch.tensor(mean), torch.tensor(std), channels_last=channels_last)
        assert torch.equal(result, expected)
        assert result.is_contiguous(memory_format=torch.channels_last) == channels_last
    half = normalise(batch, torch.tensor(mean), torch.tensor(std), dtype=torch.bfloat16)
    assert torch.equal(half, expected.to(torch.bfloat16))
    assert torch.equal(batch, before)


@pytest.fixture
def data() -> ResidentImages:
    """Ten images, each of one value that is its label."""
    values = np.arange(10)
    images = np.broadcast_to(values[:, None, None, None], (10, 3, 4, 4)).astype(np.uint8)
    images.flags.writeable = False
    return resident(images, values, device="cpu", mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))


def seen_in(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[int]:
    """The labels in order, after a check that each belongs to its image."""
    for inputs, labels in pairs:
        values = inputs.amax(dim=(1, 2, 3)).round().to(torch.int64)
        assert torch.equal(values, labels)
    return [int(label) for _, labels in pairs for label in labels]


def test_resident_images_are_copies_in_the_order_asked_for() -> None:
    images = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    chosen = resident(
        images, np.array([0, 1, 2, 3]), np.array([3, 1]), device="cpu", mean=(0.1, 0.2, 0.3), std=(1, 2, 3)
    )
    assert len(chosen) == 2
    assert chosen.images.dtype == torch.uint8
    assert chosen.images.tolist() == [images[3].tolist(), images[1].tolist()]
    assert chosen.labels.tolist() == [3, 1]
    assert chosen.labels.dtype == torch.int64
    assert chosen.std.tolist() == [1.0, 2.0, 3.0]
    whole = resident(images, np.array([0, 1, 2, 3]), device="cpu", mean=(0,), std=(1,))
    images[:] = 0
    assert chosen.images.max() > 0
    assert whole.images.max() > 0


def test_batches_go_through_all_images_in_order(data: ResidentImages) -> None:
    pairs = list(batches(data, batch_size=4))
    assert [len(labels) for _, labels in pairs] == [4, 4, 2]
    assert seen_in(pairs) == list(range(10))
    assert pairs[0][0].is_contiguous(memory_format=torch.channels_last)
    assert seen_in(list(batches(data, batch_size=4, drop_last=True))) == list(range(8))
    assert len(list(batches(data, batch_size=10, drop_last=True))) == 1


def test_shuffled_batches_hold_every_image_once_in_the_generators_order(data: ResidentImages) -> None:
    generator = seeded(4)
    first = seen_in(list(batches(data, batch_size=3, shuffle=True, generator=generator)))
    second = seen_in(list(batches(data, batch_size=3, shuffle=True, generator=generator)))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first == torch.randperm(10, generator=seeded(4)).tolist()


def test_batches_are_augmented_as_asked(data: ResidentImages) -> None:
    plain = torch.cat([inputs for inputs, _ in batches(data, batch_size=5)])
    pairs = list(batches(data, batch_size=5, crop_padding=2, flip=True, generator=seeded(0), dtype=torch.float64))
    assert seen_in(pairs) == list(range(10))
    assert pairs[0][0].dtype == torch.float64
    assert not torch.equal(torch.cat([inputs for inputs, _ in pairs]).float(), plain)


def test_the_mirror_alone_keeps_the_rows() -> None:
    batch = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2).repeat(2, 1, 1, 1)
    zeros = torch.zeros(2, dtype=torch.int64)
    draws = Draws(top=zeros, left=zeros, flipped=torch.tensor([False, True]))
    assert device_module.apply(batch, draws, crop_padding=0).tolist() == [[[[0, 1], [2, 3]]], [[[1, 0], [3, 2]]]]


@pytest.mark.gpu
def test_the_same_draws_give_the_same_images_on_the_device() -> None:
    batch = images_of(64, 3, 32, 32)
    draws = draw(64, crop_padding=4, flip=True, device="cpu", generator=seeded(0))
    there = Draws(top=draws.top.cuda(), left=draws.left.cuda(), flipped=draws.flipped.cuda())
    expected = device_module.apply(batch, draws, crop_padding=4)
    assert torch.equal(device_module.apply(batch.cuda(), there, crop_padding=4).cpu(), expected)
    generator = torch.Generator("cuda").manual_seed(0)
    assert augment(batch.cuda(), crop_padding=4, flip=True, generator=generator).is_cuda
