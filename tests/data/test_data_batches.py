"""Batch loader: every image once per epoch, augmented in order and reproducible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from device_support import NoHostSynchronisation

from budgetnet.data.augment.crops import Crops, crop
from budgetnet.data.augment.cutout import cut_out
from budgetnet.data.augment.mixing import mix
from budgetnet.data.augment.policies import SampledPolicy, apply_policy
from budgetnet.data.batches import Batch, BatchLoader
from budgetnet.data.on_device import OnDeviceImages, normalise, to_device
from budgetnet.runs.augmentation import Augmentation, Mixing, Policy

NO_AUGMENTATION = Augmentation(crop_padding=0, flip=False)
ALL_AUGMENTATIONS = Augmentation(
    crop_padding=2,
    alternating_flip=True,
    policy=Policy(),
    cutout=3,
    mixing=Mixing(kind="cutmix"),
    padding_mode="reflect",
)


def images(count: int, *, size: int = 8, channels: int = 3) -> OnDeviceImages:
    """Return images of noise, labelled by their indices."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    values = (0.3,) * channels
    return to_device(pixels, np.arange(count), device="cpu", mean=values, std=values)


def epoch(loader: BatchLoader, number: int) -> list[Batch]:
    loader.begin(number)
    return [loader.batch(torch.tensor(step), size=size) for step, size in enumerate(loader.sizes)]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (9, 4, [4, 4]), (3, 4, [3]), (1, 4, [1]), (4, 4, [4]), (5, 2, [2, 2])],
)
def test_an_epoch_has_every_image_once_except_a_last_batch_of_one(
    count: int, batch_size: int, sizes: list[int]
) -> None:
    data = images(count)
    loader = BatchLoader(data, NO_AUGMENTATION, batch_size=batch_size, seed=0)
    assert loader.sizes == sizes
    assert loader.images == sum(sizes)
    orders = []
    for number in (1, 2):
        batches = epoch(loader, number)
        assert [len(batch.labels) for batch in batches] == sizes
        labels = torch.cat([batch.labels for batch in batches])
        assert len(set(labels.tolist())) == sum(sizes)
        expected = normalise(data.images[labels], data.mean, data.std)
        assert torch.equal(torch.cat([batch.inputs for batch in batches]), expected)
        orders.append(labels.tolist())
    assert count <= 4 or orders[0] != orders[1]


def equal(one: list[Batch], other: list[Batch]) -> bool:
    values = (pair for batches in zip(one, other, strict=True) for pair in zip(*batches, strict=True))
    return all(mine is not None and theirs is not None and torch.equal(mine, theirs) for mine, theirs in values)


def test_an_epoch_does_not_depend_on_the_epochs_before_it() -> None:
    data = images(50)
    sequential = BatchLoader(data, ALL_AUGMENTATIONS, batch_size=8, seed=3)
    epochs = [epoch(sequential, number) for number in (1, 2, 3)]
    for number in (3, 1, 2):
        assert equal(epoch(BatchLoader(data, ALL_AUGMENTATIONS, batch_size=8, seed=3), number), epochs[number - 1])
    assert not equal(epochs[0], epochs[1])
    assert not equal(epoch(BatchLoader(data, ALL_AUGMENTATIONS, batch_size=8, seed=4), 1), epochs[0])


def test_samples_of_an_epoch_are_stored_in_place() -> None:
    """Captured CUDA graphs read from fixed addresses."""
    loader = BatchLoader(images(20), ALL_AUGMENTATIONS, batch_size=4, seed=0)
    before = {name: tensor.data_ptr() for name, tensor in loader._sampled.items()}
    assert len(before) == 9
    loader.begin(2)
    assert {name: tensor.data_ptr() for name, tensor in loader._sampled.items()} == before


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_are_applied_in_order(channels: int) -> None:
    """The expected batch applies the sampled values one augmentation after another."""
    data = images(20, channels=channels)
    loader = BatchLoader(data, ALL_AUGMENTATIONS, batch_size=20, seed=1)
    (batch,) = epoch(loader, 1)
    sampled = loader._sampled
    expected = data.images[sampled["order"]]
    crops = Crops(sampled["top"], sampled["left"], sampled["flipped"])
    expected = crop(expected, crops, crop_padding=2, padding_mode="reflect")
    expected = apply_policy(expected, SampledPolicy(operations=sampled["operations"], magnitudes=sampled["magnitudes"]))
    rows, columns = sampled["centres"][:, 0], sampled["centres"][:, 1]
    inputs = cut_out(normalise(expected, data.mean, data.std), rows=rows, columns=columns, length=3)
    inputs = mix(inputs, kind="cutmix", share=sampled["shares"][0], box=sampled["boxes"][0])
    assert torch.equal(batch.inputs, inputs)
    assert torch.equal(batch.labels, sampled["order"])
    assert batch.mixed_labels is not None
    assert batch.mixed_labels.tolist() == [batch.labels.tolist()[position - 1] for position in range(20)]
    assert batch.share == sampled["shares"][0]


