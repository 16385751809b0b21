"""Copying images to a device and normalising them there."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms import functional

from budgetnet.data.on_device import normalise, to_device


def images_of(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def test_normalise_equals_torchvision() -> None:
    batch = images_of(5, 3, 7, 6)
    before = batch.clone()
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    expected = functional.normalize(functional.convert_image_dtype(batch, torch.float32), mean, std)
    result = normalise(batch, torch.tensor(mean), torch.tensor(std))
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def test_images_on_the_device_are_copies_in_the_requested_order() -> None:
    images = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    selected = to_device(
        images, np.array([0, 1, 2, 3]), np.array([3, 1]), device="cpu", mean=(0.1, 0.2, 0.3), std=(1, 2, 3)
    )
    assert len(selected) == 2
    assert selected.images.dtype == torch.uint8
    assert selected.images.tolist() == [images[3].tolist(), images[1].tolist()]
    assert selected.labels.tolist() == [3, 1]
    assert selected.labels.dtype == torch.int64
    assert selected.std.tolist() == [1.0, 2.0, 3.0]
    whole = to_device(images, np.array([0, 1, 2, 3]), device="cpu", mean=(0,), std=(1,))
    images[:] = 0
    assert selected.images.max() > 0
    assert whole.images.max() > 0