def resize_line(line: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    """Resize the last axis by antialiased linear interpolation, with a triangular kernel."""
    count = line.shape[-1]
    scale = count / side
    centres = (np.arange(side)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(count)[None, :] + 0.5 - centres) / max(scale, 1))
    return np.asarray(line @ (weights / weights.sum(axis=1, keepdims=True)).T)


@pytest.mark.parametrize("augmentation", [NO_AUGMENTATION, ALL_AUGMENTATIONS])
def test_images_are_augmented_at_full_size_and_then_resized(augmentation: Augmentation) -> None:
    data, sides = images(20, size=16), {1: 8, 2: 12, 3: 16}
    whole = BatchLoader(data, augmentation, batch_size=8, seed=1)
    resized = BatchLoader(data, augmentation, batch_size=8, seed=1, side=sides.__getitem__)
    for number, side in sides.items():
        for full, small in zip(epoch(whole, number), epoch(resized, number), strict=True):
            assert resized.side == side
            assert small.inputs.shape[2:] == (side, side)
            assert small.inputs.is_contiguous(memory_format=torch.channels_last)
            rows = resize_line(full.inputs.double().numpy(), side)
            expected = resize_line(rows.swapaxes(2, 3), side).swapaxes(2, 3)
            np.testing.assert_allclose(small.inputs.numpy(), expected, atol=1e-4)
            assert equal([small._replace(inputs=full.inputs)], [full]) or augmentation is NO_AUGMENTATION
            assert torch.equal(small.labels, full.labels)
    assert whole.side is None


def test_steps_with_resizing_need_no_host_synchronisation() -> None:
    loader = BatchLoader(images(20, size=16), ALL_AUGMENTATIONS, batch_size=8, seed=1, side=lambda _: 8)
    step = torch.tensor(0)
    with NoHostSynchronisation():  # type: ignore[no-untyped-call]
        loader.batch(step, size=8)


@pytest.mark.parametrize("options", [{"crop_padding": 2}, {"flip": True}, {"cutout": 3}, {"policy": Policy()}])
def test_each_augmentation_changes_images_by_itself(options: dict[str, Any]) -> None:
    data = images(64)
    (batch,) = epoch(
        BatchLoader(data, Augmentation(**{"crop_padding": 0, "flip": False, **options}), batch_size=64, seed=1), 1
    )
    untouched = normalise(data.images[batch.labels], data.mean, data.std)
    changed = (batch.inputs != untouched).flatten(start_dim=1).any(dim=1).float().mean()
    assert 0.25 < changed <= 1
    assert batch.share is None


def flipped_images(loader: BatchLoader, number: int) -> torch.Tensor:
    """Return whether each image is flipped in an epoch, by index."""
    flipped = torch.zeros(200, dtype=torch.bool)
    for batch in epoch(loader, number):
        plain = normalise(loader.data.images[batch.labels], loader.data.mean, loader.data.std)
        same = (batch.inputs == plain).flatten(start_dim=1).all(dim=1)
        other = (batch.inputs == plain.flip(3)).flatten(start_dim=1).all(dim=1)
        assert bool((same ^ other).all())
        flipped[batch.labels] = other
    return flipped


def test_alternating_flips_change_in_every_epoch() -> None:
    loader = BatchLoader(images(200), Augmentation(crop_padding=0, alternating_flip=True), batch_size=32, seed=0)
    first, second, third = (flipped_images(loader, number) for number in (1, 2, 3))
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert 70 <= first.sum() <= 130


def test_flips_are_resampled_in_every_epoch() -> None:
    loader = BatchLoader(images(200), Augmentation(crop_padding=0), batch_size=32, seed=0)
    assert 70 <= (flipped_images(loader, 1) ^ flipped_images(loader, 2)).sum() <= 130
